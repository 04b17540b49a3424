"""The closed set of operations of a card's layer lists: a network is built from data, never from code in a file.

A layer list is an ordered list of entries `{"op": NAME, "key": PREFIX, "kw": {...}}`. `key` is the prefix of the entry's
tensors in the safetensors file, `kw` its arguments (those of the torch layer of the same name). The input runs through the
list in order; an `Embedding` takes the label and joins it to the input (`"as": "vector"` appends it to z, `"as": "plane"`
appends it as a channel).

    G = LayerNet([{"op": "Linear", "key": "0", "kw": {"in_features": 2, "out_features": 3}}, {"op": "Tanh"}])
    G.load({"0.weight": ..., "0.bias": ...});  images = G(z)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import DamagedFileError, ShapeError
from .operations import ChannelScale, Fire, ImageInput

Entry = Mapping[str, Any]

_INT = (int,)
_NUM = (int, float)
_BOOL = (bool,)
_SIZE = (int, list)


def aligned(tensor: Tensor) -> Tensor:
    """Return `tensor` contiguous and at a 64-byte boundary, copied only where it is not.

    Weights mapped from a file lie at odd addresses, where the CPU's kernels split their work differently: the last bit of a
    result would depend on the file that the weights came from.
    """
    tensor = tensor.detach().contiguous()
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


class Reshape(nn.Module):
    """(rows, ...) -> (rows, *shape)."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(s) for s in shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


class UpsampleBilinear(nn.Module):
    """Bilinear, `align_corners` false."""

    def __init__(self, scale_factor: float = 2) -> None:
        super().__init__()
        self.scale_factor = float(scale_factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale_factor, mode="bilinear", align_corners=False)


class UpsamplingNearest2d(nn.Module):
    """Nearest neighbour."""

    def __init__(self, scale_factor: float = 2) -> None:
        super().__init__()
        self.scale_factor = float(scale_factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale_factor, mode="nearest")


class SpatialSum(nn.Module):
    """Sum over height and width: (rows, C, H, W) -> (rows, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3))


class SpatialMean(nn.Module):
    """Mean over height and width: (rows, C, H, W) -> (rows, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class LabelJoin(nn.Module):
    """Embed the label and append it to the input, as a vector after z or as one more channel."""

    def __init__(self, num_embeddings: int, embedding_dim: int, form: Literal["vector", "plane"]) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_embeddings, embedding_dim)
        self.form = form

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        e = self.embed(label)
        if self.form == "plane":
            e = e.reshape(x.shape[0], 1, *x.shape[2:])
        return torch.cat([x, e.to(x.dtype)], dim=1)


_CONV: dict[str, tuple[type, ...]] = {
    "in_channels": _INT,
    "out_channels": _INT,
    "kernel_size": _SIZE,
    "stride": _SIZE,
    "padding": _SIZE,
    "dilation": _SIZE,
    "groups": _INT,
    "bias": _BOOL,
}
_NORM: dict[str, tuple[type, ...]] = {"eps": _NUM, "momentum": _NUM, "affine": _BOOL, "track_running_stats": _BOOL}

#: operation -> (constructor, allowed arguments with their types, required arguments)
OPERATIONS: dict[str, tuple[type[nn.Module], dict[str, tuple[type, ...]], tuple[str, ...]]] = {
    "Linear": (nn.Linear, {"in_features": _INT, "out_features": _INT, "bias": _BOOL}, ("in_features", "out_features")),
    "Conv2d": (nn.Conv2d, _CONV, ("in_channels", "out_channels", "kernel_size")),
    "ConvTranspose2d": (
        nn.ConvTranspose2d,
        {**_CONV, "output_padding": _SIZE},
        ("in_channels", "out_channels", "kernel_size"),
    ),
    "BatchNorm1d": (nn.BatchNorm1d, {"num_features": _INT, **_NORM}, ("num_features",)),
    "BatchNorm2d": (nn.BatchNorm2d, {"num_features": _INT, **_NORM}, ("num_features",)),
    "InstanceNorm2d": (nn.InstanceNorm2d, {"num_features": _INT, **_NORM}, ("num_features",)),
    "GroupNorm": (
        nn.GroupNorm,
        {"num_groups": _INT, "num_channels": _INT, "eps": _NUM, "affine": _BOOL},
        ("num_groups", "num_channels"),
    ),
    "LayerNorm": (
        nn.LayerNorm,
        {"normalized_shape": _SIZE, "eps": _NUM, "elementwise_affine": _BOOL},
        ("normalized_shape",),
    ),
    "ReLU": (nn.ReLU, {}, ()),
    "LeakyReLU": (nn.LeakyReLU, {"negative_slope": _NUM}, ()),
    "ELU": (nn.ELU, {"alpha": _NUM}, ()),
    "GELU": (nn.GELU, {}, ()),
    "SiLU": (nn.SiLU, {}, ()),
    "Softplus": (nn.Softplus, {}, ()),
    "Tanh": (nn.Tanh, {}, ()),
    "Sigmoid": (nn.Sigmoid, {}, ()),
    "Identity": (nn.Identity, {}, ()),
    "Dropout": (nn.Dropout, {"p": _NUM}, ()),
    "Dropout2d": (nn.Dropout2d, {"p": _NUM}, ()),
    "Flatten": (nn.Flatten, {}, ()),
    "Reshape": (Reshape, {"shape": (list,)}, ("shape",)),
    "UpsampleBilinear": (UpsampleBilinear, {"scale_factor": _NUM}, ()),
    "UpsamplingNearest2d": (UpsamplingNearest2d, {"scale_factor": _NUM}, ()),
    "MaxPool2d": (
        nn.MaxPool2d,
        {"kernel_size": _SIZE, "stride": _SIZE, "padding": _SIZE, "ceil_mode": _BOOL},
        ("kernel_size",),
    ),
    "AvgPool2d": (nn.AvgPool2d, {"kernel_size": _SIZE, "stride": _SIZE, "padding": _SIZE}, ("kernel_size",)),
    "SpatialSum": (SpatialSum, {}, ()),
    "SpatialMean": (SpatialMean, {}, ()),
    "Fire": (Fire, {"inputs": _INT, "squeeze": _INT, "expand": _INT}, ("inputs", "squeeze", "expand")),
    "ImageInput": (
        ImageInput,
        {"size": _INT, "low": _NUM, "high": _NUM, "bgr": _BOOL, "mean": (list,), "std": _NUM},
        ("size",),
    ),
    "ChannelScale": (ChannelScale, {"num_features": _INT}, ("num_features",)),
    "PixelShuffle": (nn.PixelShuffle, {"upscale_factor": _INT}, ("upscale_factor",)),
    "Embedding": (LabelJoin, {"num_embeddings": _INT, "embedding_dim": _INT}, ("num_embeddings", "embedding_dim")),
}


class Branches(nn.Module):
    """A weighted sum of layer lists that all see the same input: sum over i of weights[i] branch_i(x), plus `bias`.

    Not in `OPERATIONS`, for its entry has lists of entries: `{"op": "Branches", "branches": [[...], [...]], "weights": [...]}`.
    """

    def __init__(self, branches: Sequence[LayerNet], weights: Sequence[float], bias: float = 0.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(branches)
        self.weights, self.bias = tuple(float(w) for w in weights), float(bias)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.stack([w * part(x) for w, part in zip(self.weights, self.parts, strict=True)]).sum(0)
        return total + self.bias


def _branches(entry: Entry, where: str) -> Branches:
    lists, weights, bias = entry.get("branches"), entry.get("weights"), entry.get("bias", 0.0)
    numbers = isinstance(weights, list) and all(_finite(w) for w in weights) and _finite(bias)
    if not (isinstance(lists, list) and numbers and isinstance(weights, list) and 0 < len(lists) == len(weights) <= 64):
        raise DamagedFileError("Branches needs 1 to 64 layer lists and as many weights", where=where)
    if not all(isinstance(b, list) and all(isinstance(e, Mapping) and e.get("op") != "Branches" for e in b) for b in lists):
        raise DamagedFileError("a branch is a layer list without branches of its own", where=where)
    meta = torch.get_default_device().type == "meta"
    nets = [LayerNet(b, where=f"{where}.{i}", meta=meta) for i, b in enumerate(lists)]
    if any(net.needs_label for net in nets):
        raise DamagedFileError("a branch takes no labels", where=where)
    return Branches(nets, weights, float(bias))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _module(entry: Entry, where: str) -> nn.Module:
    op = entry.get("op")
    if op == "Branches":
        return _branches(entry, where)
    if not isinstance(op, str) or op not in OPERATIONS:
        raise DamagedFileError(
            f"unknown operation {op!r} in a layer list", where=where, way_out=f"Known: {', '.join(OPERATIONS)}."
        )
    build, allowed, required = OPERATIONS[op]
    kw = dict(entry.get("kw") or {})
    for name, value in kw.items():
        if name not in allowed:
            raise DamagedFileError(f"{op} takes no argument {name!r}", where=where, way_out=f"It takes: {', '.join(allowed)}.")
        flat = value if isinstance(value, list) else [value]
        types = allowed[name]
        bad_type = not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        if bad_type or any(isinstance(v, int | float) and not (-(2**31) < v < 2**31) for v in flat):
            raise DamagedFileError(f"{op} has a bad value for {name!r}: {value!r}", where=where)
        kw[name] = tuple(value) if isinstance(value, list) and name != "shape" else value
    missing = [name for name in required if name not in kw]
    if missing:
        raise DamagedFileError(f"{op} lacks {', '.join(missing)}", where=where)
    if op == "Embedding":
        form = entry.get("as", "vector")
        if form not in ("vector", "plane"):
            raise DamagedFileError(f"an Embedding joins as 'vector' or 'plane', not {form!r}", where=where)
        kw["form"] = form
    try:
        return build(**kw)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DamagedFileError(f"{op} cannot be built from {kw}: {error}", where=where) from None


class LayerNet(nn.Module):
    """A feed-forward network from a layer list.

    `forward(x, label=None)`: x (rows, ...), label (rows,) of integers where the list has an Embedding.
    Built on the `meta` device when `meta=True`: no memory is taken until `load` gives the tensors.

    >>> net = LayerNet([{"op": "Linear", "key": "a", "kw": {"in_features": 2, "out_features": 1, "bias": False}}])
    >>> net.load({"a.weight": torch.tensor([[1.0, 2.0]])})(torch.tensor([[3.0, 4.0]])).item()
    11.0
    """

    plain_row = "stack"  # its layers, one after the other

    def __init__(self, entries: Sequence[Entry], *, where: str = "layers", meta: bool = False) -> None:
        super().__init__()
        if not entries:
            raise DamagedFileError("an empty layer list", where=where)
        self.entries: tuple[dict[str, Any], ...] = tuple(dict(e) for e in entries)
        self.where = where
        with torch.device("meta" if meta else "cpu"):
            self.stack = nn.ModuleList([_module(e, f"{where}[{i}]") for i, e in enumerate(self.entries)])
        self.needs_label = any(isinstance(m, LabelJoin) for m in self.stack)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        for module in self.stack:
            if isinstance(module, LabelJoin):
                if label is None:
                    raise ShapeError("this network is conditional and got no labels", where=self.where)
                x = module(x, label)
            else:
                x = module(x)
        return x

    def _named(self) -> list[tuple[str, nn.Module]]:
        named = []
        for entry, module in zip(self.entries, self.stack, strict=True):
            inner = module.embed if isinstance(module, LabelJoin) else module
            if next(iter(inner.state_dict()), None) is not None:
                named.append((str(entry.get("key", "")), inner))
        return named

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers under the keys of the layer list (the inverse of `load`)."""
        return {
            f"{key}.{name}" if key else name: tensor
            for key, module in self._named()
            for name, tensor in module.state_dict().items()
        }

    def load(self, tensors: Mapping[str, Tensor], *, strict: bool = True) -> LayerNet:
        """Take the tensors of a file, as they are named there; float16 and bfloat16 become float32.

        Raises DamagedFileError where the list and the tensors contradict each other: both values are named.
        """
        expected: dict[str, Tensor] = self.tensors()
        for name, want in expected.items():
            if name.endswith("num_batches_tracked"):
                continue
            if name not in tensors:
                raise DamagedFileError(f"tensor {name!r} is missing (the list wants {tuple(want.shape)})", where=self.where)
            if tuple(tensors[name].shape) != tuple(want.shape):
                raise DamagedFileError(
                    f"tensor {name!r} is {tuple(tensors[name].shape)} in the file and {tuple(want.shape)} in the layer list",
                    where=self.where,
                )
        extra = [n for n in tensors if n not in expected and not n.endswith("num_batches_tracked")]
        if strict and extra:
            raise DamagedFileError(f"tensor {extra[0]!r} belongs to no layer of the list ({len(extra)} such)", where=self.where)
        for key, module in self._named():
            state = {}
            for name, want in module.state_dict().items():
                full = f"{key}.{name}" if key else name
                if want.dtype.is_floating_point:
                    state[name] = aligned(tensors[full].to(torch.float32))
                    continue
                # a counter of batches serves training only: a file may lack it or hold anything
                counter = tensors.get(full)
                fits = counter is not None and counter.shape == want.shape and counter.dtype == want.dtype
                state[name] = counter.detach() if counter is not None and fits else torch.zeros(want.shape, dtype=want.dtype)
            module.load_state_dict(state, assign=True)
        return self

    def without_last(self, op: str) -> LayerNet:
        """Return this network without its last layer, which must be `op` (used to read the logit before a sigmoid)."""
        if self.entries[-1]["op"] != op:
            raise ShapeError(f"the last layer is {self.entries[-1]['op']}, not {op}", where=self.where)
        cut = LayerNet.__new__(LayerNet)
        nn.Module.__init__(cut)
        cut.entries, cut.where, cut.needs_label = self.entries[:-1], self.where, self.needs_label
        cut.stack = nn.ModuleList(list(self.stack)[:-1])
        cut.train(self.training)
        return cut


def output_shape(net: LayerNet, input_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the output shape for one row of `input_shape`, found without computing (on the meta device).

    Raises DamagedFileError where the layers do not fit each other.
    """
    shadow = LayerNet(net.entries, where=net.where, meta=True).eval()
    x = torch.empty(1, *input_shape, device="meta")
    label = torch.zeros(1, dtype=torch.long, device="meta")
    for i, module in enumerate(shadow.stack):
        try:
            x = module(x, label) if isinstance(module, LabelJoin) else module(x)
        except (RuntimeError, ValueError, IndexError) as error:
            text = str(error).splitlines()[0]
            raise DamagedFileError(
                f"layer {i} ({net.entries[i]['op']}) does not take an input of {tuple(x.shape[1:])}: {text}",
                where=net.where,
            ) from None
        if math.prod(x.shape) > 2**31:
            raise DamagedFileError(f"layer {i} ({net.entries[i]['op']}) gives {tuple(x.shape[1:])} a row", where=net.where)
    return tuple(x.shape[1:])
