"""Run in a child process: networks of the publisher's own code (a clone, never part of this project), with random weights.

`python publisher.py CLONE OUT < cases.json` writes `NAME.pkl` by the publisher's own pickling, and `NAME.npz` with z, labels
and what its code computes in double precision on a CPU, unfused. A case names the module of its networks, its arguments and the
protocol of the pickle.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROWS = 4


class Double:
    """Stands for torch in the publisher's modules: float32 there means float64 here."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


def imported(clone: str, name: str) -> Any:
    """Return a module of a clone. What its helpers import for downloads and old versions of torch may be absent here."""
    for helper in ("requests", "pkg_resources"):
        if helper not in sys.modules and importlib.util.find_spec(helper) is None:
            stand_in: Any = types.ModuleType(helper)
            stand_in.parse_version = importlib.import_module("packaging.version").parse
            sys.modules[helper] = stand_in
    if clone not in sys.path:
        sys.path.insert(0, clone)
    return importlib.import_module(f"training.{name}")


def shaken(net: Any, seed: int) -> Any:
    """Return a network with biases, noise strengths and averages that are not those of a fresh one."""
    draw = torch.Generator().manual_seed(seed)
    for name, t in [*net.named_parameters(), *net.named_buffers()]:
        if name.endswith(("bias", "noise_strength", "w_avg")):
            t.data.add_(0.2 * torch.randn(t.shape, generator=draw))
        elif name.endswith("magnitude_ema"):
            t.data.copy_(0.5 + torch.rand(t.shape, generator=draw))
    return net.eval().requires_grad_(False)


def doubled(net: Any) -> Any:
    """Return a copy in double precision; filters stay as they are, which the publisher's code asks for."""
    net = copy.deepcopy(net).double()
    for m in net.modules():
        for name, b in m._buffers.items():
            if b is not None and "filter" in name:
                m._buffers[name] = b.float()
    return net


def main() -> None:
    clone, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    for number, (name, case) in enumerate(json.load(sys.stdin).items()):
        torch.manual_seed(number)
        g_module, d_module = imported(clone, case["G_module"]), imported(clone, case["D_module"])
        G = shaken(g_module.Generator(**case["G"]), number)
        D = shaken(d_module.Discriminator(**case["D"]), number + 1000)
        with (out / f"{name}.pkl").open("wb") as file:
            pickle.dump({"training_set_kwargs": None, "G": G, "D": D, "G_ema": G, "augment_pipe": None}, file, case["protocol"])
        random = np.random.RandomState(number)
        classes = case["G"]["c_dim"]
        z, c = (
            random.randn(ROWS, case["G"]["z_dim"]),
            np.eye(classes)[random.randint(0, max(classes, 1), ROWS)] if classes else None,
        )
        g_module.torch = d_module.torch = Double()
        torch.set_default_dtype(torch.float64)
        g, d = doubled(G), doubled(D)
        q = torch.tensor(z, requires_grad=True)
        label = torch.zeros(ROWS, 0) if c is None else torch.tensor(c)
        options: dict[str, Any] = {"force_fp32": True}
        if case["G_module"] != "networks_stylegan3":
            options |= {"fused_modconv": False, "noise_mode": "const"}
        images = g.synthesis(g.mapping(q, label), **options)
        logits = d(images, label, force_fp32=True)
        arrays = {"z": z, "images": images, "logits": logits[:, 0], "gradient": torch.autograd.grad(logits.sum(), q)[0]}
        arrays["truncated"] = g.synthesis(g.mapping(q, label, truncation_psi=0.6, truncation_cutoff=2), **options)
        torch.set_default_dtype(torch.float32)
        g_module.torch = d_module.torch = torch
        arrays |= {} if c is None else {"c": c}
        np.savez(out / f"{name}.npz", **{k: np.asarray(torch.as_tensor(v).detach()) for k, v in arrays.items()})


if __name__ == "__main__":
    main()
