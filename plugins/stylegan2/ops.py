"""The arithmetic that StyleGAN2 and StyleGAN3 share: biased activations, FIR resampling, scaled linear layers.

Resampling is never done by inserting zeros: going up by u, each of the u output phases is a short correlation with every u-th
tap, and going down is a strided correlation. All are depthwise convolutions, one axis at a time where the filter allows it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: activation -> default gain
GAINS: dict[str, float] = {
    "linear": 1.0, "relu": math.sqrt(2), "lrelu": math.sqrt(2), "tanh": 1.0, "sigmoid": 1.0, "elu": 1.0, "selu": 1.0,
    "softplus": 1.0, "swish": math.sqrt(2),
}  # fmt: skip
_HOMOGENEOUS = ("linear", "relu", "lrelu")


def activate(x: Tensor, act: str, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    """Return clip(gain * default_gain(act) * act(x), -clamp, clamp). May overwrite x, which must be a fresh tensor.

    `hardtanh` is the clip whose gradient is one pass over the map, where that of `clamp` is three.
    """
    gain *= GAINS[act]
    if act in _HOMOGENEOUS:  # gain commutes; scale first so that the activation can work in place
        x = x * gain if gain != 1 else x
        x = F.leaky_relu_(x, 0.2) if act == "lrelu" else F.relu_(x) if act == "relu" else x
    else:
        x = _smooth(x, act)
        x = x * gain if gain != 1 else x
    return x if clamp is None else F.hardtanh(x, -clamp, clamp)


def _smooth(x: Tensor, act: str) -> Tensor:
    if act == "swish":
        return F.silu(x)
    if act == "elu":
        return F.elu(x)
    if act == "selu":
        return F.selu(x)
    if act == "softplus":
        return F.softplus(x)
    return torch.tanh(x) if act == "tanh" else torch.sigmoid(x)


def scaled_activate(
    y: Tensor,
    scale: Tensor | float,
    bias: Tensor | None,
    act: str,
    gain: float,
    clamp: float | None,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the biased activation of scale * y + noise + bias for (rows, C, H, W).

    `scale` is a number or (rows, C); `bias` is (C,); `noise` broadcasts. Gains of homogeneous activations are folded into the
    small factors, so that scaling and bias are one pass over the feature map.
    """
    fold = gain * GAINS[act] if act in _HOMOGENEOUS else 1.0
    if isinstance(scale, Tensor):
        factor = (scale * fold if fold != 1 else scale)[:, :, None, None]
        y = y * factor if bias is None else torch.addcmul((bias * fold)[None, :, None, None], y, factor)
    else:
        factor_ = scale * fold
        y = y * factor_ if bias is None else torch.add((bias * fold)[None, :, None, None], y, alpha=factor_)
    if noise is not None:
        y = y + (noise * fold if fold != 1 else noise)
    if act in _HOMOGENEOUS:
        y = F.leaky_relu_(y, 0.2) if act == "lrelu" else F.relu_(y) if act == "relu" else y
        return y if clamp is None else F.hardtanh(y, -clamp, clamp)
    return activate(y, act, gain, clamp)


class Linear(nn.Module):
    """(rows, in) -> (rows, out): act(x (g W)^T + m b) with g = m / sqrt(in); m is the learning-rate multiplier."""

    def __init__(self, in_features: int, out_features: int, act: str = "linear", multiplier: float = 1.0) -> None:
        super().__init__()
        self.act = act
        self.multiplier = multiplier
        self.gain = multiplier / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))

    def forward(self, x: Tensor) -> Tensor:
        fold = GAINS[self.act] if self.act in _HOMOGENEOUS else 1.0
        scale = self.multiplier * fold
        y = torch.addmm(self.bias if scale == 1 else self.bias * scale, x, self.weight.t(), alpha=self.gain * fold)
        if fold != 1:
            return F.leaky_relu_(y, 0.2) if self.act == "lrelu" else F.relu_(y)
        return activate(y, self.act)


def normalise(x: Tensor) -> Tensor:
    """Divide each row by the root of its mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


# -- resampling ------------------------------------------------------------------------------------------------------------


def factor(f: Tensor) -> Tensor | None:
    """Return taps t with outer(t, t) equal to the 2-D filter bit by bit (in float64), or None where there are none."""
    wide = f.double()
    total = wide.sum()
    if total <= 0:
        return None
    taps = wide.sum(0) / total.sqrt()
    return taps if torch.equal(torch.outer(taps, taps), wide) else None


def _axis(x: Tensor, taps: Tensor, axis: int, up: int, down: int, lo: int, hi: int) -> Tensor:
    """Resample one axis (2 or 3): zero-stuffing by `up`, padding, true convolution, keeping every `down`-th sample."""
    g = taps.flip(0)
    t = len(g)
    n = x.shape[axis]
    length = (n * up + lo + hi - t) // down + 1
    if up == 1:
        if t == 1 and down == 1:
            x = _pad(x, axis, lo, hi)
            return x * g[0] if float(g[0]) != 1.0 else x
        return _depthwise(_pad(x, axis, lo, hi), g[None], axis, down)
    if down != 1:
        return _axis(_axis(x, taps, axis, up, 1, lo, hi), taps.new_ones(1), axis, 1, down, 0, 0)
    # y[up m + q] = sum over a of g[up a + r] x[m + a + o], with r = (lo - q) mod up and o = (q + r - lo) / up
    spans = [(q, (lo - q) % up) for q in range(up)]
    first = min((q + r - lo) // up for q, r in spans)
    width = max(-(-(t - r) // up) + (q + r - lo) // up - first for q, r in spans)
    kernels = g.new_zeros(up, width)
    for q, r in spans:
        part = g[r::up]
        at = (q + r - lo) // up - first
        kernels[q, at : at + len(part)] = part
    rows = -(-length // up)
    y = _depthwise(_pad(x, axis, -first, rows + width - 1 - n + first), kernels, axis, 1)
    shape = list(x.shape)
    if axis == 3:
        y = y.reshape(shape[0], shape[1], up, shape[2], rows).permute(0, 1, 3, 4, 2).reshape(*shape[:3], rows * up)
    else:
        y = y.reshape(shape[0], shape[1], up, rows, shape[3]).transpose(2, 3).reshape(*shape[:2], rows * up, shape[3])
    return y if rows * up == length else y.narrow(axis, 0, length)


def _pad(x: Tensor, axis: int, lo: int, hi: int) -> Tensor:
    if lo == 0 and hi == 0:
        return x
    return F.pad(x, (lo, hi) if axis == 3 else (0, 0, lo, hi))  # negative: crop


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return a convolution of stride 1 that keeps the size: (N, C, H, W) by (out, C, k, k).

    A 1x1 one of float32 on a CPU is a product of places by channels: with hundreds of channels oneDNN's convolution, or its
    gradient, gives a row other last bits in a call of 8 than in one of 16.
    """
    k = weight.shape[2]
    if k > 1 or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.conv2d(x, weight, padding=k // 2)
    return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0]).permute(0, 3, 1, 2)


def _depthwise(x: Tensor, kernels: Tensor, axis: int, stride: int) -> Tensor:
    """Correlate each channel with each of (k, taps) kernels along one axis: (N, C, ...) -> (N, C k, ...)."""
    channels = x.shape[1]
    k, t = kernels.shape
    w = kernels.to(x.dtype).repeat(channels, 1)
    shape = (channels * k, 1, 1, t) if axis == 3 else (channels * k, 1, t, 1)
    return F.conv2d(x, w.reshape(shape), stride=(1, stride) if axis == 3 else (stride, 1), groups=channels)


def resample(
    x: Tensor, f: Tensor | None, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """Resample both axes of (N, C, H, W) with the filter f: 1-D taps (applied along each axis), 2-D, or None (one tap of 1).

    `pad` is (before, after) on both axes in samples of the up-sampled signal; negative values crop. The filter is convolved,
    not correlated; `gain` multiplies the result.
    """
    taps = x.new_ones(1) if f is None else f if f.ndim == 1 else None
    lo, hi = pad
    if taps is not None:
        taps = taps * math.sqrt(gain) if gain != 1 else taps
        return _axis(_axis(x, taps, 3, up, down, lo, hi), taps, 2, up, down, lo, hi)
    assert f is not None
    if up > 1:
        n, c, h, w = x.shape
        wide = x.new_zeros(n, c, h, up, w, up)
        wide[:, :, :, 0, :, 0] = x
        x = wide.reshape(n, c, h * up, w * up)
    x = F.pad(x, (lo, hi, lo, hi)) if lo or hi else x
    kernel = (f.flip(0, 1) * gain).to(x.dtype).expand(x.shape[1], 1, *f.shape)
    return F.conv2d(x, kernel, stride=down, groups=x.shape[1])


class Filter(nn.Module):
    """Holds a file's `resample_filter` buffer and its exact 1-D form, found again whenever the buffer changes."""

    resample_filter: Tensor

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.register_buffer("resample_filter", torch.empty((taps,) if taps >= 8 else (taps, taps)))
        self._thin: tuple[tuple[object, ...], Tensor] | None = None

    @property
    def taps(self) -> int:
        return int(self.resample_filter.shape[0])

    def thin(self) -> Tensor:
        """Return the taps (1-D) where the filter is exactly their outer product, else the filter as it is."""
        f = self.resample_filter
        key = (f.data_ptr(), f._version, f.dtype, f.device)
        if self._thin is None or self._thin[0] != key:
            taps = factor(f) if f.ndim == 2 else None
            self._thin = (key, f if taps is None else taps.to(f.dtype))
        return self._thin[1]
