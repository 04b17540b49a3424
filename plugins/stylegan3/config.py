"""The recipe of a StyleGAN3 generator: its constructor arguments with defaults and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentshift.errors import DamagedFileError

from ..stylegan2.config import MAX_CHANNELS, MAX_DIM, Arguments, MappingConfig


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """w to image, alias-free. Cutoffs are in cycles per image."""

    w_dim: int
    resolution: int
    channels: int
    channel_base: float = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256

    @property
    def num_ws(self) -> int:
        return self.num_layers + 2


def read_generator(values: Any, *, where: str) -> tuple[MappingConfig, SynthesisConfig]:
    """Return the two recipes of a StyleGAN3 generator from its `_init_kwargs`."""
    a = Arguments(values, where)
    z_dim, c_dim = a.integer("z_dim", None, 0, MAX_DIM), a.integer("c_dim", 0, 0, MAX_DIM)
    w_dim = a.integer("w_dim", None, 1, MAX_DIM)
    m = a.table("mapping_kwargs")
    m.values.setdefault("num_layers", 2)
    allowed = {"num_layers", "lr_multiplier", "w_avg_beta"}
    if set(m.values) - allowed:
        raise DamagedFileError(f"unknown mapping arguments {', '.join(sorted(set(m.values) - allowed))[:200]}", where=where)
    mapping = MappingConfig.read(m, z_dim=z_dim, c_dim=c_dim, w_dim=w_dim)
    if z_dim + c_dim == 0:
        raise DamagedFileError("a generator without any input", where=where)
    a.ignore("num_fp16_res", "magnitude_ema_beta")
    synthesis = SynthesisConfig(
        w_dim=w_dim,
        resolution=a.integer("img_resolution", None, 16, 4096),
        channels=a.integer("img_channels", None, 1, MAX_CHANNELS),
        channel_base=a.number("channel_base", 32768, 1, 1 << 24),
        channel_max=a.integer("channel_max", 512, 1, MAX_CHANNELS),
        num_layers=a.integer("num_layers", 14, 2, 64),
        num_critical=a.integer("num_critical", 2, 0, 64),
        first_cutoff=a.number("first_cutoff", 2, 0.01, 2048),
        first_stopband=a.number("first_stopband", 2**2.1, 0.01, 4096),
        last_stopband_rel=a.number("last_stopband_rel", 2**0.3, 0.5, 8),
        margin_size=a.integer("margin_size", 10, 0, 256),
        output_scale=a.number("output_scale", 0.25, -1e6, 1e6),
        conv_kernel=a.integer("conv_kernel", 3, 1, 7),
        filter_size=a.integer("filter_size", 6, 1, 32),
        lrelu_upsampling=a.integer("lrelu_upsampling", 2, 1, 8),
        use_radial_filters=a.flag("use_radial_filters", False),
        conv_clamp=a.optional("conv_clamp", 256, 1e-9, 1e9),
    )
    a.done()
    if synthesis.num_critical >= synthesis.num_layers:
        raise DamagedFileError(f"{synthesis.num_critical} critical layers of {synthesis.num_layers}", where=where)
    return mapping, synthesis
