"""What `latentshift inspect` shows of a family's file: parts, sizes, config, and what may be chosen. Nothing is computed."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from latentshift.files.write import plain
from latentshift.layers import LayerNet

from .loaded import Loaded


def describe(loaded: Loaded, options: type, sha256: str) -> dict[str, Any]:
    """Return plain values: the parts with parameters and types, and everything that code cannot guess."""
    pair = loaded.pair(name="")
    channels, height, width = loaded.image
    parts = {name: _part(net) for name, net in (("G", loaded.G), ("D", loaded.D)) if net is not None}
    told = {
        "sha256": sha256,
        "networks": loaded.source if not loaded.config.get("code") else loaded.config["code"],
        "z_size": loaded.z_size,
        "z_prior": dict(loaded.prior),
        "classes": loaded.classes,
        "image": f"{channels}x{height}x{width}",
        "range": list(loaded.image_range),
        "discriminator": loaded.D is not None,
        "critic": {"returns": loaded.returns, "real_is": "high"} if loaded.D is not None else None,
        "loss": loaded.loss or None,
        "spaces": list(pair.spaces),
        "parts": parts,
        **loaded.details(),
        "config": {k: v for k, v in loaded.config.items() if k != "code"} or None,
        "options": {f.name: f.default for f in dataclasses.fields(options) if f.name != "dtype"},
        "notes": list(loaded.notes) or None,
    }
    found: dict[str, Any] = plain(told)
    return found


def _part(net: nn.Module) -> dict[str, Any]:
    tensors = list(net.state_dict().values())
    floating = [t for t in tensors if t.is_floating_point()]
    told: dict[str, Any] = {
        "parameters": sum(t.numel() for t in tensors),
        "tensors": len(tensors),
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in floating}),
    }
    if isinstance(net, LayerNet):
        told["layers"] = [str(e["op"]) for e in net.entries]
    return told
