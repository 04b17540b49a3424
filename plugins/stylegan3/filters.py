"""The layer table and the low-pass filters of StyleGAN3, from its constructor arguments alone.

A file stores the results too; both are computed and compared, so a file that contradicts itself is found.
Source: Karras et al., "Alias-Free Generative Adversarial Networks" (2021), section 3 and appendix C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .config import SynthesisConfig

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """One layer: rates in samples per unit image, sizes in pixels, `pad` (before, after) at the temporary rate."""

    name: str
    is_torgb: bool
    critical: bool
    c_in: int
    c_out: int
    in_size: int
    out_size: int
    in_rate: int
    out_rate: int
    tmp_rate: int
    in_cutoff: float
    out_cutoff: float
    in_half: float
    out_half: float
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool
    pad: tuple[int, int]


@dataclass(frozen=True)
class Table:
    """Cutoffs, sampling rates, half-widths, sizes and channels for i = 0..num_layers, and the layers themselves."""

    cutoffs: list[float]
    rates: list[int]
    halves: list[float]
    sizes: list[int]
    channels: list[int]
    layers: list[Plan]


def table(c: SynthesisConfig) -> Table:
    """Return the layer table of a StyleGAN3 synthesis network."""
    n, last = c.num_layers, c.resolution / 2
    e = np.minimum(np.arange(n + 1) / (n - c.num_critical), 1)
    cutoffs = c.first_cutoff * (last / c.first_cutoff) ** e
    stops = c.first_stopband * (last * c.last_stopband_rel / c.first_stopband) ** e
    rates = np.exp2(np.ceil(np.log2(np.minimum(stops * 2, c.resolution))))
    halves = np.maximum(stops, rates / 2) - cutoffs
    sizes = rates + c.margin_size * 2
    sizes[-2:] = c.resolution
    channels = np.rint(np.minimum((c.channel_base / 2) / cutoffs, c.channel_max))
    channels[-1] = c.channels
    out = Table(
        [float(v) for v in cutoffs], [int(v) for v in rates], [float(v) for v in halves], [int(v) for v in sizes],
        [int(v) for v in channels], [],
    )  # fmt: skip
    out.layers.extend(_plan(c, out, i) for i in range(n + 1))
    return out


def _plan(c: SynthesisConfig, t: Table, i: int) -> Plan:
    p, rgb, critical = max(i - 1, 0), i == c.num_layers, i >= c.num_layers - c.num_critical
    kernel = 1 if rgb else c.conv_kernel
    tmp = max(t.rates[p], t.rates[i]) * (1 if rgb else c.lrelu_upsampling)
    up, down = tmp // t.rates[p], tmp // t.rates[i]
    up_taps = c.filter_size * up if up > 1 and not rgb else 1
    down_taps = c.filter_size * down if down > 1 and not rgb else 1
    total = (t.sizes[i] - 1) * down + 1 - (t.sizes[p] + kernel - 1) * up + up_taps + down_taps - 2
    lo = (total + up) // 2
    return Plan(
        name=f"L{i}_{t.sizes[i]}_{t.channels[i]}", is_torgb=rgb, critical=critical, c_in=t.channels[p], c_out=t.channels[i],
        in_size=t.sizes[p], out_size=t.sizes[i], in_rate=t.rates[p], out_rate=t.rates[i], tmp_rate=tmp,
        in_cutoff=t.cutoffs[p], out_cutoff=t.cutoffs[i], in_half=t.halves[p], out_half=t.halves[i], kernel=kernel,
        up=up, down=down, up_taps=up_taps, down_taps=down_taps, radial=c.use_radial_filters and not critical,
        pad=(lo, total - lo),
    )  # fmt: skip


def low_pass(taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False) -> torch.Tensor | None:
    """Return a Kaiser low-pass filter in float64, (taps,) or (taps, taps) where radial, of sum 1; None for one tap."""
    if taps == 1:
        return None
    m = np.arange(taps) - (taps - 1) / 2
    a = 2.285 * (taps - 1) * math.pi * (width / (rate / 2)) + 7.95
    beta = 0.1102 * (a - 8.7) if a > 50 else 0.5842 * (a - 21) ** 0.4 + 0.07886 * (a - 21) if a > 21 else 0.0
    window: Array = np.i0(beta * np.sqrt(np.maximum(1 - (2 * m / (taps - 1)) ** 2, 0))) / np.i0(np.float64(beta))
    if not radial:
        h: Array = np.sinc(2 * cutoff * m / rate) * window
        return torch.from_numpy(h / h.sum())
    r = np.hypot(*np.meshgrid(m / rate, m / rate))
    bessel = torch.special.bessel_j1(torch.from_numpy(2 * math.pi * cutoff * r)).numpy()
    f: Array = bessel / (math.pi * r) * np.outer(window, window)
    return torch.from_numpy(f / f.sum())


def filters(plan: Plan) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the up and the down filter of a layer as its numbers give them."""
    up = low_pass(plan.up_taps, plan.in_cutoff, 2 * plan.in_half, plan.tmp_rate)
    down = low_pass(plan.down_taps, plan.out_cutoff, 2 * plan.out_half, plan.tmp_rate, radial=plan.radial)
    return up, down
