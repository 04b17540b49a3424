"""Feed-forward classics from shapes: pytorch-gan-collections and AdvLatGAN CNNs, the PyTorch DCGAN example and its copies.

All become layer lists. What shapes cannot show (activations, strides of odd kernels) is taken from the family's code where the
family is known; for copies of the DCGAN example it is its convention, and the notes say so.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from torch import Tensor

from latentshift.errors import RequestError

from . import networks
from .halves import Half, Tensors, axes, layer_net, natural, numbers, square
from .networks import Layers

COLLECTIONS = "pytorch-gan-collections"
DCGAN = "DCGAN"
UPSAMPLING = "PyTorch-GAN DCGAN"
_WAY_OUT = "Give a pair folder with a layer list, or the network's own code with --factory module:function."


def recognise(tensors: Tensors, spectral: bool) -> Half | None:
    """Return the network that these plain tensors are, or None for none of these families.

    `spectral`: whether the file held spectral norms (they tell SNGAN from WGAN).
    """
    for blocks in ("conv_blocks", "conv_model"):  # its name today and before
        if "l1.0.weight" in tensors and f"{blocks}.0.running_mean" in tensors:
            return _upsampling_generator(tensors, blocks)
    if "adv_layer.0.weight" in tensors and "model.0.weight" in tensors:
        return _upsampling_discriminator(tensors)
    if "linear.weight" in tensors and "main.0.weight" in tensors:
        rows = axes(tensors, "linear.weight", 2)[0]
        return _cnn_discriminator(tensors, spectral) if rows == 1 else _cnn_generator(tensors)
    return _chain(tensors)


def _convolutions(tensors: Tensors, prefix: str) -> list[int]:
    return [i for i in numbers(tensors, rf"{prefix}\.(\d+)\.weight$") if tensors[f"{prefix}.{i}.weight"].ndim == 4]


def _cnn_generator(tensors: Tensors) -> Half:
    where = f"{COLLECTIONS} G"
    places = _convolutions(tensors, "main")
    if len(places) < 2:
        raise RequestError(f"{where}: {len(places)} convolutions after a linear layer is no known network", way_out=_WAY_OUT)
    shapes = [axes(tensors, f"main.{i}.weight", 4) for i in places]
    widths = [s[0] for s in shapes[:-1]] + [shapes[-2][1]]
    rows, z_size = axes(tensors, "linear.weight", 2)
    bottom = square(rows, widths[0], "linear.weight")
    first_norm = "main.0.running_mean" in tensors
    bias = f"main.{places[0]}.bias" in tensors
    colours = shapes[-1][0]
    layers = networks.cnn_generator(z_size, widths, colours, bottom, first_norm=first_norm, bias=bias)
    side = bottom * 2 ** (len(widths) - 1)
    # in the older generation a missing bias is SNGAN's; the newer one has biases everywhere, and D tells
    loss = "" if first_norm else "wasserstein" if bias else "hinge"
    return Half("G", COLLECTIONS, layer_net(layers, tensors, where), (side,), colours, z_size, loss=loss)


def _cnn_discriminator(tensors: Tensors, spectral: bool) -> Half:
    where = f"{COLLECTIONS} D"
    shapes = [axes(tensors, f"main.{i}.weight", 4) for i in _convolutions(tensors, "main")]
    widths, colours, kernel = [s[0] for s in shapes], shapes[0][1], shapes[0][2]
    size = square(axes(tensors, "linear.weight", 2)[1], widths[-1], "linear.weight")
    bias = "main.0.bias" in tensors
    if kernel == 5:
        side = size * 2 ** len(widths)
        layers = networks.dcgan_discriminator(side, widths, colours)
        return Half("D", COLLECTIONS, layer_net(layers, tensors, where), (side,), colours, loss="bce")
    if kernel != 3:
        raise RequestError(f"{where}: a first convolution of {kernel}x{kernel} is no known network", way_out=_WAY_OUT)
    side = size * 2 ** (len(widths) // 2)
    layers = networks.cnn_discriminator(side, widths, colours, bias=bias, linear_bias="linear.bias" in tensors)
    loss = "hinge" if spectral else "wasserstein"
    return Half("D", COLLECTIONS, layer_net(layers, tensors, where), (side,), colours, loss=loss)


# --- a chain of convolutions: the PyTorch DCGAN example and its copies -------------------------------------------------


def _modules(tensors: Tensors) -> list[tuple[str, dict[str, Tensor]]]:
    """The modules of a flat state dict in the order of their numbers: (prefix, its tensors)."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key in sorted(tensors, key=lambda k: natural(k.rpartition(".")[0])):
        owner, _, leaf = key.rpartition(".")
        groups.setdefault(owner, {})[leaf] = tensors[key]
    return list(groups.items())


def _chain(tensors: Tensors) -> Half | None:
    names_are_numbers = all(any(p.isdigit() for p in k.split(".")) for k in tensors)
    modules = _modules(tensors)
    weights = [(key, m["weight"]) for key, m in modules if "weight" in m and m["weight"].ndim > 1]
    if not names_are_numbers or len(weights) < 3 or any(w.ndim != 4 for _, w in weights):
        return None
    shapes = [tuple(w.shape) for _, w in weights]
    steps = list(itertools.pairwise(shapes))
    up = all(a[1] == b[0] for a, b in steps)
    down = all(a[0] == b[1] for a, b in steps)
    if up and down:  # equal widths throughout: the ends tell
        up, down = shapes[-1][1] in (1, 3, 4), shapes[-1][0] == 1
    if up == down:
        return None
    return _chain_generator(modules, tensors) if up else _chain_discriminator(modules, tensors)


def _chain_norm(key: str, module: dict[str, Tensor]) -> dict[str, object] | None:
    """The layer of a normalising module; an affine one without statistics is an instance norm."""
    size = next(iter(module.values())).numel()
    if "running_mean" in module:
        kw = {"num_features": module["running_mean"].numel(), "affine": "weight" in module}
        return {"op": "BatchNorm2d", "key": key, "kw": kw}
    if {"weight", "bias"} <= set(module) and module["weight"].ndim == 1:
        return {"op": "InstanceNorm2d", "key": key, "kw": {"num_features": size, "affine": True}}
    return None


def _no_gap(before: str, key: str, where: str) -> None:
    """Refuse two convolutions with room for more than an activation between them: it may be a norm without weights."""
    a, b = before.rpartition("."), key.rpartition(".")
    if a[0] == b[0] and a[2].isdigit() and b[2].isdigit() and int(b[2]) - int(a[2]) > 2:
        raise RequestError(
            f"{where}: between {before!r} and {key!r} lies a layer without weights (a norm or dropout) that nothing tells",
            way_out=_WAY_OUT,
        )


def _odd(kernel: tuple[int, ...], where: str) -> RequestError:
    return RequestError(
        f"{where}: a kernel of {kernel[0]}x{kernel[1]}: its stride and padding are not in the file", way_out=_WAY_OUT
    )


def _chain_generator(modules: list[tuple[str, dict[str, Tensor]]], tensors: Tensors) -> Half:
    where = f"{DCGAN} G"
    convs = [key for key, m in modules if "weight" in m and m["weight"].ndim == 4]
    layers: Layers = []
    side = 1
    for key, module in modules:
        if key in convs:
            a, b, height, width = module["weight"].shape
            first = key == convs[0]
            if height != width or (not first and height != 4):
                raise _odd((height, width), where)
            if not first and layers[-1]["op"] == "ConvTranspose2d":
                _no_gap(layers[-1]["key"], key, where)
                layers.append({"op": "ReLU"})
            layers += [{"op": "Reshape", "kw": {"shape": [a, 1, 1]}}] if first else []
            stride, padding = (1, 0) if first else (2, 1)
            layers.append(networks.conv(key, a, b, height, stride, padding, bias="bias" in module, transposed=True))
            side = height if first else 2 * side
        else:
            norm = _chain_norm(key, module)
            if norm is None or not layers:
                raise RequestError(f"{where}: module {key!r} is no layer of this family", way_out=_WAY_OUT)
            layers += [norm, {"op": "ReLU"}]
    layers.append({"op": "Tanh"})
    last = tensors[f"{convs[-1]}.weight"]
    z_size, colours = tensors[f"{convs[0]}.weight"].shape[0], last.shape[1]
    if colours not in (1, 3, 4) or layers[-2]["op"] != "ConvTranspose2d":
        raise RequestError(f"{where}: it ends with {colours} channels, not with an image", way_out=_WAY_OUT)
    notes = ("ReLU between layers, tanh at the end and a standard normal prior are this family's convention, not in the file",)
    return Half("G", DCGAN, layer_net(layers, tensors, where), (side,), colours, z_size, notes=notes)


def _chain_discriminator(modules: list[tuple[str, dict[str, Tensor]]], tensors: Tensors) -> Half:
    where = f"{DCGAN} D"
    convs = [key for key, m in modules if "weight" in m and m["weight"].ndim == 4]
    layers: Layers = []
    for key, module in modules:
        if key in convs:
            b, a, height, width = module["weight"].shape
            last = key == convs[-1]
            if (height, width) != (4, 4):
                raise _odd((height, width), where)
            if layers and layers[-1]["op"] == "Conv2d":
                _no_gap(layers[-1]["key"], key, where)
                layers.append(networks.leaky(0.2))
            stride, padding = (1, 0) if last else (2, 1)
            layers.append(networks.conv(key, a, b, height, stride, padding, bias="bias" in module))
        else:
            norm = _chain_norm(key, module)
            if norm is None or not layers:
                raise RequestError(f"{where}: module {key!r} is no layer of this family", way_out=_WAY_OUT)
            layers += [norm, networks.leaky(0.2)]
    if tensors[f"{convs[-1]}.weight"].shape[0] != 1 or layers[-1]["op"] != "Conv2d":
        raise RequestError(f"{where}: its last convolution gives {tensors[f'{convs[-1]}.weight'].shape[0]} channels, not 1")
    layers.append({"op": "Flatten"})
    side, colours = 4 * 2 ** (len(convs) - 1), tensors[f"{convs[0]}.weight"].shape[1]
    instance = any(entry["op"] == "InstanceNorm2d" for entry in layers)
    note = "LeakyReLU 0.2 between layers is this family's convention, not in the file"
    half = Half("D", DCGAN, layer_net(layers, tensors, where), (side,), colours, notes=(note,))
    return replace(half, loss="wasserstein" if instance or clipped(tensors) else "bce")


def clipped(tensors: Tensors) -> float | None:
    """Return the bound to which all weights were clipped (WGAN), or None: it shows as many numbers exactly at the bound."""
    weights = [t for k, t in tensors.items() if k.endswith("weight") and t.ndim > 1]
    bound = max((float(t.abs().max()) for t in weights), default=0.0)
    at = [float((t.abs() == bound).float().mean()) for t in weights if t.numel() >= 100]
    return bound if at and 0 < bound < 1 and all(share > 0.005 for share in at) else None


# --- the DCGAN of the PyTorch-GAN collection: upsampling and convolutions, batch norm eps 0.8 ---------------------------


def _upsampling_generator(tensors: Tensors, blocks: str) -> Half:
    where = f"{UPSAMPLING} G"
    rows, z_size = axes(tensors, "l1.0.weight", 2)
    width = axes(tensors, f"{blocks}.0.running_mean", 1)[0]
    bottom = square(rows, width, "l1.0.weight")
    middle, last = axes(tensors, f"{blocks}.2.weight", 4), axes(tensors, f"{blocks}.6.weight", 4)
    colours = axes(tensors, f"{blocks}.9.weight", 4)[0]
    # the code passes 0.8 where eps stands, meaning momentum: it is what the network was trained with
    wide_eps = {"eps": 0.8}

    layers: Layers = [
        networks.linear("l1.0", z_size, rows),
        networks.reshape(width, bottom, bottom),
        networks.norm(f"{blocks}.0", width),
        {"op": "UpsamplingNearest2d"},
        networks.conv(f"{blocks}.2", middle[1], middle[0], 3, 1, 1, bias=True),
        networks.norm(f"{blocks}.3", middle[0], **wide_eps),
        networks.leaky(0.2),
        {"op": "UpsamplingNearest2d"},
        networks.conv(f"{blocks}.6", last[1], last[0], 3, 1, 1, bias=True),
        networks.norm(f"{blocks}.7", last[0], **wide_eps),
        networks.leaky(0.2),
        networks.conv(f"{blocks}.9", last[0], colours, 3, 1, 1, bias=True),
        {"op": "Tanh"},
    ]
    return Half("G", UPSAMPLING, layer_net(layers, tensors, where), (4 * bottom,), colours, z_size, loss="bce")


def _upsampling_discriminator(tensors: Tensors) -> Half:
    where = f"{UPSAMPLING} D"
    places = _convolutions(tensors, "model")
    layers: Layers = []
    for i in places:
        b, a = axes(tensors, f"model.{i}.weight", 4)[:2]
        layers += [networks.conv(f"model.{i}", a, b, 3, 2, 1, bias=True), networks.leaky(0.2)]
        if f"model.{i + 3}.running_mean" in tensors:
            layers.append({"op": "BatchNorm2d", "key": f"model.{i + 3}", "kw": {"num_features": b, "eps": 0.8}})
    width = tensors[f"model.{places[-1]}.weight"].shape[0]
    total = axes(tensors, "adv_layer.0.weight", 2)[1]
    side = square(total, width, "adv_layer.0.weight") * 2 ** len(places)
    layers += [{"op": "Flatten"}, networks.linear("adv_layer.0", total, 1)]
    colours = tensors[f"model.{places[0]}.weight"].shape[1]
    return Half("D", UPSAMPLING, layer_net(layers, tensors, where), (side,), colours, loss="bce")
