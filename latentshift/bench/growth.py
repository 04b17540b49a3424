"""How cost and memory grow with samples and steps, and what of a step is the engine's own bookkeeping."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from ..engine.ops import Op
from ..engine.plan import Plan
from ..engine.run import Engine, Settings
from ..model import Pair
from ..noise import latents
from ..strategies.gradient import IFGSM


def _climb(steps: int) -> IFGSM:
    return IFGSM(steps=steps, eps=None, step_size=0.05, support="free")


def _start(pair: Pair, rows: int) -> torch.Tensor:
    return torch.from_numpy(latents(list(range(rows)), pair.space.shape, pair.space.prior))


def fit(x: list[int], y: list[float]) -> dict[str, float]:
    """Return the line through points: what there is at 0, what each unit adds, and the greatest miss over the value."""
    slope, at_zero = np.polyfit(x, y, 1)
    miss = np.abs(np.polyval([slope, at_zero], x) - y) / np.asarray(y)
    return {"at_zero": float(at_zero), "each": float(slope), "miss": float(miss.max())}


def linear(
    pair: Pair, *, samples: tuple[int, ...] = (32, 64, 128), steps: tuple[int, ...] = (10, 20, 40, 80), rounds: int = 2
) -> dict[str, Any]:
    """Return process CPU seconds over samples (20 steps each) and over steps (32 samples), the least of interleaved rounds,
    with the line through each."""
    plans = [("samples", n, n, 20) for n in samples] + [("steps", t, 32, t) for t in steps]
    engines = {t: Engine(_climb(t), pair, settings=Settings(images=False)) for t in {p[3] for p in plans}}
    z = _start(pair, max(*samples, 32))
    took: dict[tuple[str, int], list[float]] = {}
    engines[20].run(z[:32], list(range(32)))
    for _ in range(rounds):
        for axis, at, n, t in plans:
            before = time.process_time()
            engines[t].run(z[:n], list(range(n)))
            took.setdefault((axis, at), []).append(time.process_time() - before)
    out: dict[str, Any] = {"pair": pair.name}
    for axis, places in (("samples", samples), ("steps", steps)):
        seconds = [min(took[axis, n]) for n in places]
        out[axis] = {"at": list(places), "seconds": seconds, **fit(list(places), seconds)}
    return out


def peak(name: str, rows: int, steps: int) -> float:
    """Return the peak of this process' memory (MiB) after refining rows of a bundled pair."""
    from ..sampler import load

    pair = load(name)
    Engine(_climb(steps), pair, settings=Settings(images=False)).run(_start(pair, rows), list(range(rows)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(name: str, sizes: tuple[tuple[int, int], ...] = ((32, 5), (32, 80), (256, 5), (256, 20))) -> list[dict[str, Any]]:
    """Return the peak memory of fresh processes that refine (samples, steps) of a bundled pair."""
    out = []
    for rows, steps in sizes:
        code = f"from latentshift.bench.growth import peak; print(peak({name!r}, {rows}, {steps}))"
        told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        out.append({"samples": rows, "steps": steps, "peak_mib": round(json.loads(told), 1)})
    return out


class _First(Op):
    """The first number of each row."""

    rowwise = True

    def forward(self, x: torch.Tensor, label: torch.Tensor | None = None) -> tuple[torch.Tensor, Any]:
        return x[:, :1], x.shape

    def backward(self, grad: torch.Tensor, kept: Any) -> torch.Tensor:
        return grad.expand(kept)


def bookkeeping(rows: int, *, size: int = 100, rounds: int = 7) -> float:
    """Return process CPU seconds of a step of `Engine.run` with plans that do nothing: all but the operations of G and D."""
    G, D = Plan([], nn.Identity()), Plan([_First()], nn.Identity())
    pair = Pair.wrap(G.eval(), D.eval(), z_size=size, name="nothing")
    engines = [Engine(_climb(t), pair, settings=Settings(chunk=rows, images=False, prepare=False)) for t in (50, 250)]
    z, seeds = torch.randn(rows, size, generator=torch.Generator().manual_seed(0)), list(range(rows))
    took = []
    for _ in range(rounds + 1):
        each = []
        for engine in engines:
            before = time.process_time()
            engine.run(z, seeds)
            each.append(time.process_time() - before)
        took.append((each[1] - each[0]) / 200)
    return float(np.median(took[1:]))
