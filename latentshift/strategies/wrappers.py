"""Strategies that hold a strategy: keep the best point, stop at a target, leave good rows alone.

Each is written once and works around any strategy whose step tells the value at the point that it left (`Info.value`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import UsageError
from ..lazy import torch
from .base import Cost, Info, Outcome, Strategy, ended, taken

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..model import Capability
    from ..noise import Draw


@dataclass(frozen=True, kw_only=True)
class Wrapper(Strategy):
    """A strategy that holds another one and passes everything on."""

    inner: Strategy = None  # type: ignore[assignment]
    steps: int = -1  # those of the inner strategy

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Strategy):
            raise UsageError(f"{type(self).__name__} wraps a strategy, not {self.inner!r}")
        object.__setattr__(self, "steps", self.inner.steps)

    @property
    def needs(self) -> Capability:  # type: ignore[override]
        return self.inner.needs

    @property
    def parts(self) -> tuple[Strategy, ...]:
        return self.inner.parts

    @property
    def width(self) -> int:
        return self.inner.width

    @property
    def rounds(self) -> int:
        return self.inner.rounds

    @property
    def tells_start(self) -> bool:  # type: ignore[override]
        return self.inner.tells_start

    @property
    def rejects(self) -> bool:  # type: ignore[override]
        return self.inner.rejects

    @property
    def pilot(self) -> int:
        return self.inner.pilot

    @property
    def pilot_with_reals(self) -> int:
        return max(self.pilot, self.inner.pilot_with_reals)

    @property
    def reads_reals(self) -> bool:
        return self.inner.reads_reals

    def cost(self) -> Cost:
        return self.inner.cost()

    def check(self, landscape: Landscape) -> None:
        self.inner.check(landscape)

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        return replace(self, inner=self.inner.fit(landscape, draw, reals))


class BestState(NamedTuple):
    """The inner state, its point, and the best point seen."""

    inner: Any
    point: Tensor
    best: Tensor
    best_value: Tensor
    done: Tensor
    why: Tensor


@dataclass(frozen=True, kw_only=True)
class KeepBest(Wrapper):
    """Hand back the point of highest value on the path, the start included (one evaluation more per sample)."""

    name: ClassVar[str] = "keep-best"

    def cost(self) -> Cost:
        return self.inner.cost().plus(Cost.of(1 if self.steps else 0, 0))

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> BestState:
        inner = self.inner.init(point0, landscape, draw)
        worst = torch.full((point0.shape[0],), -torch.inf, dtype=point0.dtype, device=point0.device)
        return BestState(inner, inner.point, point0, worst, inner.done, inner.why)

    def step(self, state: BestState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[BestState, Info]:
        left = state.inner.point
        inner, info = self.inner.step(state.inner, t, landscape, draw)
        better = info.value > state.best_value  # False for NaN: it never wins
        best = taken(better, left, state.best)
        value = torch.where(better, info.value.to(state.best_value.dtype), state.best_value)
        return BestState(inner, inner.point, best, value, inner.done, inner.why), info

    def finish(self, state: BestState, landscape: Landscape) -> Outcome:
        outcome = self.inner.finish(state.inner, landscape)
        if self.steps == 0:
            return outcome
        last = landscape.order(outcome.point)
        better = last > state.best_value
        point = taken(better, outcome.point, state.best)
        return outcome._replace(point=point, value=torch.where(better, last, state.best_value))


class StopState(NamedTuple):
    """The inner state; `point` is where a stopped row rests; what a guard saw there, and at the start."""

    inner: Any
    point: Tensor
    done: Tensor
    why: Tensor
    seen: Tensor | None = None
    first: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class StopAt(Wrapper):
    """End a row as soon as its value has reached `target` (for rows that need no more; finished rows cost nothing)."""

    name: ClassVar[str] = "stop-at"
    reason: ClassVar[str] = "target"

    target: float | None = None  # a score in the critic's own unit

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is None and type(self) is StopAt:
            raise UsageError("stopping at a target needs a target score")

    def cost(self) -> Cost:
        return self.inner.cost()._replace(exact=False)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> StopState:
        inner = self.inner.init(point0, landscape, draw)
        return StopState(inner, inner.point, inner.done, inner.why)

    def reached(self, value: Tensor, t: Tensor | int) -> Tensor:
        """Return which rows may stop at the point they have just left."""
        assert self.target is not None
        return value >= self.target

    def step(self, state: StopState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[StopState, Info]:
        left = state.inner.point
        inner, info = self.inner.step(state.inner, t, landscape, draw)
        hit = self.reached(info.value, t)
        done, why = ended(inner.done, inner.why, hit, self.reason)
        return StopState(inner, taken(hit, left, inner.point), done, why), info

    def finish(self, state: StopState, landscape: Landscape) -> Outcome:
        outcome = self.inner.finish(state.inner, landscape)
        mine = state.why != state.inner.why  # ended here: the row rests where it was when it reached the target
        point = taken(mine, state.point, outcome.point)
        return outcome._replace(point=point, stopped=state.why, value=None)


@dataclass(frozen=True, kw_only=True)
class LowerShare(StopAt):
    """Move only the rows whose start scores below the `share` quantile of raw samples; leave the others as they are.

    The threshold is learned once from `rows` pilot samples (`fit`). Refining the lower half kept the gain of refining all at
    half the cost on the measured pairs.
    """

    name: ClassVar[str] = "lower-share"
    reason: ClassVar[str] = "good_already"

    share: float = 0.5  # share of raw samples that is moved
    rows: int = 64  # pilot samples

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UsageError(f"share lies in (0, 1], not {self.share!r}")

    @property
    def pilot(self) -> int:
        return max(self.rows if self.target is None else 0, self.inner.pilot)

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        inner = self.inner.fit(landscape, draw, reals)
        if self.target is not None:
            return replace(self, inner=inner)
        assert landscape.context.point0 is not None
        point0 = landscape.context.point0[: self.rows]
        scores = torch.cat([landscape.select(i).order(point0[i]) for i in landscape.blocks(len(point0))]).float()
        finite = scores[torch.isfinite(scores)]
        some = len(finite) and self.share < 1
        target = float(torch.quantile(finite, self.share)) if some else float("inf")
        return replace(self, inner=inner, target=target)

    def reached(self, value: Tensor, t: Tensor | int) -> Tensor:
        assert self.target is not None, "not fitted"
        return (value >= self.target) & (torch.as_tensor(t, device=value.device) == 0)
