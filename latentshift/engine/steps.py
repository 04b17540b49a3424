"""The steps of one chunk: rows moved until all are finished, finished ones frozen, compacted away and no longer counted.

The bits of a row do not depend on its batch on a CPU: a strategy sees batches of a multiple of `PAD` rows only (products give
other bits for 1 or 3 rows than for 16, but the same for 8, 16, 24, ...), on a number of threads that divides it. The networks
are asked for fewer where that gives the same bits (see `few.py`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..landscape import Landscape
from ..noise import Draw
from ..strategies.base import Strategy, over_rows, where_rows
from .threads import PAD

Clock = Callable[[], float]
_TRIAL = 3  # steps after which their time is told; the first is not counted


class Moved(NamedTuple):
    """The last state of a chunk's rows, what each step told, and what each row cost."""

    state: Any
    told: Tensor  # (steps, rows) values, NaN once a row is finished
    spent: Tensor  # (rows,) evaluations, float64


class Wanted(Protocol):
    """What of the settings the steps read."""

    @property
    def compact(self) -> bool: ...
    @property
    def pad(self) -> int: ...
    @property
    def check_every(self) -> int | None: ...


class Steps(Protocol):
    """Moves the rows of a chunk by a strategy's steps."""

    watch: Callable[[float], None] | None  # called once, with the seconds of a step, when some have been done

    def begin(self, chunk: int) -> None:
        """Told at the start of a run: no chunk has more rows."""

    def size(self, count: int) -> int:
        """Return the number of rows that a call of `count` rows is padded to."""

    def trial(self, land: Landscape, point0: Tensor, clock: Clock) -> float:
        """Return the seconds of a step by `clock`, warmed up."""

    def run(self, land: Landscape, point0: Tensor, rows: int) -> Moved:
        """Move `point0`, whose first `rows` rows count; the others are padding."""

    def give_up(self, why: str) -> bool:
        """Go on in a plainer form that needs less; False where there is none."""


def padded(count: int, device: torch.device, pad: int = PAD) -> int:
    """Return the number of rows that a call of `count` rows is padded to."""
    return -(-count // pad) * pad if device.type == "cpu" else count


def filled(index: Tensor, size: int) -> Tensor:
    """Return `index` with its first entry appended until it has `size`."""
    short = size - len(index)
    return torch.cat([index, index[:1].expand(short)]) if short > 0 else index


def stored(store: Any, state: Any, active: Tensor, busy: int) -> Any:
    """Return `store` with the rows `active[:busy]` taken from the first rows of `state`."""
    return over_rows(lambda old, new: old.index_copy(0, active[:busy], new[:busy]), store, state)


def look_every(settings: Wanted, device: torch.device) -> int:
    """Return how many steps pass between looks at finished rows: a look waits for the device."""
    return settings.check_every or (1 if device.type == "cpu" else 10)


def timed(call: Callable[[], Any], times: int, device: torch.device, clock: Clock) -> float:
    """Return the least of `times` seconds that `call` took, after one that is not counted."""
    call()
    took = []
    for _ in range(times):
        _wait(device)
        before = clock()
        call()
        _wait(device)
        took.append(clock() - before)
    return min(took)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Eager:
    """One step after the other, as torch runs it."""

    def __init__(self, strategy: Strategy, settings: Wanted, device: torch.device) -> None:
        self.strategy, self.settings, self.device = strategy, settings, device
        self.watch: Callable[[float], None] | None = None

    def begin(self, chunk: int) -> None:
        return

    def give_up(self, why: str) -> bool:
        return False

    def size(self, count: int) -> int:
        return padded(count, self.device, self.settings.pad)

    def trial(self, land: Landscape, point0: Tensor, clock: Clock) -> float:
        strategy, draw = self.strategy, Draw(land.context.seed)
        state = strategy.init(point0, land, draw)
        count = min(2, strategy.rounds)
        return timed(lambda: strategy.step(state, count - 1, land, draw), count, self.device, clock)

    def run(self, land: Landscape, point0: Tensor, rows: int) -> Moved:
        strategy, every = self.strategy, look_every(self.settings, self.device)
        sub, draw = land, Draw(land.context.seed)
        store = state = strategy.init(point0, land, draw)
        # `active` says which row of the chunk each row of the state is; the first `busy` are distinct, the rest is padding
        active, busy = torch.arange(len(point0), device=self.device), rows
        spent = torch.zeros(len(point0), dtype=torch.float64, device=self.device)
        told = torch.full((strategy.rounds, len(point0)), torch.nan, device=self.device)
        sub = sub._like(distinct=busy)
        counted = busy
        going = not bool(state.done.any())  # whether it is known that no row is finished
        took: list[float] = []
        for t in range(strategy.rounds):
            if self.watch:
                if t == _TRIAL:
                    _wait(self.device)
                took.append(time.perf_counter())
                if t == _TRIAL:
                    self.watch(min(b - a for a, b in itertools.pairwise(took[1:])))
                    self.watch = None
            sub.counted = counted
            before, done = land.ledger.copy(), state.done
            fresh, info = strategy.step(state, t, sub, draw)
            state = fresh if going else where_rows(done, state, fresh)
            share = max((land.ledger - before).as_tuple()[:2]) / max(counted, 1)
            mine, value = active[:busy], info.value.detach()[:busy].float()
            if going:
                spent.index_add_(0, mine, torch.full((busy,), share, dtype=torch.float64, device=self.device))
            else:
                alive = ~done[:busy]
                spent.index_add_(0, mine, alive.double() * share)
                value = torch.where(alive, value, torch.nan)
            told[t].index_copy_(0, mine, value)
            if (t + 1) % every and t + 1 < strategy.rounds:
                going = False
                continue
            going = not bool(state.done.any())
            left = mine if going else mine[~state.done[:busy]]
            if len(left) == counted:
                continue
            counted = len(left)
            fewer = self.size(counted) < len(active) or sub.called(counted) < sub.called(busy)
            if not counted or (self.settings.compact and fewer):
                store = stored(store, state, active, busy)
                if not counted:
                    return Moved(store, told, spent)
                active, busy = filled(left, self.size(counted)), counted
                state = over_rows(lambda x: x[active], store)  # noqa: B023
                going = True
                sub = land.select(active)
                sub.distinct = busy
                draw = Draw(sub.context.seed)
        return Moved(stored(store, state, active, busy), told, spent)
