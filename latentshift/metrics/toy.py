"""2-D mixtures (paper 000 H.1; the DOT paper) and the figures that say how well points cover them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import RequestError, UsageError
from .arrays import ArrayLike, as_pair


@dataclass(frozen=True)
class Mixture:
    """Equal round Gaussians in the plane: `means` (modes, 2), one standard deviation `sd`."""

    name: str
    means: tuple[tuple[float, float], ...]
    sd: float

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return (rows, 2) float32 points."""
        means = torch.tensor(self.means)
        which = torch.randint(0, len(means), (rows,), generator=generator)
        return means[which] + self.sd * torch.randn(rows, 2, generator=generator)

    def balanced(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return (rows, 2) points with the same count in every mode; RequestError where `rows` does not divide."""
        modes = len(self.means)
        if rows % modes:
            raise RequestError(f"{rows} points do not divide evenly over {modes} modes", way_out="Use sample().")
        means = torch.tensor(self.means).repeat_interleave(rows // modes, 0)
        return means + self.sd * torch.randn(rows, 2, generator=generator)


def _ring() -> Mixture:  # the paper prints cos twice; it is (2 cos, 2 sin)
    angles = [2 * math.pi * k / 8 for k in range(8)]
    return Mixture("ring", tuple((2 * math.cos(a), 2 * math.sin(a)) for a in angles), 0.001)


def _grid() -> Mixture:
    line = (-4.0, -2.0, 0.0, 2.0, 4.0)
    return Mixture("grid", tuple((x, y) for x in line for y in line), 0.0025)


MIXTURES: dict[str, Mixture] = {m.name: m for m in (_ring(), _grid())}

_LINE = tuple(2 * i / 2.828 for i in range(-2, 3))
#: The 25 Gaussians of the DOT paper (Tanaka 2019): sd 0.05, all divided by 2.828 as in its code.
DOT25 = Mixture("dot25", tuple((x, y) for x in _LINE for y in _LINE), 0.05 / 2.828)


def coverage(points: Any, means: Any, *, near: float = 0.1) -> dict[str, float]:
    """Return how points (rows, 2) cover the modes `means` (modes, 2), in the units of the plane.

    `modes`: modes with at least 1 % of their share within `near` (one point of 100 that should be there). `near`: share of
    points closer than `near` to a mode. `jsd`: divergence, in nats, between the histogram of nearest modes and the uniform
    one. `median_distance`: to the nearest mode. Raises UsageError for points that are not (rows, 2).

    >>> coverage([[0.0, 0.0], [0.0, 0.05], [3.0, 0.5], [0.0, 0.0]], [[0.0, 0.0], [3.0, 0.0]])["near"]
    0.75
    """
    p, m = np.asarray(points, np.float64), np.asarray(means, np.float64)
    if p.ndim != 2 or p.shape[1:] != (2,) or not len(p):
        raise UsageError(f"2-D points are (rows, 2), not {p.shape}")
    distance = np.sqrt(((p[:, None] - m[None]) ** 2).sum(2))
    nearest, d = distance.argmin(1), distance.min(1)
    close = d < near
    count = np.bincount(nearest[close], minlength=len(m))
    share = np.bincount(nearest, minlength=len(m)) / len(p)
    uniform = np.full(len(m), 1 / len(m))
    middle = (share + uniform) / 2
    some = share > 0
    jsd = 0.5 * float((share[some] * np.log(share[some] / middle[some])).sum() + (uniform * np.log(uniform / middle)).sum())
    return {
        "modes": int((count >= 0.01 * len(p) / len(m)).sum()),
        "near": float(close.mean()),
        "jsd": max(0.0, jsd),
        "median_distance": float(np.median(d)),
    }


class ModeMetrics(NamedTuple):
    """`hq` percent of samples within the radius; `modes1`, `modes20`: modes with so many HQ samples or more;

    `kl` of the mode shares of HQ samples to the uniform, nats; `in_std` per coordinate about the centre. Without any HQ
    sample `kl` and `in_std` are NaN: there is nothing to measure.
    """

    hq: float
    modes1: int
    modes20: int
    kl: float
    in_std: float


def mode_metrics(points: ArrayLike, mixture: Mixture, *, radius: float = 4.0) -> ModeMetrics:
    """Compare points (rows, 2) with a mixture; HQ: distance to the nearest mode < `radius` standard deviations."""
    x, means = as_pair(points, np.asarray(mixture.means))
    squared = ((x[:, None, :] - means[None, :, :]) ** 2).sum(2)
    mode, nearest = squared.argmin(1), squared.min(1)
    hq = nearest < (radius * mixture.sd) ** 2
    counts = np.bincount(mode[hq], minlength=len(means))
    if not hq.any():
        return ModeMetrics(0.0, 0, 0, float("nan"), float("nan"))
    share = counts[counts > 0] / hq.sum()
    kl = float((share * np.log(len(means) * share)).sum())
    in_std = float(np.sqrt(nearest[hq].mean() / x.shape[1]))
    modes20 = int((counts >= 20).sum())
    return ModeMetrics(100 * float(hq.mean()), int((counts >= 1).sum()), modes20, max(kl, 0.0), in_std)


def wasserstein1(a: ArrayLike, b: ArrayLike) -> float:
    """Return the exact Wasserstein-1 distance of two point sets of equal size, (rows, size): Euclidean cost, float64.

    With equal weights the best plan is a matching (Birkhoff), found by scipy. Cubic in the rows: 2,000 against 2,000 take
    about a second. Two draws of the same law are not at 0: compare with that. Raises UsageError for two sizes,
    RequestError without scipy.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except Exception:
        raise RequestError("the exact Wasserstein distance needs scipy", way_out="pip install scipy.") from None
    x, y = as_pair(a, b)
    if len(x) != len(y):
        raise UsageError(f"two sets of equal size are needed, not {len(x)} and {len(y)} points")
    cost = np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


def w1_to_data(points: ArrayLike, mixture: Mixture, *, draws: int = 2, seed: int = 0) -> float:
    """Mean W1 to `draws` fresh data sets of the same size, equal counts in every mode."""
    generator = torch.Generator().manual_seed(seed)
    return float(np.mean([wasserstein1(points, mixture.balanced(len(points), generator)) for _ in range(draws)]))
