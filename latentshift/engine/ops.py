"""The operations of a plan: a forward that keeps what its own backward needs, and an input gradient written by hand.

No weight ever gets a gradient. On a CPU the weights of convolutions are packed once, for each direction apart, into the
layout that oneDNN's kernels want, and the activation is fused; torch's operators for it are private, so `can_pack` asks
whether they are there and do what they should. Everything runs on channels-last tensors (rows, C, H, W), or on (rows, n).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .few import FEW, fitted

#: activations whose backward needs their output alone: module -> (name in oneDNN, its number)
FUSED: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}

_THIN = 4  # columns of a product that is summed column by column on many threads


@functools.cache
def can_pack() -> str:
    """Return "" where this torch packs convolution weights for oneDNN and the result is right, else what is missing."""
    try:
        x, w = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last), torch.randn(5, 4, 3, 3)
        up = torch.randn(4, 5, 4, 4)
        mine = Conv(w, torch.ones(5), stride=(2, 2), padding=(1, 1), act=("leaky_relu", 0.2), size=x.shape[1:])
        theirs = F.leaky_relu(F.conv2d(x, w, torch.ones(5), 2, 1), 0.2)
        mine_up = Conv(up, None, stride=(2, 2), padding=(1, 1), transposed=True, size=x.shape[1:])
        theirs_up = F.conv_transpose2d(x, up, None, 2, 1)
        for op, expected in ((mine, theirs), (mine_up, theirs_up)):
            y, kept = op.forward(x)
            if not torch.allclose(y, expected, rtol=1e-4, atol=1e-4):
                return "oneDNN's packed convolution gives other numbers here"
            op.backward(torch.ones_like(y), kept)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
        return f"this torch has no packed convolutions ({str(error).splitlines()[0][:80]})"
    return ""


@functools.cache
def can_pack_linear() -> bool:
    """Whether this torch packs the weights of linear layers for oneDNN."""
    try:
        x, w = torch.randn(3, 8), torch.randn(5, 8)
        y = torch.ops.mkldnn._linear_pointwise(x, torch.ops.mkldnn._reorder_linear_weight(w, 3), None, "relu", [], "")
        return bool(torch.allclose(y, F.relu(F.linear(x, w)), rtol=1e-4, atol=1e-5))
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False


class Op:
    """One operation: `forward(x) -> (y, kept)`, `backward(gradient of y, kept) -> gradient of x`.

    `rowwise`: whether a row has the same bits in a call of any number of rows. `made` has what an operation with weights was
    made of, by name, its weight left out: `few.py` makes another from it, to see how many rows it needs.
    """

    rowwise = False
    made: dict[str, Any] | None = None

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        raise NotImplementedError


Act = tuple[str, float] | None


def act_of(module: nn.Module) -> Act:
    """Return an activation as (name, slope) where it can be fused, else None."""
    name = FUSED.get(type(module))
    if name is None or (name == "leaky_relu" and getattr(module, "negative_slope", -1.0) <= 0):
        return None
    return name, float(getattr(module, "negative_slope", 0.0))


def _named(act: Act) -> tuple[str, list[float]]:
    """Return an activation as oneDNN's operators take it."""
    return ("none", []) if act is None else (act[0], [act[1]] if act[0] == "leaky_relu" else [])


def _applied(y: Tensor, act: Act) -> Tensor:
    """Apply an activation in place."""
    if act is None:
        return y
    if act[0] == "relu":
        return y.relu_()
    if act[0] == "leaky_relu":
        return F.leaky_relu_(y, act[1])
    return y.tanh_() if act[0] == "tanh" else y.sigmoid_()


def _in_vectors(act: Act, size: int) -> bool:
    """Whether an activation gives rows of `size` numbers the same bits in a call of any number of rows."""
    return act is None or act[0] in ("relu", "leaky_relu") or size % 64 == 0


def _masked(grad: Tensor, y: Tensor, act: Act) -> Tensor:
    """Return the gradient before an activation from the one behind it and the output."""
    aten = torch.ops.aten
    if act is None:
        return grad
    if act[0] == "relu":
        return aten.threshold_backward(grad, y, 0)  # type: ignore[no-any-return]
    if act[0] == "leaky_relu":
        return aten.leaky_relu_backward(grad, y, act[1], True)  # type: ignore[no-any-return]
    back = aten.tanh_backward if act[0] == "tanh" else aten.sigmoid_backward
    return back(grad, y)  # type: ignore[no-any-return]


class Conv(Op):
    """A plain or transposed convolution with its bias (a vector, or a map where a shift met zero padding) and activation.

    `weight` as torch has it (out, in, kh, kw), or (in, out, kh, kw) transposed; `size` is one input's (C, H, W).
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        output_padding: tuple[int, int] = (0, 0),
        transposed: bool = False,
        act: Act = None,
        size: Any,
        bias_map: Tensor | None = None,
        rows: int = 16,
    ) -> None:
        mkldnn = torch.ops.mkldnn
        self.act, self.bias, self.bias_map = act, bias, bias_map
        self.transposed, self.groups = transposed, groups
        self.stride, self.padding, self.dilation = list(stride), list(padding), list(dilation)
        out_padding = list(output_padding)
        kernel, out = weight.shape[2:], []
        for n, s, p, d, k, o in zip(size[1:], stride, padding, dilation, kernel, output_padding, strict=True):
            reach = d * (k - 1) + 1
            out.append((n - 1) * s - 2 * p + reach + o if transposed else (n + 2 * p - reach) // s + 1)
            if not transposed:  # what the adjoint must add to come back to n
                out_padding[len(out) - 1] = n - ((out[-1] - 1) * s - 2 * p + reach)
        self.out_padding = out_padding
        channels = weight.shape[1] * groups if transposed else weight.shape[0]
        if groups == 1 and _in_vectors(act, channels * math.prod(out)):
            self.made = {
                "weight": weight.shape, "dtype": weight.dtype, "stride": stride, "padding": padding, "dilation": dilation,
                "output_padding": output_padding, "transposed": transposed, "act": act, "size": tuple(size), "rows": rows,
            }  # fmt: skip
        small = [rows, *(size if transposed else (channels, *out))]
        large = [rows, *((channels, *out) if transposed else size)]
        same = (self.padding, self.stride, self.dilation, groups)
        self.up_weight = mkldnn._reorder_convolution_transpose_weight(weight, same[0], out_padding, *same[1:], small)
        self.down_weight = mkldnn._reorder_convolution_weight(weight, *same, large)

    def _down(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        name, numbers = _named(act)
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            x, self.down_weight, bias, self.padding, self.stride, self.dilation, self.groups, name, numbers, ""
        )

    def _up(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        name, numbers = _named(act)
        return torch.ops.mkldnn._convolution_transpose_pointwise(  # type: ignore[no-any-return]
            x, self.up_weight, bias, self.padding, self.out_padding, self.stride, self.dilation, self.groups, name, numbers, ""
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        run = self._up if self.transposed else self._down
        if self.bias_map is None:
            y = run(x, self.bias, self.act)
        else:
            y = _applied(run(x, self.bias).add_(self.bias_map), self.act)
        return y, y if self.act else None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        grad = _masked(grad, kept, self.act).contiguous(memory_format=torch.channels_last)
        return self._down(grad) if self.transposed else self._up(grad)


class Product:
    """x @ weight.T + bias with an activation: packed for oneDNN where the weight is large, else a plain product.

    Packed, a product of many rows is 1.2 to 2 times as fast as the plain one, and a row's bits do not depend on the others.
    The plain one has that too, but for a thin side of 2 to 4 columns on four threads or more: that is summed column by column.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.packed = can_pack_linear() and weight.numel() >= 1 << 16 and min(weight.shape) > 1
        self.thin = not self.packed and weight.shape[1] <= _THIN and torch.get_num_threads() > 2
        weight = weight.contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows) if self.packed else weight

    def __call__(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        if self.thin:
            y = x[:, :1] * self.weight[:, 0]
            for at in range(1, x.shape[1]):
                y.addcmul_(x[:, at : at + 1], self.weight[:, at])
            return _applied(y if bias is None else y.add_(bias), act)
        if not self.packed:
            return _applied(F.linear(x, self.weight, bias), act)
        name, numbers = _named(act)
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.weight, bias, name, numbers, "")  # type: ignore[no-any-return]


class MatrixConv(Op):
    """A convolution of a small map as one matrix product: oneDNN's own are slow where most taps meet the padding.

    Arguments as `Conv`; `out` is the other side's (height, width). No groups, no dilation.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int],
        transposed: bool,
        act: Act,
        size: tuple[int, ...],
        out: tuple[int, int],
        bias_map: Tensor | None = None,
        rows: int = 16,
    ) -> None:
        self.act, self.bias, self.bias_map, self.transposed = act, bias, bias_map, transposed
        self.stride, self.padding, self.kernel = stride, padding, tuple(weight.shape[2:])
        self.small = size[1:] if transposed else out
        self.large = out if transposed else size[1:]
        m = rows * self.small[0] * self.small[1]
        flat = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # (small's channels, kh * kw * large's channels)
        self.down = Product(flat, m)
        self.up = Product(flat.t(), m)
        row = (weight.shape[1] if transposed else weight.shape[0]) * math.prod(out)
        if self.down.packed and self.up.packed and _in_vectors(act, row):
            self.made = {
                "weight": weight.shape, "dtype": weight.dtype, "stride": stride, "padding": padding, "transposed": transposed,
                "act": act, "size": tuple(size), "out": out, "rows": rows,
            }  # fmt: skip

    def _down(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        """The large map's patches times the weight: the small map."""
        (h, w), (p, q), (s, t), (k, r) = self.small, self.padding, self.stride, self.kernel
        rows, c = x.shape[:2]
        more = ((h - 1) * s + k - x.shape[2] - p, (w - 1) * t + r - x.shape[3] - q)
        patches = F.pad(x.permute(0, 2, 3, 1), (0, 0, q, more[1], p, more[0])).unfold(1, k, s).unfold(2, r, t)
        patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(rows * h * w, k * r * c)
        y = self.down(patches, bias, act)
        return y.view(rows, h, w, -1).permute(0, 3, 1, 2)

    def _up(self, x: Tensor) -> Tensor:
        """The small map times the weight, each result's patch added in its place of the large map."""
        (h, w), (p, q), (s, t), (k, r) = self.small, self.padding, self.stride, self.kernel
        rows, (height, width) = len(x), self.large
        y = self.up(x.permute(0, 2, 3, 1).reshape(rows * h * w, -1)).view(rows, h, w, k, r, -1)
        tall, wide = max((h - 1) * s + k, height + p), max((w - 1) * t + r, width + q)
        out = y.new_zeros(rows, tall, wide, y.shape[-1])
        for u in range(k):
            for v in range(r):
                out[:, u : u + (h - 1) * s + 1 : s, v : v + (w - 1) * t + 1 : t].add_(y[:, :, :, u, v])
        return out[:, p : p + height, q : q + width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        if not self.transposed and self.bias_map is None:
            y = self._down(x, self.bias, self.act)
        else:
            y = self._up(x) if self.transposed else self._down(x)
            if self.bias is not None:
                y = y.add_(self.bias.reshape(-1, 1, 1))
            if self.bias_map is not None:
                y = y.add_(self.bias_map)
            y = _applied(y, self.act)
        return y, y if self.act else None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        grad = _masked(grad, kept, self.act)
        return self._down(grad) if self.transposed else self._up(grad)


class Linear(Op):
    """A linear layer with its activation. `more` zeros are appended to each row (see `PaddedLinear`).

    `shape` (C, H, W): the output is a channels-last map of that size, the weight's rows being in the order (H, W, C).
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        act: Act = None,
        more: int = 0,
        shape: tuple[int, ...] | None = None,
        rows: int = 16,
    ) -> None:
        self.bias, self.act, self.more, self.shape = bias, act, more, shape
        self.ahead, self.back = Product(weight, rows), Product(weight.t(), rows)
        if self.ahead.packed and self.back.packed and _in_vectors(act, weight.shape[0]):
            self.made = {"weight": weight.shape, "dtype": weight.dtype, "act": act, "more": more, "shape": shape, "rows": rows}

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        y = self.ahead(F.pad(x, (0, self.more)) if self.more else x, self.bias, self.act)
        kept = y if self.act else None
        if self.shape:
            y = y.view(len(y), *self.shape[1:], self.shape[0]).permute(0, 3, 1, 2)
        return y, kept

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        if self.shape:
            grad = grad.permute(0, 2, 3, 1).reshape(len(grad), -1)
        grad = self.back(_masked(grad, kept, self.act))
        return grad[:, : grad.shape[1] - self.more] if self.more else grad


class Activation(Op):
    """An activation that no layer could take in."""

    def __init__(self, act: Act) -> None:
        self.act, self.rowwise = act, _in_vectors(act, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        y = _applied(x.clone(memory_format=torch.preserve_format), self.act)
        return y, y

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return _masked(grad, kept, self.act)


class Flatten(Op):
    """(rows, C, H, W) -> (rows, H * W * C): the next layer's columns are in that order."""

    rowwise = True

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1), x.shape

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        rows, c, h, w = kept
        return grad.reshape(rows, h, w, c).permute(0, 3, 1, 2)


class To(Op):
    """From one precision to another, and back."""

    rowwise = True

    def __init__(self, given: torch.dtype, wanted: torch.dtype) -> None:
        self.given, self.wanted = given, wanted

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        return x.to(self.wanted), None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return grad.to(self.given)


class Eager(Op):
    """Any other layer, by torch's own differentiation."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype
        self.takes_label = hasattr(module, "embed")

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            y = self.module(x, label) if self.takes_label else self.module(x)
        out = y.detach()
        return (_channels_last(out) if out.ndim == 4 else out), (x, y)

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        x, y = kept
        out: Tensor = torch.autograd.grad(y, x, grad)[0]
        return out


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class Filled(Op):
    """An operation that is called with at least `rows` rows: the first is repeated."""

    def __init__(self, op: Op, rows: int) -> None:
        self.op, self.rows = op, rows

    def _full(self, x: Tensor) -> Tensor:
        y = torch.cat([x, x[:1].expand(self.rows - len(x), *x.shape[1:])])
        return _channels_last(y) if y.ndim == 4 else y

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        y, kept = self.op.forward(self._full(x), None if label is None else self._full(label))
        return y[: len(x)], kept

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return self.op.backward(self._full(grad), kept)[: len(grad)]


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ops: list[Op], label: Tensor | None) -> Tensor:
        y, kept = x, []
        for op in ops:
            y, keep = op.forward(y, label)
            # the result itself must not hang on its own graph
            kept.append(keep.detach() if isinstance(keep, Tensor) else keep)
        ctx.ops, ctx.kept = ops, kept
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        for op, keep in zip(reversed(ctx.ops), reversed(ctx.kept), strict=True):
            grad = op.backward(grad, keep)
        return grad, None, None


class Plan(nn.Module):
    """A row of operations in `dtype` as a module; `plain` is the same network in its differentiable form.

    `forward(x, label=None)`: x is cast to `dtype`, the result comes back in the dtype of x.
    """

    plain_row = "layers"  # what cuts a network in the middle gets the plain layers

    def __init__(self, ops: list[Op], plain: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.ops, self.plain, self.dtype = ops, plain, dtype
        self._few: dict[tuple[int, int], list[Op]] = {}

    @property
    def layers(self) -> Any:
        """The plain form's layers."""
        return self.plain.layers

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        given = x.dtype
        x = x.to(self.dtype)
        if x.ndim == 4:
            x = _channels_last(x)
        ops = self.called(len(x))
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Run.apply(x, ops, label)  # type: ignore[no-untyped-call]
        else:
            with torch.no_grad():
                y = x
                for op in ops:
                    y = op.forward(y, label)[0]
        return y.to(given)

    def called(self, rows: int) -> list[Op]:
        """Return the operations for a call of so many rows: where it is one of `FEW`, in forms that give a row the bits that it
        has in a call of 8."""
        if rows not in FEW:
            return self.ops
        key = rows, torch.get_num_threads()
        if key not in self._few:
            self._few[key] = [fitted(op, rows) for op in self.ops]
        return self._few[key]
