"""Polarity sampling and truncation: other densities of G's own output, without a critic.

Polarity (Humayun et al. 2022) weights prior draws by (product of the top singular values of J = dG/dz)^rho: below 0 towards
modes of the generator's law, above 0 towards its rare regions, 1 uniform on its images (MaGNET). Published code forms the
product in linear scale, where it saturates, and resamples one pool without replacement, which ignores the weights when most of
the pool is taken; here weights are logarithms, and each row resamples a pool of its own.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..model import Capability
from ..space import Normal, Space, TruncatedNormal, Uniform
from .base import Cost, Info, State, Strategy, ended, fresh, need_positive, rowwise, strategy_name

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


class PolarityState(NamedTuple):
    """A point and the log of the sum of weights seen."""

    point: Tensor
    done: Tensor
    why: Tensor
    total: Tensor


@dataclass(frozen=True, kw_only=True)
class Polarity(Strategy):
    """Resample each row from a pool of prior draws, weighted by the generator's local volume to the power rho (polarity).

    Choose it to trade typical for rare samples where there is no critic; it knows nothing of quality. The pool is the row's
    own, so a power far from 0 wants a large one. Source: Humayun et al. 2022, Eq. 4. Cost: `steps` forwards of G and at most
    steps * projection backwards through G.
    """

    name: ClassVar[str] = "polarity"
    source: ClassVar[str] = "Polarity sampling (Humayun et al. 2022)"
    needs: ClassVar[Capability] = Capability.GRADIENT

    steps: int = 20  # draws in each row's pool, its own start first
    rho: float = -0.5  # power of the volume: below 0 towards modes, above 0 towards rare samples, 0 the prior
    top: int = 30  # singular values that make the volume
    projection: int = 128  # directions that images are projected on (all pixels where there are fewer)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top < 1 or self.projection < 1:
            raise UsageError("top and projection are 1 or more")
        if not abs(self.rho) < float("inf"):
            raise UsageError(f"rho is a finite number, not {self.rho!r}")

    def cost(self) -> Cost:
        return Cost(self.steps, 0, self.steps * self.projection, 0, exact=self.steps == 0)

    def check(self, landscape: Landscape) -> None:
        if landscape.space.prior.kind == "none":
            raise RequestError(
                f"'{strategy_name(self)}' draws from the prior, but the space {landscape.space.name!r} has none",
                way_out="Use --space z.",
            )

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> PolarityState:
        total = torch.full((len(point0),), -torch.inf, dtype=torch.float64, device=point0.device)
        return PolarityState(point0, *fresh(point0), total)

    def log_weight(self, point: Tensor, landscape: Landscape) -> Tensor:
        """Return rho times the sum of the logs of the top singular values of the Jacobian, per row, in float64."""
        pixels = landscape.pair.image_shape
        assert pixels is not None, "the pair's image shape is unknown"
        jacobian = landscape.jacobian(point, directions(math.prod(pixels), self.projection)).double()
        broken = ~torch.isfinite(jacobian).flatten(1).all(1)
        values: Tensor = torch.linalg.svdvals(jacobian.nan_to_num(0, 0, 0))[:, : self.top]
        return torch.where(broken, -torch.inf, self.rho * values.clamp_min(1e-100).log().sum(1))

    def step(self, state: PolarityState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[PolarityState, Info]:
        space, point = landscape.space, state.point
        first = torch.as_tensor(t, device=point.device) == 0
        candidate = torch.where(first, point, space.prior.sample(draw, t, "candidate", space.shape, point.dtype))
        weight = self.log_weight(candidate, landscape)
        total = _log_sum(state.total, weight)
        take = draw.uniform(t, "take", dtype=torch.float64).log() < weight - total  # one of the pool, by weight, as it comes
        point = torch.where(rowwise(take, point), candidate, point)
        blank = torch.full_like(weight, torch.nan, dtype=point.dtype)
        return PolarityState(point, state.done, state.why, total), Info(blank, take.to(point.dtype))


def _log_sum(a: Tensor, b: Tensor) -> Tensor:
    """Return log(exp a + exp b), the same to the bit in any batch (torch.logaddexp is not)."""
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    return torch.where(high == -torch.inf, high, high + torch.log1p(torch.exp(low - high)))


@functools.cache
def directions(pixels: int, count: int) -> Tensor | None:
    """Return (count, pixels) orthonormal directions, the same ones always; None where all pixels are no more than that."""
    if pixels <= count:
        return None
    noise = torch.randn(pixels, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q: Tensor = torch.linalg.qr(noise)[0]
    return q.T.contiguous()


@dataclass(frozen=True, kw_only=True)
class Truncation(Strategy):
    """Draw nearer to the middle of the prior, without looking at images (truncation).

    Choose it as the baseline for quality against diversity that every method should beat. `shrink` moves z to middle + psi (z -
    middle); `redraw` draws coordinates beyond the bound again, which is not clamping. Source: Brock et al. 2019 (redraw),
    Karras et al. 2019 (shrink). Cost: nothing.
    """

    name: ClassVar[str] = "truncation"
    source: ClassVar[str] = "BigGAN (Brock et al. 2019); StyleGAN (Karras et al. 2019)"
    needs: ClassVar[Capability] = Capability.NONE

    steps: int = 1  # 1: once, which is all there is; 0: leave the start
    psi: float = 0.7  # shrink: factor; redraw: bound, as a share of the support's, or in standard deviations if Gaussian
    form: Literal["auto", "shrink", "redraw"] = "auto"  # auto: redraw for a bounded prior, shrink for a Gaussian one

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(psi=self.psi)
        if self.form not in ("auto", "shrink", "redraw"):
            raise UsageError(f"form is auto, shrink or redraw, not {self.form!r}")
        if self.steps > 1:
            raise UsageError(f"truncation is done once: steps is 0 or 1, not {self.steps!r}")

    def cost(self) -> Cost:
        return Cost.of(0, 0)

    def check(self, landscape: Landscape) -> None:
        kind = landscape.space.prior.kind
        if kind in ("none", "sphere") or (self.form == "redraw" and kind == "empirical-gaussian"):
            raise RequestError(
                f"truncation has no meaning for a {kind} prior" + (" by redrawing" if self.form == "redraw" else ""),
                way_out="Use --space z with another prior" + (", or form=shrink." if kind == "empirical-gaussian" else "."),
            )

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> State:
        return State(point0, *fresh(point0))

    def step(self, state: State, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[State, Info]:
        space, point = landscape.space, state.point
        form = self.form if self.form != "auto" else "redraw" if space.prior.bounded else "shrink"
        middle = _middle(space, point)
        if form == "shrink":
            point = middle + self.psi * (point - middle)
        else:
            narrow, reach = self.narrowed(space)
            again = narrow.sample(draw, t, "redraw", space.shape, point.dtype)
            point = torch.where((point - middle).abs() > reach, again, point)
        done, why = ended(state.done, state.why, torch.ones_like(state.done), "steps")
        blank = torch.full((len(point),), torch.nan, dtype=point.dtype, device=point.device)
        return State(point, done, why), Info(blank)

    def narrowed(self, space: Space) -> tuple[Uniform | TruncatedNormal, float]:
        """Return the prior conditioned on the bound, and the bound: what redrawing until all coordinates fit would draw."""
        prior = space.prior
        if isinstance(prior, Uniform):
            middle, reach = (prior.low + prior.high) / 2, self.psi * (prior.high - prior.low) / 2
            return Uniform(middle - reach, middle + reach), reach
        if isinstance(prior, TruncatedNormal):
            bound = min(self.psi, 1.0) * prior.bound
            return TruncatedNormal(bound, prior.factor), bound * prior.factor
        assert isinstance(prior, Normal)
        return TruncatedNormal(self.psi), self.psi


def _middle(space: Space, like: Tensor) -> Tensor:
    prior = space.prior
    if isinstance(prior, Uniform):
        return torch.full_like(like, (prior.low + prior.high) / 2)
    mean = getattr(prior, "mean", None)
    return torch.zeros_like(like) if mean is None else torch.as_tensor(mean).to(like).expand_as(like)
