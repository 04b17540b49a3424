"""The contract of a strategy, and the small helpers that every family shares.

A strategy is a frozen dataclass of options. State is a NamedTuple of tensors, rows first (None where a part is unused): only
what the next step needs. Info is what a reader wants to know about a step. The engine freezes finished rows, compacts
them away and counts; a strategy never does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

from ..errors import UsageError
from ..lazy import torch
from ..model import Capability

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

#: reason words, in the order of their codes in a state
REASONS = ("steps", "target", "no_gain", "nan", "rejected", "guard", "good_already")

S = TypeVar("S")


class Cost(NamedTuple):
    """Evaluations per sample, in rows: forward and backward passes of G and D (without the final images)."""

    g_forward: float
    d_forward: float
    g_backward: float
    d_backward: float
    exact: bool = True  # False: at most

    def plus(self, other: Cost) -> Cost:
        """Return the sum of two costs."""
        return Cost(
            self.g_forward + other.g_forward,
            self.d_forward + other.d_forward,
            self.g_backward + other.g_backward,
            self.d_backward + other.d_backward,
            self.exact and other.exact,
        )

    @classmethod
    def of(cls, forward: float = 0, backward: float = 0, exact: bool = True) -> Cost:
        """Return the cost of so many passes through G and D together."""
        return cls(forward, forward, backward, backward, exact)


class Info(NamedTuple):
    """What a step tells: the value at the point that the step left, and how far it moved in words of the method."""

    value: Tensor  # (rows,), in the unit of Landscape.ascent
    accepted: Tensor | None = None  # (rows,) in [0, 1]


class Outcome(NamedTuple):
    """What a strategy hands back per row. `value0` is the start's score where the method came by it for nothing."""

    point: Tensor
    value: Tensor | None = None  # (rows,) value of `point`, where known
    stopped: Tensor | None = None  # (rows,) codes of REASONS
    accepted: Tensor | None = None  # (rows,) bool, where a method rejects
    extra: dict[str, Tensor] | None = None  # further numbers per row


class State(NamedTuple):
    """The smallest state: a point, whether it is finished, and why (a code of REASONS)."""

    point: Tensor
    done: Tensor
    why: Tensor


def fresh(point: Tensor) -> tuple[Tensor, Tensor]:
    """Return (done, why) for rows that just begin."""
    rows = point.shape[0]
    return (
        torch.zeros(rows, dtype=torch.bool, device=point.device),
        torch.zeros(rows, dtype=torch.int8, device=point.device),
    )


def ended(done: Tensor, why: Tensor, now: Tensor, reason: str) -> tuple[Tensor, Tensor]:
    """Return (done, why) with the rows of `now` finished for `reason`, unless they were already."""
    return done | now, why.masked_fill(now & ~done, REASONS.index(reason))


def over_rows(f: Callable[..., Tensor], *states: S) -> S:
    """Apply `f` to the tensors of states of one shape, through nested NamedTuples; None stays None."""
    first: Any = states[0]
    out: Any
    if first is None:
        out = None
    elif isinstance(first, torch.Tensor):
        out = f(*states)
    else:
        out = type(first)(*[over_rows(f, *(getattr(s, name) for s in states)) for name in first._fields])
    return cast(S, out)


def where_rows(mask: Tensor, a: S, b: S) -> S:
    """Return the rows of state `a` where `mask`, those of `b` elsewhere."""
    return over_rows(lambda x, y: taken(mask, x, y), a, b)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Base of all strategies: the contract with its defaults."""

    needs: ClassVar[Capability] = Capability.CRITIC | Capability.GRADIENT
    spaces: ClassVar[tuple[str, ...]] = ()  # names of spaces it is defined in; empty: any
    source: ClassVar[str] = ""
    rejects: ClassVar[bool] = False  # whether a row may end rejected
    tells_start: ClassVar[bool] = False  # whether the first step's value is that of the start itself
    uneven: ClassVar[bool] = False  # whether steps do different work by their number, so that none stands for all

    steps: int = 20  # iterations per sample; 0 gives back the start

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or int(self.steps) != self.steps or self.steps < 0:
            raise UsageError(f"steps is a whole number from 0 up, not {self.steps!r}")

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The methods that a user knows: itself, or what it wraps or runs in turn."""
        return (self,)

    @property
    def width(self) -> int:
        """Rows of work per sample at a time."""
        return 1

    @property
    def rounds(self) -> int:
        """How often the engine calls `step`: `steps`, unless a method counts its steps in evaluations."""
        return self.steps

    def cost(self) -> Cost:
        """Return the evaluations per sample (without the final images)."""
        raise NotImplementedError

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        """Learn what must be known about many rows, from stated pilot rows; default: nothing."""
        return self

    @property
    def pilot(self) -> int:
        """How many pilot rows `fit` wants (0: it learns nothing)."""
        return 0

    @property
    def pilot_with_reals(self) -> int:
        """How many pilot rows `fit` wants where it is handed real images."""
        return self.pilot

    @property
    def reads_reals(self) -> bool:
        """Whether `fit` has a use for real images."""
        return False

    def check(self, landscape: Landscape) -> None:
        """Raise an error where a combination makes no sense for this pair or space, before the first evaluation."""

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> Any:
        """Return the first state."""
        raise NotImplementedError

    def step(self, state: Any, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[Any, Info]:
        """Return the next state and what the step tells. Pure."""
        raise NotImplementedError

    def finish(self, state: Any, landscape: Landscape) -> Outcome:
        """Return what becomes of the rows."""
        return Outcome(state.point, stopped=state.why)


@dataclass(frozen=True, kw_only=True)
class Stay(Strategy):
    """No move at all: the raw sample, for scoring and as the baseline."""

    name: ClassVar[str] = "stay"
    needs: ClassVar[Capability] = Capability.NONE

    steps: int = 0  # always 0

    def cost(self) -> Cost:
        return Cost.of(0, 0)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> State:
        return State(point0, *fresh(point0))


def options(strategy: Any) -> dict[str, Any]:
    """Return a strategy's options as plain values; a wrapped strategy nests under its own name."""

    def plain(value: Any) -> Any:
        if isinstance(value, Strategy):
            return {"strategy": strategy_name(value), **options(value)}
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return {f.name: plain(getattr(strategy, f.name)) for f in dataclasses.fields(strategy)}


def strategy_name(strategy: Any) -> str:
    """Return the name of a strategy's class as the command line writes it."""
    return str(getattr(type(strategy), "name", type(strategy).__name__.lower()))


def not_finite(value: Tensor, grad: Tensor) -> Tensor:
    """Return which rows have a value or a gradient that is NaN or infinite."""
    return (0 * value + (0 * grad.flatten(1)).sum(1)) != 0  # 0 times such a value is NaN


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)). The last bit of torch.sigmoid on a CPU depends on how many rows are beside; exp's does not."""
    return 1 / (1 + torch.exp(-x))


def rowwise(rows: Tensor, like: Tensor) -> Tensor:
    """Return (rows,) reshaped to broadcast against `like` (rows, ...)."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def taken(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of `new` where `mask`, those of `old` elsewhere."""
    return torch.where(rowwise(mask, old), new, old)


def need_positive(**values: float | None) -> None:
    """Raise UsageError where a named value is not a positive finite number (None passes)."""
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} must be above 0 and finite, not {value!r}")
