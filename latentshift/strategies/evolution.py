"""Evolution without gradients: EvolGAN's (1+1) and (1+lambda) search per row, and the best of N prior draws.

    z'' = mutate(z);  z <- z'' where Q(z'') >= Q(z)

Q is any critic. Every mutation leaves the prior invariant, so where Q is flat the samples stay samples of G; but nothing ties
a row to its start: in few dimensions long searches walk to the critic's global best and lose modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..model import Capability
from .base import Cost, Info, Outcome, Strategy, ended, fresh, taken

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

Mutation = Literal["discrete", "portfolio", "gaussian", "random"]


class SearchState(NamedTuple):
    """The parent, its value (-inf where it is not a number), whether the row is finished; `length` of a Gaussian move."""

    point: Tensor
    value: Tensor
    done: Tensor
    why: Tensor
    length: Tensor | None = None


def ranked(value: Tensor) -> Tensor:
    """Return values in which what is not a number loses against everything."""
    return torch.where(torch.isnan(value), -torch.inf, value)


def best_of(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best of a population: points (rows, width, *shape), values (rows, width)."""
    value, index = values.max(1)
    return points[torch.arange(len(points), device=points.device), index], value


@dataclass(frozen=True, kw_only=True)
class Search(Strategy):
    """Base of searches that keep the best point seen: the start is scored once, each candidate once."""

    needs: ClassVar[Capability] = Capability.CRITIC
    tells_start: ClassVar[bool] = True

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> SearchState:
        if not self.rounds:
            return SearchState(point0, torch.zeros(len(point0), device=point0.device), *fresh(point0))
        return SearchState(point0, ranked(landscape.order(point0)), *fresh(point0))

    def finish(self, state: SearchState, landscape: Landscape) -> Outcome:
        if not self.rounds:
            return Outcome(state.point, stopped=state.why)
        lost = state.value == -torch.inf  # neither the start nor any candidate had a score
        why = ended(state.done, state.why, lost, "nan")[1]
        return Outcome(state.point, torch.where(lost, torch.nan, state.value), why)


@dataclass(frozen=True, kw_only=True)
class EvolGAN(Search):
    """(1+1) or (1+lambda) evolution of each latent, batched over all samples; needs no gradient (EvolGAN).

    Choose it for critics that give no gradient (an image-quality measure, a service). With few steps in many dimensions it
    stays near the start; in few dimensions it loses modes: look at the diversity. `rate` (a in the paper's tables) is our own
    definition, the authors' exact one was not verified: each coordinate is redrawn from the prior with probability
    max(rate, 1/d), and one always is; 0 is the classical 1/d mutation, 1 a fresh draw. One public copy forces no change and
    averages parents (which shrinks the latent's length); here a candidate always differs and always has prior coordinates.
    Cost: steps + 1 forward passes.
    """

    name: ClassVar[str] = "evolgan"
    source: ClassVar[str] = "EvolGAN (Roziere et al. 2020); portfolio: Dang and Lehre 2016; 1/5 rule: Rechenberg 1973"

    steps: int = 80  # candidates evaluated per sample: the budget b, besides the start
    offspring: int = 1  # candidates per generation (lambda); divides steps
    mutation: Mutation = "discrete"  # discrete, portfolio (random rate), gaussian (keeps the prior), random (fresh draws)
    rate: float = 0.0  # discrete: probability that a coordinate is redrawn, at least 1 / d
    length: float = 0.3  # gaussian: s of sqrt(1 - s^2) z + s noise at the start, in (0, 1]
    adapt: bool = True  # gaussian: the 1/5 rule (s doubles on success, times 0.84 on failure)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mutation not in ("discrete", "portfolio", "gaussian", "random"):
            raise UsageError(f"mutation is discrete, portfolio, gaussian or random, not {self.mutation!r}")
        if self.offspring < 1 or self.steps % self.offspring:
            raise UsageError(f"steps is a multiple of offspring, not {self.steps} of {self.offspring!r}")
        if not 0 <= self.rate <= 1:
            raise UsageError(f"rate lies in [0, 1], not {self.rate!r}")
        if not 0 < self.length <= 1:
            raise UsageError(f"length lies in (0, 1], not {self.length!r}")

    @property
    def width(self) -> int:
        return self.offspring

    @property
    def rounds(self) -> int:
        return self.steps // self.offspring

    def cost(self) -> Cost:
        return Cost.of(self.steps + 1 if self.steps else 0)

    def check(self, landscape: Landscape) -> None:
        prior = landscape.space.prior
        if self.mutation in ("discrete", "portfolio") and not prior.product:
            raise RequestError(
                f"redrawing single coordinates has no meaning for a {prior.kind} prior: they are not independent",
                way_out="Use mutation=gaussian.",
            )
        if self.mutation == "random" and prior.kind == "none":
            raise RequestError("there is no prior to draw from in this space", way_out="Use mutation=gaussian.")

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> SearchState:
        state = super().init(point0, landscape, draw)
        return state._replace(length=torch.full_like(state.value, self.length)) if self.mutation == "gaussian" else state

    def mutants(self, state: SearchState, t: Tensor | int, landscape: Landscape, draw: Draw) -> Tensor:
        """Return candidates (rows, offspring, *shape)."""
        space, parent, size = landscape.space, state.point.unsqueeze(1), landscape.space.size
        shape, dtype = (self.offspring, *space.shape), state.point.dtype
        if self.mutation == "gaussian":
            assert state.length is not None
            noise = draw.normal(t, "mutant", shape, dtype)
            return space.prior.near(parent.expand_as(noise), noise, space._view(state.length.unsqueeze(1)))
        redrawn = space.prior.sample(draw, t, "mutant", shape, dtype)
        if self.mutation == "random":
            return redrawn
        u = draw.uniform(t, "mutate", (self.offspring, size + 2), torch.float64)
        rate: Tensor | float = max(self.rate, 1 / size)
        if self.mutation == "portfolio":
            rate = (u[..., size + 1 :] * size).ceil() / size  # one of 1/d, 2/d, ... 1
        mask = u[..., :size] < rate
        forced = (u[..., size : size + 1] * size).long() == torch.arange(size, device=mask.device)
        mask = mask | (forced & ~mask.any(-1, keepdim=True))
        return torch.where(mask.reshape(redrawn.shape), redrawn, parent)

    def step(self, state: SearchState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[SearchState, Info]:
        points = self.mutants(state, t, landscape, draw)
        values = ranked(landscape.order(points))
        best, value = best_of(points, values)
        better = (value >= state.value) & (value > -torch.inf)
        length = state.length
        if length is not None and self.adapt:
            won = (values > state.value.unsqueeze(1)).double().mean(1)
            length = (length * 0.84 * (2.0 / 0.84) ** won).to(length.dtype)
            length = length if landscape.space.prior.kind == "none" else length.clamp(max=1.0)
        after = SearchState(taken(better, best, state.point), torch.where(better, value, state.value), *state[2:4], length)
        return after, Info(state.value, better.to(value.dtype))


@dataclass(frozen=True, kw_only=True)
class BestOfN(Search):
    """The best of N draws from the prior, the start being the first (best-of-N, random search).

    Choose it as the baseline that every method is held against at equal cost, not to make a set. Collapses onto the critic's
    global best as N grows. Cost: N forward passes (none for N = 1).
    """

    name: ClassVar[str] = "best-of-n"
    source: ClassVar[str] = "baseline"

    steps: int = 20  # N: draws per sample, the start counted

    @property
    def rounds(self) -> int:
        return max(self.steps - 1, 0)

    def cost(self) -> Cost:
        return Cost.of(self.steps if self.rounds else 0)

    def check(self, landscape: Landscape) -> None:
        if landscape.space.prior.kind == "none":
            raise RequestError("there is no prior to draw from in this space", way_out="Use a space that has one, such as z.")

    def step(self, state: SearchState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[SearchState, Info]:
        point = landscape.space.prior.sample(draw, t, "redraw", landscape.space.shape, state.point.dtype)
        value = ranked(landscape.order(point))
        better = value > state.value
        after = SearchState(taken(better, point, state.point), torch.where(better, value, state.value), *state[2:4])
        return after, Info(state.value, better.to(value.dtype))
