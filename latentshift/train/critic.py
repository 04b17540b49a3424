"""The honest critic: a critic for a frozen G that has met the samples which climbing it produces.

It is AdvLatGAN-qua's D step with G frozen (paper 000 Alg. 1), with R1 as the bound and its weights averaged. Its negatives
are raw samples, samples refined on the fly by the very climb that will be used, and a pool of earlier refined ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..layers import LayerNet
from ..strategies.gradient import IFGSM
from .loop import Augment, Settings, Trainer
from .pieces import R1, initialise
from .shifts import Climb


def critic_layers(channels: int, side: int, widths: tuple[int, ...] = (32, 64, 128)) -> list[dict[str, object]]:
    """Return the layers of the small pixel critic: 4x4 convolutions of stride 2, leaky ReLU 0.2, a linear head."""
    layers: list[dict[str, object]] = []
    for i, (a, b) in enumerate(zip((channels, *widths), widths, strict=False)):
        kw = {"in_channels": a, "out_channels": b, "kernel_size": 4, "stride": 2, "padding": 1}
        layers += [{"key": f"down{i}", "op": "Conv2d", "kw": kw}, {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}}]
        side //= 2
    head: dict[str, object] = {
        "key": "head",
        "op": "Linear",
        "kw": {"in_features": widths[-1] * side * side, "out_features": 1},
    }
    return [*layers, {"op": "Flatten"}, head]


class HonestShift:
    """A latent shift that leaves a third of the rows raw, climbs a third by 1 to `steps` steps, and takes the rest from
    a pool of rows that were climbed before."""

    def __init__(self, climb: IFGSM, *, pool: int = 200, seed: int = 0) -> None:
        self.climb, self.limit = climb, pool
        self.pool: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(seed)

    def _upto(self, high: int) -> int:
        return int(torch.randint(0, high, (1,), generator=self.generator))

    def __call__(self, z: Tensor, label: Tensor | None, G: Callable[..., Tensor], D: Callable[..., Tensor]) -> Tensor:
        third = len(z) // 3
        part = slice(third, 2 * third) if self.pool else slice(third, None)
        steps = 1 + self._upto(self.climb.steps)
        moved = Climb(replace(self.climb, steps=steps))(z[part], None if label is None else label[part], G, D)
        rows = [z[:third], moved]
        if self.pool:
            old = self.pool[self._upto(len(self.pool))]
            rows.append(torch.cat([old] * 2)[: len(z) - third - len(moved)])
        self.pool.append(moved)
        del self.pool[: -self.limit]
        return torch.cat(rows)


def honest_trainer(
    G: LayerNet,
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]],
    prior: Callable[[int, torch.Generator], Tensor],
    *,
    image: tuple[int, int, int],
    climb: IFGSM | None = None,
    updates: int = 240,
    gamma: float = 1.0,
    augment: Augment | None = None,
    seed: int = 0,
) -> Trainer:
    """Return a Trainer that fits an honest critic to a frozen `G`; run it, then take `average_d.net`.

    `image` is (channels, height, width). Logistic loss, R1 with `gamma`, Adam 5e-4 (0.5, 0.9), batch 64, averaging 0.99. For
    labelled pairs the critic ignores the labels.
    """
    climb = climb or IFGSM(steps=5, step_size=0.05, eps=None, support="auto", unit="prior")
    D = initialise(LayerNet(critic_layers(image[0], image[1]), where="D"), 0.05, torch.Generator().manual_seed(seed))
    settings = Settings(
        steps=updates, loss="bce", lr_d=5e-4, betas=(0.5, 0.9), decay_share=0.0, ema_d=0.99, train_g=False, seed=seed
    )
    return Trainer(
        G, D, data, prior, settings, penalties=[R1(gamma)], augment=augment, latent_shift=HonestShift(climb, seed=seed)
    )
