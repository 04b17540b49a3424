"""What a step of each method costs beside a step of I-FGSM, and evolution in one batch beside one image at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..engine.precision import networks as forms
from ..engine.run import Engine, Settings
from ..landscape import Landscape
from ..model import Pair
from ..noise import Draw
from ..space import Context
from ..strategies.base import Strategy
from ..strategies.dot import DOT
from ..strategies.evolution import EvolGAN
from ..strategies.gradient import IFGSM
from ..strategies.langevin import DDLS, MALA
from . import pairs
from .measure import published


def _stepper(strategy: Strategy, pair: Pair, z: torch.Tensor) -> Callable[[int], Any]:
    seed = torch.arange(len(z))
    land = Landscape(pair, Context(seed=seed, point0=z))
    draw = Draw(seed)
    state: Any = strategy.init(z, land, draw)

    def run(t: int) -> None:
        nonlocal state
        state, _ = strategy.step(state, t, land, draw)

    return run


def per_step(nets: pairs.Networks, *, rows: int = 16, rounds: int = 7) -> dict[str, tuple[float, float, float]]:
    """Return each method's step relative to I-FGSM's: median, least and greatest of paired rounds (engine, float32)."""
    pair = Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=nets.name)
    z = torch.randn(rows, pairs.Z, generator=torch.Generator().manual_seed(1))
    methods = {
        "ifgsm": IFGSM(steps=100, eps=None, step_size=0.05),
        "dot": DOT(steps=100),
        "ddls": DDLS(steps=100),
        "mala": MALA(steps=100),
    }
    ready: dict[str, Callable[[int], Any]] = {}
    for name, strategy in methods.items():
        engine = Engine(strategy, pair)
        ready[name] = _stepper(engine.strategy, engine.pair, z)
    took: dict[str, list[float]] = {name: [] for name in ready}
    for step in ready.values():
        step(0)
    for t in range(rounds):
        for name, step in ready.items():
            before = time.process_time()
            step(t + 1)
            took[name].append(time.process_time() - before)
    out = {}
    for name in ready:
        ratios = [a / b for a, b in zip(took[name], took["ifgsm"], strict=True)]
        out[name] = (statistics.median(ratios), min(ratios), max(ratios))
    return out


#: the rows of the papers' Table 8: strategy, the published-style steps it stands for, and seconds printed for 1,000 samples
TABLE8: dict[str, tuple[Strategy, tuple[float, float]]] = {
    "EvolGAN, 80 candidates": (EvolGAN(steps=80, rate=0.0), (628.7, 630.6)),
    "DDLS, 100 steps": (DDLS(steps=100), (267.4, 749.9)),
    "DOT, 100 steps": (DOT(steps=100, step_size=0.01), (68.2, 69.8)),
    "AdvLatGAN-z, 100 steps": (IFGSM(steps=100, eps=None, step_size=0.05, support="free"), (34.1, 42.0)),
    "AdvLatGAN-z, 20 steps": (IFGSM(steps=20, eps=None, step_size=0.05, support="free"), (7.0, 8.4)),
}


def whole(nets: pairs.Networks, name: str, precision: str, *, rows: int = 16) -> dict[str, Any]:
    """Run a method of `TABLE8` as a user would: evaluations a sample, seconds for 1,000 samples, gain of the score.

    The score is read in float32 at both ends. Seconds are process CPU time of `rows` samples times 1000 / rows; making the
    networks ready and fitting are left out, the images before and after are in.
    """
    strategy, _ = TABLE8[name]
    pair = Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=nets.name)
    z = torch.randn(rows, pairs.Z, generator=torch.Generator().manual_seed(1))
    engine = Engine(strategy, pair, settings=Settings(precision=precision, chunk=rows, images=False))
    with torch.no_grad():
        engine.pair.generate(z[:8])  # what is packed at first use is not timed
    before = time.process_time()
    run = engine.run(z, list(range(rows)))
    took = time.process_time() - before
    gain = np.concatenate([c.score.astype(np.float64) - c.score0 for c in run.chunks])
    return {
        "pair": nets.name,
        "method": name,
        "precision": engine.precision,
        "forward": run.ledger.d_forward / rows,
        "backward": run.ledger.d_backward / rows,
        "seconds_1000": 1000 / rows * took,
        "gain": float(gain.mean()),
        "gain_error": float(gain.std(ddof=1) / rows**0.5),
    }


def published_step(nets: pairs.Networks, *, rows: int = 16, rounds: int = 7) -> dict[str, float]:
    """Return seconds for 1,000 rows: a step of the published-style loop, and a score one image at a time (eager, float32)."""
    z = torch.randn(rows, pairs.Z, generator=torch.Generator().manual_seed(1))
    batch, single = [], []
    for _ in range(rounds + 1):
        before = time.process_time()
        published(nets, z)
        batch.append(time.process_time() - before)
        before = time.process_time()
        with torch.no_grad():
            for i in range(2):
                nets.D(nets.G(z[i : i + 1]))
        single.append((time.process_time() - before) / 2)
    return {"step": 1000 / rows * statistics.median(batch[1:]), "one_image": 1000 * statistics.median(single[1:])}


def evolution(nets: pairs.Networks, *, rows: int = 32, rounds: int = 7) -> tuple[float, float, float]:
    """Return how many times cheaper a scored candidate is in one batch (bfloat16) than one image at a time (eager float32)."""
    from ..model import frozen_copy

    pair = Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=nets.name)
    z = torch.randn(rows, pairs.Z, generator=torch.Generator().manual_seed(1))
    strategy = EvolGAN()
    G, D = frozen_copy(nets.G), frozen_copy(nets.D)
    batched = _stepper(strategy, forms(pair, Settings(precision="bf16")).moving, z)
    ratios = []
    for t in range(rounds + 1):
        before = time.process_time()
        with torch.no_grad():
            for i in range(4):
                D(G(z[i : i + 1]))
        alone = (time.process_time() - before) / 4
        before = time.process_time()
        batched(t)
        ratios.append(alone / ((time.process_time() - before) / rows))
    ratios = ratios[1:]
    return statistics.median(ratios), min(ratios), max(ratios)
