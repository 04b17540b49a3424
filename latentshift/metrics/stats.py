"""Is a difference real: bootstrap intervals, paired tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import RequestError, ShapeError
from .arrays import Array, ArrayLike, to_numpy

Statistic = Callable[..., float]


class Interval(NamedTuple):
    """`value` on the samples as they are, `low` and `high` of the interval at `level`, `sd` over the draws."""

    value: float
    low: float
    high: float
    sd: float
    level: float
    draws: int

    @property
    def z(self) -> float:
        """value / sd: the change in standard deviations (0 where nothing varies and nothing changed)."""
        return self.value / self.sd if self.sd > 0 else math.copysign(math.inf, self.value) if self.value else 0.0


def bootstrap(
    statistic: Statistic, *samples: ArrayLike, draws: int = 200, seed: int = 0, level: float = 0.95, paired: bool = True
) -> Interval:
    """Bootstrap interval of `statistic(*samples)`, rows drawn with replacement.

    `paired`: all samples have the same rows (the same seeds before and after), and share the drawn rows. What must stay
    fixed (the reference) belongs inside the function. The interval is the value plus the quantiles of the draws about
    their own mean: a Frechet distance of a resample is biased upwards by its repeated rows, its spread is not.
    """
    if draws < 2 or not 0 < level < 1:
        raise RequestError(f"a bootstrap needs 2 draws or more and a level between 0 and 1, not {draws} and {level}")
    arrays = [to_numpy(s) for s in samples]
    if not arrays or any(len(a) == 0 for a in arrays):
        raise ShapeError("a bootstrap needs samples")
    if paired and len({len(a) for a in arrays}) != 1:
        raise ShapeError(f"paired samples have the same rows, these have {[len(a) for a in arrays]}")
    draw = np.random.default_rng(seed)
    value = float(statistic(*arrays))
    found = np.empty(draws)
    for i in range(draws):
        rows = draw.integers(len(arrays[0]), size=len(arrays[0]))
        picks = [rows if paired or j == 0 else draw.integers(len(a), size=len(a)) for j, a in enumerate(arrays)]
        found[i] = statistic(*(a[p] for a, p in zip(arrays, picks)))
    low, high = np.quantile(found - found.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, value + float(low), value + float(high), float(found.std(ddof=1)), level, draws)


def bootstrap_change(
    statistic: Callable[[npt.NDArray[np.generic]], float],
    before: ArrayLike,
    after: ArrayLike,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Interval:
    """Paired interval of statistic(after) - statistic(before): row i of both comes from the same seed.

    What both share (the draw of seeds, most of the sampling bias) cancels, so a paired change is known far better than
    either value.
    """
    return bootstrap(lambda a, b: statistic(b) - statistic(a), before, after, draws=draws, seed=seed)


class PairedTest(NamedTuple):
    """`mean` of after - before, its `error`, `z` = mean / error, two-sided `p`, `rows`, share of rows that rose."""

    mean: float
    error: float
    z: float
    p: float
    rows: int
    rose: float


def _p_of_z(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def paired_test(before: ArrayLike, after: ArrayLike) -> PairedTest:
    """Paired z-test of per-row values; p by the normal law (for fewer than 50 rows use `sign_flip_test`).

    Raises ShapeError where the rows do not match: an unpaired comparison is another test.
    """
    a, b = (to_numpy(x).astype(np.float64).ravel() for x in (before, after))
    if a.shape != b.shape or len(a) < 2:
        raise ShapeError(f"a paired test needs the same 2 or more rows on both sides, got {len(a)} and {len(b)}")
    change = b - a
    mean, error = float(change.mean()), float(change.std(ddof=1) / math.sqrt(len(change)))
    z = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return PairedTest(mean, error, z, _p_of_z(z), len(change), float((change > 0).mean()))


def sign_flip_test(before: ArrayLike, after: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the mean change under random signs: exact in law for any distribution symmetric under the null.

    All 2^n signs where that is at most `draws`; else (hits + 1) / (draws + 1), so never 0.
    """
    a, b = (to_numpy(x).astype(np.float64).ravel() for x in (before, after))
    if a.shape != b.shape or len(a) == 0:
        raise ShapeError(f"a paired test needs the same rows on both sides, got {len(a)} and {len(b)}")
    change = b - a
    n = len(change)
    exact = n < 63 and 2**n <= draws
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        sums: Array = np.abs(signs @ change)
    else:
        draw = np.random.default_rng(seed)
        sums = np.array([abs(float(change @ (1 - 2 * draw.integers(2, size=n)))) for _ in range(draws)])
    hits = int((sums >= abs(change.sum()) * (1 - 1e-12)).sum())
    return hits / len(sums) if exact else (hits + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): adjusted p values in the given order, each at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise RequestError("p values lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    raised = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    out = np.empty_like(p)
    out[order] = raised
    return [float(v) for v in out]
