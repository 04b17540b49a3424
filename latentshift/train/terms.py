"""What G's step may add: a partner for every latent, and terms of G's loss (MSGAN, -div, ACGAN, AT-GAN, AE-OT-GAN).

A term is called with the step (`Step`) and returns a scalar to be minimised; a partner is called with the latents and returns
as many more, without a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from ..strategies.mining import PairMining
from .pieces import Net
from .shifts import moved


@dataclass
class Step:
    """G's step as a term sees it: latents, their partners (or None), the images of both, labels, D's scores."""

    z: Tensor
    z2: Tensor | None
    f: Tensor
    f2: Tensor | None
    label: Tensor | None
    critic: Any
    generator: torch.Generator


@dataclass(frozen=True)
class RandomPartner:
    """A second, independent draw of the prior for every latent (MSGAN)."""

    def __call__(self, z: Tensor, label: Tensor | None, G: Net, draw: Callable[[int], Tensor]) -> Tensor:
        return draw(z.shape[0])


@dataclass(frozen=True)
class Mine:
    """AdvLatGAN-div: the hard partner of every latent, far in latent space and near in images (paper 000 Eq. 8).

    The library's own `pair-mining`. Default: the published code's jitter and step; the paper prints 0.01 for both, which
    overshoots (the ratio then rises instead of falling).
    """

    strategy: PairMining = field(
        default_factory=lambda: PairMining(steps=3, step_size=0.004, eps=None, support="free", jitter=0.08)
    )

    def __call__(self, z: Tensor, label: Tensor | None, G: Net, draw: Callable[[int], Tensor]) -> Tensor:
        return moved(self.strategy, z, label, G, None)


@dataclass(frozen=True)
class ModeSeeking:
    """MSGAN's term on the ratio L = d_I(f, f2) / d_z(z, z2) of mean absolute differences, which is to be large.

    `reciprocal`: weight / (L + 1e-5), MSGAN's code; it fades as pairs come apart. `linear`: -weight L (the paper's negative
    lambda). `batch`: one ratio of batch means, as published; `row`: the mean over pairs.
    """

    weight: float = 1.0
    form: Literal["reciprocal", "linear"] = "reciprocal"
    reduce: Literal["batch", "row"] = "batch"

    def __post_init__(self) -> None:
        if self.form not in ("reciprocal", "linear") or self.reduce not in ("batch", "row"):
            raise UsageError(f"form is reciprocal or linear and reduce batch or row, not {self.form!r} and {self.reduce!r}")

    def __call__(self, step: Step) -> Tensor:
        assert step.z2 is not None
        assert step.f2 is not None
        d_image, d_latent = (step.f - step.f2).abs().flatten(1).mean(1), (step.z - step.z2).abs().flatten(1).mean(1)
        if not bool((d_latent > 0).all()):
            raise UsageError("a pair of two equal latents has no ratio", way_out="Use a partner that differs from z.")
        ratio = d_image.mean() / d_latent.mean() if self.reduce == "batch" else d_image / d_latent
        return self.weight * (-ratio if self.form == "linear" else 1 / (ratio + 1e-5)).mean()


@dataclass(frozen=True)
class ClassTerm:
    """Cross-entropy of the class logits of generated images: G is to make what it was asked for (ACGAN)."""

    weight: float = 1.0

    def __call__(self, step: Step) -> Tensor:
        if step.label is None:
            raise UsageError("a class term needs labels", way_out="Give data with labels, or leave the term out.")
        return self.weight * F.cross_entropy(step.critic.class_logits(step.f, step.label), step.label)


@dataclass(frozen=True)
class Fool:
    """AT-GAN's first term: alpha H(classifier(f), target), for a frozen classifier (rows, classes).

    `target` None: the likeliest label that is not the right one, found anew in every step (untargeted); a number: that label.
    """

    classifier: Callable[[Tensor], Tensor] = field(repr=False)
    alpha: float = 2.0
    target: int | None = None

    def __call__(self, step: Step) -> Tensor:
        assert step.label is not None
        logits = self.classifier(step.f)
        if self.target is None:
            wanted = logits.detach().scatter(1, step.label[:, None], -torch.inf).argmax(1)
        else:
            wanted = torch.full_like(step.label, self.target)
        return self.alpha * F.cross_entropy(logits, wanted)


def sparse_noise(shape: torch.Size, pixels: int, size: float, generator: torch.Generator) -> Tensor:
    """Return noise that is uniform in [-size, size] on `pixels` random places of every row, and 0 elsewhere."""
    rows = shape[0]
    total = int(torch.tensor(shape[1:]).prod())
    order = torch.rand(rows, total, generator=generator).argsort(1)[:, : min(pixels, total)]
    values = size * (2 * torch.rand(rows, order.shape[1], generator=generator) - 1)
    return torch.zeros(rows, total).scatter(1, order, values).view(shape)


@dataclass(frozen=True)
class StayNear:
    """AT-GAN's second term: beta mean |G0(z, y) + rho - f|_p, G0 frozen, rho sparse noise that leaves room for texture.

    `size` is in the units of images in [-1, 1]: the paper's 0.5 of [0, 1] is 1.0 here.
    """

    G0: Net = field(repr=False)
    beta: float = 1.0
    p: float = 2.0
    pixels: int = 200
    size: float = 1.0

    def __call__(self, step: Step) -> Tensor:
        with torch.no_grad():
            wanted = self.G0(step.z, step.label)
        if self.pixels and self.size:
            wanted = wanted + sparse_noise(wanted.shape, self.pixels, self.size, step.generator).to(wanted)
        # vector_norm has the subgradient 0 at 0, where a root of squares has NaN
        apart: Tensor = torch.linalg.vector_norm((wanted - step.f).flatten(1), self.p, dim=1)
        return self.beta * apart.mean()


@dataclass(frozen=True)
class Paired:
    """AE-OT-GAN's content term (An et al. 2020): G gives images back at their own codes, `weight` times the squared error.

    `codes` (m, *shape) and `images` (m, channels, height, width) belong together row by row; every step draws `rows` of them.
    """

    G: Net = field(repr=False)
    codes: Tensor = field(repr=False)
    images: Tensor = field(repr=False)
    weight: float = 1.0
    rows: int = 64

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.images) or not len(self.codes):
            raise UsageError(f"{len(self.codes)} codes and {len(self.images)} images are no pairs")

    def __call__(self, step: Step) -> Tensor:
        pick = torch.randint(len(self.codes), (self.rows,), generator=step.generator)
        made = self.G(self.codes[pick].to(step.f.device))
        return self.weight * (made - self.images[pick].to(made)).square().mean()
