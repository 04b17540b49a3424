"""Samplers of the critic's tilted prior: DDLS (unadjusted Langevin), MALA, REP-GAN, Ex2MCMC.

    p(z) ~ p0(z) exp(l(G(z)) / T),   l = slope d + intercept        (DDLS; the data's law on G's range where l is exact, T = 1)
    z'' = z + (step_size / 2) grad log p(z) + sqrt(step_size) noise

Half of the public code means step_size / 2 by the same number: ours is the form above. The temperature divides the score
alone. Walls: ULA folds back, MALA refuses; clamping inside a chain would break its law. On a sphere both move in the tangent
plane and are drawn back to it, with the density of that move in MALA's ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..space import rows_sum
from .base import Cost, Info, Outcome, State, ended, fresh, need_positive, not_finite, strategy_name, taken
from .density import DensityRatio

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


@dataclass(frozen=True, kw_only=True)
class DDLS(DensityRatio):
    """Unadjusted Langevin dynamics in latent space (DDLS).

    Choose it for diverse samples at the critic's own odds where the critic is calibrated and steps are small. Its law is
    biased (variance 1 / (1 - step_size / 4) on a linear pair); `mala` is exact. Published copies double the noise, sum up old
    gradients, or temper the prior too; none of that here. Cost: one forward and backward pass per step.
    """

    name: ClassVar[str] = "ddls"
    source: ClassVar[str] = "DDLS (Che et al. 2020)"
    tells_start: ClassVar[bool] = True

    steps: int = 50  # Langevin steps
    step_size: float = 0.01  # squared length of the noise per coordinate; the drift is half of it times the gradient
    noise: float | None = None  # standard deviation of the noise per step, in latent units; none: sqrt(step_size)
    decay: bool = False  # let step_size fall linearly to 0, and the noise with its root

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(step_size=self.step_size)
        if self.noise is not None and not 0 <= self.noise < float("inf"):
            raise UsageError(f"noise is 0 or above and finite, not {self.noise!r}")

    def cost(self) -> Cost:
        return Cost.of(self.steps, self.steps)

    def check(self, landscape: Landscape) -> None:
        if landscape.space.prior.kind == "none":
            raise RequestError(
                f"'{strategy_name(self)}' needs a prior density, and this space has none",
                way_out="Use space z, or a method that only climbs.",
            )
        super().check(landscape)

    def rates(self, t: Tensor | int, scale: Tensor | float = 1.0) -> tuple[Tensor | float, Tensor | float]:
        """Return (step size, standard deviation of the noise) of step t; `scale` multiplies the step size."""
        scale = scale * (1 - t / self.steps) if self.decay else scale
        noise = math.sqrt(self.step_size) if self.noise is None else self.noise
        return self.step_size * scale, noise * scale**0.5

    def slope_of(self, point: Tensor, grad: Tensor, landscape: Landscape) -> Tensor:
        """Return the gradient of log p along the support, from the gradient of the score."""
        prior = landscape.space.prior
        return prior.tangent(point, prior.score(point) + self.gain * grad)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> Any:
        return State(point0, *fresh(point0))

    def step(self, state: Any, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[Any, Info]:
        space = landscape.space
        value, grad = landscape.score_and_grad(state.point)
        size, noise = self.rates(t)
        xi = space.prior.tangent(state.point, draw.normal(t, "langevin", space.shape, state.point.dtype))
        move = 0.5 * size * self.slope_of(state.point, grad, landscape) + noise * xi
        moved = space.reflect(space.prior.move(state.point, move))
        fine = ~not_finite(value, grad)
        done, why = ended(state.done, state.why, ~fine, "nan")
        return State(taken(fine, moved, state.point), done, why), Info(value)


class ChainState(NamedTuple):
    """A point with its score and the gradient of log p there; log of the row's step scale, and what was accepted so far."""

    point: Tensor
    value: Tensor
    slope: Tensor | None
    tune: Tensor
    accepted: Tensor
    done: Tensor
    why: Tensor


@dataclass(frozen=True, kw_only=True)
class MALA(DDLS):
    """Metropolis-adjusted Langevin: the exact law of DDLS's target, for any step size (MALA).

    Choose it where the law matters and a gradient is at hand. A refused step keeps the old point with its cached score and
    gradient. The step size adapts per row, and only during `burn_in`: adapting on would leave no stationary law, and averaging
    over rows would couple them (both seen in published code). Cost: steps + 1 forward and backward passes.
    """

    name: ClassVar[str] = "mala"
    source: ClassVar[str] = "DDLS (Che et al. 2020); MALA (Roberts and Tweedie 1996)"

    burn_in: int = 0  # first steps during which each row adapts its own step size
    acceptance: float = 0.57  # share of accepted steps that the adaptation aims at

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(noise=self.noise)
        if not 0 <= self.burn_in <= max(self.steps, 0):
            raise UsageError(f"burn_in lies between 0 and steps, not {self.burn_in!r}")
        if not 0 < self.acceptance < 1:
            raise UsageError(f"acceptance lies between 0 and 1, not {self.acceptance!r}")

    def cost(self) -> Cost:
        passes = self.steps + 1 if self.steps else 0
        return Cost.of(passes, passes)

    def log_target(self, point: Tensor, value: Tensor, landscape: Landscape) -> Tensor:
        """Return log p up to a constant, (rows,)."""
        return landscape.space.log_density(point) + self.log_ratio(value)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> ChainState:
        zero = torch.zeros(len(point0), dtype=torch.float64, device=point0.device)
        if not self.steps:
            return ChainState(point0, zero.to(point0.dtype), None, zero, zero, *fresh(point0))
        value, grad = landscape.score_and_grad(point0)
        done, why = ended(*fresh(point0), not_finite(value, grad), "nan")
        return ChainState(point0, value, self.slope_of(point0, grad, landscape), zero, zero, done, why)

    def local(self, state: ChainState, t: Tensor | int, purpose: str, landscape: Landscape, draw: Draw) -> ChainState:
        """Return the state after one adjusted step."""
        space, prior = landscape.space, landscape.space.prior
        slope = state.slope
        assert slope is not None
        scale: Tensor | float = 1.0
        if self.burn_in:
            scale = space._view(state.tune.exp().to(slope.dtype))
        size, noise = self.rates(t, scale)
        xi = prior.tangent(state.point, draw.normal(t, purpose, space.shape, slope.dtype))
        new = prior.move(state.point, 0.5 * size * slope + noise * xi)
        value, grad = landscape.score_and_grad(new)
        new_slope = self.slope_of(new, grad, landscape)
        back = (prior.between(new, state.point) - 0.5 * size * new_slope) / noise  # the noise that would lead back
        log_alpha = self.log_target(new, value, landscape) - self.log_target(state.point, state.value, landscape)
        log_alpha = log_alpha + 0.5 * rows_sum(xi.square() - back.square(), space.axes)
        allowed = space.inside(new) & ~not_finite(value, grad) & ~torch.isnan(log_alpha)
        log_alpha = torch.where(allowed, log_alpha.double(), -torch.inf)
        accept = draw.uniform(t, purpose + " accept", (), torch.float64).log() < log_alpha
        tune = state.tune
        if self.burn_in:
            rate = torch.where(torch.as_tensor(t, device=tune.device) < self.burn_in, (t + 1) ** -0.5, 0.0)
            tune = tune + rate * (log_alpha.clamp(max=0.0).exp() - self.acceptance)
        return ChainState(
            taken(accept, new, state.point),
            torch.where(accept, value, state.value),
            taken(accept, new_slope, slope),
            tune,
            state.accepted + accept,
            state.done,
            state.why,
        )

    def step(self, state: ChainState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[ChainState, Info]:
        after = self.local(state, t, "langevin", landscape, draw)
        return after, Info(state.value, (after.accepted - state.accepted).to(state.value.dtype))

    def finish(self, state: ChainState, landscape: Landscape) -> Outcome:
        if not self.steps:
            return Outcome(state.point, stopped=state.why)
        extra = {"acceptance": state.accepted / self.moves}
        if self.burn_in:
            extra["step_size"] = self.step_size * state.tune.exp()
        return Outcome(state.point, state.value, state.why, extra=extra)

    @property
    def moves(self) -> int:
        """Local moves per chain."""
        return self.steps


@dataclass(frozen=True, kw_only=True)
class REPGAN(MALA):
    """REP-GAN: MALA on the calibrated critic under the paper's name and settings.

    Choose it to compare with that paper; otherwise it is `mala`. The proposal's noise is tied to sqrt(step_size); where `noise`
    is given, the acceptance uses it as well. The published code leaves the nets in training mode, so that one chain's
    acceptance depends on the others; here rows never meet. Cost: steps + 1 forward and backward passes.
    """

    name: ClassVar[str] = "repgan"
    source: ClassVar[str] = "REP-GAN (Wang et al. 2021)"

    steps: int = 640  # length of the chain


@dataclass(frozen=True, kw_only=True)
class Ex2MCMC(MALA):
    """Global jumps and local MALA steps in turn (Ex2MCMC): one chain that crosses between modes.

    Choose it where chains must reach modes that G reaches rarely, with a critic calibrated across them. Each step chooses among
    the point and fresh prior draws with odds exp(log ratio) (i-SIR), then makes `local_steps` of MALA, whose score and gradient
    are computed anew at the chosen point (the published code goes on with those of the old one). The odds between modes are the
    critic's: calibrate. Cost per step: candidates + local_steps forward, local_steps + 1 backward passes; one forward at the
    start.
    """

    name: ClassVar[str] = "ex2mcmc"
    source: ClassVar[str] = "Ex2MCMC (Samsonov et al. 2022)"

    steps: int = 10  # iterations: one global choice and `local_steps` local moves each
    candidates: int = 10  # points to choose among, the present one counted
    local_steps: int = 3  # MALA steps per iteration
    acceptance: float = 0.67  # share of accepted steps that the adaptation aims at

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 2 or self.local_steps < 1:
            raise UsageError("ex2mcmc needs 2 candidates or more and 1 local step or more")

    @property
    def width(self) -> int:
        return self.candidates - 1

    @property
    def moves(self) -> int:
        return self.steps * self.local_steps

    def cost(self) -> Cost:
        forward = 1 + self.steps * (self.candidates + self.local_steps)
        return Cost.of(forward if self.steps else 0, self.steps * (self.local_steps + 1))

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> ChainState:
        zero = torch.zeros(len(point0), dtype=torch.float64, device=point0.device)
        if not self.steps:
            return ChainState(point0, zero.to(point0.dtype), None, zero, zero, *fresh(point0))
        value = landscape.score(point0)
        return ChainState(point0, value, None, zero, zero, *ended(*fresh(point0), ~torch.isfinite(value), "nan"))

    def step(self, state: ChainState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[ChainState, Info]:
        space, dtype = landscape.space, state.point.dtype
        fresh_points = space.prior.sample(draw, t, "candidates", (self.candidates - 1, *space.shape), dtype)
        points = torch.cat([state.point.unsqueeze(1), fresh_points], 1)
        values = torch.cat([state.value.unsqueeze(1), landscape.score(fresh_points)], 1)
        odds = self.log_ratio(values).double()
        odds = torch.where(torch.isnan(odds), -torch.inf, odds)
        gumbel = -(-draw.uniform(t, "choose", (self.candidates,), torch.float64).log()).log()
        point = points[torch.arange(len(points), device=points.device), (odds + gumbel).argmax(1)]
        value, grad = landscape.score_and_grad(point)
        after = state._replace(point=point, value=value, slope=self.slope_of(point, grad, landscape))
        for move in range(self.local_steps):
            after = self.local(after, t, f"langevin {move}", landscape, draw)
        share = (after.accepted - state.accepted).to(dtype) / self.local_steps
        return after._replace(slope=None), Info(state.value, share)
