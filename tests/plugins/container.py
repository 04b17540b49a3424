"""Writes network pickles in the publisher's container, for tests: the same opcodes and names, our own stand-in source text.

Objects of the real module names are made on the fly and pickled by the standard library, so that tensors, storages and numbers
are written as torch and numpy write them.
"""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from latentshift_plugins.stylegan2.build import Facts
from latentshift_plugins.stylegan2.container import file_name


def folder(kind: str) -> Path:
    """Return `shared/reference/<kind>` beside the checkout (or under LATENTSHIFT_SHARED), or skip."""
    shared = Path(os.environ.get("LATENTSHIFT_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    if not (shared / "reference" / kind).is_dir():
        pytest.skip("the reference files are not beside this checkout (set LATENTSHIFT_SHARED)")
    return shared / "reference" / kind


SOURCE = "raise RuntimeError('the source text of a file was run')\n"


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise RuntimeError("nobody may call this")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Part:
    """An object that pickles as a persistent one."""

    def __init__(self, class_name: str, state: dict[str, Any], source: str) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


def parts(net: torch.nn.Module, facts: Facts, kwargs: Mapping[str, Any]) -> Part:
    """Return a network as persistent objects, one a path of `facts`."""
    buffers = {file_name(n) for n, _ in net.named_buffers()}
    made: dict[str, Part] = {}
    for path, (class_name, said) in sorted(facts.items(), key=lambda item: item[0].count(".") + bool(item[0])):
        state = {
            "training": False,
            "_parameters": {},
            "_buffers": {},
            "_modules": {},
            **dict(said),
            "_init_args": (),
            "_init_kwargs": {},
        }
        made[path] = Part(class_name, state, SOURCE)
        if path:
            parent, _, key = path.rpartition(".")
            made[parent].meta["state"]["_modules"][key] = made[path]
    made[""].meta["state"]["_init_kwargs"] = dict(kwargs)
    for name, tensor in net.state_dict().items():
        path, _, key = file_name(name).rpartition(".")
        table = "_buffers" if file_name(name) in buffers else "_parameters"
        made[path].meta["state"][table][key] = tensor if table == "_buffers" else torch.nn.Parameter(tensor)
    return made[""]


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    """Pickle `value` (a dict of Parts, or one) to `path`."""
    names = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": types.ModuleType("torch_utils.persistence"),
    }
    names["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    kept = {n: sys.modules.get(n) for n in names}
    sys.modules.update(names)
    try:
        with path.open("wb") as stream:
            pickle.dump(value, stream, protocol)
    finally:
        for n, module in kept.items():
            sys.modules.pop(n)
            if module is not None:
                sys.modules[n] = module
    return path


def randomise(net: torch.nn.Module, seed: int) -> None:
    """Give a network on the meta device random weights in place of none; filters stay low-pass."""
    generator = torch.Generator().manual_seed(seed)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("resample_filter"):
                taps = torch.arange(1.0, len(tensor) + 1)
                taps = torch.minimum(taps, taps.flip(0)) / torch.minimum(taps, taps.flip(0)).sum()
                tensor.copy_(torch.outer(taps, taps) if tensor.ndim == 2 else taps)
            elif name.endswith("affine.bias") and len(tensor) != 4:
                tensor.copy_(1 + 0.1 * torch.randn(tensor.shape, generator=generator))
            else:
                tensor.copy_(
                    (0.3 if name.endswith(("bias", "strength")) else 1.0) * torch.randn(tensor.shape, generator=generator)
                )
    net.requires_grad_(False)
