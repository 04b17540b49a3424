"""The StyleGAN2 generator: mapping network and synthesis network, unfused.

Modulation scales the input of one ordinary convolution and demodulation its output. The demodulation factor needs the squares
of the weights only as sums over the kernel window, `Q[o, i] = sum W[o, i]^2`, which are kept from call to call.
Equations: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentshift.errors import RequestError, ShapeError

from .config import MappingConfig, SynthesisConfig
from .ops import Filter, Linear, convolved, normalise, resample, scaled_activate

NoiseMode = Literal["const", "random", "none"]


class Mapping(nn.Module):
    """z (rows, z_dim) and label c (rows, c_dim) to w (rows, w_dim)."""

    w_avg: Tensor

    def __init__(self, config: MappingConfig) -> None:
        super().__init__()
        self.config = config
        if config.c_dim:
            self.embed = Linear(config.c_dim, config.embed)
        inner = [config.hidden] * max(0, config.num_layers - 1)
        widths = [config.z_dim + config.embed, *inner, config.w_dim] if config.num_layers else []
        for i, (a, b) in enumerate(pairwise(widths)):
            self.add_module(f"fc{i}", Linear(a, b, config.activation, config.lr_multiplier))
        self.layers = [f"fc{i}" for i in range(config.num_layers)]
        if config.has_average:
            self.register_buffer("w_avg", torch.empty(config.w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        config = self.config
        parts = []
        if config.z_dim:
            if z is None or z.ndim != 2 or z.shape[1] != config.z_dim:
                raise ShapeError(f"z is {None if z is None else tuple(z.shape)}, not (rows, {config.z_dim})")
            parts.append(normalise(z))
        if config.c_dim:
            if c is None:
                raise ShapeError("this network is conditional and got no labels", way_out="Give a class (--class).")
            if c.ndim != 2 or c.shape[1] != config.c_dim or (parts and len(c) != len(parts[0])):
                raise ShapeError(f"labels are {tuple(c.shape)}, not (rows, {config.c_dim})")
            parts.append(normalise(self.embed(c.to(self.embed.weight.dtype))))
        x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        for name in self.layers:
            x = self.get_submodule(name)(x)
        return x


class Modulated(nn.Module):
    """Shared by the layers of both generators: weights and their squares summed over the kernel window."""

    weight: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[tuple[object, ...], Tensor] | None = None

    def squares(self) -> Tensor:
        """Return Q (out, in), computed once for a frozen weight and again when its memory, version or dtype changes."""
        w = self.weight
        if w.requires_grad and torch.is_grad_enabled():
            return w.square().sum((2, 3))
        key = (w.data_ptr(), w._version, w.dtype, w.device)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, w.detach().square().sum((2, 3)))
        return self._kept[1]


class SynthesisLayer(Modulated):
    """Modulated convolution, up by 2 or not, noise, biased activation."""

    noise_const: Tensor

    def __init__(self, config: SynthesisConfig, c_in: int, c_out: int, resolution: int, up: int) -> None:
        super().__init__()
        k = config.kernel_size
        self.resolution, self.up, self.act, self.clamp, self.use_noise = (
            resolution, up, config.activation, config.conv_clamp, config.use_noise,
        )  # fmt: skip
        self.affine = Linear(config.w_dim, c_in)
        self.weight = nn.Parameter(torch.empty(c_out, c_in, k, k))
        if config.use_noise:
            self.register_buffer("noise_const", torch.empty(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(c_out))
        # conv1 stores the default filter and never uses it; the name is part of the file.
        self.fir = Filter(config.taps if up > 1 else 4)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        s = self.affine(w)
        x = x * s[:, :, None, None]
        k = self.weight.shape[2]
        if self.up == 2:
            t = self.fir.taps
            # A transposed convolution is the zero-stuffed one with both kernel axes flipped, as this layer wants it.
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            lo = k // 2 + (t + 1) // 2 - (k - 1)
            pad = (lo, t + 1 - k - lo)
            x = resample(x, self.fir.thin(), pad=pad, gain=4)
        else:
            x = convolved(x, self.weight)
        d = (s.square() @ self.squares().t() + 1e-8).rsqrt()
        return scaled_activate(x, d, self.bias, self.act, gain, self.clamp if self.clamp is None else self.clamp * gain, noise)

    def noise(self, mode: NoiseMode, rows: int, given: Tensor | None) -> Tensor | None:
        """Return the noise to add, (1 or rows, 1, r, r), or None."""
        if not self.use_noise or (mode == "none" and given is None):
            return None
        r = self.resolution
        if given is not None:
            if given.numel() % (r * r) or given.shape[-2:] != (r, r):
                raise ShapeError(f"a noise map is {tuple(given.shape)}, not (rows, 1, {r}, {r})")
            n = given.reshape(-1, 1, r, r)
        elif mode == "random":
            n = torch.randn(rows, 1, r, r, dtype=self.noise_const.dtype, device=self.noise_const.device)
        else:
            n = self.noise_const[None, None]
        return n * self.noise_strength


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, as one small matrix product a row."""

    def __init__(self, config: SynthesisConfig, c_in: int) -> None:
        super().__init__()
        self.clamp = config.conv_clamp
        self.gain = 1 / math.sqrt(c_in)
        self.affine = Linear(config.w_dim, c_in)
        self.weight = nn.Parameter(torch.empty(config.channels, c_in, 1, 1))
        self.bias = nn.Parameter(torch.empty(config.channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y = project(x, self.weight, self.affine(w) * self.gain, self.bias)
        return y if self.clamp is None else F.hardtanh(y, -self.clamp, self.clamp)


def project(x: Tensor, weight: Tensor, s: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution of (rows, C, H, W) with weight (out, C, 1, 1) scaled a row by s (rows, C), plus bias."""
    rows, channels, height, width = x.shape
    kernels = weight.reshape(1, -1, channels) * s[:, None, :]
    y = torch.baddbmm(bias[None, :, None], kernels, x.reshape(rows, channels, height * width))
    return y.reshape(rows, -1, height, width)


class Skip(nn.Module):
    """The 1x1 branch of a residual block: up by 2 after the kernel or down by 2 before it, no bias."""

    def __init__(self, c_in: int, c_out: int, taps: int, *, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.up, self.down, self.scale = up, down, math.sqrt(0.5 / c_in)
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 1, 1))
        self.fir = Filter(taps)

    def forward(self, x: Tensor) -> Tensor:
        f, t = self.fir.thin(), self.fir.taps
        if self.up == 2:
            return resample(convolved(x, self.weight * self.scale), f, up=2, pad=((t + 1) // 2, (t - 2) // 2), gain=4)
        return convolved(resample(x, f, down=2, pad=((t - 1) // 2, (t - 2) // 2)), self.weight * self.scale)


class SynthesisBlock(nn.Module):
    """One resolution: conv0 (up by 2, not in the first), conv1, and a ToRGB where the architecture has one."""

    def __init__(self, config: SynthesisConfig, resolution: int) -> None:
        super().__init__()
        self.config, self.resolution = config, resolution
        self.first = resolution == 4
        width = config.width(resolution)
        self.fir = Filter(config.taps)
        if self.first:
            self.const = nn.Parameter(torch.empty(width, 4, 4))
        else:
            self.conv0 = SynthesisLayer(config, config.width(resolution // 2), width, resolution, 2)
        self.conv1 = SynthesisLayer(config, width, width, resolution, 1)
        self.has_rgb = config.architecture == "skip" or resolution == config.resolution
        if self.has_rgb:
            self.torgb = ToRGB(config, width)
        if not self.first and config.architecture == "resnet":
            self.skip = Skip(config.width(resolution // 2), width, config.taps, up=2)

    def layers(self) -> list[SynthesisLayer]:
        return [self.conv1] if self.first else [self.conv0, self.conv1]

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Sequence[Tensor], noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        if x is None:
            x = self.conv1(self.const[None].expand(len(ws[0]), -1, -1, -1), ws[0], noise[0])
        elif self.config.architecture == "resnet":
            y = self.skip(x)
            x = y + self.conv1(self.conv0(x, ws[0], noise[0]), ws[1], noise[1], math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x, ws[0], noise[0]), ws[1], noise[1])
        if image is not None:
            t = self.fir.taps
            image = resample(image, self.fir.thin(), up=2, pad=((t + 1) // 2, (t - 2) // 2), gain=4)
        if self.has_rgb:
            rgb = self.torgb(x, ws[-1])
            image = rgb if image is None else image + rgb
        return x, image


class Synthesis(nn.Module):
    """ws (rows, num_ws, w_dim) to images (rows, channels, resolution, resolution), about [-1, 1], not clamped."""

    def __init__(self, config: SynthesisConfig) -> None:
        super().__init__()
        self.config = config
        self.num_ws = config.num_ws
        for r in config.resolutions:
            self.add_module(f"b{r}", SynthesisBlock(config, r))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the feature maps."""
        return self.b4.const.dtype  # type: ignore[union-attr, return-value]

    def reduce(self, dtype: torch.dtype) -> None:
        """Work in another precision."""
        self.to(dtype)

    def blocks(self) -> list[SynthesisBlock]:
        return [getattr(self, f"b{r}") for r in self.config.resolutions]

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of each noise map, in the order in which they are added; empty where the network has none."""
        return [(m.resolution, m.resolution) for b in self.blocks() for m in b.layers() if m.use_noise]

    def forward(self, ws: Tensor, noise_mode: NoiseMode = "const", noise: Sequence[Tensor] | None = None) -> Tensor:
        """Return images. `noise` gives one map a layer, (rows, 1, r, r) before its strength, and overrides the mode."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ShapeError(f"ws is {tuple(ws.shape)}, not (rows, {self.num_ws}, {self.config.w_dim})")
        if noise_mode not in ("const", "random", "none"):
            raise RequestError(f"unknown noise mode {noise_mode!r}", way_out="Known: const, random, none.")
        if noise is not None and len(noise) != len(self.noise_shapes):
            raise ShapeError(f"{len(noise)} noise maps, not {len(self.noise_shapes)}")
        given = iter(noise) if noise is not None else None
        x: Tensor | None = None
        image: Tensor | None = None
        at = 0
        for block in self.blocks():
            layers = block.layers()
            maps = [m.noise(noise_mode, len(ws), next(given) if given and m.use_noise else None) for m in layers]
            styles = ws[:, at : at + len(layers) + 1].unbind(1)
            at += len(layers)
            x, image = block(x, image, styles, maps)
        assert image is not None
        return image


class Generator(nn.Module):
    """Mapping and synthesis of either StyleGAN under one interface.

    z (rows, z_dim), c (rows, c_dim) or None -> ws (rows, num_ws, w_dim) -> images (rows, channels, resolution, resolution).
    """

    def __init__(self, mapping: Mapping, synthesis: nn.Module, *, num_ws: int, resolution: int, channels: int) -> None:
        super().__init__()
        self.mapping_net, self.synthesis_net = mapping, synthesis
        config = mapping.config
        self.z_dim, self.c_dim, self.w_dim = config.z_dim, config.c_dim, config.w_dim
        self.num_ws, self.resolution, self.channels = num_ws, resolution, channels

    @property
    def w_avg(self) -> Tensor | None:
        """Mean of w over training, (w_dim,), or None where the file has none."""
        return self.mapping_net.w_avg if self.mapping_net.config.has_average else None

    @property
    def synthesis_dtype(self) -> torch.dtype:
        """The precision that the synthesis network works in."""
        net: Any = self.synthesis_net
        dtype: torch.dtype = net.dtype
        return dtype

    def reduce_synthesis(self, dtype: torch.dtype) -> None:
        """Let the synthesis network work in another precision."""
        net: Any = self.synthesis_net
        net.reduce(dtype)

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of the noise maps; empty for StyleGAN3."""
        return list(getattr(self.synthesis_net, "noise_shapes", []))

    def mapping(
        self, z: Tensor | None, c: Tensor | None = None, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Tensor:
        """Return ws. Rows 0 to cutoff - 1 (all where None) are drawn towards w_avg by `truncation_psi`."""
        ws = self.mapping_net(z, c)[:, None, :].expand(-1, self.num_ws, -1)
        return self.truncate(ws, truncation_psi, truncation_cutoff)

    def truncate(self, ws: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Return ws with its first `cutoff` rows moved to w_avg + psi (w - w_avg)."""
        if psi == 1:
            return ws
        if self.w_avg is None:
            raise RequestError("this network has no average w, so it cannot be truncated", way_out="Leave out --trunc.")
        if cutoff is None:
            return self.w_avg.lerp(ws, psi)
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], psi), ws[:, cutoff:]], 1)

    def synthesis(self, ws: Tensor, noise_mode: NoiseMode = "const", noise: Sequence[Tensor] | None = None) -> Tensor:
        """Return images for ws."""
        images: Tensor = self.synthesis_net(ws, noise_mode, noise)
        return images

    def place(self, translate: tuple[float, float], rotate: float) -> None:
        """Move and turn the images of a StyleGAN3 (image widths, degrees); others cannot."""
        place = getattr(self.synthesis_net, "place", None)
        if place is None:
            raise RequestError("only a StyleGAN3 can move its images", way_out="Leave out --translate and --rotate.")
        place(translate, rotate)

    def forward(self, z: Tensor | None, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        return self.synthesis(self.mapping(z, c, truncation_psi))
