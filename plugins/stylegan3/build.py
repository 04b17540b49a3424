"""A StyleGAN3 generator on the meta device from a record's constructor arguments, with what the file must say."""

from __future__ import annotations

import torch

from latentshift.errors import DamagedFileError

from ..stylegan2.build import Facts, linear_facts, mapping_facts
from ..stylegan2.container import Record
from ..stylegan2.networks import Generator, Mapping
from .config import read_generator
from .filters import Plan, filters
from .networks import Synthesis


def generator(record: Record, where: str) -> tuple[Generator, Facts, str]:
    """Return an empty StyleGAN3 generator, its facts, and 'stylegan3-t' or 'stylegan3-r'."""
    mapping, config = read_generator(record.init_kwargs, where=where)
    with torch.device("meta"):
        m, s = Mapping(mapping), Synthesis(config)
    g = Generator(m, s, num_ws=s.num_ws, resolution=config.resolution, channels=config.channels)
    common = {"img_resolution": config.resolution, "img_channels": config.channels, "w_dim": config.w_dim, "num_ws": s.num_ws}
    names = [p.name for p in s.plans]
    facts: Facts = {
        "": ("Generator", {**common, "z_dim": mapping.z_dim, "c_dim": mapping.c_dim}),
        "synthesis": ("SynthesisNetwork", {
            **common, "num_layers": config.num_layers, "num_critical": config.num_critical, "margin_size": config.margin_size,
            "output_scale": config.output_scale, "layer_names": names,
        }),
        "synthesis.input": ("SynthesisInput", {
            "channels": s.input.channels, "size": [s.input.size] * 2, "sampling_rate": s.input.rate,
            "bandwidth": s.input.bandwidth,
        }),
        **mapping_facts(m, "mapping"),
        **linear_facts(s, "synthesis."),
    }  # fmt: skip
    for plan in s.plans:
        facts[f"synthesis.{plan.name}"] = ("SynthesisLayer", {**_layer(plan), "conv_clamp": config.conv_clamp})
        _check_filters(record, plan, where)
    family = "stylegan3-r" if config.conv_kernel == 1 and config.use_radial_filters else "stylegan3-t"
    return g, facts, family


def _layer(p: Plan) -> dict[str, object]:
    return {
        "is_torgb": p.is_torgb, "is_critically_sampled": p.critical, "in_channels": p.c_in, "out_channels": p.c_out,
        "in_size": [p.in_size] * 2, "out_size": [p.out_size] * 2, "in_sampling_rate": p.in_rate,
        "out_sampling_rate": p.out_rate,
        "tmp_sampling_rate": p.tmp_rate, "in_cutoff": p.in_cutoff, "out_cutoff": p.out_cutoff, "in_half_width": p.in_half,
        "out_half_width": p.out_half, "conv_kernel": p.kernel, "up_factor": p.up, "down_factor": p.down, "up_taps": p.up_taps,
        "down_taps": p.down_taps, "down_radial": p.radial, "padding": [*p.pad, *p.pad],
    }  # fmt: skip


def _check_filters(record: Record, plan: Plan, where: str) -> None:
    """The stored filters are the ones that are used; they must be those that the numbers give, to float32 rounding."""
    for key, want in zip(("up_filter", "down_filter"), filters(plan)):
        have = record.tensors.get(f"synthesis.{plan.name}.{key}")
        if have is None or want is None or have.shape != want.shape:
            continue  # a missing or misshapen tensor is named by the general check
        if not torch.allclose(have.double(), want, rtol=1e-3, atol=1e-5):
            raise DamagedFileError(f"the filter {plan.name}.{key} is not the one that its arguments give", where=where)
