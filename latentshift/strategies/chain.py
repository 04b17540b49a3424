"""Strategies one after the other: refine and then accept to a budget, best of N and then refine.

Stages run in turn within one step counter. With `tries` above 1, a row that a stage rejects begins again with a fresh draw from
the prior and runs through all stages, so that what is accepted has been refined. Constants of a later stage are fitted on pilot
rows that went through the earlier ones.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import RequestError, UsageError
from ..landscape import Landscape
from ..lazy import torch
from ..model import Capability
from ..noise import Draw
from .base import REASONS, Cost, Info, Outcome, Strategy, fresh, where_rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..objective import Term


class ChainState(NamedTuple):
    """A point, whether every stage of this pass took it, how many passes began, and the states of all stages."""

    point: Tensor
    done: Tensor
    why: Tensor
    taken: Tensor
    passes: Tensor
    stages: Any


@dataclass(frozen=True)
class Later(Draw):
    """Noise for steps that are counted from `shift` on."""

    shift: int = 0

    def bits(self, t: Tensor | int, purpose: str, count: int) -> Tensor:
        return super().bits(t + self.shift, purpose, count)


class Still(Landscape):
    """A landscape that evaluates nothing: it gives later stages a state of the right form before their turn."""

    def _value(self, objective: Term, p: Tensor) -> Tensor:
        return p.new_zeros(p.shape[: p.ndim - self.space.axes])

    def _value_and_grad(self, objective: Term, p: Tensor) -> tuple[Tensor, Tensor]:
        return self._value(objective, p), torch.zeros_like(p)

    def images(self, p: Tensor) -> Tensor:
        assert self.pair.image_shape is not None, "the pair's image shape is unknown"
        return p.new_zeros((*p.shape[: p.ndim - self.space.axes], *self.pair.image_shape))


@functools.cache
def _stages(count: int) -> Any:
    return namedtuple("Stages", [f"s{i}" for i in range(count)])


@dataclass(frozen=True, kw_only=True)
class Chain(Strategy):
    """Run strategies one after the other on each sample, and from a fresh draw again where the last one rejects it.

    Choose it to refine and then accept to a budget (`stages=[IFGSM(...), OBRS(steps=1)], tries=20`), or to pick and then
    refine; on the command line it is typed as `--strategy FIRST --then NEXT:KEY=VALUE`. Cost: the sum of the stages', times at
    most `tries`.
    """

    name: ClassVar[str] = "chain"
    source: ClassVar[str] = "none of its own: the stages have theirs"
    uneven: ClassVar[bool] = True

    steps: int = -1  # those of all stages, times tries
    stages: tuple[Strategy, ...] = ()  # strategies in order
    tries: int = 1  # passes for a row that is rejected, each from a fresh draw; 1: rejected rows are marked

    def __post_init__(self) -> None:
        stages = tuple(self.stages)
        if not stages:
            raise UsageError("a chain needs its stages", way_out="Give strategies in order (stages=, or --then).")
        if not all(isinstance(s, Strategy) for s in stages):
            raise UsageError(f"a chain is made of strategies, not {self.stages!r}")
        if isinstance(self.tries, bool) or int(self.tries) != self.tries or self.tries < 1:
            raise UsageError(f"tries is a whole number from 1 up, not {self.tries!r}")
        for stage in stages[1:]:
            if getattr(stage, "redraws", False):
                raise UsageError(
                    f"{type(stage).__name__} after another stage would accept fresh draws that skip the earlier stages",
                    way_out=f"Give it steps=1, and the chain tries={stage.steps}.",
                )
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "steps", self.tries * self.length)

    @property
    def length(self) -> int:
        """Steps of one pass."""
        return sum(s.rounds for s in self.stages)

    @property
    def active(self) -> list[int]:
        """The stages that have steps."""
        return [i for i, s in enumerate(self.stages) if s.rounds]

    @property
    def needs(self) -> Capability:  # type: ignore[override]
        return functools.reduce(lambda a, b: a | b, (s.needs for s in self.stages))

    @property
    def rejects(self) -> bool:  # type: ignore[override]
        return any(s.rejects for s in self.stages)

    @property
    def parts(self) -> tuple[Strategy, ...]:
        return tuple(part for stage in self.stages for part in stage.parts)

    @property
    def width(self) -> int:
        return max(s.width for s in self.stages)

    @property
    def pilot(self) -> int:
        return max(s.pilot for s in self.stages)

    @property
    def pilot_with_reals(self) -> int:
        return max(s.pilot_with_reals for s in self.stages)

    @property
    def reads_reals(self) -> bool:
        return any(s.reads_reals for s in self.stages)

    @property
    def tells_start(self) -> bool:  # type: ignore[override]
        return bool(self.active) and self.stages[self.active[0]].tells_start

    def cost(self) -> Cost:
        once = functools.reduce(Cost.plus, (s.cost() for s in self.stages))
        g, d, gb, db, exact = once
        n = self.tries
        early = any(s.rejects for s in self.stages[:-1])  # a rejected row skips the stages that are left
        return Cost(n * g, n * d, n * gb, n * db, exact=exact and n == 1 and not early)

    def check(self, landscape: Landscape) -> None:
        for stage in self.stages:
            stage.check(landscape)
        if self.tries > 1 and landscape.space.prior.kind == "none":
            raise RequestError(
                f"a chain draws rejected rows again, but the space {landscape.space.name!r} has no prior",
                way_out="Use --space z, or --drop (tries=1 in Python).",
            )

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        fitted: list[Strategy] = []
        shift = 0
        for i, stage in enumerate(self.stages):
            fitted.append(stage.fit(landscape, Later(draw.seeds, shift), reals))
            later = self.stages[i + 1 :]
            more = max((s.pilot if reals is None else s.pilot_with_reals for s in later), default=0)
            point = landscape.context.point0
            if more and fitted[-1].rounds and point is not None:
                parts = landscape.blocks(min(more, len(point)))
                moved = torch.cat([_whole(fitted[-1], landscape.select(j), shift) for j in parts])
                landscape = landscape.select(torch.cat(parts))
                landscape.context = landscape.context._replace(point0=moved)
            shift += stage.rounds
        return replace(self, stages=tuple(fitted))

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> ChainState:
        still = Still(landscape.pair, landscape.context, space=landscape.space, objective=landscape.objective)
        first = self.active[:1]
        states = [s.init(point0, landscape if [i] == first else still, draw) for i, s in enumerate(self.stages)]
        done, why = fresh(point0)
        return ChainState(
            states[first[0]].point if first else point0,
            done,
            why,
            ~done,
            torch.zeros_like(why, dtype=point0.dtype),
            _stages(len(states))(*states),
        )

    def step(self, state: ChainState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[ChainState, Info]:
        again, local = divmod(int(t), self.length)  # which stage runs is known before any tensor is: a plan records each
        at = next(i for i in self.active if local < sum(s.rounds for s in self.stages[: i + 1]))
        local -= sum(s.rounds for s in self.stages[:at])
        stage, noise = self.stages[at], Later(draw.seeds, int(t) - local)
        inner, taken = state.stages[at], state.taken
        if local == 0 and int(t):
            point0 = state.point
            if at == self.active[0]:  # a further pass
                space = landscape.space
                point0 = space.prior.sample(draw, again, "again", space.shape, state.point.dtype)
                taken = torch.ones_like(taken)
            inner = stage.init(point0, landscape, noise)
        moved, info = stage.step(inner, local, landscape, noise)
        inner = where_rows(inner.done, inner, moved)
        broken = inner.done & (inner.why == REASONS.index("nan"))
        point, done, why = inner.point, state.done | broken, torch.where(broken, inner.why, state.why)
        if local == stage.rounds - 1:
            outcome = stage.finish(inner, landscape)
            point = outcome.point
            if outcome.stopped is not None:
                why = outcome.stopped
            if outcome.accepted is not None:
                taken = taken & outcome.accepted
            if at == self.active[-1]:
                done = done | taken
            if again == self.tries - 1:
                done = done | ~taken
            why = torch.where(taken | broken, why, torch.full_like(why, REASONS.index("rejected")))
        passes = torch.full_like(state.passes, again + 1)
        return ChainState(point, done, why, taken, passes, state.stages._replace(**{f"s{at}": inner})), info

    def finish(self, state: ChainState, landscape: Landscape) -> Outcome:
        broken = state.why == REASONS.index("nan")
        if not self.steps:
            return Outcome(state.point, stopped=state.why)
        return Outcome(state.point, stopped=state.why, accepted=state.taken & ~broken, extra={"tries": state.passes})


def _whole(stage: Strategy, landscape: Landscape, shift: int) -> Tensor:
    """Return where a fitted stage takes the landscape's starts."""
    draw = Later(landscape.context.seed, shift)
    assert landscape.context.point0 is not None
    state = stage.init(landscape.context.point0, landscape, draw)
    for t in range(stage.rounds):
        state = where_rows(state.done, state, stage.step(state, t, landscape, draw)[0])
    return stage.finish(state, landscape).point
