"""Paired rounds of process CPU time, one thread: every variant once a round, ratios within the round, medians with spread."""

from __future__ import annotations

import copy
import math
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..engine.climb import readied
from ..engine.precision import networks as forms
from ..engine.run import Settings
from ..engine.steps import filled, padded
from ..engine.threads import PAD
from ..landscape import Landscape
from ..model import Pair
from ..noise import Draw
from ..space import Context
from ..strategies.gradient import IFGSM
from . import pairs

PUBLISHED, DROPPED, EAGER = "published-style loop", "the same, gradients dropped", "eager, z alone"
Step = Callable[[Tensor], tuple[Tensor, Tensor]]
STEP = 0.05  # the published step of the STL-10 configuration
EDGE = 1024  # of the product that stands for the floor


@dataclass(frozen=True)
class Row:
    """One variant at one number of rows. Times in seconds a step of the whole batch; ratios are published-style / this."""

    pair: str
    rows: int
    variant: str
    seconds: float
    ratio: float
    low: float
    high: float
    dropped: float  # the same ratio against the loop that drops its gradients; NaN where that was not measured
    floor: float  # share of the rate of a product in the same precision, timed in the same rounds
    gain: float  # score gained after `steps` sign steps, read in float32
    gain_error: float  # standard error over rows
    signs: float  # share of gradient signs at the first step that agree with the published-style form's
    steps: int
    memory_mb: float  # peak of the process so far

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        return {k: (float(f"{v:.5g}") if isinstance(v, float) else v) for k, v in vars(self).items()}


def published(nets: pairs.Networks, z: Tensor, *, fill: bool = True) -> tuple[Tensor, Tensor]:
    """One step of the published loop: every weight asks for a gradient, `backward` computes them all, nobody reads them.

    The loop calls `zero_grad()` on both networks. With the torch of its day that filled the gradients with zeros, and
    `backward` added to them (`fill`); since torch 2.0 it drops them. Filling is the baseline here: it is what was published.
    """
    q = z.detach().clone().requires_grad_(True)
    score = nets.D(nets.G(q))
    score.sum().backward()
    for net in (nets.G, nets.D):
        net.zero_grad(set_to_none=not fill)
    assert q.grad is not None
    return score.detach()[:, 0], q.grad


def careful(nets: pairs.Networks) -> Step:
    """A good eager loop: frozen weights, the gradient of z alone."""
    from ..model import frozen_copy

    G, D = frozen_copy(nets.G), frozen_copy(nets.D)

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        q = z.detach().clone().requires_grad_(True)
        score = D(G(q))
        return score.detach()[:, 0], torch.autograd.grad(score.sum(), q)[0]

    return step


def own(pair: Pair, z: Tensor, pad: int = PAD) -> Step:
    """The engine's step of I-FGSM: what `Engine.run` calls for each chunk, padding and update included."""
    climb = IFGSM(steps=20, eps=None, step_size=STEP, support="free")
    rows = len(z)
    index = filled(torch.arange(rows), padded(rows, z.device, pad))
    land = Landscape(pair, Context(seed=index, point0=z[index]))
    land.counted = land.distinct = rows
    readied(land, pad)
    draw = Draw(index)
    start = climb.init(z[index], land, draw)

    def step(q: Tensor) -> tuple[Tensor, Tensor]:
        q = q[index]
        state, info = climb.step(start._replace(point=q), 0, land, draw)
        return info.value[:rows], (state.point - q)[:rows]

    return step


def climbed(step: Step, z: Tensor, steps: int) -> Tensor:
    """Return z after sign steps."""
    for _ in range(steps):
        z = z + STEP * step(z)[1].sign()
    return z


def _start(rows: int) -> Tensor:
    return torch.randn(rows, pairs.Z, generator=torch.Generator().manual_seed(1))


def engine_forms(nets: pairs.Networks, bf16: bool = True) -> dict[str, Pair]:
    """Return the engine's forms of a pair by the name of their variant."""
    pair = Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=nets.name)
    return {f"engine {p}": forms(pair, Settings(precision=p)).moving for p in (("fp32", "bf16") if bf16 else ("fp32",))}


def gains(nets: pairs.Networks, steps: int) -> dict[str, tuple[float, float]]:
    """Return each variant's mean gain after sign steps of 16 rows, and its standard error; both ends are read in float32."""
    z = _start(16)
    mine = {name: own(form, z) for name, form in engine_forms(nets).items()}
    return _gains(nets, {PUBLISHED: lambda q: published(nets, q), EAGER: careful(nets), **mine}, z, steps)


def compare(
    nets: pairs.Networks,
    batches: tuple[int, ...],
    *,
    rounds: int = 7,
    steps: int = 20,
    bf16: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Measure all variants of a pair at several numbers of rows; the gain is that of the first 16 rows, which are the same."""
    made = engine_forms(nets, bf16)

    def variants(z: Tensor) -> dict[str, Step]:
        mine = {name: own(form, z) for name, form in made.items()}
        if len(z) == 1:
            mine |= {DROPPED: lambda q: published(apart, q, fill=False)}
        return {PUBLISHED: lambda q: published(nets, q), EAGER: careful(nets), **mine}

    apart = replace(nets, G=copy.deepcopy(nets.G), D=copy.deepcopy(nets.D)) if 1 in batches else nets  # its own gradients
    few = _start(16)
    quality = _gains(nets, variants(few), few, steps) if steps else {}
    out = []
    for rows in batches:
        z = _start(rows)
        steppers = variants(z)
        seen = {name: step(z)[1].sign() for name, step in steppers.items()}  # also the warm-up
        times, floors = _rounds(steppers, z, rounds, max(1, 4 // rows))
        for name, took in times.items():
            ratios = [a / b for a, b in zip(times[PUBLISHED], took, strict=True)]
            dropped = [a / b for a, b in zip(times.get(DROPPED, []), took, strict=False)]
            floor = floors["bf16" if "bf16" in name else "fp32"]
            share = [2 * nets.macs * rows / EDGE**3 * f / t for f, t in zip(floor, took, strict=True)]
            agree = float((seen[name] == seen[PUBLISHED]).float().mean())
            row = Row(
                nets.name, rows, name, statistics.median(took), statistics.median(ratios), min(ratios), max(ratios),
                statistics.median(dropped) if dropped else math.nan, statistics.median(share),
                *quality.get(name, (math.nan, math.nan)), agree, steps,
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            )  # fmt: skip
            out.append(row)
            say(
                f"{row.pair} {rows:4d} rows  {name:20s} {1e3 * row.seconds:9.1f} ms  x{row.ratio:.2f} "
                f"[{row.low:.2f} .. {row.high:.2f}]  floor {row.floor:.2f}  gain {row.gain:.4g}  signs {agree:.3f}"
            )
    return out


def _rounds(
    variants: dict[str, Step], z: Tensor, rounds: int, repeat: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    products = {"fp32": torch.ones(EDGE, EDGE), "bf16": torch.ones(EDGE, EDGE, dtype=torch.bfloat16)}
    times: dict[str, list[float]] = {name: [] for name in variants}
    floors: dict[str, list[float]] = {name: [] for name in products}
    for x in products.values():
        x @ x
    for _ in range(rounds):
        for name, step in variants.items():
            before = time.process_time()
            for _ in range(repeat):
                step(z)
            times[name].append((time.process_time() - before) / repeat)
        for name, x in products.items():
            before = time.process_time()
            x @ x
            floors[name].append(time.process_time() - before)
    return times, floors


def _gains(nets: pairs.Networks, steppers: dict[str, Step], z: Tensor, steps: int) -> dict[str, tuple[float, float]]:
    """Return each variant's mean gain of the score after sign steps and its standard error, both ends read in float32."""
    out = {}
    with torch.no_grad():
        before = nets.D(nets.G(z))
    for name, step in steppers.items():
        end = climbed(step, z, steps)
        with torch.no_grad():
            gain = (nets.D(nets.G(end)) - before)[:, 0].double()
        out[name] = (float(gain.mean()), float(gain.std() / len(z) ** 0.5))
    return out
