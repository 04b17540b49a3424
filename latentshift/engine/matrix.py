"""A convolution of a small map with large weights as matrix products.

oneDNN's convolutions read all weights anew for each row: in float32, 8 million weights (pair A's 3x3 to 6x6) take 42 ms for 16
rows, as products 22. Where the weights stay in a core's cache they are the faster ones, by up to two times on a map of 4x4.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from .acts import Act, applied, in_vectors, masked
from .ops import Op, channels_last
from .packed import Product

PIXELS, BYTES = 16, 10 << 20  # of the small map at most, and of weights at least, from where on products are faster


def pays(weight: Tensor, pixels: int) -> bool:
    """Whether products are faster than a convolution with this weight and so many pixels in its small map."""
    return pixels <= PIXELS and weight.numel() * weight.element_size() >= BYTES


class _Part(NamedTuple):
    """Taps `taps` of a kernel's rows meet the large map from rows `lines` of the small one, and from no others."""

    taps: range
    lines: range


def parts_of(small: int, large: int, kernel: int, stride: int, padding: int) -> list[_Part]:
    """Return a kernel's rows, those together that meet a map of `large` rows from the same rows of the small one.

    >>> [(list(p.taps), list(p.lines)) for p in parts_of(3, 6, 4, 2, 1)]
    [([0], [1, 2]), ([1, 2], [0, 1, 2]), ([3], [0, 1])]
    """
    found: list[_Part] = []
    for tap in range(kernel):
        met = [i for i in range(small) if 0 <= i * stride - padding + tap < large]
        lines = range(met[0], met[-1] + 1) if met else range(0)
        if found and found[-1].lines == lines:
            found[-1] = _Part(range(found[-1].taps.start, tap + 1), lines)
        else:
            found.append(_Part(range(tap, tap + 1), lines))
    return [part for part in found if part.lines]


class MatrixConv(Op):
    """Arguments as `Conv`; `out` is the other side's (height, width). No groups, no dilation.

    The weights are cut into parts by `parts_of`: one row takes as long, 16 rows 13 to 17 % less. Along the height alone: along
    both axes there are fewer multiply-adds still, but so many small products that one row takes longer.
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
        parts = parts_of(self.small[0], self.large[0], self.kernel[0], stride[0], padding[0])
        self.parts: list[tuple[_Part, Product, Product]] = []
        self.channels = len(weight)  # of the small map
        for part in sorted(parts, key=lambda p: -len(p.lines)):  # the first has all lines where any has
            # (small's channels, taps * kw * large's channels)
            flat = weight[:, :, part.taps.start : part.taps.stop].permute(0, 2, 3, 1).flatten(1)
            m = rows * len(part.lines) * self.small[1]
            self.parts.append((part, Product(flat, m), Product(flat.t(), m)))
        row = (weight.shape[1] if transposed else weight.shape[0]) * math.prod(out)
        if all(down.packed and up.packed for _, down, up in self.parts) and in_vectors(act, row):
            self.made = {
                "weight": weight.shape, "dtype": weight.dtype, "stride": stride, "padding": padding, "transposed": transposed,
                "act": act, "size": tuple(size), "out": out, "rows": rows,
            }  # fmt: skip

    def _down(self, x: Tensor, bias: Tensor | None = None, act: Act = None) -> Tensor:
        """The large map's patches times the weight: the small map."""
        (h, w), (p, q), (s, t), (_, r) = self.small, self.padding, self.stride, self.kernel
        rows, c, height, width = x.shape
        above = max(0, max(p - part.lines.start * s - part.taps.start for part, _, _ in self.parts))
        below = max(0, max((part.lines.stop - 1) * s - p + part.taps.stop - height for part, _, _ in self.parts))
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, q, (w - 1) * t + r - width - q, above, below))
        whole = len(self.parts[0][0].lines) == h
        y = None if whole else x.new_zeros(rows, h, w, self.channels)
        for (taps, lines), down, _ in self.parts:
            at, n, k = lines.start * s - p + taps.start + above, len(lines), len(taps)
            patches = x[:, at : at + (n - 1) * s + k].unfold(1, k, s).unfold(2, r, t).permute(0, 1, 2, 4, 5, 3)
            patches = patches.reshape(rows * n * w, k * r * c)
            if y is None:
                y = down(patches, bias, act if len(self.parts) == 1 else None).view(rows, h, w, -1)
            else:
                y[:, lines.start : lines.stop].add_(down(patches).view(rows, n, w, -1))
        assert y is not None
        if not whole and bias is not None:
            y = y.add_(bias)
        return (y if whole and len(self.parts) == 1 else applied(y, act)).permute(0, 3, 1, 2)

    def _up(self, x: Tensor) -> Tensor:
        """The small map times the weight, each result's patch added in its place of the large map."""
        (h, w), (p, q), (s, t), (k, r) = self.small, self.padding, self.stride, self.kernel
        x = x.permute(0, 2, 3, 1)
        rows, (height, width) = len(x), self.large
        tall, wide = max((h - 1) * s + k, height + p), -(-max((w - 1) * t + r, width + q) // t)
        out: Tensor | None = None
        for (taps, lines), _, up in self.parts:
            n = len(lines)
            y = up(x[:, lines.start : lines.stop].reshape(rows * n * w, -1)).view(rows, n, w, len(taps), r, -1)
            if out is None:
                out = y.new_zeros(rows, tall, wide, t, y.shape[-1])
            for u, tap in enumerate(taps):
                at = lines.start * s + tap
                lines_of = out[:, at : at + (n - 1) * s + 1 : s]
                for v in range(0, r, t):  # the next t taps of a line meet columns of their own
                    some = min(t, r - v)
                    lines_of[:, :, v // t : v // t + w, :some].add_(y[:, :, :, u, v : v + some])
        assert out is not None
        out = out.view(rows, tall, wide * t, -1)[:, p : p + height, q : q + width]
        return channels_last(out.permute(0, 3, 1, 2))

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        if not self.transposed and self.bias_map is None:
            y = self._down(x, self.bias, self.act)
        else:
            y = self._up(x) if self.transposed else self._down(x)
            if self.bias is not None:
                y = y.add_(self.bias.reshape(-1, 1, 1))
            if self.bias_map is not None:
                y = y.add_(self.bias_map)
            y = applied(y, self.act)
        return y, y if self.act else None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        grad = masked(grad, kept, self.act)
        return self._down(grad) if self.transposed else self._up(grad)
