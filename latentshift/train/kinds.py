"""What an honest critic can be made of: the small pixel network, a head on a frozen network, D's own weights.

A `Part` is one fit: the network that learns, what it looks through, and how it is put back together to score images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import RequestError, UsageError
from ..layers import LayerNet
from ..model import Pair
from .critic import critic_layers, head_layers
from .pieces import R1, GradientPenalty, ShiftAndFlip, initialise
from .shifts import TowardsOther
from .steps import Augment, Penalty
from .trunks import get_trunk, through

Kind = Literal["pixel", "features", "both", "own"]
Bound = Literal["r1", "gradient-penalty", "spectral-norm", "dat"]
KINDS: tuple[str, ...] = ("pixel", "features", "both", "own")
BOUNDS: tuple[str, ...] = ("r1", "gradient-penalty", "spectral-norm", "dat")
#: updates that sufficed where it was measured, and R1's weight
UPDATES = {"pixel": 240, "features": 60, "own": 240}
GAMMA = {"pixel": 1.0, "features": 0.1, "own": 1.0}


@dataclass(frozen=True)
class Part:
    """One network to fit. `look` brings images to what it sees (None: the images), `whole` puts a fitted net together."""

    kind: str
    net: LayerNet
    look: nn.Module | None
    whole: Callable[[LayerNet], nn.Module]
    augment: Augment | None
    updates: int
    network: str = ""  # the frozen network that it looks through, and which may then not judge
    plugin: str = ""  # the trunk's name where the folder cannot hold it


def parts_of(kind: str) -> tuple[str, ...]:
    """Return the kinds of the parts of `kind`; raises UsageError for an unknown one."""
    if kind not in KINDS:
        raise UsageError(f"a critic is one of {', '.join(KINDS)}, not {kind!r}")
    return ("features", "pixel") if kind == "both" else (kind,)


def _widths(side: int) -> tuple[int, ...]:
    widths: list[int] = []
    while side > 4 or not widths:
        widths.append((32, 64, 128)[min(len(widths), 2)])
        side //= 2
    return tuple(widths)


def make_part(kind: str, pair: Pair, reals: Tensor, *, trunk: str, mirror: bool, updates: int | None, seed: int) -> Part:
    """Return the part of one kind for a pair's images; `reals` (rows, C, H, W) give the scale of features."""
    assert pair.image_shape is not None
    channels, height, width = pair.image_shape
    draw = torch.Generator().manual_seed(seed)
    number = updates if updates is not None else UPDATES[kind]
    if kind == "features":
        return _features(pair, reals, trunk, number, draw)
    shift = ShiftAndFlip(pixels=1, flip=mirror, fill=pair.image_range[0])
    if kind == "own":
        call = pair.need_critic().call
        if not isinstance(call, LayerNet) or pair.need_critic().real_is != "high" or call.needs_label:
            raise RequestError(
                f"the own critic of {pair.name!r} cannot be trained on: it is no plain layer network without labels",
                way_out="Use --kind both, pixel or features.",
            )
        own = copy.deepcopy(call).requires_grad_(True)
        return Part(kind, own, None, lambda net: net, shift, number)
    if height != width:
        raise RequestError(f"the pixel critic takes square images, not {width}x{height}", way_out="Use --kind features.")
    net = initialise(LayerNet(critic_layers(channels, height, _widths(height)), where="D"), 0.05, draw)
    return Part(kind, net, None, lambda net: net, shift, number)


def _features(pair: Pair, reals: Tensor, name: str, updates: int, draw: torch.Generator) -> Part:
    assert pair.image_shape is not None
    found = get_trunk(name)
    trunk = found.build(max(pair.image_shape[1:]), pair.image_range)
    trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # forward 2.5 times as fast on a CPU
    with torch.no_grad():
        rows = torch.cat([trunk(reals[i : i + 64]) for i in range(0, min(len(reals), 512), 64)])
    axes = [0, *range(2, rows.ndim)]
    scale = LayerNet([{"op": "ChannelScale", "key": "scale", "kw": {"num_features": rows.shape[1]}}])
    scale.load({"scale.mean": rows.mean(axes), "scale.scale": 1 / rows.std(axes).clamp_min(1e-6)})
    head = initialise(LayerNet(head_layers(tuple(rows.shape[1:])), where="head"), 0.05, draw)
    look = through(trunk, scale)

    def whole(net: LayerNet) -> nn.Module:
        if isinstance(trunk, LayerNet):
            return _chained(trunk, scale, net)
        return through(trunk, _chained(scale, net))

    plugin = "" if isinstance(trunk, LayerNet) else name
    return Part("features", head, look, whole, None, updates, found.network, plugin)


def _chained(*nets: LayerNet) -> LayerNet:
    entries = [e for net in nets for e in net.entries]
    tensors = {k: v for net in nets for k, v in net.tensors().items()}
    return LayerNet(entries, where="D", meta=True).load(tensors).eval().requires_grad_(False)


def bound_of(bound: str, kind: str, image_range: tuple[float, float]) -> dict[str, Any]:
    """Return what the loop needs for a bound: penalties, spectral norm, image shift."""
    if bound not in BOUNDS:
        raise UsageError(f"a bound is one of {', '.join(BOUNDS)}, not {bound!r}")
    penalties: list[Penalty] = []
    if bound == "r1":
        penalties = [R1(GAMMA[kind])]
    elif bound == "gradient-penalty":
        penalties = [GradientPenalty(10.0 * GAMMA[kind])]
    clamp = None if kind == "features" else image_range
    return {
        "penalties": penalties,
        "spectral_norm": bound == "spectral-norm",
        "loss": "hinge" if bound == "spectral-norm" else "wasserstein" if bound == "gradient-penalty" else "bce",
        "image_shift": TowardsOther(clamp=clamp) if bound == "dat" else None,
    }
