"""The recipe of a StyleGAN2 network: every constructor argument with its default and its bounds.

Bounds are checked before anything is built: a file may declare a resolution of 2^20, and nothing of that size may be allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentshift.errors import DamagedFileError

from .ops import GAINS

MAX_DIM = 65_536
MAX_CHANNELS = 8_192
MAX_LAYERS = 64
ARCHITECTURES = ("orig", "skip", "resnet")


class Arguments:
    """Keyword arguments of a file, taken one by one with a check; what is left over is refused by name."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping) or not all(isinstance(k, str) for k in values):
            raise DamagedFileError("constructor arguments that are no table", where=where)
        self.values = dict(values)
        self.where = where

    def _bad(self, name: str, value: object) -> DamagedFileError:
        return DamagedFileError(f"the argument {name} is {str(value)[:60]}", where=self.where)

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        value = self.values.pop(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise self._bad(name, value)
        return value

    def number(self, name: str, default: float | None, low: float, high: float) -> float:
        value = self.values.pop(name, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise self._bad(name, value)
        return float(value)

    def optional(self, name: str, default: float | None, low: float, high: float) -> float | None:
        value = self.values.get(name, default)
        if value is None:
            self.values.pop(name, None)
            return None
        return self.number(name, default, low, high)

    def word(self, name: str, default: str, allowed: tuple[str, ...] | Mapping[str, Any]) -> str:
        value = self.values.pop(name, default)
        if not isinstance(value, str) or value not in allowed:
            raise self._bad(name, value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.pop(name, default)
        if type(value) is not bool:
            raise self._bad(name, value)
        return value

    def taps(self, name: str) -> int:
        """Return the number of taps along an axis: of a list, or of a square table of fewer than 8 (a filter in 2-D)."""
        value = self.values.pop(name, [1, 3, 3, 1])
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= 32:
            raise self._bad(name, value)
        square = len(value) < 8 and all(isinstance(row, list | tuple) and len(row) == len(value) for row in value)
        if any(type(v) not in (int, float) for v in ([v for row in value for v in row] if square else value)):
            raise self._bad(name, value)
        return len(value)

    def table(self, name: str) -> Arguments:
        return Arguments(self.values.pop(name, {}), f"{self.where}.{name}")

    def ignore(self, *names: str) -> None:
        """Drop arguments that change how fast a network runs and not what it computes."""
        for name in names:
            self.values.pop(name, None)

    def done(self) -> None:
        if self.values:
            names = ", ".join(sorted(self.values))[:200]
            raise DamagedFileError(
                f"unknown constructor arguments {names}", where=self.where,
                way_out="This is a network of another project; ignoring them would mean wrong images.",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MappingConfig:
    """Latent and label to w. `embed` is the width of the embedded label, `hidden` that of the layers between."""

    z_dim: int
    c_dim: int
    w_dim: int
    num_layers: int = 8
    embed: int = 0
    hidden: int = 0
    activation: str = "lrelu"
    lr_multiplier: float = 0.01
    has_average: bool = True

    @classmethod
    def read(cls, a: Arguments, *, z_dim: int, c_dim: int, w_dim: int, average: bool = True) -> MappingConfig:
        def width(name: str) -> int:
            value = a.values.pop(name, None)
            if value is None:
                return w_dim
            a.values[name] = value
            return a.integer(name, None, 1, MAX_DIM)

        beta = a.optional("w_avg_beta", 0.995 if average else None, 0, 1)
        config = cls(
            z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_layers=a.integer("num_layers", 8, 0, MAX_LAYERS),
            embed=width("embed_features") if c_dim else 0, hidden=width("layer_features"),
            activation=a.word("activation", "lrelu", GAINS), lr_multiplier=a.number("lr_multiplier", 0.01, 1e-9, 1e9),
            has_average=average and beta is not None,
        )  # fmt: skip
        a.ignore("embed_features")
        a.done()
        return config


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What G and D share: resolution, widths by resolution, architecture."""

    resolution: int
    channels: int
    channel_base: float = 32768
    channel_max: int = 512
    architecture: str = "skip"
    conv_clamp: float | None = None

    @property
    def resolutions(self) -> list[int]:
        """4, 8, ..., the resolution of the image."""
        return [2**i for i in range(2, int(math.log2(self.resolution)) + 1)]

    def width(self, resolution: int) -> int:
        """Return the number of channels at a resolution."""
        return min(int(self.channel_base / resolution), self.channel_max)

    def check(self, where: str) -> None:
        if self.resolution & (self.resolution - 1):
            raise DamagedFileError(f"the resolution {self.resolution} is no power of two", where=where)
        if min(self.width(r) for r in self.resolutions) < 1:
            raise DamagedFileError("a layer without channels", where=where)


def read_trunk(a: Arguments, *, architecture: str, clamp: float | None) -> dict[str, Any]:
    """Take the arguments of `Trunk` but for resolution and channels; `clamp` is the default that the file's layers show."""
    a.ignore("num_fp16_res", "fused_modconv_default")
    return {
        "channel_base": a.number("channel_base", 32768, 1, 1 << 24),
        "channel_max": a.integer("channel_max", 512, 1, MAX_CHANNELS),
        "architecture": a.word("architecture", architecture, ARCHITECTURES),
        "conv_clamp": a.optional("conv_clamp", clamp, 1e-9, 1e9),
    }


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig(Trunk):
    """w to image."""

    w_dim: int
    kernel_size: int = 3
    use_noise: bool = True
    activation: str = "lrelu"
    taps: int = 4

    @property
    def num_ws(self) -> int:
        return 2 * len(self.resolutions)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(Trunk):
    """Image and label to one number. `group` rows share a minibatch statistic (None: the whole batch), `planes` of them."""

    c_dim: int = 0
    cmap_dim: int = 0
    activation: str = "lrelu"
    taps: int = 4
    group: int | None = 4
    planes: int = 1
    head_activation: str = "lrelu"
    mapping: MappingConfig | None = None


def read_generator(values: Any, *, clamp: float | None, where: str) -> tuple[MappingConfig, SynthesisConfig]:
    """Return the two recipes of a StyleGAN2 generator from its `_init_kwargs` (nested or flat)."""
    a = Arguments(values, where)
    z_dim, c_dim = a.integer("z_dim", None, 0, MAX_DIM), a.integer("c_dim", 0, 0, MAX_DIM)
    w_dim = a.integer("w_dim", None, 1, MAX_DIM)
    resolution, channels = a.integer("img_resolution", None, 4, 4096), a.integer("img_channels", None, 1, MAX_CHANNELS)
    mapping = MappingConfig.read(a.table("mapping_kwargs"), z_dim=z_dim, c_dim=c_dim, w_dim=w_dim)
    if z_dim + c_dim == 0:
        raise DamagedFileError("a generator without any input", where=where)
    s = a.table("synthesis_kwargs") if "synthesis_kwargs" in a.values else a
    trunk = read_trunk(s, architecture="skip", clamp=clamp)
    s.ignore("fp16_channels_last")
    synthesis = SynthesisConfig(
        resolution=resolution, channels=channels, w_dim=w_dim, kernel_size=s.integer("kernel_size", 3, 1, 7),
        use_noise=s.flag("use_noise", True), activation=s.word("activation", "lrelu", GAINS),
        taps=s.taps("resample_filter"), **trunk,
    )  # fmt: skip
    s.done()
    a.done()
    synthesis.check(where)
    if synthesis.kernel_size % 2 == 0:
        raise DamagedFileError(f"an even kernel size {synthesis.kernel_size}", where=where)
    return mapping, synthesis


def read_discriminator(values: Any, *, clamp: float | None, where: str) -> DiscriminatorConfig:
    """Return the recipe of a discriminator from its `_init_kwargs`."""
    a = Arguments(values, where)
    c_dim = a.integer("c_dim", 0, 0, MAX_DIM)
    resolution, channels = a.integer("img_resolution", None, 4, 4096), a.integer("img_channels", None, 1, MAX_CHANNELS)
    trunk = read_trunk(a, architecture="resnet", clamp=clamp)
    shape = Trunk(resolution=resolution, channels=channels, **trunk)
    shape.check(where)
    if a.values.get("cmap_dim", 0) is None:
        a.ignore("cmap_dim")
    cmap_dim = a.integer("cmap_dim", shape.width(4), 0, MAX_DIM) if c_dim else 0
    if c_dim and not cmap_dim:
        raise DamagedFileError("D takes labels and ignores them (cmap_dim 0), which is not supported", where=where)
    a.ignore("cmap_dim")
    block, head, m = a.table("block_kwargs"), a.table("epilogue_kwargs"), a.table("mapping_kwargs")
    a.done()
    block.ignore("freeze_layers", "fp16_channels_last")
    group = head.optional("mbstd_group_size", 4, 1, MAX_DIM)
    mapping = MappingConfig.read(m, z_dim=0, c_dim=c_dim, w_dim=cmap_dim, average=False) if cmap_dim else None
    config = DiscriminatorConfig(
        resolution=resolution, channels=channels, **trunk, c_dim=c_dim, cmap_dim=cmap_dim, mapping=mapping,
        activation=block.word("activation", "lrelu", GAINS), taps=block.taps("resample_filter"),
        group=None if group is None else int(group), planes=head.integer("mbstd_num_channels", 1, 0, MAX_CHANNELS),
        head_activation=head.word("activation", "lrelu", GAINS),
    )  # fmt: skip
    block.done()
    head.done()
    if config.planes and config.width(4) % config.planes:
        raise DamagedFileError(f"{config.planes} minibatch channels do not divide {config.width(4)}", where=where)
    return config
