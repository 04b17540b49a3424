"""The two network pairs of the overhead tables at 48x48, from the papers' tables, with weights from a seed.

Pair A: tables 19 and 20 (DCGAN). Pair B: tables 21 and 23 (SNGAN; the Wasserstein form has biases and no spectral norm).
Weights are random, batch-norm statistics come from one batch, spectral norms are converged: times do not depend on them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..layers import LayerNet

Z = 100


@dataclass(frozen=True)
class Networks:
    """G and D in evaluation mode, weights asking for gradients as after training, and multiply-adds of D(G(z)) per row."""

    name: str
    G: nn.Module
    D: nn.Module
    macs: float


def _entry(op: str, **kw: Any) -> dict[str, Any]:
    return {"op": op, "key": "", "kw": kw}


def _conv(a: int, b: int, kernel: int, stride: int, padding: int, bias: bool = False, up: bool = False) -> dict[str, Any]:
    return _entry(
        "ConvTranspose2d" if up else "Conv2d",
        in_channels=a, out_channels=b, kernel_size=kernel, stride=stride, padding=padding, bias=bias,
    )  # fmt: skip


def _pair_a(shrink: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    widths = [w // shrink for w in (1024, 512, 256, 128)]
    up = [_entry("Reshape", shape=[Z, 1, 1])]
    for i, (a, b) in enumerate(itertools.pairwise([Z, *widths])):
        up += [_conv(a, b, *((4, 2, 1) if i else (3, 1, 0)), up=True), _entry("BatchNorm2d", num_features=b), _entry("ReLU")]
    up += [_conv(widths[-1], 3, 4, 2, 1, up=True), _entry("Tanh")]
    down: list[dict[str, Any]] = []
    widths = [w // shrink for w in (64, 128, 256, 512)]
    for i, (a, b) in enumerate(itertools.pairwise([3, *widths])):
        down += [_conv(a, b, 5, 2, 2), _entry("LeakyReLU", negative_slope=0.2)]
        down += [_entry("BatchNorm2d", num_features=b)] if i else []
    return up, [*down, _entry("Flatten"), _entry("Linear", in_features=widths[-1] * 9, out_features=1)]


def _pair_b(shrink: int, bias: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    widths = [w // shrink for w in (512, 256, 128, 64)]
    up = [_entry("Linear", in_features=Z, out_features=widths[0] * 36), _entry("Reshape", shape=[widths[0], 6, 6])]
    for a, b in itertools.pairwise(widths):
        up += [_conv(a, b, 4, 2, 1, bias, up=True), _entry("BatchNorm2d", num_features=b), _entry("ReLU")]
    up += [_conv(widths[-1], 3, 3, 1, 1, bias), _entry("Tanh")]
    down: list[dict[str, Any]] = []
    widths = [w // shrink for w in (64, 64, 128, 128, 256, 256, 512)]
    for i, (a, b) in enumerate(itertools.pairwise([3, *widths])):
        down += [_conv(a, b, *((4, 2, 1) if i % 2 else (3, 1, 1)), bias), _entry("LeakyReLU", negative_slope=0.1)]
    return up, [*down, _entry("Flatten"), _entry("Linear", in_features=widths[-1] * 36, out_features=1)]


def networks(name: str, *, shrink: int = 1, seed: int = 0) -> Networks:
    """Return pair "A" (DCGAN), "B" (SNGAN) or "B-wgan"; `shrink` divides every width (for tests)."""
    keep = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        up, down = _pair_a(shrink) if name == "A" else _pair_b(shrink, name != "B")
        G, D = LayerNet(up), LayerNet(down)
        with torch.no_grad():
            images = _settle(G, torch.randn(16, Z))
            _settle(D, images)
        G.eval(), D.eval()
        macs = _macs(G, torch.zeros(1, Z)) + _macs(D, images[:1])
        if name == "B":
            for m in D.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.utils.parametrizations.spectral_norm(m, n_power_iterations=15)
        return Networks(name, G, D.eval(), macs)
    finally:
        torch.set_rng_state(keep)


def _settle(net: LayerNet, x: torch.Tensor) -> torch.Tensor:
    """Give each batch norm the statistics of one batch, layer by layer."""
    for layer in net.stack:
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(x.mean((0, 2, 3)))
            layer.running_var.copy_(x.var((0, 2, 3)))
        x = layer.eval()(x)
    return x


def _macs(net: LayerNet, x: torch.Tensor) -> float:
    """Return nominal multiply-adds per row: taps on the zero padding count."""
    total = 0.0
    with torch.no_grad():
        for layer in net.stack:
            y = layer(x)
            if isinstance(layer, nn.Conv2d):
                total += layer.weight.numel() * y.shape[2] * y.shape[3]
            elif isinstance(layer, nn.ConvTranspose2d):
                total += layer.weight.numel() * x.shape[2] * x.shape[3]
            elif isinstance(layer, nn.Linear):
                total += layer.weight.numel()
            x = y
    return total
