"""AE-OT: semi-discrete optimal transport from the prior to given latent codes (An et al. 2020).

    u(x) = max_i (x . y_i + h_i),   cell i = where i attains the max,   measure(cell i) = 1 / m for all i

The heights h minimise the convex energy E u(x) - mean(h); its gradient is measure(cell i) - 1/m, estimated on Sobol points of
the prior. A source x then goes to a mix of its cell's code and the next best one, unless the angle between the two planes says
that a jump of the map lies between them: mixing across one leaves the data (published code drops such pairs; here the row takes
its own cell's code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import FileError, NumericError, RequestError, ShapeError, UsageError
from ..lazy import numpy as np
from ..lazy import torch
from ..model import Capability
from ..space import Normal, Prior, TruncatedNormal, Uniform
from .base import Cost, Info, State, Strategy, ended, fresh, need_positive

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

BLOCK = 4096  # source points whose cells are found at a time


@dataclass(frozen=True, kw_only=True)
class AEOT(Strategy):
    """Send the prior to given latent codes by semi-discrete optimal transport (AE-OT).

    Choose it where you hold codes of real data in G's latent space (an autoencoder's, or inverted photographs). No critic is
    asked. Source: An et al. 2020, algorithms 1 and 2. Cost: nothing for each sample; once the fit of m heights.
    """

    name: ClassVar[str] = "ae-ot"
    source: ClassVar[str] = "AE-OT (An et al. 2020)"
    needs: ClassVar[Capability] = Capability.NONE

    steps: int = 1  # 1: transport, which is all there is; 0: leave the start
    codes: Any = field(default=None, compare=False, repr=False)  # codes (m, ...) of the latent's shape: tensor, .npy or .npz
    angle: float = 0.7  # mix two codes only below this angle between their planes, in radians (images 0.7, 2-D 0.2)
    mix: float | None = None  # weight of the second code; none: uniform in (0, 1) per sample (images: 0.75)
    neighbours: int = 20  # next best cells that are looked at
    lr: float = 0.05  # Adam's learning rate for the heights, in units of their spread
    samples: int = 4096  # Sobol points per iteration, doubled when the error stops falling
    iterations: int = 20000  # iterations at most
    tolerance: float = 0.01  # stop when no cell's measure is off by more than this share of 1 / m
    heights: Any = field(default=None, compare=False, repr=False)  # learned: (m,) heights of the planes
    error: float | None = None  # learned: largest error of a cell's measure, as a share of 1 / m

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(angle=self.angle, lr=self.lr, tolerance=self.tolerance)
        if self.steps > 1:
            raise UsageError(f"a transport is done once: steps is 0 or 1, not {self.steps!r}")
        if self.mix is not None and not 0 <= self.mix <= 1:
            raise UsageError(f"mix lies in [0, 1], not {self.mix!r}")
        if min(self.samples, self.iterations, self.neighbours) < 1:
            raise UsageError("samples, iterations and neighbours are 1 or more")

    def cost(self) -> Cost:
        return Cost.of(0, 0)

    @property
    def pilot(self) -> int:
        return 1 if self.heights is None and self.steps else 0

    def check(self, landscape: Landscape) -> None:
        if self.codes is None:
            raise RequestError(
                "'ae-ot' needs the latent codes of real data",
                way_out="Give codes=FILE.npy, one code a row, in G's own latent space.",
            )
        sobol(landscape.space.prior, torch.empty(0))

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        if not self.pilot:
            return self
        codes = load_codes(self.codes)
        if tuple(codes.shape[1:]) != landscape.space.shape or len(codes) < 2:
            raise ShapeError(
                f"codes have shape {tuple(codes.shape)}, this space takes 2 rows or more of {landscape.space.shape}"
            )
        flat = codes.flatten(1).double()
        heights, error = solve(flat, landscape.space.prior, self)
        return replace(self, codes=codes, heights=heights, error=error)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> State:
        return State(point0, *fresh(point0))

    def step(self, state: State, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[State, Info]:
        point, dtype = state.point, torch.float64
        assert self.heights is not None, "not fitted"
        codes = self.codes.flatten(1).to(point.device, dtype)
        planes = torch.cat([codes, -torch.ones_like(codes[:, :1])], 1)
        planes = planes / planes.norm(dim=1, keepdim=True)
        top = (point.flatten(1).to(dtype) @ codes.T + self.heights.to(point.device)).topk(
            min(self.neighbours + 1, len(codes)), 1
        )[1]
        cosine = (planes[top[:, 1:]] * planes[top[:, :1]]).sum(2)
        near = cosine > math.cos(min(self.angle, math.pi))
        second = top[:, 1:].gather(1, near.int().argmax(1, keepdim=True))[:, 0]  # the best cell that is near enough
        weight = draw.uniform(t, "mix", dtype=dtype) if self.mix is None else torch.full_like(cosine[:, 0], self.mix)
        weight = torch.where(near.any(1), weight, 0.0).unsqueeze(1)
        code = (1 - weight) * codes[top[:, 0]] + weight * codes[second]
        done, why = ended(state.done, state.why, torch.ones_like(state.done), "steps")
        blank = torch.full((len(point),), torch.nan, dtype=point.dtype, device=point.device)
        return State(code.reshape(point.shape).to(point.dtype), done, why), Info(blank)


def load_codes(codes: Any) -> Tensor:
    """Return latent codes (m, ...) as a float tensor on the CPU, from a tensor, an array, or a .npy or .npz file."""
    if isinstance(codes, str):
        path = codes
        try:
            codes = np.load(path, allow_pickle=False)
            if hasattr(codes, "files"):
                codes = codes["codes" if "codes" in codes.files else codes.files[0]]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise FileError(f"cannot read latent codes: {str(error).splitlines()[0]}", where=path) from None
    out = torch.as_tensor(codes).detach().cpu().float()
    if out.ndim < 2 or not bool(torch.isfinite(out).all()):
        raise ShapeError(f"latent codes are finite numbers, one code a row, not {tuple(out.shape)}")
    return out


def sobol(prior: Prior, uniform: Tensor) -> Tensor:
    """Return numbers in (0, 1) as draws of the prior; raises RequestError for a prior without independent coordinates."""
    if isinstance(prior, Uniform):
        return prior.low + (prior.high - prior.low) * uniform
    if isinstance(prior, Normal):
        normal: Tensor = torch.special.ndtri(uniform)
        return normal
    if isinstance(prior, TruncatedNormal):
        return prior._inverse(uniform)
    raise RequestError(f"'ae-ot' needs a prior of independent coordinates, not a {prior.kind} one", way_out="Use --space z.")


def solve(codes: Tensor, prior: Prior, options: AEOT) -> tuple[Tensor, float]:
    """Return (heights (m,), error) of the transport from the prior to `codes` (m, d) in float64: Adam on the convex energy."""
    m, d = codes.shape
    # the energy's optimum does not move when codes are moved or scaled together with the heights
    scale = float(codes.std().clamp_min(1e-12)) * prior.scale()
    engine: Any = torch.quasirandom.SobolEngine(d, scramble=True, seed=0)  # type: ignore[no-untyped-call]
    h, mean, square = (torch.zeros(m, dtype=torch.float64) for _ in range(3))
    count, best, best_h, stale, rate = options.samples, float("inf"), h, 0, options.lr
    for i in range(1, options.iterations + 1):
        u = engine.draw(count, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        cells = torch.cat([(x @ codes.T + scale * h).argmax(1) for x in torch.split(sobol(prior, u), BLOCK)])
        grad = torch.bincount(cells, minlength=m).double() / count - 1 / m
        error = float(grad.abs().max()) * m
        if not math.isfinite(error):
            raise NumericError("the transport's heights are no longer finite")
        best, best_h, stale = (error, h, 0) if error < best else (best, best_h, stale + 1)
        if error < options.tolerance:
            break
        if stale >= 20:
            count, rate, stale = min(2 * count, 2**20), rate / 2, 0
        mean = 0.9 * mean + 0.1 * grad
        square = 0.999 * square + 0.001 * grad.square()
        h = h - rate * (mean / (1 - 0.9**i)) / ((square / (1 - 0.999**i)).sqrt() + 1e-8)
        h = h - h.mean()
    return scale * best_h, best
