"""The loop: chunks of rows through a strategy (see `steps.py`), work counted, failures survived."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DeviceError, LatentshiftWarning, NumericError
from ..landscape import Landscape
from ..model import Capability, Pair, check_finite, require
from ..noise import SEED_LIMIT, Draw, latents
from ..objective import Realness, Term
from ..space import Context, Space
from ..strategies.base import REASONS, Strategy, strategy_name
from .chunk import chunk_for
from .climb import readied
from .cuda import Recorded
from .estimate import Estimate, foretold
from .graphs import Graphs, TorchGraphs, can_record
from .memory import default_chunk, is_out_of_memory, limit
from .precision import networks, working
from .results import Chunk, Run, Settings, array, traced
from .steps import Eager, Steps, filled, padded
from .threads import PAD, dealt

__all__ = ["PAD", "Chunk", "Engine", "Run", "Settings", "default_chunk", "is_out_of_memory", "labels_from_seeds", "padded"]


def labels_from_seeds(seeds: Sequence[int], classes: int | None) -> Tensor | None:
    """Return a class for each seed, drawn from it; None for a model without classes."""
    if not classes:
        return None
    draw = Draw(torch.tensor([int(s) for s in seeds], dtype=torch.int64))
    return draw.bits(0, "label", 1)[:, 0] * classes >> 32


class Engine:
    """Runs a strategy on a pair. Build it once, then `run` any number of rows: preparation and fit are kept."""

    def __init__(
        self,
        strategy: Strategy,
        pair: Pair,
        *,
        objective: Term | None = None,
        space: Space | None = None,
        settings: Settings | None = None,
        reals: Any = None,
        fitted: Strategy | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        self.objective = objective or Realness()
        self.space = space or pair.space
        self.settings = settings or Settings()
        for part in strategy.parts:
            require(pair, part.needs | self.objective.needs, strategy_name(part))
        began = time.perf_counter()
        ready = networks(pair, self.settings)
        self.pair, self.moving, self.precision, plan = ready.pair, ready.moving, ready.precision, ready.note
        self.device = pair.device
        self.run_ = Run(strategy, plan=plan, precision=self.precision)
        self.run_.notes += ready.lost
        self.run_.seconds["prepare"] = time.perf_counter() - began
        # real images are a promise that the critic will be calibrated
        able = self.pair if reals is None else self.pair.replaced(extra=self.pair.extra | Capability.CALIBRATED)
        strategy.check(Landscape(able, self._context([0], None, None), space=self.space, objective=self.objective))
        self.strategy = fitted or self._fit(strategy, reals)
        self.run_.strategy = self.strategy
        limit(self)
        self.stepper = self._stepper(graphs)

    def _stepper(self, graphs: Graphs | None) -> Steps:
        """Return what moves the rows: recorded steps on a card (or with `graphs` of the caller's), else one after the other."""
        eager = Eager(self.strategy, self.settings, self.device)
        if graphs is None:
            if self.device.type != "cuda" or not self.settings.plan:
                return eager
            if missing := can_record(str(self.device)):
                self.run_.notes.append(f"steps run one kernel at a time, slower where networks are small: {missing}")
                return eager
            graphs = TorchGraphs(self.device)
        self.run_.plan += ", steps recorded"
        return Recorded(eager, graphs, self.run_.notes.append)

    def _context(self, seeds: Sequence[int], label: Tensor | None, point0: Tensor | None) -> Context:
        seed = torch.tensor([int(s) for s in seeds], dtype=torch.int64, device=self.device)
        return Context(seed=seed, label=label, point0=point0)

    def labels_of(self, seeds: Sequence[int]) -> Tensor | None:
        """Return the labels of rows that come without: drawn from their seeds."""
        labels = labels_from_seeds(seeds, self.pair.classes)
        return None if labels is None else labels.to(self.device)

    def _fit(self, strategy: Strategy, reals: Any) -> Strategy:
        pilot = strategy.pilot if reals is None else strategy.pilot_with_reals
        if not pilot:
            return strategy
        began = time.perf_counter()
        rows = padded(pilot, self.device)
        seeds = [SEED_LIMIT - 1 - i for i in range(rows)]
        z = torch.from_numpy(latents(seeds, self.pair.space.shape, self.pair.space.prior)).to(
            self.device, self.pair.compute_dtype
        )
        context = self._context(seeds, self.labels_of(seeds), None)
        point = self.space.enter(self.pair, z, context)
        land = Landscape(
            self.pair,
            context._replace(point0=point),
            space=self.space,
            objective=self.objective,
            ledger=self.run_.fit_ledger,
        )
        with dealt(self.device):
            fitted = strategy.fit(land, Draw(context.seed), reals)
        self.run_.pilot_seeds = (seeds[-1], seeds[0])
        self.run_.seconds["fit"] = time.perf_counter() - began
        return fitted

    def run(
        self,
        z0: Tensor,
        seeds: Sequence[int],
        labels: Tensor | None = None,
        *,
        images0: bool = False,
        on_chunk: Callable[[Chunk], None] | None = None,
        progress: Callable[[int, int, float], None] | None = None,
        ids: Sequence[int] | None = None,
        foretell: Callable[[Estimate], None] | None = None,
    ) -> Run:
        """Refine rows. `z0` (rows, *prior shape), `seeds` one number per row, `labels` (rows,) or None.

        `ids` are the rows' numbers in a larger run. `on_chunk` gets each finished chunk in order; `progress(rows done, rows,
        mean gain)`; `foretell` is told once what the run will take, after its first steps. Raises NumericError where all rows
        break, DeviceError where not even the smallest chunk fits.
        """
        (self.space if self.space.entered else self.pair.space).check(z0)
        check_finite(z0, "latents")
        run, total = self.run_, len(z0)
        if labels is None:
            labels = self.labels_of(seeds)
        run.chunk = run.chunk or self.settings.chunk or self._rows_at_a_time(total)
        at = 0
        gain_sum, broken = 0.0, 0
        if foretell is not None:
            self.stepper.watch = lambda step: foretell(foretold(self, total, step))
        while at < total:
            self.stepper.begin(min(run.chunk, total))
            rows = slice(at, min(at + run.chunk, total))
            keep = run.ledger.copy()
            began = time.perf_counter()
            try:
                with working(self.precision), dealt(self.device):
                    chunk = self._chunk(
                        z0[rows],
                        list(seeds[rows]),
                        None if labels is None else labels[rows],
                        images0,
                        np.asarray(ids if ids is not None else range(total))[rows],
                    )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                run.ledger = keep
                self._halve(error)
                continue
            run.seconds["refine"] = run.seconds.get("refine", 0.0) + time.perf_counter() - began
            at = rows.stop
            gain_sum += float(np.nansum(chunk.score - chunk.score0))
            broken += int((chunk.stopped == REASONS.index("nan")).sum())
            if on_chunk:
                began = time.perf_counter()
                on_chunk(chunk)
                run.seconds["write"] = run.seconds.get("write", 0.0) + time.perf_counter() - began
            run.chunks.append(chunk if self.settings.images else chunk._replace(images=chunk.images[:0], images0=None))
            if progress:
                progress(at, total, gain_sum / at)
        if total and broken == total:
            raise NumericError(
                f"all {total} rows met a NaN or infinite score or gradient", way_out="Check G and D on raw latents."
            )
        if broken:
            text = f"{broken} of {total} rows met a NaN or infinite score or gradient and kept their last finite point"
            run.notes.append(text)
            warnings.warn(text, LatentshiftWarning, stacklevel=2)
        return run

    def _rows_at_a_time(self, total: int) -> int:
        usual = default_chunk(self.device, self.strategy.width)
        search = self.device.type == "cuda" if self.settings.search is None else self.settings.search
        if not search or total <= usual or not self.strategy.rounds:
            return usual
        with working(self.precision), dealt(self.device):
            return chunk_for(self, total)

    def _halve(self, error: BaseException) -> None:
        run = self.run_
        least = self.settings.pad if self.device.type == "cpu" else 1
        if run.chunk <= least:
            if self.stepper.give_up("too little memory to record them"):
                return
            raise DeviceError(
                f"not even {least} rows fit into the memory of {self.device}",
                way_out="Use another device, or a smaller model.",
            ) from error
        smaller = max(least, run.chunk // 2 // least * least)
        run.notes.append(
            f"{run.chunk} rows did not fit on {self.device}, going on with {smaller}; --chunk {smaller} starts there"
        )
        run.chunk = smaller
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _padding(self, index: Tensor) -> Tensor:
        return filled(index, self.stepper.size(len(index)))

    def _chunk(self, z0: Tensor, seeds: list[int], labels: Tensor | None, images0: bool, ids: np.ndarray[Any, Any]) -> Chunk:
        s, strategy, rows = self.settings, self.strategy, len(z0)
        index = self._padding(torch.arange(rows, device=self.device))
        z = z0.to(self.device, self.pair.compute_dtype)[index]
        context = self._context(seeds, None, None).select(index)
        if labels is not None:
            context = context._replace(label=labels.to(self.device, torch.long)[index])
        with torch.no_grad():
            point0 = self.space.start(self.pair, z, context)
        context = context._replace(point0=point0)
        land = Landscape(self.pair, context, space=self.space, objective=self.objective, ledger=self.run_.ledger)
        land.counted = land.distinct = rows
        readied(land, self.settings.pad).with_start_images(point0)
        before = land.ledger.copy()
        same = self.moving is self.pair
        tells = same and strategy.tells_start and self.objective.core().is_score and strategy.rounds > 0
        start_images = None
        if not tells:
            start_images, score0 = self._look(land, point0)
        elif images0:
            start_images = land.images(point0)
        moving = land if same else readied(land.on(self.moving), self.settings.pad)
        state, told, spent = self.stepper.run(moving, point0, rows)
        if tells:
            score0 = told[0]
        land.counted = moving.counted = rows
        outcome = strategy.finish(state, moving)
        self.space.check(outcome.point, "the strategy's points")
        if strategy.steps == 0:  # nothing moves: the start is the end
            assert start_images is not None
            images, score = start_images, score0
        elif same and outcome.value is not None and self.objective.core().is_score and self.pair.critic is not None:
            images, score = land.images(outcome.point), outcome.value
        else:
            images, score = self._look(land, outcome.point)
        ends = round((max((land.ledger - before).as_tuple()[:2]) - float(spent.sum())) / rows)  # looks at start and end
        stopped = outcome.stopped if outcome.stopped is not None else torch.zeros(rows)
        trace = traced(told, score0, score, rows)
        return Chunk(
            rows=ids,
            z0=array(z, rows),
            point0=array(point0, rows),
            point=array(outcome.point, rows),
            score0=array(score0, rows),
            score=array(score, rows),
            stopped=array(stopped, rows).astype(np.int64),
            evaluations=array(spent, rows).round().astype(np.int64) + ends,
            accepted=None if outcome.accepted is None else array(outcome.accepted, rows),
            images0=array(start_images, rows) if images0 and start_images is not None else None,
            images=array(images, rows),
            trace=trace if s.trace else trace.mean(1, keepdims=True),
            extra={name: array(value, rows) for name, value in (outcome.extra or {}).items()},
        )

    def _look(self, land: Landscape, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and scores of points; the objective's own value where there is no critic."""
        if self.pair.critic is not None:
            return land.images_and_score(point)
        return land.images(point), land.value(point)
