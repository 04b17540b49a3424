"""The papers' networks as layer lists (plain data; torch is not imported). Channels and sizes from the papers' tables; kernels,
strides, slopes and biases from published code.

A backbone makes two lists: `generator(z_size, shape, classes)` and `critic(shape, classes, heads)`, shape = (channels, height,
width) or (numbers,). Labels, where there are any, join z as an embedding and D as one more plane.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError

Layers = list[dict[str, Any]]
Shape = tuple[int, ...]


def linear(key: str, a: int, b: int) -> dict[str, Any]:
    return {"key": key, "op": "Linear", "kw": {"in_features": a, "out_features": b}}


def conv(
    key: str, a: int, b: int, kernel: int, stride: int, padding: int, bias: bool = True, *, up: bool = False
) -> dict[str, Any]:
    kw = {"in_channels": a, "out_channels": b, "kernel_size": kernel, "stride": stride, "padding": padding, "bias": bias}
    return {"key": key, "op": "ConvTranspose2d" if up else "Conv2d", "kw": kw}


def norm(key: str, channels: int, op: str = "BatchNorm2d") -> dict[str, Any]:
    more = {"affine": True} if op == "InstanceNorm2d" else {}
    return {"key": key, "op": op, "kw": {"num_features": channels, **more}}


def leaky(slope: float) -> dict[str, Any]:
    return {"op": "LeakyReLU", "kw": {"negative_slope": slope}}


def mlp(a: int, b: int, widths: Sequence[int] = (100, 200, 100)) -> Layers:
    """Linear layers with ReLU between (tables 13 and 14 of paper 000: 100, 200, 100)."""
    sizes = (a, *widths, b)
    layers: Layers = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layers += [linear(f"fc{i}", n, m), {"op": "ReLU"}]
    return layers[:-1]


def _labelled(z_size: int, classes: int | None) -> tuple[Layers, int]:
    if not classes:
        return [], z_size
    kw = {"num_embeddings": classes, "embedding_dim": classes}
    return [{"key": "label", "op": "Embedding", "as": "vector", "kw": kw}], z_size + classes


def _plane(shape: Shape, classes: int | None) -> tuple[Layers, int]:
    if not classes:
        return [], shape[0]
    kw = {"num_embeddings": classes, "embedding_dim": shape[1] * shape[2]}
    return [{"key": "label", "op": "Embedding", "as": "plane", "kw": kw}], shape[0] + 1


def _base(shape: Shape, factor: int, name: str) -> int:
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] % factor or shape[1] < factor:
        raise RequestError(
            f"the backbone {name!r} makes square images whose side is a multiple of {factor}, not {shape}",
            way_out="Give --size, or another --backbone.",
        )
    return shape[1] // factor


def mlp_generator(z_size: int, shape: Shape, classes: int | None) -> Layers:
    start, n = _labelled(z_size, classes)
    return [*start, *mlp(n, shape[0])]


def mlp_critic(shape: Shape, classes: int | None, heads: int) -> Layers:
    return mlp(shape[0], heads)


def small_generator(z_size: int, shape: Shape, classes: int | None, widths: Sequence[int] = (128, 64, 32, 16)) -> Layers:
    """Network S of the bundled pair: linear to a base square, three transposed convolutions with batch norm, conv 3x3, tanh."""
    base = _base(shape, 8, "small")
    start, n = _labelled(z_size, classes)
    stem = linear("stem.linear", n, widths[0] * base * base)
    stem["kw"]["bias"] = False
    layers = [*start, stem, {"op": "Reshape", "kw": {"shape": [widths[0], base, base]}}, norm("stem.norm", widths[0])]
    layers += [{"op": "ReLU"}]
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [conv(f"up{i}.conv", a, b, 4, 2, 1, False, up=True), norm(f"up{i}.norm", b), {"op": "ReLU"}]
    return [*layers, conv("out", widths[-1], shape[0], 3, 1, 1), {"op": "Tanh"}]


def small_critic(shape: Shape, classes: int | None, heads: int, widths: Sequence[int] = (32, 64, 128)) -> Layers:
    """4x4 convolutions of stride 2, leaky ReLU 0.2, a linear head; no normalisation of its own."""
    base = _base(shape, 2 ** len(widths), "small")
    layers, n = _plane(shape, classes)
    for i, (a, b) in enumerate(itertools.pairwise((n, *widths))):
        layers += [conv(f"down{i}", a, b, 4, 2, 1), leaky(0.2)]
    return [*layers, {"op": "Flatten"}, linear("head", widths[-1] * base * base, heads)]


def dcgan_generator(z_size: int, shape: Shape, classes: int | None) -> Layers:
    """Tables 17 and 19: transposed convolutions 1024, 512, 256, 128 from z, batch norm and ReLU, tanh; no biases."""
    base = _base(shape, 16, "dcgan")
    start, n = _labelled(z_size, classes)
    layers = [*start, {"op": "Reshape", "kw": {"shape": [n, 1, 1]}}, conv("up0", n, 1024, base, 1, 0, False, up=True)]
    layers += [norm("up0.norm", 1024), {"op": "ReLU"}]
    for i, (a, b) in enumerate(itertools.pairwise((1024, 512, 256, 128)), 1):
        layers += [conv(f"up{i}", a, b, 4, 2, 1, False, up=True), norm(f"up{i}.norm", b), {"op": "ReLU"}]
    return [*layers, conv("out", 128, shape[0], 4, 2, 1, False, up=True), {"op": "Tanh"}]


def dcgan_critic(shape: Shape, classes: int | None, heads: int) -> Layers:
    """Tables 18 and 20: 5x5 convolutions of stride 2, 64 to 512; leaky ReLU 0.2 before batch norm, none on the first."""
    base = _base(shape, 16, "dcgan")
    layers, n = _plane(shape, classes)
    for i, (a, b) in enumerate(itertools.pairwise((n, 64, 128, 256, 512))):
        layers += [conv(f"down{i}", a, b, 5, 2, 2, False), leaky(0.2), *([norm(f"down{i}.norm", b)] if i else [])]
    return [*layers, {"op": "Flatten"}, linear("head", 512 * base * base, heads)]


def sngan_generator(z_size: int, shape: Shape, classes: int | None) -> Layers:
    """Tables 21 and 22: linear to 512 at an eighth, transposed convolutions 256, 128, 64, conv 3x3, tanh."""
    base = _base(shape, 8, "sngan")
    start, n = _labelled(z_size, classes)
    layers = [*start, linear("stem", n, 512 * base * base), {"op": "Reshape", "kw": {"shape": [512, base, base]}}]
    layers += [norm("stem.norm", 512), {"op": "ReLU"}]
    for i, (a, b) in enumerate(itertools.pairwise((512, 256, 128, 64))):
        layers += [conv(f"up{i}", a, b, 4, 2, 1, up=True), norm(f"up{i}.norm", b), {"op": "ReLU"}]
    return [*layers, conv("out", 64, shape[0], 3, 1, 1), {"op": "Tanh"}]


def sngan_critic(shape: Shape, classes: int | None, heads: int) -> Layers:
    """Tables 23 and 24 (spectral norm is a setting of the run): pairs of 3x3 and 4x4 convolutions, leaky ReLU 0.1."""
    base = _base(shape, 8, "sngan")
    layers, n = _plane(shape, classes)
    for i, (a, b) in enumerate(((n, 64), (64, 128), (128, 256))):
        layers += [conv(f"d{i}.a", a, b, 3, 1, 1), leaky(0.1), conv(f"d{i}.b", b, b, 4, 2, 1), leaky(0.1)]
    layers += [conv("last", 256, 512, 3, 1, 1), leaky(0.1)]
    return [*layers, {"op": "Flatten"}, linear("head", 512 * base * base, heads)]


def msgan_generator(z_size: int, shape: Shape, classes: int | None) -> Layers:
    """MSGAN's code at 32 pixels: transposed convolutions 512, 256, 128 from z and the label, batch norm, ReLU, tanh."""
    base = _base(shape, 8, "msgan")
    start, n = _labelled(z_size, classes)
    layers = [*start, {"op": "Reshape", "kw": {"shape": [n, 1, 1]}}, conv("up0", n, 512, base, 1, 0, up=True)]
    layers += [norm("up0.norm", 512), {"op": "ReLU"}]
    for i, (a, b) in enumerate(itertools.pairwise((512, 256, 128)), 1):
        layers += [conv(f"up{i}", a, b, 4, 2, 1, up=True), norm(f"up{i}.norm", b), {"op": "ReLU"}]
    return [*layers, conv("out", 128, shape[0], 4, 2, 1, up=True), {"op": "Tanh"}]


def msgan_critic(shape: Shape, classes: int | None, heads: int) -> Layers:
    """MSGAN's code: a label plane, 4x4 convolutions 128, 256, 512, batch norm, leaky ReLU 0.2."""
    base = _base(shape, 8, "msgan")
    layers, n = _plane(shape, classes)
    for i, (a, b) in enumerate(itertools.pairwise((n, 128, 256, 512))):
        layers += [conv(f"down{i}", a, b, 4, 2, 1), *([norm(f"down{i}.norm", b)] if i else []), leaky(0.2)]
    return [*layers, conv("head", 512, heads, base, 1, 0), {"op": "Flatten"}]


def advas_generator(z_size: int, shape: Shape, classes: int | None, first: int = 64) -> Layers:
    """Paper 003, MNIST: linear to a quarter, two transposed convolutions that halve the channels, instance norm, tanh for its
    sigmoid (images are in [-1, 1] here)."""
    base = _base(shape, 4, "advas")
    start, n = _labelled(z_size, classes)
    layers = [*start, linear("stem", n, first * base * base), {"op": "ReLU"}]
    layers += [{"op": "Reshape", "kw": {"shape": [first, base, base]}}]
    layers += [conv("up0", first, first // 2, 4, 2, 1, up=True), norm("up0.norm", first // 2, "InstanceNorm2d"), {"op": "ReLU"}]
    return [*layers, conv("up1", first // 2, shape[0], 4, 2, 1, up=True), {"op": "Tanh"}]


def advas_critic(shape: Shape, classes: int | None, heads: int, widths: Sequence[int] = (64, 128, 256)) -> Layers:
    """Paper 003, MNIST: convolutions 64, 128, 256 with instance norm and ReLU, linear 1."""
    layers, n = _plane(shape, classes)
    side = shape[1]
    for i, (a, b) in enumerate(itertools.pairwise((n, *widths))):
        layers += [conv(f"down{i}", a, b, 4, 2, 1), norm(f"down{i}.norm", b, "InstanceNorm2d"), {"op": "ReLU"}]
        side //= 2
    return [*layers, {"op": "Flatten"}, linear("head", widths[-1] * side * side, heads)]


def atgan_generator(z_size: int, shape: Shape, classes: int | None, widths: Sequence[int] = (1024, 128, 64)) -> Layers:
    """Paper 004 table 5: FC 1024, FC 7x7x128, DeConv 64, DeConv 1; ReLU where the table misprints Sigmoid, tanh at the end."""
    base = _base(shape, 4, "atgan")
    start, n = _labelled(z_size, classes)
    layers = [
        *start,
        linear("fc0", n, widths[0]),
        {"op": "ReLU"},
        linear("fc1", widths[0], widths[1] * base * base),
        {"op": "ReLU"},
    ]
    layers += [{"op": "Reshape", "kw": {"shape": [widths[1], base, base]}}]
    layers += [conv("up0", widths[1], widths[2], 4, 2, 1, up=True), {"op": "ReLU"}]
    return [*layers, conv("up1", widths[2], shape[0], 4, 2, 1, up=True), {"op": "Tanh"}]


def atgan_critic(shape: Shape, classes: int | None, heads: int, widths: Sequence[int] = (64, 128, 1024)) -> Layers:
    """Paper 004 table 5: 4x4 convolutions 64, 128, leaky ReLU, FC 1024, FC 1 (without its sigmoid: a Wasserstein loss)."""
    base = _base(shape, 4, "atgan")
    layers: Layers = []
    for i, (a, b) in enumerate(itertools.pairwise((shape[0], *widths[:2]))):
        layers += [conv(f"down{i}", a, b, 4, 2, 1), leaky(0.2)]
    hidden = [linear("fc0", widths[1] * base * base, widths[2]), leaky(0.2), linear("head", widths[2], heads)]
    return [*layers, {"op": "Flatten"}, *hidden]


def atgan_classifier(shape: Shape, classes: int, hidden: int = 1024) -> Layers:
    """Paper 004 table 5's f: conv 32, pool, conv 64, pool, FC 1024, dropout 0.4, FC classes."""
    base = _base(shape, 4, "atgan")
    pool = {"op": "MaxPool2d", "kw": {"kernel_size": 2}}
    layers = [
        conv("conv0", shape[0], 32, 5, 1, 2),
        {"op": "ReLU"},
        pool,
        conv("conv1", 32, 64, 5, 1, 2),
        {"op": "ReLU"},
        dict(pool),
    ]
    layers += [{"op": "Flatten"}, linear("fc0", 64 * base * base, hidden), {"op": "ReLU"}, {"op": "Dropout", "kw": {"p": 0.4}}]
    return [*layers, linear("head", hidden, classes)]


@dataclass(frozen=True)
class Backbone:
    """A generator and a critic by name."""

    name: str
    line: str
    generator: Callable[[int, Shape, int | None], Layers]
    critic: Callable[[Shape, int | None, int], Layers]
    std: float | None = 0.02  # of the first weights; None: torch's own initialisation


BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        Backbone("mlp", "100, 200, 100 with ReLU: 2-D data (paper 000 tables 13, 14)", mlp_generator, mlp_critic, None),
        Backbone("small", "the bundled pair's network S: 0.30 and 0.17 M parameters at 32 px", small_generator, small_critic),
        Backbone("dcgan", "paper 000 tables 17 to 20 (batch norm in D)", dcgan_generator, dcgan_critic),
        Backbone("sngan", "paper 000 tables 21 to 24", sngan_generator, sngan_critic),
        Backbone("msgan", "MSGAN's conditional DCGAN at 32 px (batch norm in D)", msgan_generator, msgan_critic),
        Backbone("advas", "paper 003's MNIST networks (instance norm in D)", advas_generator, advas_critic),
        Backbone("atgan", "paper 004 table 5", atgan_generator, atgan_critic, None),
    )
}
