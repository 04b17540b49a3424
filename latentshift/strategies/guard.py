"""Stop a row before it has climbed too far: by something that its objective does not see.

Each rule gives a number per row that should not fall while the row climbs; where it does, the row goes back to the last
point at which it had not, and ends with the reason `guard`. How near each rule comes to the point where an independent judge
is best stands in `docs/doctor.md`: a second critic is best by far, the others hardly beat a shorter climb.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..objective import Term
from ..space import rows_sum
from .base import Cost, Info, Outcome, Strategy, ended, need_positive, taken
from .density import real_scores
from .wrappers import StopAt, StopState

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..model import Critic
    from ..noise import Draw
    from ..objective import Scene

RULES = ("displacement", "reals", "views", "critic")


@dataclass(frozen=True, eq=False)
class SecondCritic(Term):
    """A critic that is not climbed, on images in the pair's range: what the rule `critic` asks on the command line."""

    critic: Critic

    def value(self, scene: Scene) -> Tensor:
        return self.critic.logit(scene.images, scene.context.label if self.critic.labels else None)


def _length(x: Tensor) -> Tensor:
    return rows_sum(x * x, x.ndim - 1).sqrt()


@dataclass(frozen=True, kw_only=True)
class Guard(StopAt):
    """Stop rows by a second opinion.

    `displacement`: the row has moved by more than `limit` of its start's length (costs nothing). `reals`: its score has
    reached the `share` quantile of real images' scores (needs real images in `fit`; costs nothing). `views`: the critic's mean
    score of the image moved by one pixel left and right falls (one G and two D per step). `critic`: the value of `judge`, any
    objective (a second critic as `Quality`), falls (one forward per step). `slack` is how far, in the spread of the pilot's
    numbers, it may fall.
    """

    name: ClassVar[str] = "guard"
    reason: ClassVar[str] = "guard"

    rule: str = "displacement"
    limit: float = 0.1  # share of the start's length, for displacement
    share: float = 0.25  # quantile of real scores, for reals
    slack: float = 0.0  # allowed fall in standard deviations of raw samples, for views and critic
    judge: Term | None = None  # what `critic` asks
    scale: float | None = None  # learned: spread of the numbers over pilot rows

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise UsageError(f"a guard's rule is one of {', '.join(RULES)}, not {self.rule!r}")
        need_positive(limit=self.limit)
        if not 0 <= self.share <= 1 or not self.slack >= 0:
            raise UsageError("share lies in 0 to 1, slack is 0 or more")
        if (self.rule == "critic") != (self.judge is not None):
            raise UsageError("the rule 'critic' takes a judge, an objective that is not climbed, and no other rule does")

    @property
    def looks(self) -> bool:
        """Whether the rule asks for evaluations of its own."""
        return self.rule in ("views", "critic")

    def cost(self) -> Cost:
        more = self.rounds if self.looks else 0
        d = 2 * more if self.rule == "views" else more
        return self.inner.cost().plus(Cost(more, d, 0, 0))._replace(exact=False)

    @property
    def reads_reals(self) -> bool:
        return self.rule == "reals" or self.inner.reads_reals

    @property
    def pilot(self) -> int:
        mine = 64 if self.looks else 8 if self.rule == "reals" and self.target is None else 0
        return max(mine, self.inner.pilot)

    def check(self, landscape: Landscape) -> None:
        super().check(landscape)
        if self.rule == "views" and len(landscape.pair.image_shape or ()) != 3:
            raise RequestError("views are moved pictures, and this pair makes points", way_out="Use another rule.")

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        fitted = replace(self, inner=self.inner.fit(landscape, draw, reals))
        if self.rule == "reals" and self.target is None:
            if reals is None:
                raise RequestError("the guard 'reals' needs real images", way_out="Give them (--reals, reals=).")
            scores = real_scores(landscape, reals)
            fitted = replace(fitted, target=float(torch.quantile(scores.float(), self.share)))
        if self.looks and self.scale is None:
            assert landscape.context.point0 is not None
            point0 = landscape.context.point0
            seen = torch.cat([self.seen(point0[i], landscape.select(i)) for i in landscape.blocks(len(point0))])
            fitted = replace(fitted, scale=float(seen.float().std()))
        return fitted

    def seen(self, point: Tensor, landscape: Landscape) -> Tensor:
        """Return the rule's number at points, (rows,), which should not fall."""
        if self.rule == "views":
            return landscape.score_of_views(point)
        assert self.judge is not None
        return landscape.with_objective(self.judge).value(point)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> StopState:
        inner = self.inner.init(point0, landscape, draw)
        low = torch.full((point0.shape[0],), -torch.inf, dtype=point0.dtype, device=point0.device)
        return StopState(inner, inner.point, inner.done, inner.why, low, low)

    def step(self, state: StopState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[StopState, Info]:
        left = state.inner.point
        inner, info = self.inner.step(state.inner, t, landscape, draw)
        assert state.seen is not None
        assert state.first is not None
        held, seen = left, state.seen
        if self.rule == "displacement":  # looks at where the step leads: the row never leaves the limit
            start = landscape.context.point0
            assert start is not None
            moved = _length(inner.point - start) / _length(start)
            hit = moved > self.limit
            held = taken(hit, left, inner.point)
            seen = torch.where(hit, state.seen.clamp(min=0), moved.to(state.seen.dtype))
        elif self.rule == "reals":
            assert self.target is not None, "not fitted"
            hit = info.value >= self.target
            seen = info.value.to(state.seen.dtype)
        else:
            assert self.scale is not None, "not fitted"
            now = self.seen(left, landscape).to(state.seen.dtype)
            hit = now < state.seen - self.slack * self.scale
            held, seen = taken(hit, state.point, left), torch.where(hit, state.seen, torch.maximum(now, state.seen))
        done, why = ended(inner.done, inner.why, hit, self.reason)
        first = torch.where(torch.isinf(state.first), seen, state.first)
        return StopState(inner, held, done, why, seen, first), info

    def finish(self, state: StopState, landscape: Landscape) -> Outcome:
        outcome = super().finish(state, landscape)
        assert state.seen is not None
        assert state.first is not None
        return outcome._replace(extra=(outcome.extra or {}) | {"guard": state.seen, "guard_start": state.first})
