"""Precision, recall, density and coverage by nearest neighbours in feature space.

Kynkäänniemi et al. 2019 (precision, recall), Naeem et al. 2020 (density, coverage): with r_k(x) the distance of x to
its k-th neighbour in its own set,

    precision  share of fakes inside the ball r_k of a real        recall    share of reals inside the ball of a fake
    density    balls of reals around a fake, on average, over k    coverage  share of reals with a fake in their ball

Exact in float64 and blockwise (`neighbours.py`): no matrix of all pairs is kept. 50,000 x 2,048
a side take 4 GiB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import RequestError, ShapeError
from .arrays import Array, ArrayLike, as_pair, as_rows
from .neighbours import Screen, kth_distances, spans


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


def nearest_distances(features: ArrayLike, k: int) -> Array:
    """Distance of every row to its k-th neighbour in its own set, (rows,) float64."""
    a = as_rows(features)
    if not 1 <= k < len(a):
        raise RequestError(f"k = {k} with {len(a)} rows", way_out="k must be at least 1 and less than the number of rows.")
    return kth_distances(a, k)


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
    if radii is not None and radii.shape != (len(r),):
        raise ShapeError(f"radii {radii.shape} of {len(r)} rows")
    around_r = kth_distances(r, k) if radii is None else radii
    around_f = kth_distances(f, k)
    screen = Screen(r, f)
    balls = np.zeros(len(f), np.int64)
    # per real: fakes in its ball and balls of fakes around it, with the one that is meant where it is one
    covers, recalls, nearest, holder = (np.zeros(len(r), np.int64) for _ in range(4))
    for rows in spans(len(r)):
        for columns in spans(len(f)):
            low = screen.low(rows, columns)
            i, j = screen.closer(low, rows, columns, around_r[rows, None])
            np.add.at(balls, j, 1)
            np.add.at(covers, i, 1)
            nearest[i] = j
            i, j = screen.closer(low, rows, columns, around_f[None, columns])
            np.add.at(recalls, i, 1)
            holder[i] = j
    only_covers = np.bincount(nearest[covers == 1], minlength=len(f))
    only_recalls = np.bincount(holder[recalls == 1], minlength=len(f))
    return PRDCRows(balls, recalls > 0, covers > 0, k, only_recalls, only_covers)


def prdc(real: ArrayLike, fake: ArrayLike, *, k: int = 5) -> PRDC:
    """Precision, recall, density, coverage of `fake` (m, size) against `real` (n, size), k neighbours.

    Raises ShapeError with k rows or fewer on a side or features of two sizes, NumericError for NaN. Recall and coverage
    depend on the numbers of rows: compare at equal ones.
    """
    return prdc_rows(real, fake, k=k).values()
