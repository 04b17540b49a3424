"""Networks on the meta device from a record's constructor arguments, with what the file must say about each part."""

from __future__ import annotations

import math
from typing import Any

import torch

from .config import read_discriminator, read_generator
from .container import Record, check_facts
from .discriminator import Block, Conv, Discriminator, Head
from .networks import Generator, Mapping, Skip, Synthesis, SynthesisBlock, SynthesisLayer, ToRGB
from .ops import Linear

Facts = dict[str, tuple[str, dict[str, Any]]]
check = check_facts


def said(record: Record, path: str, key: str, default: Any = None) -> Any:
    """Return an attribute that the file states for the part at `path`, or the default."""
    return record.attributes.get(path, {}).get(key, default)


def _clamp(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and value > 0 else None


def linear_facts(net: torch.nn.Module, prefix: str) -> Facts:
    """Return the facts of all linear layers inside `net`."""
    return {
        f"{prefix}{path}": ("FullyConnectedLayer", {"activation": m.act, "weight_gain": m.gain, "bias_gain": m.multiplier})
        for path, m in net.named_modules()
        if isinstance(m, Linear)
    }


def mapping_facts(net: Mapping, path: str) -> Facts:
    """Return the facts of a mapping network at `path`."""
    c = net.config
    facts = {"z_dim": c.z_dim, "c_dim": c.c_dim, "w_dim": c.w_dim, "num_layers": c.num_layers}
    return {path: ("MappingNetwork", facts), **linear_facts(net, f"{path}.")}


def g_clamp(record: Record) -> float | None:
    """Return the clamp that the file's generator states: the default differs between code bases."""
    return _clamp(said(record, "synthesis.b4.conv1", "conv_clamp"))


def d_clamp(record: Record) -> float | None:
    """Return the clamp that the file's discriminator states."""
    return _clamp(said(record, "b4.conv", "conv_clamp"))


def generator(record: Record, where: str, *, clamp: float | None) -> tuple[Generator, Facts, str]:
    """Return an empty StyleGAN2 generator, its facts, and the name of its code base."""
    mapping, synthesis = read_generator(record.init_kwargs, clamp=clamp, where=where)
    with torch.device("meta"):
        m, s = Mapping(mapping), Synthesis(synthesis)
    g = Generator(m, s, num_ws=s.num_ws, resolution=synthesis.resolution, channels=synthesis.channels)
    common = {"img_resolution": synthesis.resolution, "img_channels": synthesis.channels, "w_dim": synthesis.w_dim}
    facts: Facts = {
        "": ("Generator", {**common, "num_ws": s.num_ws, "z_dim": mapping.z_dim, "c_dim": mapping.c_dim}),
        "synthesis": ("SynthesisNetwork", {**common, "num_ws": s.num_ws, "block_resolutions": synthesis.resolutions}),
        **mapping_facts(m, "mapping"),
        **linear_facts(s, "synthesis."),
    }
    for path, part in s.named_modules():
        full = f"synthesis.{path}"
        if isinstance(part, SynthesisBlock):
            rgb = {"num_conv": len(part.layers()), "num_torgb": int(part.has_rgb), "architecture": synthesis.architecture}
            facts[full] = ("SynthesisBlock", {"resolution": part.resolution, "square": False, **rgb})
        elif isinstance(part, SynthesisLayer):
            facts[full] = ("SynthesisLayer", {
                "resolution": part.resolution, "up": part.up, "use_noise": part.use_noise, "activation": part.act,
                "conv_clamp": part.clamp, "padding": synthesis.kernel_size // 2,
            })  # fmt: skip
        elif isinstance(part, ToRGB):
            facts[full] = ("ToRGBLayer", {"conv_clamp": part.clamp, "weight_gain": part.gain})
        elif isinstance(part, Skip):
            facts[full] = ("Conv2dLayer", {"up": 2, "down": 1, "conv_clamp": None, "activation": "linear"})
    family = "stylegan2-ada" if "synthesis_kwargs" in record.init_kwargs else "stylegan2"
    return g, facts, family


def discriminator(record: Record, where: str, *, clamp: float | None) -> tuple[Discriminator, Facts]:
    """Return an empty discriminator and its facts."""
    config = read_discriminator(record.init_kwargs, clamp=clamp, where=where)
    with torch.device("meta"):
        d = Discriminator(config)
    facts: Facts = {
        "": ("Discriminator", {
            "c_dim": config.c_dim, "img_resolution": config.resolution, "img_channels": config.channels,
            "block_resolutions": config.resolutions[:0:-1],
        }),
        **linear_facts(d, ""),
    }  # fmt: skip
    if config.mapping is not None:
        facts.update(mapping_facts(d.mapping, "mapping"))
    for path, part in d.named_modules():
        if isinstance(part, Block):
            facts[path] = ("DiscriminatorBlock", {"architecture": config.architecture, "resolution": int(path[1:])})
        elif isinstance(part, Head):
            facts[path] = ("DiscriminatorEpilogue", {"architecture": config.architecture, "cmap_dim": config.cmap_dim})
        elif isinstance(part, Conv):
            facts[path] = ("Conv2dLayer", {
                "activation": part.act, "up": 1, "down": part.down, "conv_clamp": part.clamp, "weight_gain": part.gain,
                "padding": part.weight.shape[2] // 2,
            })  # fmt: skip
        elif isinstance(part, Skip):
            gain = part.scale / math.sqrt(0.5)
            facts[path] = ("Conv2dLayer", {"up": 1, "down": 2, "conv_clamp": None, "activation": "linear", "weight_gain": gain})
    if config.planes:
        facts["b4.mbstd"] = ("MinibatchStdLayer", {"group_size": config.group, "num_channels": config.planes})
    return d, facts
