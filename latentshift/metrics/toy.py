"""Metrics of 2-D mixtures: share of high-quality samples, modes, KL over modes, in-mode spread, exact W1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import RequestError, ShapeError
from .arrays import Array, ArrayLike, as_pair, as_rows


@dataclass(frozen=True, eq=False)
class Mixture:
    """Isotropic Gaussians of equal weight: `centres` (modes, size), `std` per coordinate."""

    centres: Array
    std: float

    def sample(self, rows: int, seed: int, *, balanced: bool = True) -> Array:
        """Draw (rows, size); `balanced`: the same count in every mode exactly (rows must divide), else modes iid."""
        draw = np.random.default_rng(seed)
        modes = len(self.centres)
        if balanced and rows % modes:
            raise RequestError(f"{rows} rows do not divide evenly over {modes} modes", way_out="Use balanced=False.")
        mode = np.repeat(np.arange(modes), rows // modes) if balanced else draw.integers(modes, size=rows)
        return self.centres[mode] + self.std * draw.normal(size=(rows, self.centres.shape[1]))


def grid25() -> Mixture:
    """The 25 Gaussians of the DOT paper: modes at (2i, 2j)/2.828, i, j in -2..2, std 0.05/2.828."""
    line = np.arange(-2, 3) * 2 / 2.828
    return Mixture(np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(25, 2), 0.05 / 2.828)


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


def mode_metrics(samples: ArrayLike, mixture: Mixture, *, radius: float = 4.0) -> ModeMetrics:
    """Compare samples (n, size) with a mixture; HQ: distance to the nearest centre < `radius` standard deviations."""
    x, centres = as_pair(samples, mixture.centres)
    squared = ((x[:, None, :] - centres[None, :, :]) ** 2).sum(2)
    mode, nearest = squared.argmin(1), squared.min(1)
    hq = nearest < (radius * mixture.std) ** 2
    counts = np.bincount(mode[hq], minlength=len(centres))
    if not hq.any():
        return ModeMetrics(0.0, 0, 0, float("nan"), float("nan"))
    share = counts[counts > 0] / hq.sum()
    kl = float((share * np.log(len(centres) * share)).sum())
    in_std = float(np.sqrt(nearest[hq].mean() / x.shape[1]))
    return ModeMetrics(100 * float(hq.mean()), int((counts >= 1).sum()), int((counts >= 20).sum()), max(kl, 0.0), in_std)


def w1(samples_a: ArrayLike, samples_b: ArrayLike) -> float:
    """Exact 1-Wasserstein distance of two sets of equal size (Euclidean cost, uniform weights), float64.

    With equal weights the optimal plan is a matching (Birkhoff), found by scipy's assignment solver; 2,000 rows take
    about a second. Sets of different size need the package POT. Raises RequestError where the package is absent.
    """
    a, b = as_pair(samples_a, samples_b)
    cost = np.sqrt(np.maximum(((a[:, None, :] - b[None, :, :]) ** 2).sum(2), 0))
    if len(a) == len(b):
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise RequestError("the exact W1 needs scipy", way_out="pip install scipy") from None
        rows, columns = linear_sum_assignment(cost)
        return float(cost[rows, columns].mean())
    try:
        import ot  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ShapeError(
            f"W1 of {len(a)} against {len(b)} samples needs the package POT",
            way_out="Give sets of equal size, or: pip install POT",
        ) from None
    return float(ot.emd2(np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), cost, numItermax=10_000_000))


def data_w1(samples: ArrayLike, mixture: Mixture, *, draws: int = 2, seed: int = 0) -> float:
    """Mean W1 to `draws` fresh balanced data sets of the same size, as the published table has it."""
    x = as_rows(samples)
    return float(np.mean([w1(x, mixture.sample(len(x), seed + i)) for i in range(draws)]))
