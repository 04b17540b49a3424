"""What a run will cost, told before it: two steps at the real chunk size, timed, times the exact number of steps.

seconds = chunks x (steps x one step + looks x one look), a look being the images and scores at the start or the end. Rows that
end early make it less; writing pictures comes on top.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..landscape import Landscape, Ledger
from ..noise import SEED_LIMIT, latents
from .climb import readied
from .memory import default_chunk
from .steps import Clock, timed

if TYPE_CHECKING:
    from .run import Engine


QUICK = 0.1  # seconds under which a whole chunk is done and timed: what lies around its steps then counts


@dataclass(frozen=True)
class Estimate:
    """Seconds of the whole run, of one step and one look of a chunk, and how many of each there are."""

    seconds: float
    step: float
    look: float
    chunks: float  # the last one counts by its padded rows
    steps: int
    looks: int

    @property
    def share(self) -> float:
        """The share of the run that the trial itself takes (one warm-up and two timed steps, two looks)."""
        return min(1.0, (3 * self.step + 2 * self.look) / self.seconds) if self.seconds else 1.0

    def line(self) -> str:
        """Return the estimate as people read it."""
        return (
            f"about {self.seconds:.3g} s: {self.chunks:.3g} chunks of {self.steps} steps at {self.step:.3g} s "
            f"and {self.looks} looks at {self.look:.3g} s"
        )


def estimate(
    engine: Engine,
    z0: Tensor,
    seeds: Sequence[int],
    labels: Tensor | None = None,
    *,
    clock: Clock = time.perf_counter,
) -> Estimate:
    """Return what `engine.run(z0, seeds, labels)` will take by `clock`. Nothing is counted in the engine's ledger."""
    total = len(z0)
    labels = engine.labels_of(seeds) if labels is None else labels
    size = engine.run_.chunk or engine.settings.chunk or default_chunk(engine.device, engine.strategy.width)
    rows = min(size, total)
    land, point = _start(engine, z0[:rows], seeds[:rows], None if labels is None else labels[:rows])
    look = timed(lambda: engine._look(land, point), 1, engine.device, clock)
    told = _of(engine, total, size, _step(engine, land, point, clock), look)
    if told.seconds >= QUICK * told.chunks or not total:
        return told
    whole = timed(lambda: _chunk(engine, z0[:rows], seeds[:rows], labels), 3, engine.device, clock)
    return replace(told, seconds=told.chunks * whole)


def _chunk(engine: Engine, z0: Tensor, seeds: Sequence[int], labels: Tensor | None) -> None:
    """Do a whole chunk that is counted nowhere and kept nowhere."""
    kept = engine.run_.ledger
    engine.run_.ledger = Ledger()
    try:
        engine._chunk(z0, list(seeds), None if labels is None else labels[: len(z0)], False, np.arange(len(z0)))
    finally:
        engine.run_.ledger = kept


def trial(engine: Engine, rows: int, *, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of a step of so many rows, which come from seeds of their own."""
    seeds = [SEED_LIMIT - 1 - i for i in range(rows)]
    z = torch.from_numpy(latents(seeds, engine.pair.space.shape, engine.pair.space.prior))
    land, point = _start(engine, z, seeds, engine.labels_of(seeds))
    return _step(engine, land, point, clock)


def _start(engine: Engine, z0: Tensor, seeds: Sequence[int], labels: Tensor | None) -> tuple[Landscape, Tensor]:
    engine.stepper.begin(len(z0))
    index = engine._padding(torch.arange(len(z0), device=engine.device))
    z = z0.to(engine.device, engine.pair.compute_dtype)[index]
    context = engine._context(list(seeds), None, None).select(index)
    if labels is not None:
        context = context._replace(label=labels.to(engine.device, torch.long)[index])
    with torch.no_grad():
        point = engine.space.enter(engine.pair, z, context)
    land = Landscape(engine.pair, context._replace(point0=point), space=engine.space, objective=engine.objective)
    land.counted = land.distinct = len(z0)
    return readied(land, engine.settings.pad).with_start_images(point), point


def _step(engine: Engine, land: Landscape, point: Tensor, clock: Clock) -> float:
    moving = land if engine.moving is engine.pair else readied(land.on(engine.moving), engine.settings.pad)
    return engine.stepper.trial(moving, point, clock) if engine.strategy.rounds else 0.0


def foretold(engine: Engine, total: int, step: float) -> Estimate:
    """Return what a run under way will take in all, of the seconds of a step of a whole chunk. A look is counted as half a
    step: it goes forward only."""
    return _of(engine, total, min(engine.run_.chunk, total), step, step / 2)


def _of(engine: Engine, total: int, size: int, step: float, look: float) -> Estimate:
    strategy = engine.strategy
    whole, rest = divmod(total, size)
    chunks = whole + (engine.stepper.size(rest) / max(engine.stepper.size(size), 1) if whole and rest else min(1, rest))
    tells = engine.moving is engine.pair and strategy.tells_start and engine.objective.core().is_score
    looks = 1 if tells or not strategy.rounds else 2
    return Estimate(chunks * (strategy.rounds * step + looks * look), step, look, chunks, strategy.rounds, looks)


def held(device: torch.device) -> int | None:
    """Return the most bytes that this process has held so far, on a card those on the card; None where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
