"""A few hundred samples of a pair with scores, gradients and steps, made once and looked at by every check."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import noise
from ..errors import LatentshiftError, ShapeError
from ..model import Capability, Critic, Pair
from ..space import Prior

BATCH = 32  # rows at a time

#: sign steps tried, in standard deviations of the prior
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)


def _in_batches(call: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, label: Tensor | None) -> Tensor:
    """Return `call` over all rows, a multiple of 8 rows at a time."""
    out = []
    for at in range(0, len(x), BATCH):
        rows = slice(at, at + BATCH)
        out.append(call(x[rows], None if label is None else label[rows]))
    return torch.cat(out)


def reduced(critic: Critic) -> Critic:
    """Return a critic that gives several numbers per image with their mean in place of them."""
    call = critic.call

    def mean(*args: Any) -> Tensor:
        out: Tensor = call(*args)
        return out.flatten(1).mean(1)

    return replace(critic, call=mean)


@dataclass
class Probe:
    """`rows` samples of a pair. Latents, images and scores are (rows, ...), made at first use.

    A critic that gives several numbers per image is read as their mean (`numbers` says how many); `failed` is the error of a
    critic that cannot be read at all.
    """

    pair: Pair
    rows: int = 256
    first: int = 700_000
    numbers: int = 1
    failed: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = -(-self.rows // 8) * 8
        if self.pair.critic is None:
            return
        few = slice(0, 8)
        label = None if self.labels is None else self.labels[few]
        with torch.no_grad():  # also warms the networks up, so that what is timed later is not the first call
            images = self.pair.generate(self.z[few], label)
        try:
            with torch.no_grad():
                self.pair.logit(images, label)
        except ShapeError:
            self._several(images, label)
        except (LatentshiftError, RuntimeError, ValueError, TypeError, IndexError) as error:
            self.failed = str(error).splitlines()[0] if str(error) else type(error).__name__

    def _several(self, images: Tensor, label: Tensor | None) -> None:
        critic = self.pair.need_critic()
        with torch.no_grad():
            out = critic.call(images, label) if critic.labels else critic.call(images)
        if isinstance(out, Tensor) and out.ndim >= 1 and out.shape[0] == len(images) and out.numel() > len(images):
            self.numbers = out.numel() // len(images)
            self.pair = self.pair.replaced(critic=reduced(critic))
        else:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            self.numbers, self.failed = 0, f"D returned {got} for {len(images)} images"

    @property
    def able(self) -> bool:
        """Whether there is a critic that can be read."""
        return self.pair.critic is not None and not self.failed

    @property
    def climbs(self) -> bool:
        """Whether there is a gradient to be asked for."""
        return self.able and Capability.GRADIENT in self.pair.capabilities

    @cached_property
    def labels(self) -> Tensor | None:
        return torch.arange(self.rows, device=self.pair.device) % self.pair.classes if self.pair.classes else None

    def latents(self, prior: Prior | None = None) -> Tensor:
        """Return the latents of the probe's seeds, of another prior where one is given."""
        seeds = range(self.first, self.first + self.rows)
        z = noise.latents(list(seeds), self.pair.space.shape, prior or self.pair.space.prior)
        return torch.from_numpy(z).to(self.pair.device, self.pair.compute_dtype)

    @cached_property
    def z(self) -> Tensor:
        return self.latents()

    def _timed(self, what: str, call: Callable[[], Tensor]) -> Tensor:
        began = time.perf_counter()
        out = call()
        self.seconds[what] = (time.perf_counter() - began) / self.rows
        return out

    @cached_property
    def images(self) -> Tensor:
        with torch.no_grad():
            return self._timed("generate", lambda: _in_batches(self.pair.generate, self.z, self.labels))

    def made(self, z: Tensor) -> Tensor:
        """Return the images of other latents."""
        with torch.no_grad():
            return _in_batches(self.pair.generate, z, self.labels)

    def scored(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows,) scores of images, float64; labels are those of the probe's rows unless given."""
        with torch.no_grad():
            if label is None and self.labels is not None:
                label = self.labels[torch.arange(len(images)) % self.rows]
            out: Tensor = _in_batches(self.pair.logit, images, label).double()
        return out

    @cached_property
    def scores(self) -> Tensor:
        return self._timed("score", lambda: self.scored(self.images))

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the scores."""
        return float(self.scores.std())

    @cached_property
    def dead(self) -> bool:
        """Whether all scores are the same, up to rounding."""
        return not self.spread > 1e-6 * max(1e-6, float(self.scores.abs().max()))

    @cached_property
    def gradients(self) -> Tensor:
        """Gradients of the score by z, (rows, *shape); zero where there is none."""

        def of(z: Tensor, label: Tensor | None) -> Tensor:
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():
                score = self.pair.logit(self.pair.generate(z, label), label)
                if not score.requires_grad:
                    return torch.zeros_like(z)
                (grad,) = torch.autograd.grad(score.sum(), z, allow_unused=True)
            found: Tensor = torch.zeros_like(z) if grad is None else grad.detach()
            return found

        return self._timed("gradient", lambda: _in_batches(of, self.z, self.labels))

    @cached_property
    def norms(self) -> Tensor:
        """Length of each row's gradient."""
        norms: Tensor = self.gradients.flatten(1).double().norm(dim=1)
        return norms

    @cached_property
    def steps(self) -> list[tuple[float, float, float]]:
        """One sign step of each size of STEPS: (size in prior sd, share of rows that rose, mean gain in sd of the scores)."""
        prior, out = self.pair.space.prior, []
        some = slice(0, 64)
        z, sign, score = self.z[some], self.gradients[some].sign(), self.scores[some]
        label = None if self.labels is None else self.labels[some]
        for size in STEPS:
            with torch.no_grad():
                moved = prior.clamp(z + size * prior.scale() * sign)
                after = _in_batches(lambda p, c: self.pair.logit(self.pair.generate(p, c), c), moved, label).double()
            out.append((size, float((after > score).double().mean()), float((after - score).mean()) / max(self.spread, 1e-12)))
        return out

    @property
    def pixels(self) -> Tensor:
        """The images in 0..1 by the pair's range."""
        low, high = self.pair.image_range
        unit: Tensor = (self.images.double() - low) / (high - low)
        return unit

    def modules(self, part: str) -> list[tuple[str, nn.Module]]:
        """Return all modules inside G or D, where they are modules."""
        call = self.pair.G if part == "G" else (self.pair.critic.call if self.pair.critic else None)
        return list(call.named_modules()) if isinstance(call, nn.Module) else []


def share(mask: Tensor | np.ndarray[Any, Any]) -> float:
    """Return the share of true entries."""
    return float(torch.as_tensor(mask).double().mean())
