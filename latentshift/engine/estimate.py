"""What a run will cost, told before it: two steps at the real chunk size, timed, times the exact number of steps.

seconds = chunks x (steps x one step + looks x one look), a look being the images and scores at the start or the end. Rows that
end early make it less; writing pictures comes on top.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..landscape import Landscape
from ..noise import Draw

if TYPE_CHECKING:
    from .run import Engine


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
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Return what `engine.run(z0, seeds, labels)` will take by `clock`. Nothing is counted in the engine's ledger."""
    from .run import default_chunk

    total, strategy = len(z0), engine.strategy
    size = engine.run_.chunk or engine.settings.chunk or default_chunk(engine.device, strategy.width)
    rows = min(size, total)
    engine.stepper.begin(rows)
    index = engine._padding(torch.arange(rows, device=engine.device))
    z = z0[:rows].to(engine.device, engine.pair.compute_dtype)[index]
    context = engine._context(list(seeds[:rows]), None, None).select(index)
    if labels is not None:
        context = context._replace(label=labels[:rows].to(engine.device, torch.long)[index])
    with torch.no_grad():
        point = engine.space.enter(engine.pair, z, context)
    land = Landscape(engine.pair, context._replace(point0=point), space=engine.space, objective=engine.objective)
    land.with_start_images(point)
    moving = land if engine.moving is engine.pair else land.on(engine.moving)

    def timed(call: Callable[[], Any], times: int) -> tuple[float, Any]:
        out, took = call(), []
        for _ in range(times):
            before = clock()
            out = call()
            if engine.device.type == "cuda":
                torch.cuda.synchronize(engine.device)
            took.append(clock() - before)
        return min(took), out

    look, _ = timed(lambda: engine._look(land, point), 1)
    step = 0.0
    if strategy.rounds:
        draw = Draw(moving.context.seed)
        state = strategy.init(point, moving, draw)
        count = min(2, strategy.rounds)
        step, _ = timed(lambda: strategy.step(state, count - 1, moving, draw), count)
    whole, rest = divmod(total, size)
    chunks = whole + (engine.stepper.size(rest) / max(len(index), 1) if whole else min(1, rest))
    tells = engine.moving is engine.pair and strategy.tells_start and engine.objective.core().is_score
    looks = 1 if tells or not strategy.rounds else 2
    return Estimate(chunks * (strategy.rounds * step + looks * look), step, look, chunks, strategy.rounds, looks)
