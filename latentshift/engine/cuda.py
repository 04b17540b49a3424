"""The plan for a card: a chunk's whole step (forward, input gradient, update) recorded once per shape and replayed.

Launching kernels one by one costs a card more than small networks cost it to compute. So everything that a step reads and
writes lies in buffers that stay where they are; the step number is one of them. Shapes are few: a chunk has all its rows, a
half or a quarter of them (the rest is padding), and the largest is recorded first. Nothing waits for the device but a look at
finished rows every few steps.

Written against `Graphs`; with a stand-in that calls the work again, its results are those of `Eager` to the bit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..landscape import Landscape, Ledger
from ..noise import Draw
from ..space import Context
from ..strategies.base import Strategy, over_rows, where_rows
from .graphs import Graphs, Work
from .steps import Clock, Eager, Moved, filled, look_every, stored, timed

PARTS = (4, 2)  # besides the whole chunk: a quarter and a half of it
LOOSE = 0.02  # how far a replayed step's values may be from the trial's, over their scale: kernels may be chosen anew


def uneven(strategy: Strategy) -> bool:
    """Whether a method, or one that it wraps, does other work at some steps than at others."""
    if strategy.uneven:
        return True
    values = [getattr(strategy, f.name) for f in dataclasses.fields(strategy)]
    inner = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
    return any(uneven(v) for v in inner if isinstance(v, Strategy))


class CannotRecordError(Exception):
    """A step that cannot be recorded; the text says why, in a few words."""


class Shape:
    """One recorded step for a number of rows, with the buffers that it works in.

    `told` (rounds, rows) and `alive` (rows,) gather what the steps since `load` told and how many each row lived through.
    """

    def __init__(self, strategy: Strategy, land: Landscape, state: Any) -> None:
        self.strategy, self.rows = strategy, len(land.context.seed)
        self.context = land.context._map(torch.clone)
        self.state = over_rows(torch.clone, state)
        device = self.context.seed.device
        # float64 holds every step number, and arithmetic with it rounds as with a number of Python's
        self.t = torch.zeros((), dtype=torch.float64, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.told = torch.full((strategy.rounds, self.rows), torch.nan, device=device)
        self.alive = torch.zeros(self.rows, dtype=torch.float64, device=device)
        self.land = Landscape(land.pair, self.context, space=land.space, objective=land.objective, ledger=Ledger())
        self.land.counted = 1
        self.draw = Draw(self.context.seed)
        self.cost = Ledger()  # of one row and step
        self.replay: Work | None = None

    def work(self) -> None:
        """Do a step in place."""
        before = self.land.ledger.copy()
        fresh, info = self.strategy.step(self.state, self.t, self.land, self.draw)
        self.cost = self.land.ledger - before
        alive = ~self.state.done
        self.told.index_copy_(0, self.at, torch.where(alive, info.value.detach().float(), torch.nan)[None])
        self.alive.add_(alive)
        new = where_rows(self.state.done, self.state, fresh)
        over_rows(Tensor.copy_, self.state, new)
        self.t.add_(1)
        self.at.add_(1)

    def load(self, context: Context, state: Any, t: int) -> None:
        """Put rows into the buffers, as they stand before step `t`."""
        for mine, given in zip(self.context, context, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        over_rows(Tensor.copy_, self.state, state)
        self.t.fill_(t)
        self.at.fill_(t)
        self.told.fill_(torch.nan)
        self.alive.zero_()

    def record(self, graphs: Graphs, context: Context, state: Any, t: int) -> None:
        """Record the step, and compare its first replay with the trial runs. Raises CannotRecordError."""
        self.replay = graphs.record(self.work, lambda: self.load(context, state, t))
        self.load(context, state, t)
        self.work()
        trial = over_rows(torch.clone, self.state), self.told[t].clone()
        self.load(context, state, t)
        self.replay()
        scale = trial[1].nan_to_num(0).abs().max().clamp_min(1e-6)
        far = (self.told[t] - trial[1]).nan_to_num(0).abs().max() / scale
        same = bool((torch.isfinite(self.told[t]) == torch.isfinite(trial[1])).all()) and float(far) <= LOOSE
        if not same or float(self.at) != t + 1:
            raise CannotRecordError("a replayed step gave other values")


class Recorded:
    """Steps by replay; where they cannot be recorded, by `Eager`, and `tell` gets one line that says what was lost."""

    def __init__(self, eager: Eager, graphs: Graphs, tell: Callable[[str], None]) -> None:
        self.eager, self.graphs, self.tell = eager, graphs, tell
        self.strategy, self.settings, self.device = eager.strategy, eager.settings, eager.device
        self.shapes: dict[int, Shape] = {}
        self.sizes: list[int] = []
        self.lost = ""
        self.watch: Callable[[float], None] | None = None

    def begin(self, chunk: int) -> None:
        sizes = sorted({self.eager.size(rows) for rows in (*(chunk // p or 1 for p in PARTS), chunk)})
        if sizes != self.sizes:
            self._forget()
            self.sizes = sizes

    def size(self, count: int) -> int:
        if self.lost:
            return self.eager.size(count)
        return next((s for s in self.sizes if s >= count), self.eager.size(count))

    def give_up(self, why: str) -> bool:
        if self.lost:
            return False
        self.lost = why
        self._forget()
        self.tell(f"steps run one kernel at a time, slower where networks are small: {why}")
        return True

    def _forget(self) -> None:
        if self.shapes:
            self.shapes.clear()
            self.graphs.forget()

    def run(self, land: Landscape, point0: Tensor, rows: int) -> Moved:
        if not self.lost and uneven(self.strategy):
            self.give_up("the method's steps are not alike")
        if self.lost or not self.strategy.rounds:
            self.eager.watch, self.watch = self.watch, None
            return self.eager.run(land, point0, rows)
        before = land.ledger.copy()
        try:
            return self._replayed(land, point0, rows)
        except torch.OutOfMemoryError:
            self._forget()
            raise
        except CannotRecordError as error:
            self.give_up(str(error))
        vars(land.ledger).update(vars(before))  # what was tried is not counted
        self.eager.watch, self.watch = self.watch, None
        return self.eager.run(land, point0, rows)

    def trial(self, land: Landscape, point0: Tensor, clock: Clock) -> float:
        if not self.lost and uneven(self.strategy):
            self.give_up("the method's steps are not alike")
        if not self.lost:
            try:
                shape = self._shape(land, self.strategy.init(point0, land, Draw(land.context.seed)), 0)
            except CannotRecordError as error:
                self.give_up(str(error))
            else:
                assert shape.replay is not None
                # replays count steps on; as many as there are may be called
                return timed(shape.replay, min(2, self.strategy.rounds - 1) or 1, self.device, clock)
        return self.eager.trial(land, point0, clock)

    def _shape(self, land: Landscape, state: Any, t: int) -> Shape:
        """Return the shape for rows, recorded if need be, loaded with them as they stand before step `t`."""
        rows = len(land.context.seed)
        if rows not in self.shapes:
            shape = Shape(self.strategy, land, state)
            try:
                shape.record(self.graphs, land.context, state, t)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError) as error:
                raise CannotRecordError(
                    f"recording failed ({(str(error) or type(error).__name__).splitlines()[0][:80]})"
                ) from error
            self.shapes[rows] = shape
        self.shapes[rows].load(land.context, state, t)
        return self.shapes[rows]

    def _replayed(self, land: Landscape, point0: Tensor, rows: int) -> Moved:
        rounds, every = self.strategy.rounds, look_every(self.settings, self.device)
        store = self.strategy.init(point0, land, Draw(land.context.seed))
        active, busy, counted = torch.arange(len(point0), device=self.device), rows, rows
        spent = torch.zeros(len(point0), dtype=torch.float64, device=self.device)
        told = torch.full((rounds, len(point0)), torch.nan, device=self.device)
        shape, since = self._shape(land, store, 0), 0

        def gather(until: int) -> Any:
            mine = active[:busy]
            told[since:until].index_copy_(1, mine, shape.told[since:until, :busy])
            spent.index_add_(0, mine, shape.alive[:busy] * max(shape.cost.as_tuple()[:2]))
            return stored(store, shape.state, active, busy)

        began = time.perf_counter()
        for t in range(rounds):
            assert shape.replay is not None
            shape.replay()
            for name, cost in vars(shape.cost).items():
                setattr(land.ledger, name, getattr(land.ledger, name) + cost * counted)
            if (t + 1) % every and t + 1 < rounds:
                continue
            left = active[:busy][~shape.state.done[:busy]]  # waits for the device
            if self.watch:
                self.watch((time.perf_counter() - began) / (t + 1))
                self.watch = None
            if len(left) == counted:
                continue
            counted = len(left)
            if not counted or (self.settings.compact and self.size(counted) < shape.rows):
                store = gather(t + 1)
                if not counted or t + 1 == rounds:
                    return Moved(store, told, spent)
                active, busy, since = filled(left, self.size(counted)), counted, t + 1
                state = over_rows(lambda x: x[active], store)  # noqa: B023
                shape = self._shape(land.select(active), state, since)
        return Moved(gather(rounds), told, spent)
