"""The spaces of a style-based generator: z, w, w+ (one w a layer), its noise maps, and both together.

What moves is one tensor a row. Spaces other than z reach into the generator that they are handed, so the engine may hand them a
prepared copy. Noise of the kind `random` is drawn from the row's seed and held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentshift.noise import Draw
from latentshift.space import Context, EmpiricalGaussian, Normal, Space

if TYPE_CHECKING:
    from .adapter import LatentG

#: Rows of z whose w give the mean and covariance of the w space: a full-rank estimate for the usual 512 dimensions.
FIT_ROWS = 2048
FIT_SEED = 4_294_967_294


class _Once:
    """A value made when it is first asked for."""

    def __init__(self, make: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self._make = make

    @cached_property
    def value(self) -> tuple[Tensor, Tensor]:
        return self._make()


class FittedGaussian(EmpiricalGaussian):
    """A Gaussian fitted to w when it is first asked for: mean (w_dim,) and lower factor (w_dim, w_dim)."""

    def __init__(self, make: Callable[[], tuple[Tensor, Tensor]]) -> None:
        object.__setattr__(self, "_kept", _Once(make))

    @property
    def mean(self) -> Tensor:
        """Mean of w."""
        return self._once.value[0]

    @property
    def factor(self) -> Tensor:
        """Lower triangular factor of the covariance of w."""
        return self._once.value[1]

    @property
    def _once(self) -> _Once:
        kept: _Once = self.__dict__["_kept"]
        return kept

    def __repr__(self) -> str:
        return "FittedGaussian()"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def w_moments(G: LatentG) -> tuple[Tensor, Tensor]:
    """Return mean and covariance factor of w over the prior (labels go round the classes), in float64, on the CPU."""
    net = G.net
    rows = max(FIT_ROWS, 2 * net.w_dim)
    anchor = next(net.parameters())
    z = torch.from_numpy(np.random.RandomState(FIT_SEED).randn(rows, net.z_dim)).to(anchor)
    label = torch.arange(rows, device=anchor.device) % net.c_dim if net.c_dim else None
    with torch.no_grad():
        w = torch.cat(
            [G.styles(z[i : i + 256], None if label is None else label[i : i + 256])[:, 0] for i in range(0, rows, 256)]
        )
    w = w.double().cpu()
    mean = w.mean(0)
    covariance = (w - mean).t() @ (w - mean) / (rows - 1)
    # A little of the mean variance on the diagonal: w lies near a curved surface, and some directions hardly vary.
    covariance += torch.eye(len(mean), dtype=torch.float64) * (1e-6 * covariance.diagonal().mean() + 1e-12)
    return mean, torch.linalg.cholesky(covariance)


def held_noise(G: LatentG, context: Context, like: Tensor) -> Tensor | None:
    """Return the noise maps (rows, total) that belong to the rows of `context`, or None where G adds its own or none."""
    if context.noise is not None:
        return context.noise.to(like)
    if G.noise_mode != "random" or not G.noise_size:
        return None
    return drawn_noise(G, context.seed).to(like)


def drawn_noise(G: LatentG, seed: Tensor) -> Tensor:
    """Return noise maps (rows, total) drawn from the rows' seeds."""
    return Draw(seed).normal(0, "generator noise", (G.noise_size,))


def own_noise(G: LatentG) -> Tensor | None:
    """Return the network's own noise maps (1, total), or None where it uses none."""
    if G.noise_mode != "const" or not G.noise_size:
        return None
    net: Any = G.net.synthesis_net
    maps = [m.noise_const.reshape(1, -1) for b in net.blocks() for m in b.layers() if m.use_noise]
    return torch.cat(maps, 1)


@dataclass(frozen=True)
class StyledSpace(Space):
    """What the spaces here share, beside decoding.

    `styles` gives the w of all layers (rows, num_ws, w_dim) behind a point: what `projected_w.npz` keeps; `maps` the noise
    maps (rows, total) that its picture has, before their strengths, or None where it has none. `noise_shapes` cuts them.
    """

    noise_shapes: tuple[tuple[int, int], ...] = ()

    def maps(self, pair: Any, point: Tensor, context: Context) -> Tensor | None:
        held = held_noise(pair.G, context, point)
        own = own_noise(pair.G) if held is None else None
        return held if own is None else own.to(point).expand(len(point), -1)


@dataclass(frozen=True)
class LatentSpace(StyledSpace):
    """z, with the row's held noise where the generator's noise is random."""

    def styles(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        ws: Tensor = pair.G.styles(point, context.label)
        return ws

    def decode(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        images: Tensor = pair.G.paint(pair.G.styles(point, context.label), held_noise(pair.G, context, point))
        return images


@dataclass(frozen=True)
class StyleSpace(StyledSpace):
    """w: one style for all layers, (rows, w_dim)."""

    def enter(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        with torch.no_grad():
            ws: Tensor = pair.G.styles(z, context.label)
        return ws[:, 0].clone()

    def styles(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        return point[:, None, :].expand(-1, pair.G.net.num_ws, -1)

    def decode(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        images: Tensor = pair.G.paint(self.styles(pair, point, context), held_noise(pair.G, context, point))
        return images


@dataclass(frozen=True)
class LayerStyleSpace(StyleSpace):
    """w+: one style a layer, (rows, num_ws, w_dim)."""

    def enter(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        with torch.no_grad():
            ws: Tensor = pair.G.styles(z, context.label)
        return ws.clone()

    def styles(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        return point


@dataclass(frozen=True)
class NoiseSpace(StyledSpace):
    """z and all noise maps as one tensor (rows, z_dim + total), z first. With `hold_z` only the maps move."""

    z_dim: int = 0
    hold_z: bool = False

    def enter(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        G = pair.G
        start = held_noise(G, context, z)
        if start is None and (own := own_noise(G)) is not None:
            start = own.to(z).expand(len(z), -1)
        return torch.cat([z, drawn_noise(G, context.seed).to(z) if start is None else start], 1)

    def styles(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        z = point[:, : self.z_dim]
        if self.hold_z:
            z = (z if context.point0 is None else context.point0[:, : self.z_dim].to(z)).detach()
        ws: Tensor = pair.G.styles(z, context.label)
        return ws

    def maps(self, pair: Any, point: Tensor, context: Context) -> Tensor | None:
        return point[:, self.z_dim :]

    def decode(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        images: Tensor = pair.G.paint(self.styles(pair, point, context), point[:, self.z_dim :])
        return images


def spaces(G: LatentG) -> dict[str, Space]:
    """Return the spaces of a generator by name, z first."""
    net = G.net
    law = FittedGaussian(lambda: w_moments(G))
    shapes = tuple(net.noise_shapes) if G.noise_mode != "none" else ()
    table: dict[str, Space] = {
        "z": LatentSpace("z", (net.z_dim,), noise_shapes=shapes),
        "w": StyleSpace("w", (net.w_dim,), law, noise_shapes=shapes),
        "w+": LayerStyleSpace("w+", (net.num_ws, net.w_dim), law, noise_shapes=shapes),
    }
    if G.noise_size:
        size = net.z_dim + G.noise_size
        shapes = tuple(net.noise_shapes)
        table["noise"] = NoiseSpace("noise", (size,), Normal(), noise_shapes=shapes, z_dim=net.z_dim, hold_z=True)
        table["z+noise"] = NoiseSpace("z+noise", (size,), Normal(), noise_shapes=shapes, z_dim=net.z_dim)
    return table
