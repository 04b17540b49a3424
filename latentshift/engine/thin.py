"""Operations with a thin side: images of a few channels, a layer of one output.

A library's kernel computes 16 channels at a time, of which an image of 3 channels wants 3. `Phases` takes the four pixels of
each 2x2 block for channels of a map of half the size: 12 of 16 are wanted then, for 16/9 to 9/4 of the taps. A product of one
column wastes more: `Dot` sums each row's products instead, a few rows in a third of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .acts import Act, applied, masked
from .ops import Op

THIN, FROM, PIXELS = 4, 32, 256  # most channels of a thin side; least channels of the other one, and pixels, that it pays for
_BLOCK = 2


class Phases:
    """A plain or transposed convolution to a map of few channels, as one plain convolution to a map of its 2x2 blocks.

    `made_of` returns None where it does not apply. Called with (rows, C, H, W), channels last, as is the result.
    """

    def __init__(self, weight: Tensor, padding: list[int], stride: list[int], size: list[int]) -> None:
        self.padding, self.stride = padding, stride
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, size)

    @classmethod
    def made_of(
        cls, weight: Tensor, size: list[int], out: tuple[int, int], padding: list[int], stride: list[int], *, transposed: bool
    ) -> Phases | None:
        """Return the form of a convolution with `weight` (channels of x, channels of y, kh, kw) of `size` (rows, C, H, W) to
        `out` (H, W); None where it is none or does not pay."""
        a, thin, *kernel = weight.shape
        if thin > THIN or a < FROM or out[0] * out[1] < PIXELS or min(kernel) < 3:
            return None
        if any(n % _BLOCK for n in out) or any(s > (_BLOCK if transposed else 1) for s in stride):
            return None
        axes = [_Axis(k, s, p, transposed) for k, s, p in zip(kernel, stride, padding, strict=True)]
        for axis, n, m in zip(axes, size[2:], out, strict=True):
            if axis.first > 0 or (n - 2 * axis.first - axis.length) // axis.step + 1 != m // _BLOCK:
                return None
        wide = weight.new_zeros(_BLOCK, _BLOCK, thin, a, axes[0].length, axes[1].length)
        for i, u, tap in axes[0].taps:
            for j, v, other in axes[1].taps:
                wide[i, j, :, :, u, v] = weight[:, :, tap, other].t()
        return cls(wide.flatten(0, 2), [-axis.first for axis in axes], [axis.step for axis in axes], size)

    @staticmethod
    def spread(bias: Tensor) -> Tensor:
        """Return the bias of the map of blocks."""
        return bias.repeat(_BLOCK * _BLOCK)

    def __call__(self, x: Tensor, bias: Tensor | None, act: str, numbers: list[float]) -> Tensor:
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, bias, self.padding, self.stride, [1, 1], 1, act, numbers, ""
        )
        rows, wide, h, w = y.shape
        y = y.permute(0, 2, 3, 1).reshape(rows, h, w, _BLOCK, _BLOCK, wide // _BLOCK**2).permute(0, 1, 3, 2, 4, 5)
        return y.reshape(rows, h * _BLOCK, w * _BLOCK, -1).permute(0, 3, 1, 2)


class _Axis:
    """Along one axis: which places of x, counted from `step` times its number, a block of two pixels needs by which tap.

    Pixel Y of a plain convolution of stride 1 needs place Y - padding + tap, of a transposed one (Y + padding - tap) / stride.
    """

    def __init__(self, kernel: int, stride: int, padding: int, transposed: bool) -> None:
        found = []  # (pixel of the block, place, tap)
        for pixel in range(_BLOCK):
            for tap in range(kernel):
                if not transposed:
                    found.append((pixel, pixel - padding + tap, tap))
                elif (pixel + padding - tap) % stride == 0:
                    found.append((pixel, (pixel + padding - tap) // stride, tap))
        places = [place for _, place, _ in found]
        self.first, self.length = min(places), max(places) - min(places) + 1
        self.step = _BLOCK // stride if transposed else _BLOCK
        self.taps = [(pixel, place - self.first, tap) for pixel, place, tap in found]


class Dot(Op):
    """A linear layer of one output with its activation: each row's products, summed in float32. `weight` (1, n)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, act: Act = None) -> None:
        self.weight, self.wide, self.bias, self.act = weight, weight.float(), bias, act
        if act is None or act[0] in ("relu", "leaky_relu"):
            self.made = {"weight": weight.shape, "dtype": weight.dtype, "act": act}

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        y = (x * self.wide).sum(1, keepdim=True)
        if self.bias is not None:
            y = y.add_(self.bias)
        y = applied(y, self.act).to(x.dtype)
        return y, y if self.act else None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return masked(grad, kept, self.act) * self.weight
