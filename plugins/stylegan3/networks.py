"""The StyleGAN3 synthesis network (T and R): Fourier features, modulated convolutions, filtered nonlinearities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from latentshift.errors import ShapeError

from ..stylegan2.networks import Modulated, project
from ..stylegan2.ops import Linear, convolved, resample
from .config import SynthesisConfig
from .filters import Plan, table


class Input(nn.Module):
    """Fourier features that w rotates and shifts, then a mix of channels: (rows, w_dim) -> (rows, C, n, n)."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, channels: int, size: int, rate: float, bandwidth: float) -> None:
        super().__init__()
        self.size, self.rate, self.bandwidth, self.channels = size, rate, bandwidth, channels
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.affine = Linear(w_dim, 4)
        self.register_buffer("transform", torch.empty(3, 3))
        self.register_buffer("freqs", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))

    def forward(self, w: Tensor) -> Tensor:
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, tx, ty = t.unbind(1)
        # Rot . Trans . transform, the first two multiplied out
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        m = (
            torch.stack([cos, -sin, -cos * tx + sin * ty, sin, cos, -sin * tx - cos * ty, zero, zero, one], dim=1).reshape(
                -1, 3, 3
            )
            @ self.transform
        )
        freqs = self.freqs @ m[:, :2, :2]
        phases = self.phases + (self.freqs @ m[:, :2, 2:])[:, :, 0]
        amplitude = (1 - (freqs.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)).clamp(0, 1)
        n = self.size
        grid = ((2 * torch.arange(n, dtype=t.dtype, device=t.device) + 1) / n - 1) * (0.5 * n / self.rate)
        x = freqs[:, :, 0, None, None] * grid[None, None, None, :]
        y = freqs[:, :, 1, None, None] * grid[None, None, :, None]
        waves = torch.sin(2 * math.pi * (x + y + phases[:, :, None, None])) * amplitude[:, :, None, None]
        mix = (self.weight / math.sqrt(self.channels))[:, :, None, None]
        return convolved(waves, mix)


class Layer(Modulated):
    """Modulated convolution, bias, and a leaky ReLU at a higher rate between two low-pass filters (ToRGB: none)."""

    up_filter: Tensor | None
    down_filter: Tensor | None
    magnitude_ema: Tensor

    def __init__(self, plan: Plan, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.plan, self.clamp = plan, clamp
        self.affine = Linear(w_dim, plan.c_in)
        self.weight = nn.Parameter(torch.empty(plan.c_out, plan.c_in, plan.kernel, plan.kernel))
        self.bias = nn.Parameter(torch.empty(plan.c_out))
        self.register_buffer("magnitude_ema", torch.empty(()))
        self.register_buffer("up_filter", torch.empty(plan.up_taps) if plan.up_taps > 1 else None)
        down = (plan.down_taps,) * (2 if plan.radial else 1)
        self.register_buffer("down_filter", torch.empty(down) if plan.down_taps > 1 else None)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        p = self.plan
        s = self.affine(w)
        gain = self.magnitude_ema.rsqrt()
        if p.is_torgb:
            x = project(x, self.weight, s * (gain / math.sqrt(p.c_in)), self.bias)
        else:
            # The published style norm is over the whole batch and cancels in the demodulation but for its eps of 1e-8. In
            # single precision that is below rounding, and a row's own norm keeps rows apart; in double it can be seen (1e-10).
            power = s.square().mean(1, keepdim=True)
            s = s * (power.mean() if s.dtype is torch.float64 else power).rsqrt()
            q = self.squares()
            a = (q.mean(1) / p.kernel**2).rsqrt()  # 1 / root mean square of each output channel's weights
            d = a * (s.square() @ (q * a.square()[:, None]).t() + 1e-8).rsqrt() * gain
            x = x * s[:, :, None, None]
            x = convolved(x, self.weight) if p.kernel == 1 else F.conv2d(x, self.weight, padding=p.kernel - 1)
            x = torch.addcmul(self.bias[None, :, None, None], x, d[:, :, None, None])
        slope = 1.0 if p.is_torgb else 0.2
        # The gain of the nonlinearity commutes with it and rides on the filter.
        x = resample(x, self.up_filter, up=p.up, pad=p.pad, gain=p.up**2 * (1.0 if p.is_torgb else math.sqrt(2)))
        if slope != 1:
            x = F.leaky_relu_(x, slope)
        if self.clamp is not None:
            x = F.hardtanh(x, -self.clamp, self.clamp)
        return resample(x, self.down_filter, down=p.down)


class Synthesis(nn.Module):
    """ws (rows, num_ws, w_dim) to images (rows, channels, resolution, resolution). There is no noise.

    `recompute`: in a backward pass compute each layer again instead of keeping its high-rate activations, which take most of
    the memory; None decides by size.
    """

    def __init__(self, config: SynthesisConfig) -> None:
        super().__init__()
        self.config = config
        self.num_ws = config.num_ws
        t = table(config)
        self.input = Input(config.w_dim, t.channels[0], t.sizes[0], t.rates[0], t.cutoffs[0])
        self.plans = t.layers
        for plan in t.layers:
            self.add_module(plan.name, Layer(plan, config.w_dim, config.conv_clamp))
        self.recompute: bool | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the feature maps."""
        return getattr(self, self.plans[-1].name).weight.dtype  # type: ignore[no-any-return]

    def reduce(self, dtype: torch.dtype) -> None:
        """Let the layers work in another precision; the waves at the input keep theirs: their phases are fine."""
        for plan in self.plans:
            getattr(self, plan.name).to(dtype)

    def place(self, translate: tuple[float, float], rotate: float) -> None:
        """Set the input's transform: the image moves by `translate` (x, y, in image widths) and turns by `rotate` degrees."""
        a = math.radians(rotate)
        m = torch.tensor([[math.cos(a), math.sin(a), translate[0]], [-math.sin(a), math.cos(a), translate[1]], [0, 0, 1]])
        # The transform acts on the sampling grid: to move the image, move the grid the other way.
        self.input.transform.copy_(torch.linalg.inv(m.double()).to(self.input.transform))

    def forward(self, ws: Tensor, noise_mode: str = "const", noise: Sequence[Tensor] | None = None) -> Tensor:
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ShapeError(f"ws is {tuple(ws.shape)}, not (rows, {self.num_ws}, {self.config.w_dim})")
        if noise:
            raise ShapeError("StyleGAN3 has no noise maps")
        recompute = self.config.resolution >= 256 if self.recompute is None else self.recompute
        recompute = recompute and torch.is_grad_enabled() and ws.requires_grad
        styles = ws.unbind(1)
        x = self.input(styles[0].to(self.input.weight.dtype)).to(ws.dtype)
        for plan, w in zip(self.plans, styles[1:], strict=True):
            layer = getattr(self, plan.name)
            x = checkpoint(layer, x, w, use_reentrant=False, preserve_rng_state=False) if recompute else layer(x, w)
        images: Tensor = x if self.config.output_scale == 1 else x * self.config.output_scale
        return images
