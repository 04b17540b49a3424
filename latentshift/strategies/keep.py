"""Accepting a stated share: the best by score of what a strategy made, each rejected row drawn again, or dropped.

`keep(strategy, share)` is `--keep SHARE`. Acceptance compares with one threshold that is fixed on a pilot, so a row's fate
depends on no other row. A row that is drawn again starts from the prior with the try as draw index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..model import Capability
from .base import REASONS, Cost, Info, Outcome, Strategy, ended, fresh, strategy_name
from .chain import Chain
from .density import pilot_scores

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

MISSED = 1e-3  # at most this share of rows may still be rejected after the last try
MOST = 1000  # tries, whatever the share


class TryState(NamedTuple):
    """The candidate of the last try, its score, how many were tried, and whether the last one was taken."""

    point: Tensor
    done: Tensor
    why: Tensor
    value: Tensor
    tries: Tensor
    taken: Tensor


@dataclass(frozen=True, kw_only=True)
class TopShare(Strategy):
    """Accept the best share of samples by score, against a threshold that is fixed on a pilot.

    Choose it, alone or as `--keep SHARE` behind another method, to leave out the worst samples when you can afford 1 / share
    evaluations each: simple and strict, it favours the modes that the critic favours (OBRS is gentler). Source: rejection by
    a threshold, the form that truncation takes in a critic's score. Cost: one forward a try.
    """

    name: ClassVar[str] = "top-share"
    needs: ClassVar[Capability] = Capability.CRITIC
    source: ClassVar[str] = "rejection below a threshold, as in discriminator-based filtering of samples"
    rejects: ClassVar[bool] = True
    tells_start: ClassVar[bool] = True

    steps: int = 100  # tries per sample; 1: only the sample itself, rejected rows are marked
    share: float = 0.5  # share of samples that is accepted
    pilot_rows: int = 1000  # samples that the threshold is fixed on
    threshold: float | None = None  # learned: the score from which a sample is accepted

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UsageError(f"share lies in (0, 1], not {self.share!r}")
        if self.pilot_rows < 2:
            raise UsageError(f"a threshold needs 2 pilot samples or more, not {self.pilot_rows!r}")

    def cost(self) -> Cost:
        return Cost.of(self.steps, 0, exact=self.steps <= 1)

    @property
    def redraws(self) -> bool:
        """Whether a rejected row begins again from the prior."""
        return self.steps > 1

    @property
    def pilot(self) -> int:
        return 0 if self.steps == 0 or self.threshold is not None else self.pilot_rows

    def accepting(self, share: float) -> Self:
        return replace(self, share=share)

    def check(self, landscape: Landscape) -> None:
        if self.redraws and landscape.space.prior.kind == "none":
            raise RequestError(
                f"'{strategy_name(self)}' draws rejected rows again, but the space {landscape.space.name!r} has no prior",
                way_out="Use --space z, or --drop.",
            )

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Self:
        if not self.pilot:
            return self
        scores = pilot_scores(landscape, self.pilot_rows).double()
        scores = scores[torch.isfinite(scores)]
        if not len(scores):
            raise RequestError("no pilot sample has a finite score", way_out="Check G and D on raw latents.")
        return replace(self, threshold=float(torch.quantile(scores, 1 - self.share)) if self.share < 1 else -math.inf)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> TryState:
        done, why = fresh(point0)
        blank = torch.full_like(why, torch.nan, dtype=point0.dtype)
        return TryState(point0, done, why, blank, torch.zeros_like(blank), done)

    def step(self, state: TryState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[TryState, Info]:
        assert self.threshold is not None, "not fitted"
        first = torch.as_tensor(t, device=state.done.device) == 0
        point = state.point
        if self.redraws:
            space = landscape.space
            point = torch.where(first, point, space.prior.sample(draw, t, "candidate", space.shape, point.dtype))
        score = landscape.score(point)
        take = score.double() >= self.threshold  # False for NaN
        done, why = ended(state.done, state.why, take, "steps")
        told = torch.where(first, score, state.value)
        return TryState(point, done, why, score, state.tries + 1, take), Info(told, take.to(score.dtype))

    def finish(self, state: TryState, landscape: Landscape) -> Outcome:
        if self.steps == 0:
            return Outcome(state.point, stopped=state.why)
        why = torch.where(state.taken, state.why, torch.full_like(state.why, REASONS.index("rejected")))
        return Outcome(state.point, value=state.value, stopped=why, accepted=state.taken, extra={"tries": state.tries})


def tries_for(share: float) -> int:
    """Return how many tries leave at most `MISSED` of the rows rejected at this acceptance rate.

    >>> tries_for(0.5), tries_for(0.1), tries_for(1.0)
    (10, 66, 1)
    """
    if share >= 1:
        return 1
    return min(MOST, max(1, math.ceil(math.log(MISSED) / math.log1p(-share))))


def likely_share(stage: Strategy) -> float:
    """Return the share that a stage accepts: stated by it, 0.2 where only a pilot could tell, 1 where it rejects nothing."""
    if not stage.rejects:
        return 1.0
    found: float = getattr(stage, "share", None) or 1 / getattr(stage, "budget", 5.0)
    return found


def compose(
    strategy: Strategy,
    then: Sequence[Strategy] = (),
    *,
    share: float | None = None,
    drop: bool = False,
    tries: int | None = None,
) -> Strategy:
    """Return `strategy`, what comes `then`, and acceptance of a `share`, as one strategy.

    Later stages that accept or reject look at each sample once; a row that is rejected goes through all stages again from a
    fresh draw, unless `drop`: it is then marked. `tries` None: as many as leave one row of a thousand rejected. Raises
    UsageError where nothing could be rejected.
    """
    stages = [strategy, *(replace(s, steps=1) if getattr(s, "redraws", False) else s for s in then)]
    if share is not None:
        if not 0 < share <= 1:
            raise UsageError(f"the share to keep lies in (0, 1], not {share!r}", where="--keep")
        accepting = getattr(stages[-1], "accepting", None)
        if accepting is not None:
            stages[-1] = accepting(share)
        else:
            stages.append(TopShare(steps=1, share=share))
    if drop:
        if not any(s.rejects for s in stages):
            raise UsageError(
                f"'{strategy_name(strategy.parts[0])}' rejects nothing that could be dropped",
                where="--drop",
                way_out="Add --keep SHARE.",
            )
        stages = [replace(s, steps=1) if getattr(s, "redraws", False) else s for s in stages]
        tries = 1
    if len(stages) == 1:
        return stages[0] if tries is None or not getattr(stages[0], "redraws", False) else replace(stages[0], steps=tries)
    if tries is None:
        tries = tries_for(math.prod(likely_share(s) for s in stages[1:]))
    return Chain(stages=tuple(stages), tries=tries)
