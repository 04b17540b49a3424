"""Selection among draws of the prior by the critic's density ratio: MH-GAN, DRS and OBRS. No gradient is asked.

All keep the latent inside the prior's support exactly, and keep the weights of modes only as well as the critic is calibrated
across modes. Candidates are drawn per row, with the try as draw index: a row's result depends on no other row.

Published code forms odds from probabilities (0/0 at a score of 1 is then accepted), raises the constant of DRS and its
percentile while it samples (rows depend on their batch), subtracts before and after a division by the mean (NaN), and refuses
rates below 1 / M silently. Here all is in logits, and every constant is fixed by a pilot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..model import Capability
from .base import REASONS, Cost, Info, Outcome, ended, fresh, rowwise, strategy_name
from .density import DensityRatio, pilot_scores, real_scores

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


class SelectionState(NamedTuple):
    """A point, its score, the score that the chain compares with, whether a candidate was ever taken, candidates taken (of a
    chain) or tried (of a rejection)."""

    point: Tensor
    done: Tensor
    why: Tensor
    value: Tensor
    level: Tensor
    taken: Tensor
    tally: Tensor


@dataclass(frozen=True, kw_only=True)
class Selection(DensityRatio):
    """Base of methods that draw candidates from the prior and take or leave them."""

    needs: ClassVar[Capability] = Capability.CRITIC
    rejects: ClassVar[bool] = True
    tells_start: ClassVar[bool] = True

    def check(self, landscape: Landscape) -> None:
        if landscape.space.prior.kind == "none":
            raise RequestError(
                f"'{strategy_name(self)}' draws candidates, but the space {landscape.space.name!r} has no prior",
                way_out="Use --space z.",
            )
        super().check(landscape)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> SelectionState:
        done, why = fresh(point0)
        blank = torch.full_like(why, torch.nan, dtype=point0.dtype)
        return SelectionState(point0, done, why, blank, blank, done, torch.zeros_like(blank))

    def candidate(self, t: Tensor | int, landscape: Landscape, draw: Draw, like: Tensor) -> Tensor:
        """Return this try's draw from the prior."""
        return landscape.space.prior.sample(draw, t, "candidate", landscape.space.shape, like.dtype)

    def finish(self, state: SelectionState, landscape: Landscape) -> Outcome:
        if self.steps == 0:
            return Outcome(state.point, stopped=state.why)
        rejected = torch.full_like(state.why, REASONS.index("rejected"))
        why = torch.where(state.taken, state.why, rejected)
        return Outcome(state.point, value=state.value, stopped=why, accepted=state.taken, extra=self.told(state))

    def told(self, state: SelectionState) -> dict[str, Tensor]:
        """Return the method's own numbers per row."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class MH(Selection):
    """An independent Metropolis-Hastings chain over prior draws for each sample (MH-GAN).

    Choose it where the law matters more than the cost: exact for a calibrated critic as the chain grows. A row that never
    takes a candidate is marked rejected and left as it was. Source: Turner et al. 2019, algorithm 1; accept with
    min(1, exp(l'' - l)). Cost: steps + 1 forwards, no backward.
    """

    name: ClassVar[str] = "mh"
    source: ClassVar[str] = "Metropolis-Hastings GAN (Turner et al. 2019), algorithm 1"

    steps: int = 100  # length of the chain, in candidates (the paper: 640)
    start: Literal["draw", "real"] = "draw"  # begin at the sample itself, or at a real image's score (the paper: needs reals)
    real_levels: tuple[float, ...] = ()  # learned: quantiles of real images' scores

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("draw", "real"):
            raise UsageError(f"start is 'draw' or 'real', not {self.start!r}")

    def cost(self) -> Cost:
        return Cost.of(self.steps + 1 if self.steps else 0, 0)

    @property
    def pilot(self) -> int:
        return max(super().pilot, 1 if self.start == "real" and not self.real_levels else 0)

    @property
    def reads_reals(self) -> bool:
        return super().reads_reals or (self.start == "real" and not self.real_levels)

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Self:
        fitted = super().fit(landscape, draw, reals)
        if self.start == "draw" or self.real_levels:
            return fitted
        if reals is None:
            raise RequestError(
                "a chain that begins at a real image's score needs real images",
                way_out="Give --reals DATA (reals= in Python), or start=draw.",
            )
        q = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
        levels = torch.quantile(real_scores(landscape, reals).double().cpu(), q)
        return replace(fitted, real_levels=tuple(levels.tolist()))

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> SelectionState:
        state = super().init(point0, landscape, draw)
        if self.steps == 0:
            return state
        level = score = landscape.score(point0)
        if self.start == "real":
            levels = torch.tensor(self.real_levels, dtype=score.dtype, device=score.device)
            level = levels[(draw.uniform(0, "real") * len(levels)).long().clamp(max=len(levels) - 1)]
        return state._replace(value=score, level=level)

    def step(self, state: SelectionState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[SelectionState, Info]:
        candidate = self.candidate(t, landscape, draw, state.point)
        score = landscape.score(candidate)
        gain = self.log_ratio(score).double() - self.log_ratio(state.level).double()
        lost = torch.isnan(state.level) & torch.isfinite(score)  # from a broken score any candidate is a way out
        take = (draw.uniform(t, "accept", dtype=torch.float64).log() < gain) | lost
        new = SelectionState(
            torch.where(rowwise(take, candidate), candidate, state.point),
            state.done,
            state.why,
            torch.where(take, score, state.value),
            torch.where(take, score, state.level),
            state.taken | take,
            state.tally + take,
        )
        return new, Info(state.value, take.to(score.dtype))

    def told(self, state: SelectionState) -> dict[str, Tensor]:
        return {"acceptance": state.tally / self.steps}


@dataclass(frozen=True, kw_only=True)
class Rejection(Selection):
    """Base of rejection sampling: the first try is the sample itself, further ones are fresh draws until one is accepted."""

    steps: int = 100  # tries per sample; 1: only the sample itself, rejected rows are marked
    pilot_rows: int = 10000  # prior draws that the constant is fixed on
    achieved: float | None = None  # learned: acceptance rate on the pilot

    def cost(self) -> Cost:
        return Cost.of(self.steps, 0, exact=self.steps <= 1)

    @property
    def redraws(self) -> bool:
        """Whether a rejected row begins again from the prior."""
        return self.steps > 1

    @property
    def fitted(self) -> bool:
        """Whether the constants are known."""
        raise NotImplementedError

    @property
    def pilot(self) -> int:
        return 0 if self.steps == 0 else max(super().pilot, 0 if self.fitted else self.pilot_rows)

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Self:
        if self.steps == 0:
            return self
        mine = super().fit(landscape, draw, reals)
        if mine.fitted:
            return mine
        ratio = mine.log_ratio(pilot_scores(landscape, self.pilot_rows).double())
        mine = mine.fixed(ratio[torch.isfinite(ratio)])
        return replace(mine, achieved=float(mine.log_accept(ratio).exp().nan_to_num(0).mean()))

    def fixed(self, ratio: Tensor) -> Self:
        """Return this method with its constants learned from the pilot's finite log ratios."""
        raise NotImplementedError

    def log_accept(self, ratio: Tensor) -> Tensor:
        """Return the log probability to accept, from log ratios in float64."""
        raise NotImplementedError

    def step(self, state: SelectionState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[SelectionState, Info]:
        first = torch.as_tensor(t, device=state.done.device) == 0
        candidate = torch.where(first, state.point, self.candidate(t, landscape, draw, state.point))
        score = landscape.score(candidate)
        left = value = torch.where(first, score, state.value)
        u = draw.uniform(t, "accept", dtype=torch.float64)
        take = u.log() < self.log_accept(self.log_ratio(score.double()))  # False for NaN
        done, why = ended(state.done, state.why, take, "steps")
        point = torch.where(rowwise(take, candidate), candidate, state.point)
        value = torch.where(take, score, value)
        new = SelectionState(point, done, why, value, state.level, state.taken | take, state.tally + 1)
        return new, Info(left, take.to(score.dtype))

    def told(self, state: SelectionState) -> dict[str, Tensor]:
        return {"tries": state.tally}


@dataclass(frozen=True, kw_only=True)
class DRS(Rejection):
    """Discriminator rejection sampling, with its maximum and its percentile fixed on a pilot (DRS).

    Choose it to drop poor samples at about `1 / acceptance` evaluations each; it stays between the generator's law and the
    data's by construction. Source: Azadi et al. 2019, Eq. 8. Cost: one forward a try.
    """

    name: ClassVar[str] = "drs"
    source: ClassVar[str] = "Discriminator rejection sampling (Azadi et al. 2019)"

    percentile: float = 80.0  # gamma is this percentile of the pilot's scores F, in percent
    log_max: float | None = None  # learned: largest log ratio of the pilot; larger ones count as this
    gamma: float | None = None  # learned: shift of F; above 0 lowers acceptance

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percentile <= 100:
            raise UsageError(f"percentile lies in [0, 100], not {self.percentile!r}")

    @property
    def fitted(self) -> bool:
        return self.log_max is not None and self.gamma is not None

    def fixed(self, ratio: Tensor) -> Self:
        top = float(ratio.max()) if self.log_max is None else self.log_max
        mine = replace(self, log_max=top, gamma=0.0)
        shift = float(torch.quantile(mine.shifted(ratio), self.percentile / 100))
        return replace(mine, gamma=shift if self.gamma is None else self.gamma)

    def shifted(self, ratio: Tensor) -> Tensor:
        """Return F = l - M - log(1 - exp(l - M - 1e-6)) - gamma."""
        assert self.log_max is not None, "not fitted"
        assert self.gamma is not None, "not fitted"
        below = (ratio - self.log_max).clamp(max=0)
        return below - torch.log1p(-torch.exp(below - 1e-6)) - self.gamma

    def log_accept(self, ratio: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(self.shifted(ratio))


@dataclass(frozen=True, kw_only=True)
class OBRS(Rejection):
    """Rejection sampling that is best for a stated budget (OBRS).

    Choose it when you can afford K evaluations a sample on average: no other acceptance rule of that rate comes nearer to the
    data's law in any f-divergence. Source: Verine et al. 2024; accept with min(1, c r), c by bisection on a pilot. Cost:
    budget forwards a sample on average, at most steps.
    """

    name: ClassVar[str] = "obrs"
    source: ClassVar[str] = "Optimal budgeted rejection sampling (Verine et al. 2024)"

    budget: float = 2.0  # evaluations per accepted sample, on average (1 / the accepted share)
    log_c: float | None = None  # learned: log of the constant c

    def accepting(self, share: float) -> Self:
        """Return this method at the budget that accepts `share`."""
        return replace(self, budget=1 / share, log_c=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.budget < float("inf"):
            raise UsageError(f"budget is 1 or more evaluations per sample, not {self.budget!r}")

    @property
    def fitted(self) -> bool:
        return self.log_c is not None

    def fixed(self, ratio: Tensor) -> Self:
        low, high = -60.0 - float(ratio.max()), 60.0 - float(ratio.min())
        for _ in range(100):
            middle = (low + high) / 2
            over = float((ratio + middle).clamp(max=0).exp().mean()) > 1 / self.budget
            low, high = (low, middle) if over else (middle, high)
        return replace(self, log_c=high)

    def log_accept(self, ratio: Tensor) -> Tensor:
        assert self.log_c is not None, "not fitted"
        return (ratio + self.log_c).clamp(max=0)
