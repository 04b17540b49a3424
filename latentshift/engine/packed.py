"""Operations with weights, packed once for each direction apart into the layout that oneDNN's kernels want, the activation
fused.

torch's operators for it are private, so `can_pack` asks whether they are there and do what they should.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .acts import Act, applied, in_vectors, masked, named
from .ops import Op
from .thin import Phases

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
        if groups == 1 and in_vectors(act, channels * math.prod(out)):
            self.made = {
                "weight": weight.shape, "dtype": weight.dtype, "stride": stride, "padding": padding, "dilation": dilation,
                "output_padding": output_padding, "transposed": transposed, "act": act, "size": tuple(size), "rows": rows,
            }  # fmt: skip
        small = [rows, *(size if transposed else (channels, *out))]
        large = [rows, *((channels, *out) if transposed else size)]
        same = (self.padding, self.stride, self.dilation, groups)
        self.thin_up = self.thin_down = self.up_weight = self.down_weight = None
        if groups == 1 and self.dilation == [1, 1]:
            self.thin_up = Phases.made_of(weight, small, (large[2], large[3]), *same[:2], transposed=True)
            self.thin_down = Phases.made_of(weight.transpose(0, 1), large, (small[2], small[3]), *same[:2], transposed=False)
        if self.thin_up is None:
            self.up_weight = mkldnn._reorder_convolution_transpose_weight(weight, same[0], out_padding, *same[1:], small)
        if self.thin_down is None:
            self.down_weight = mkldnn._reorder_convolution_weight(weight, *same, large)
        # oneDNN takes 4 to 37 times as long for a transposed convolution to an odd map where a bias or activation is fused
        self.apart = transposed and any(n % s for n, s in zip(out, stride, strict=True))
        ahead = self.thin_up if transposed else self.thin_down
        if ahead is not None and bias is not None:
            self.bias = ahead.spread(bias)

    def _down(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        name, numbers = named(act)
        if self.thin_down is not None:
            return self.thin_down(x, bias, name, numbers)
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            x, self.down_weight, bias, self.padding, self.stride, self.dilation, self.groups, name, numbers, ""
        )

    def _up(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        name, numbers = named(act)
        if self.thin_up is not None:
            return self.thin_up(x, bias, name, numbers)
        return torch.ops.mkldnn._convolution_transpose_pointwise(  # type: ignore[no-any-return]
            x, self.up_weight, bias, self.padding, self.out_padding, self.stride, self.dilation, self.groups, name, numbers, ""
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        run = self._up if self.transposed else self._down
        if self.bias_map is None and not self.apart:
            y = run(x, self.bias, self.act)
        else:
            y = run(x, None if self.apart else self.bias)
            if self.apart and self.bias is not None:
                y = y.add_(self.bias.reshape(-1, 1, 1))
            y = applied(y if self.bias_map is None else y.add_(self.bias_map), self.act)
        return y, y if self.act else None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        grad = masked(grad, kept, self.act).contiguous(memory_format=torch.channels_last)
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
            return applied(y if bias is None else y.add_(bias), act)
        if not self.packed:
            return applied(F.linear(x, self.weight, bias), act)
        name, numbers = named(act)
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.weight, bias, name, numbers, "")  # type: ignore[no-any-return]


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
        if self.ahead.packed and self.back.packed and in_vectors(act, weight.shape[0]):
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
        grad = self.back(masked(grad, kept, self.act))
        return grad[:, : grad.shape[1] - self.more] if self.more else grad
