"""Layer lists of the feed-forward networks of the AdvLatGAN papers and of pytorch-gan-collections, to train or to fill.

    G = LayerNet(paper_pair("sngan-stl10").G);  D = LayerNet(paper_pair("sngan-stl10").D)

Channels and sizes are those of the papers' tables 13 to 24, kernels, strides, slopes and biases those of the code that
went with them. Keys are the ones under which that code saves its tensors. Spectral norm is no layer: where `spectral` is
true, every convolution and linear layer of D is to be normalised in training (and is plain once trained).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentshift.errors import UnknownNameError

Layers = list[dict[str, Any]]


def conv(
    key: str, a: int, b: int, kernel: int, stride: int, padding: int, *, bias: bool, transposed: bool = False
) -> dict[str, Any]:
    """A convolution from a to b channels."""
    kw: dict[str, Any] = {"in_channels": a, "out_channels": b, "kernel_size": kernel, "stride": stride, "padding": padding}
    return {"op": "ConvTranspose2d" if transposed else "Conv2d", "key": key, "kw": kw | {"bias": bias}}


def norm(key: str, channels: int, **more: float) -> dict[str, Any]:
    """A batch norm."""
    return {"op": "BatchNorm2d", "key": key, "kw": {"num_features": channels, **more}}


def linear(key: str, a: int, b: int, *, bias: bool = True) -> dict[str, Any]:
    """A linear layer from a to b numbers."""
    return {"op": "Linear", "key": key, "kw": {"in_features": a, "out_features": b, "bias": bias}}


def leaky(slope: float) -> dict[str, Any]:
    """LeakyReLU."""
    return {"op": "LeakyReLU", "kw": {"negative_slope": slope}}


def reshape(*shape: int) -> dict[str, Any]:
    """(rows, ...) to (rows, *shape)."""
    return {"op": "Reshape", "kw": {"shape": list(shape)}}


def points_generator(z_size: int = 2, widths: Sequence[int] = (100, 200, 100), outputs: int = 2) -> Layers:
    """Table 13 (and, with `outputs` 1, the body of table 14): linear layers with ReLU between."""
    sizes = [z_size, *widths, outputs]
    layers: Layers = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [linear(f"main.{2 * i}", a, b), {"op": "ReLU"}]
    return layers[:-1]


def points_discriminator(inputs: int = 2, widths: Sequence[int] = (100, 200, 100)) -> Layers:
    """Table 14: (rows, 2) points to (rows, 1) logits."""
    return points_generator(inputs, widths, 1)


def dcgan_generator(
    z_size: int = 100, widths: Sequence[int] = (1024, 512, 256, 128), colours: int = 3, bottom: int = 2
) -> Layers:
    """Tables 17 (bottom 2: 32 px) and 19 (bottom 3: 48 px): the side is bottom * 2 ** len(widths)."""
    layers: Layers = [reshape(z_size, 1, 1)]
    for i, (a, b) in enumerate(zip([z_size, *widths], widths, strict=False)):
        kernel, stride, padding = (bottom, 1, 0) if i == 0 else (4, 2, 1)
        step = conv(f"main.{3 * i}", a, b, kernel, stride, padding, bias=False, transposed=True)
        layers += [step, norm(f"main.{3 * i + 1}", b), {"op": "ReLU"}]
    out = conv(f"main.{3 * len(widths)}", widths[-1], colours, 4, 2, 1, bias=False, transposed=True)
    return [*layers, out, {"op": "Tanh"}]


def dcgan_discriminator(side: int = 32, widths: Sequence[int] = (64, 128, 256, 512), colours: int = 3) -> Layers:
    """Tables 18 (side 32) and 20 (side 48): LeakyReLU comes before the batch norm, the first layer has none."""
    layers: Layers = []
    at = 0
    for i, (a, b) in enumerate(zip([colours, *widths], widths, strict=False)):
        layers += [conv(f"main.{at}", a, b, 5, 2, 2, bias=False), leaky(0.2)]
        layers += [norm(f"main.{at + 2}", b)] if i else []
        at += 3 if i else 2
    size = -(-side // 2 ** len(widths))
    return [*layers, {"op": "Flatten"}, linear("linear", widths[-1] * size**2, 1)]


def cnn_generator(
    z_size: int = 100,
    widths: Sequence[int] = (512, 256, 128, 64),
    colours: int = 3,
    bottom: int = 4,
    *,
    first_norm: bool = False,
    bias: bool = False,
) -> Layers:
    """Tables 21 and 22: linear to (512, bottom, bottom), three transposed convolutions, a 3x3 convolution.

    Side = 8 * bottom: 4 for 32 px, 6 for 48, 8 for 64, 16 for 128. `first_norm` and `bias` as in pytorch-gan-collections.
    """
    layers: Layers = [linear("linear", z_size, widths[0] * bottom**2), reshape(widths[0], bottom, bottom)]
    at = 0
    if first_norm:
        layers += [norm("main.0", widths[0]), {"op": "ReLU"}]
        at = 2
    for a, b in itertools.pairwise(widths):
        step = conv(f"main.{at}", a, b, 4, 2, 1, bias=bias, transposed=True)
        layers += [step, norm(f"main.{at + 1}", b), {"op": "ReLU"}]
        at += 3
    return [*layers, conv(f"main.{at}", widths[-1], colours, 3, 1, 1, bias=bias), {"op": "Tanh"}]


def cnn_discriminator(
    side: int = 32,
    widths: Sequence[int] = (64, 64, 128, 128, 256, 256, 512),
    colours: int = 3,
    *,
    bias: bool = False,
    linear_bias: bool = False,
) -> Layers:
    """Tables 23 and 24: 3x3 stride 1 and 4x4 stride 2 in turn, LeakyReLU 0.1 after each, one linear layer on side / 8."""
    layers: Layers = []
    for i, (a, b) in enumerate(zip([colours, *widths], widths, strict=False)):
        kernel, stride = (4, 2) if i % 2 else (3, 1)
        layers += [conv(f"main.{2 * i}", a, b, kernel, stride, 1, bias=bias), leaky(0.1)]
    size = side // 2 ** (len(widths) // 2)
    return [*layers, {"op": "Flatten"}, linear("linear", widths[-1] * size**2, 1, bias=linear_bias)]


@dataclass(frozen=True)
class Recipe:
    """A pair of layer lists with what its training needs to know."""

    G: Layers
    D: Layers
    z_size: int
    loss: str
    spectral: bool
    source: str


def _pair(kind: str, side: int, colours: int) -> Recipe:
    if kind == "dcgan":
        tables = {32: "tables 17 and 18", 48: "tables 19 and 20"}.get(side, "the form of tables 17 and 18")
        G, D = dcgan_generator(colours=colours, bottom=side // 16), dcgan_discriminator(side, colours=colours)
        return Recipe(G, D, 100, "bce", False, tables)
    tables = {64: "tables 21 and 23", 128: "tables 22 and 24"}.get(side, "the form of tables 21 and 23")
    spectral = kind == "sngan"
    G = cnn_generator(colours=colours, bottom=side // 8, bias=not spectral)
    D = cnn_discriminator(side, colours=colours, bias=not spectral, linear_bias=not spectral)
    return Recipe(G, D, 100, "hinge" if spectral else "wasserstein", spectral, tables)


_SIDES = {"cifar10": 32, "stl10": 48, "lsun64": 64, "celeba64": 64, "lsun128": 128, "celeba128": 128, "imagenet128": 128}
_KINDS = ("dcgan", "wgan-gp", "sngan")


def paper_names() -> list[str]:
    """Return the names that `paper_pair` knows."""
    return ["points", *(f"{kind}-{data}" for kind in _KINDS for data in _SIDES)]


def paper_pair(name: str, colours: int = 3) -> Recipe:
    """Return the networks of one experiment of the papers, e.g. "sngan-stl10", "dcgan-cifar10", "points".

    Raises UnknownNameError with the nearest names.
    """
    if name == "points":
        return Recipe(points_generator(), points_discriminator(), 2, "bce", False, "tables 13 and 14")
    kind = next((k for k in _KINDS if name.startswith(f"{k}-")), None)
    data = name.removeprefix(f"{kind}-")
    if kind is None or data not in _SIDES:
        raise UnknownNameError("network", name, paper_names(), way_out=f"Known: {', '.join(paper_names())}.")
    return _pair(kind, _SIDES[data], colours)
