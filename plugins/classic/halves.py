"""One recognised network of a classic family, and what putting two of them together needs to know."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentshift.errors import DamagedFileError
from latentshift.layers import LayerNet

from .networks import Layers

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Half:
    """A generator or a discriminator with the facts that its shapes tell.

    `sides`: image sides that it makes or takes (empty: any). `loss` is empty where nothing tells. `build` makes the network
    from the other half (some facts of D are only known from its G).
    """

    role: Literal["G", "D"]
    family: str
    net: nn.Module
    sides: tuple[int, ...]
    colours: int
    z_size: int = 0
    classes: int | None = None
    loss: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settle: Callable[[Half], Half] | None = None


def natural(key: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which main.10 comes after main.9.

    >>> sorted(["main.10.weight", "main.9.weight", "linear.weight"], key=natural)
    ['linear.weight', 'main.9.weight', 'main.10.weight']
    """
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in key.split("."))


def axes(tensors: Tensors, key: str, count: int) -> tuple[int, ...]:
    """Return a tensor's shape of `count` axes; raises DamagedFileError where it is missing or has another rank."""
    if key not in tensors:
        raise DamagedFileError(f"tensor {key!r} is missing")
    shape = tuple(tensors[key].shape)
    if len(shape) != count or 0 in shape:
        raise DamagedFileError(f"tensor {key!r} has shape {shape}; {count} axes were expected")
    return shape


def square(total: int, channels: int, key: str) -> int:
    """Return the side of a square map of `channels` channels that a linear layer of `total` numbers makes."""
    side = math.isqrt(total // channels)
    if side < 1 or side**2 * channels != total:
        raise DamagedFileError(f"{key} has {total} numbers, which is no square map of {channels} channels")
    return side


def numbers(tensors: Tensors, pattern: str) -> list[int]:
    """Return the sorted numbers that the first group of `pattern` takes over all keys."""
    return sorted({int(m[1]) for k in tensors if (m := re.match(pattern, k))})


def layer_net(layers: Layers, tensors: Tensors, where: str) -> LayerNet:
    """Return a filled layer list, frozen and in evaluation mode; raises DamagedFileError where tensors do not fit it."""
    net = LayerNet(layers, where=where, meta=True).load(tensors).eval().requires_grad_(False)
    dtype = next((t.dtype for t in tensors.values() if t.dtype.is_floating_point), torch.float32)
    if dtype != torch.float32:  # `load` rounds to float32: set the numbers anew
        net = net.to(dtype)
        for name, own in net.tensors().items():
            if own.dtype.is_floating_point:
                own.copy_(tensors[name])
    return net
