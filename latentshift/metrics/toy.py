"""The 2-D mixtures of paper 000 H.1 and the figures that say how well points cover them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RequestError, UsageError


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


def _ring() -> Mixture:  # the paper prints cos twice; it is (2 cos, 2 sin)
    angles = [2 * math.pi * k / 8 for k in range(8)]
    return Mixture("ring", tuple((2 * math.cos(a), 2 * math.sin(a)) for a in angles), 0.001)


def _grid() -> Mixture:
    line = (-4.0, -2.0, 0.0, 2.0, 4.0)
    return Mixture("grid", tuple((x, y) for x in line for y in line), 0.0025)


MIXTURES: dict[str, Mixture] = {m.name: m for m in (_ring(), _grid())}


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


def wasserstein1(a: Any, b: Any) -> float:
    """Return the exact Wasserstein-1 distance of two point sets of equal size, (rows, 2); needs scipy.

    Cubic in the rows: 1,500 against 1,500 take about a second. Two draws of the same law are not at 0: compare with that.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except Exception:
        raise RequestError("the exact Wasserstein distance needs scipy", way_out="pip install scipy.") from None
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise UsageError(f"two sets of equal size are needed, not {len(a)} and {len(b)} points")
    cost = np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())
