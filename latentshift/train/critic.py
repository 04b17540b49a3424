"""The honest critic: a critic for a frozen G that has met the samples which climbing it produces.

It is AdvLatGAN-qua's D step with G frozen (paper 000 Alg. 1), with R1 as the bound and its weights averaged. Its negatives
are raw samples, samples refined on the fly by the very climb that will be used, and a pool of earlier refined ones. Here are
the pieces of that run; `honest.py` fits one to a user's images and says what it is good for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import LayerNet
from ..model import Pair
from ..space import Space
from ..strategies.base import Strategy
from ..strategies.gradient import IFGSM
from .ground import Ground
from .loop import Settings, Trainer
from .pieces import R1, initialise
from .shifts import Climb
from .steps import Augment, ImageShift, Penalty


def critic_layers(channels: int, side: int, widths: tuple[int, ...] = (32, 64, 128)) -> list[dict[str, Any]]:
    """Return the layers of the small pixel critic: 4x4 convolutions of stride 2, leaky ReLU 0.2, a linear head."""
    layers: list[dict[str, Any]] = []
    for i, (a, b) in enumerate(zip((channels, *widths), widths, strict=False)):
        kw = {"in_channels": a, "out_channels": b, "kernel_size": 4, "stride": 2, "padding": 1}
        layers += [{"key": f"down{i}", "op": "Conv2d", "kw": kw}, {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}}]
        side //= 2
    head: dict[str, Any] = {
        "key": "head",
        "op": "Linear",
        "kw": {"in_features": widths[-1] * side * side, "out_features": 1},
    }
    return [*layers, {"op": "Flatten"}, head]


def head_layers(shape: Sequence[int]) -> list[dict[str, Any]]:
    """Return the layers of the head on a frozen network's features: 1x1 to 48, 3x3 of stride 2 to 64, linear.

    `shape` is (channels, h, w), or (channels,): then two linear layers.
    """
    leaky: dict[str, Any] = {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}}
    if len(shape) == 1:
        first = {"key": "mix", "op": "Linear", "kw": {"in_features": shape[0], "out_features": 64}}
        return [first, leaky, {"key": "head", "op": "Linear", "kw": {"in_features": 64, "out_features": 1}}]
    channels, height, width = shape
    mix = {"in_channels": channels, "out_channels": 48, "kernel_size": 1}
    down = {"in_channels": 48, "out_channels": 64, "kernel_size": 3, "stride": 2, "padding": 1}
    size = 64 * ((height + 1) // 2) * ((width + 1) // 2)
    return [
        {"key": "mix", "op": "Conv2d", "kw": mix},
        leaky,
        {"key": "down", "op": "Conv2d", "kw": down},
        leaky,
        {"op": "Flatten"},
        {"key": "head", "op": "Linear", "kw": {"in_features": size, "out_features": 1}},
    ]


_POOL = 2**24  # numbers that a pool of points may hold


class Frozen(nn.Module):
    """A pair's generator as the loop wants one, from the points of a space (None: latents), seen through `look` (a trunk)
    where one is given: (points, label) -> features."""

    def __init__(self, pair: Pair, look: nn.Module | None = None, space: Space | None = None) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))  # an optimiser wants a parameter; it never gets a gradient
        self.ground, self.look = (Ground(pair, space or pair.space),), (look,)  # in tuples: not to train, move or copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self

    def forward(self, point: Tensor, label: Tensor | None = None) -> Tensor:
        images = self.ground[0].decode(point, label)
        look = self.look[0]
        if look is None:
            return images
        seen: Tensor = look(images)
        return seen


class HonestShift:
    """A latent shift that leaves a third of the rows raw, climbs a third by 1 to `steps` steps, and takes the rest from
    a pool of rows that were climbed before (of the same label, where there are labels). With a `ground` the latents are taken
    to its points first, and points move."""

    def __init__(
        self,
        climb: Strategy,
        *,
        pool: int = 4000,
        seed: int = 0,
        space: Space | None = None,
        ground: Ground | None = None,
    ) -> None:
        self.climb, self.limit, self.ground = climb, pool, ground
        self.space = ground.plain if ground is not None else space
        self.pool: Tensor | None = None
        self.labels: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def _upto(self, high: int) -> int:
        return int(torch.randint(0, high, (1,), generator=self.generator))

    def _old(self, fresh: Tensor, label: Tensor | None) -> Tensor:
        """Return a pooled row for each row, one of the same label; the fresh row where there is none such."""
        assert self.pool is not None
        chance = torch.rand(len(fresh), len(self.pool), generator=self.generator).to(fresh.device)
        if label is not None and self.labels is not None:
            chance = torch.where(label[:, None] == self.labels[None], chance, torch.full_like(chance, -1.0))
        best, pick = chance.max(1)
        known = (best >= 0).view(-1, *[1] * (fresh.ndim - 1))
        return torch.where(known, self.pool[pick], fresh)

    def __call__(self, z: Tensor, label: Tensor | None, G: Callable[..., Tensor], D: Callable[..., Tensor]) -> Tensor:
        if self.ground is not None:
            with torch.no_grad():
                z = self.ground.enter(z, label)
        third = len(z) // 3
        part = slice(third, 2 * third) if self.pool is not None else slice(third, None)
        steps = 1 + self._upto(max(1, self.climb.steps))
        mine = None if label is None else label[part]
        moved = Climb(replace(self.climb, steps=steps), space=self.space)(z[part], mine, G, D)
        rows = [z[:third], moved]
        if self.pool is not None:
            rest = slice(2 * third, None)
            rows.append(self._old(z[rest], None if label is None else label[rest]))
        keep = min(self.limit, max(256, _POOL // max(1, moved[0].numel())))
        self.pool = torch.cat([self.pool, moved])[-keep:] if self.pool is not None else moved
        if mine is not None:
            self.labels = torch.cat([self.labels, mine])[-keep:] if self.labels is not None else mine
        return torch.cat(rows)


def honest_trainer(
    G: Any,
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]],
    prior: Callable[[int, torch.Generator], Tensor],
    *,
    image: tuple[int, int, int],
    D: LayerNet | None = None,
    climb: Strategy | None = None,
    space: Space | None = None,
    ground: Ground | None = None,
    updates: int = 240,
    gamma: float = 1.0,
    penalties: Sequence[Penalty] | None = None,
    image_shift: ImageShift | None = None,
    spectral_norm: bool = False,
    loss: str = "bce",
    average: float = 0.99,
    augment: Augment | None = None,
    seed: int = 0,
) -> Trainer:
    """Return a Trainer that fits an honest critic to a frozen `G`; run it, then take `average_d.net`.

    `image` is (channels, height, width). Logistic loss, R1 with `gamma` (or other `penalties`), Adam 5e-4 (0.5, 0.9), batch
    64. `D` is the network to fit, a small pixel critic where left out. For labelled pairs the critic ignores the labels. With
    a `ground`, `prior` draws latents and `G` takes the points of that ground.
    """
    climb = climb or IFGSM(steps=5, step_size=0.05, eps=None, support="auto", unit="prior")
    if D is None:
        D = initialise(LayerNet(critic_layers(image[0], image[1]), where="D"), 0.05, torch.Generator().manual_seed(seed))
    settings = Settings(
        steps=updates,
        loss=loss,
        lr_d=5e-4,
        betas=(0.5, 0.9),
        decay_share=0.0,
        ema_d=average,
        train_g=False,
        spectral_norm=spectral_norm,
        seed=seed,
    )
    shift = HonestShift(climb, seed=seed, space=space, ground=ground)
    return Trainer(
        G,
        D,
        data,
        prior,
        settings,
        penalties=[R1(gamma)] if penalties is None else penalties,
        augment=augment,
        latent_shift=shift,
        image_shift=image_shift,
    )
