"""Tarsier's optimiser: a diagonal (separable) CMA evolution strategy per row, batched over all rows.

    z_k = m + sigma sqrt(C) n_k;  m <- weighted mean of the better half;  sigma and C learn from two paths

The paths and the damping have the constants of the CMA tutorial. C learns at the rates of pycma's `CMA_diagonal`, in its
exponential form and without negative weights: with the full CMA's rates times (d + 2) / 3 the law of results differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import UsageError
from ..lazy import torch
from ..model import Capability
from .base import Cost, Info, Outcome, Strategy, ended, fresh, need_positive, taken
from .evolution import best_of, ranked

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


class CMAState(NamedTuple):
    """The best point seen and its value; mean, step size, diagonal covariance and the two paths of the search, (rows, d)."""

    point: Tensor
    value: Tensor
    mean: Tensor
    sigma: Tensor
    variance: Tensor
    path_sigma: Tensor
    path: Tensor
    done: Tensor
    why: Tensor


class Constants(NamedTuple):
    """The numbers of a CMA for `size` coordinates and a population."""

    weights: list[float]
    mu_eff: float
    c_sigma: float
    damping: float
    c_path: float
    c_one: float
    c_mu: float
    chi: float


def constants(size: int, population: int) -> Constants:
    """Return the constants of the diagonal CMA for `size` coordinates."""
    mu = population // 2
    raw = [math.log((population + 1) / 2) - math.log(i) for i in range(1, mu + 1)]
    weights = [w / sum(raw) for w in raw]
    mu_eff = 1 / sum(w * w for w in weights)
    c_sigma = (mu_eff + 2) / (size + mu_eff + 5)
    damping = 1 + c_sigma + 2 * max(0.0, math.sqrt((mu_eff - 1) / (size + 1)) - 1)
    c_path = (4 + mu_eff / size) / (size + 4 + 2 * mu_eff / size)
    root = math.sqrt(size)
    c_one = 1 / (size + 2 * root + mu_eff / size)
    c_mu = min(1 - c_one, (mu_eff + 1 / mu_eff - 1.75) / (size + 4 * root + mu_eff / 2))
    c_one, c_mu = math.log(2) * c_one, math.log(2) * c_mu
    chi = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size * size))
    return Constants(weights, mu_eff, c_sigma, damping, c_path, c_one, c_mu, chi)


@dataclass(frozen=True, kw_only=True)
class Tarsier(Strategy):
    """Diagonal CMA around each start, keeping the best point seen; needs no gradient (Tarsier's optimiser).

    Choose it where there are no gradients and some hundred evaluations per sample are affordable; it learns each coordinate's
    scale. A start at zero with sigma 1 (nevergrad's default) sends all samples to the same few optima: here every row starts at
    its own latent with a tenth of the prior's width. Candidates outside the support are folded back. For closeness to the start
    subtract `Displacement` from the objective. Cost: steps x population + 1 forward passes.
    """

    name: ClassVar[str] = "tarsier"
    source: ClassVar[str] = "Tarsier (Roziere et al. 2021); sep-CMA (Ros and Hansen 2008), as in pycma"
    needs: ClassVar[Capability] = Capability.CRITIC
    tells_start: ClassVar[bool] = True

    steps: int = 13  # generations
    population: int | None = None  # candidates per generation; none: 4 + floor(3 ln d)
    sigma: float = 0.1  # standard deviation of the first generation, in those of the prior

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(sigma=self.sigma)
        if self.population is not None and self.population < 4:
            raise UsageError(f"a population has 4 candidates or more, not {self.population!r}")

    def size(self, coordinates: int) -> int:
        """Return the population for so many coordinates."""
        return self.population or 4 + int(3 * math.log(coordinates))

    @property
    def width(self) -> int:
        return self.size(512)

    @property
    def pilot(self) -> int:
        return 0 if self.population else 1  # no sample is scored: `fit` only needs to see the space

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Tarsier:
        return replace(self, population=self.size(landscape.space.size))

    def cost(self) -> Cost:
        return Cost.of(self.steps * self.width + 1 if self.steps else 0, exact=self.population is not None)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> CMAState:
        mean = point0.flatten(1)
        one, zero = torch.ones_like(mean), torch.zeros_like(mean)
        value = ranked(landscape.order(point0)) if self.steps else zero[:, 0]
        sigma = torch.full_like(mean[:, 0], self.sigma * landscape.space.prior.scale())
        return CMAState(point0, value, mean, sigma, one, zero, zero, *fresh(point0))

    def step(self, state: CMAState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[CMAState, Info]:
        space, population = landscape.space, self.size(landscape.space.size)
        k = constants(space.size, population)
        spread, sigma = state.variance.sqrt(), state.sigma.unsqueeze(1)
        noise = draw.normal(t, "cma", (population, space.size), state.mean.dtype)
        flat = state.mean.unsqueeze(1) + (sigma * spread).unsqueeze(1) * noise
        points = space.reflect(flat.reshape(-1, population, *space.shape))
        values = ranked(landscape.order(points))
        best, value = best_of(points, values)
        better = value > state.value

        order = values.argsort(dim=1, descending=True, stable=True)[:, : len(k.weights)]
        chosen = points.flatten(2).gather(1, order.unsqueeze(2).expand(-1, -1, space.size))
        moves = (chosen - state.mean.unsqueeze(1)) / sigma.unsqueeze(1)
        weights = torch.tensor(k.weights, dtype=moves.dtype, device=moves.device).reshape(1, -1, 1)
        shift = (weights * moves).sum(1)
        root = math.sqrt(k.c_sigma * (2 - k.c_sigma) * k.mu_eff)
        path_sigma = (1 - k.c_sigma) * state.path_sigma + root * shift / spread
        length = path_sigma.square().sum(1, keepdim=True).sqrt()
        settled = 1 - (1 - k.c_sigma) ** (2.0 * (t + 1))
        calm = (length / settled**0.5 < (1.4 + 2 / (space.size + 1)) * k.chi).to(length.dtype)
        path = (1 - k.c_path) * state.path + calm * math.sqrt(k.c_path * (2 - k.c_path) * k.mu_eff) * shift
        c_one = k.c_one * (1 - (1 - calm) * k.c_path * (2 - k.c_path))
        ranked_two = (weights * (moves / spread.unsqueeze(1)).square()).sum(1) - 1
        told = (c_one * ((path / spread).square() - 1) + k.c_mu * ranked_two).clamp(max=2.0).double().exp()
        growth = (k.c_sigma / k.damping * (length[:, 0] / k.chi - 1)).clamp(max=1.0).double().exp()
        after = CMAState(
            taken(better, best, state.point),
            torch.where(better, value, state.value),
            state.mean + sigma * shift,
            (state.sigma * growth).to(state.sigma.dtype),
            (state.variance * told).to(state.variance.dtype),
            path_sigma,
            path,
            state.done,
            state.why,
        )
        return after, Info(state.value, better.to(value.dtype))

    def finish(self, state: CMAState, landscape: Landscape) -> Outcome:
        if not self.steps:
            return Outcome(state.point, stopped=state.why)
        lost = state.value == -torch.inf
        why = ended(state.done, state.why, lost, "nan")[1]
        return Outcome(state.point, torch.where(lost, torch.nan, state.value), why)
