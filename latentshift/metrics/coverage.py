"""Precision, recall, density and coverage by nearest neighbours in feature space.

Kynkäänniemi et al. 2019 (precision, recall), Naeem et al. 2020 (density, coverage): with r_k(x) the distance of x to
its k-th neighbour in its own set,

    precision  share of fakes inside the ball r_k of a real        recall    share of reals inside the ball of a fake
    density    balls of reals around a fake, on average, over k    coverage  share of reals with a fake in their ball

Exact in float64 and blockwise: no matrix of all pairs is kept (50,000 x 2,048 a side takes 2 GiB beside the features).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import RequestError, ShapeError
from .arrays import Array, ArrayLike, as_pair, as_rows

_BLOCK = 4096  # rows a block: 4096 x 4096 float64 = 128 MiB


class PRDC(NamedTuple):
    """The four values with their k; density may exceed 1, the others lie in 0..1."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


class PRDCRows(NamedTuple):
    """The same per row, for paired tests and bootstraps over fakes: their means are the four values.

    `balls` (fakes,): how many balls of reals hold the fake; `recalled`, `covered` (reals,): booleans. `only_recalls`,
    `only_covers` (fakes,): how many reals are recalled (covered) by this fake and by no other one, so that without it
    recall (coverage) falls by so many reals, the radii of the other fakes kept.
    """

    balls: npt.NDArray[np.int64]
    recalled: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]
    k: int
    only_recalls: npt.NDArray[np.int64]
    only_covers: npt.NDArray[np.int64]

    def values(self) -> PRDC:
        """Return the four means."""
        return PRDC(
            float((self.balls > 0).mean()),
            float(self.recalled.mean()),
            float(self.balls.mean() / self.k),
            float(self.covered.mean()),
            self.k,
        )


def _squared(x: Tensor, y: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    return torch.addmm(xx[:, None] + yy[None, :], x, y.T, alpha=-2).clamp_(min=0)


def _prepared(a: Array, shift: Array) -> tuple[Tensor, Tensor]:
    # distances from products lose digits with the distance from the origin: both sets move by the same mean
    x = torch.from_numpy(a - shift)
    return x, x.square().sum(1)


def _radii(x: Tensor, xx: Tensor, k: int) -> Tensor:
    """Squared distance of every row to its k-th neighbour, itself not counted; each block of pairs is met once."""
    n = len(x)
    best = torch.full((n, k), float("inf"), dtype=x.dtype)
    spans = [slice(i, min(i + _BLOCK, n)) for i in range(0, n, _BLOCK)]
    for i, rows in enumerate(spans):
        for columns in spans[i:]:
            d = _squared(x[rows], x[columns], xx[rows], xx[columns])
            if rows == columns:
                d.fill_diagonal_(float("inf"))
            best[rows] = torch.cat([best[rows], d], 1).topk(k, 1, largest=False).values
            if rows != columns:
                best[columns] = torch.cat([best[columns], d.T], 1).topk(k, 1, largest=False).values
    return best.amax(1)


def nearest_distances(features: ArrayLike, k: int) -> Array:
    """Distance of every row to its k-th neighbour in its own set, (rows,) float64."""
    a = as_rows(features)
    if not 1 <= k < len(a):
        raise RequestError(f"k = {k} with {len(a)} rows", way_out="k must be at least 1 and less than the number of rows.")
    x, xx = _prepared(a, a.mean(0))
    return np.asarray(_radii(x, xx, k).sqrt().numpy())


def prdc_rows(real: ArrayLike, fake: ArrayLike, *, k: int = 5, radii: Array | None = None) -> PRDCRows:
    """Per-row form of `prdc`; real (n, size), fake (m, size). `radii` (n,): `nearest_distances(real, k)`, if known."""
    r, f = as_pair(real, fake)
    if k < 1:
        raise RequestError(f"k must be 1 or more, not {k}")
    if min(len(r), len(f)) <= k:
        raise ShapeError(
            f"k = {k} neighbours need more than {k} rows on both sides, got {len(r)} and {len(f)}",
            way_out="Give more images or a smaller k.",
        )
    shift = r.mean(0)
    x, xx = _prepared(r, shift)
    y, yy = _prepared(f, shift)
    if radii is not None and radii.shape != (len(r),):
        raise ShapeError(f"radii {radii.shape} of {len(r)} rows")
    radii_x = _radii(x, xx, k) if radii is None else torch.from_numpy(radii).square()
    radii_y = _radii(y, yy, k)
    balls = torch.zeros(len(y), dtype=torch.int64)
    closest = torch.full((len(x),), float("inf"), dtype=x.dtype)
    # per real: fakes in its ball and balls of fakes around it, with the one that is meant where it is one
    covers, recalls, nearest, holder = (torch.zeros(len(x), dtype=torch.int64) for _ in range(4))
    for i in range(0, len(x), _BLOCK):
        rows = slice(i, i + _BLOCK)
        for j in range(0, len(y), _BLOCK):
            columns = slice(j, j + _BLOCK)
            d = _squared(x[rows], y[columns], xx[rows], yy[columns])
            inside = d < radii_x[rows, None]
            balls[columns] += inside.sum(0)
            covers[rows] += inside.sum(1)
            least, at = d.min(1)
            nearest[rows] = torch.where(least < closest[rows], at + j, nearest[rows])
            closest[rows] = torch.minimum(closest[rows], least)
            held = d < radii_y[None, columns]
            some, at = held.max(1)
            recalls[rows] += held.sum(1)
            holder[rows] = torch.where(some, at + j, holder[rows])
    only_covers = torch.bincount(nearest[covers == 1], minlength=len(y))
    only_recalls = torch.bincount(holder[recalls == 1], minlength=len(y))
    covered, recalled = closest < radii_x, recalls > 0
    return PRDCRows(balls.numpy(), recalled.numpy(), covered.numpy(), k, only_recalls.numpy(), only_covers.numpy())


def prdc(real: ArrayLike, fake: ArrayLike, *, k: int = 5) -> PRDC:
    """Precision, recall, density, coverage of `fake` (m, size) against `real` (n, size), k neighbours.

    Raises ShapeError with k rows or fewer on a side or features of two sizes, NumericError for NaN. Recall and coverage
    depend on the numbers of rows: compare at equal ones.
    """
    return prdc_rows(real, fake, k=k).values()
