"""Distances of two sets in feature space: Frechet distance (FD, with Inception features the FID) and KID.

Heusel et al. 2017 (FID), Binkowski et al. 2018 (KID). The name of a value carries the network: `FD-resnet20`.
The estimate falls with the number of samples, so values compare at equal sample sizes only; `expected_bias` says by
how much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DamagedFileError, ShapeError
from ..files.npz import Npz
from .arrays import Array, ArrayLike, as_pair, as_rows

_BLOCK = 2048  # kernel rows and columns at once: 32 MiB
_ROWS = 8192  # rows added to the moments at once: 8192 x 2048 float64 = 128 MiB


@dataclass
class Moments:
    """Mean and covariance of a stream of feature rows, in one pass.

    `mean` (size,), `scatter` (size, size) = sum of outer products about the mean, float64; pairwise merging as in
    Chan, Golub, LeVeque 1983, so that a large mean costs no digits. `count` 0 with no rows.
    """

    mean: Array = field(default_factory=lambda: np.zeros(0))
    scatter: Array = field(default_factory=lambda: np.zeros((0, 0)))
    count: int = 0
    network: str = ""

    @classmethod
    def of(cls, features: ArrayLike, *, network: str = "") -> Moments:
        """Return the moments of (rows, size)."""
        return cls(network=network).update(features)

    def update(self, features: ArrayLike) -> Moments:
        """Add rows; returns itself. Raises ShapeError or NumericError for rows that do not fit or are not finite."""
        for start in range(0, len(features), _ROWS):
            rows = as_rows(features[start : start + _ROWS])
            mean = rows.mean(0)
            centred = rows - mean
            self._merge(mean, centred.T @ centred, len(rows))
        return self

    def merge(self, other: Moments) -> Moments:
        """Add the rows that `other` has seen; returns itself."""
        if other.count:
            self._merge(other.mean, other.scatter, other.count)
        return self

    def _merge(self, mean: Array, scatter: Array, count: int) -> None:
        if self.count == 0:
            self.mean, self.scatter, self.count = mean.copy(), scatter.copy(), count
            return
        if mean.shape != self.mean.shape:
            raise ShapeError(f"features of size {mean.size} do not join statistics of size {self.mean.size}")
        total = self.count + count
        delta = mean - self.mean
        self.scatter = self.scatter + scatter + np.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def cov(self) -> Array:
        """Covariance (size, size) with n - 1, as numpy.cov. Raises ShapeError for fewer than 2 rows."""
        if self.count < 2:
            raise ShapeError(f"a covariance needs 2 images or more, got {self.count}")
        return self.scatter / (self.count - 1)

    def save(self, path: str | Path) -> None:
        """Write `mu`, `sigma` (the keys of pytorch-fid), `count`, `network` as an npz."""
        np.savez(Path(path), mu=self.mean, sigma=self.cov, count=np.int64(self.count), network=np.str_(self.network))

    def without(self, features: ArrayLike) -> Moments:
        """Return the moments of the other rows: `features` are rows that were added before."""
        part = Moments.of(features)
        rest = self.count - part.count
        if rest < 2:
            raise ShapeError(f"{self.count} rows without {part.count} of them leave too few")
        delta = part.mean - self.mean
        mean = self.mean - delta * (part.count / rest)
        scatter = self.scatter - part.scatter - np.outer(delta, delta) * (part.count * self.count / rest)
        return Moments(mean, scatter, rest, self.network)

    @staticmethod
    def _numbers(npz: Npz, key: str) -> Array:
        array = npz[key]
        if array.dtype.kind not in "fiu":
            raise DamagedFileError(f"{key!r} holds {array.dtype}, no numbers", where=npz.where)
        return array.astype(np.float64)

    @classmethod
    def load(cls, path: str | Path, *, count: int | None = None) -> Moments:
        """Read what `save` wrote, or another tool's npz of `mu` and `sigma` (then `count` must be given).

        Raises DamagedFileError for anything else (wrong shapes, NaN, a matrix that is no covariance), UnsafeFileError for
        pickled objects.
        """
        with Npz(path) as npz:
            mu, sigma = (cls._numbers(npz, key) for key in ("mu", "sigma"))
            n = int(cls._numbers(npz, "count").sum()) if "count" in npz else count
            network = str(npz["network"]) if "network" in npz else ""
        if n is None:
            raise DamagedFileError("the statistics do not say of how many images", where=str(path), way_out="Give the count.")
        if n < 2 or mu.ndim != 1 or sigma.shape != (mu.size, mu.size):
            raise DamagedFileError(f"mu {mu.shape}, sigma {sigma.shape}, count {n} do not fit", where=str(path))
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise DamagedFileError("the statistics hold NaN or infinite numbers", where=str(path))
        scale = float(np.abs(sigma).max(initial=0.0))
        if np.abs(sigma - sigma.T).max(initial=0.0) > 1e-5 * scale or (np.diag(sigma) < 0).any():
            raise DamagedFileError("sigma is no covariance (not symmetric, or a negative variance)", where=str(path))
        return cls(mu, (sigma + sigma.T) / 2 * (n - 1), n, network)


def root_of(cov: Array) -> Array:
    """Return F with F^T F = cov, rows only for eigenvalues above rounding (a covariance of n rows has rank n - 1)."""
    values, vectors = np.linalg.eigh(cov)
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root: Array = np.sqrt(values[keep])[:, None] * vectors[:, keep].T
    return root


def frechet_gaussian(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """Squared 2-Wasserstein distance of two Gaussians: |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)).

    tr (A B)^(1/2) is the sum of the singular values of F_a F_b^T with F^T F the covariances. That needs no square
    root of a matrix that is not symmetric (no complex part, no offset on the diagonal), and singular values keep their
    digits where the roots of eigenvalues lose half: a set against itself gives 1e-13 of its variance, not 1e-6.
    """
    if mean_a.shape != mean_b.shape or cov_a.shape != cov_b.shape:
        raise ShapeError(
            f"statistics of size {mean_a.size} and {mean_b.size} cannot be compared",
            way_out="Use one network for both.",
        )
    return frechet_roots(mean_a, root_of(cov_a), mean_b, root_of(cov_b))


def frechet_roots(mean_a: Array, root_a: Array, mean_b: Array, root_b: Array) -> float:
    """`frechet_gaussian` of covariances given by their `root_of`, which is worked out once for a reference."""
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    delta = mean_a - mean_b
    return max(float(delta @ delta + (root_a**2).sum() + (root_b**2).sum() - 2 * cross), 0.0)


def frechet_moments(a: Moments, b: Moments) -> float:
    """Frechet distance of two sets given by their moments. Raises ShapeError for other sizes or other networks."""
    if a.network and b.network and a.network != b.network:
        raise ShapeError(
            f"statistics of {a.network} and of {b.network} cannot be compared", way_out="Use one network for both."
        )
    return frechet_gaussian(a.mean, a.cov, b.mean, b.cov)


def frechet(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Frechet distance of two feature sets (rows, size); in squared feature units, 0 or more.

    Covariances with n - 1. Raises ShapeError for fewer than 2 rows or different sizes, NumericError for NaN.
    """
    a, b = as_pair(features_a, features_b, least=2)
    return frechet_moments(Moments.of(a), Moments.of(b))


def expected_bias(cov: Array, count: int) -> float:
    """Expected Frechet distance of `count` samples to their own Gaussian: what is bias and no difference.

    tr(C)/n + 1/(2n) sum_ij l_i l_j (1 + [i = j]) / (l_i + l_j), l the eigenvalues of C: second order of the Bures
    metric under the Wishart law. Good to a few percent for n > 4 sizes; below that it is an upper estimate.
    """
    return bias_of(np.linalg.eigvalsh(cov).clip(0), count)


def bias_of(values: Array, count: int) -> float:
    """Return `expected_bias` from the eigenvalues of the covariance."""
    sums = values[:, None] + values[None, :]
    pair = np.divide(values[:, None] * values[None, :], sums, out=np.zeros_like(sums), where=sums > 0)
    return float((values.sum() + (pair.sum() + np.trace(pair)) / 2) / count)


class KID(NamedTuple):
    """`value`: mean over the subsets; `std`: their spread (what other tools print); `error`: standard error of `value`.

    A value within 2 errors of 0 is no difference; `std` says nothing about that.
    """

    value: float
    std: float
    error: float
    subsets: int
    subset_size: int


def _kernel(x: Array, y: Array) -> Array:
    k: Array = x @ y.T
    k *= 1 / x.shape[1]
    k += 1.0
    return k * k * k  # numpy's power is twenty times slower


def mmd(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Unbiased squared MMD (a U-statistic, may be negative) with the kernel (x.y / size + 1)^3."""
    a, b = as_pair(features_a, features_b, least=2)
    kaa, kbb = _kernel(a, a), _kernel(b, b)
    within_a = (kaa.sum() - np.trace(kaa)) / (len(a) * (len(a) - 1))
    within_b = (kbb.sum() - np.trace(kbb)) / (len(b) * (len(b) - 1))
    return float(within_a + within_b - 2 * _kernel(a, b).mean())


def kernel_sums(x: Array, y: Array, *, same: bool = False) -> tuple[Array, Array]:
    """Row and column sums of the kernel of x (n, size) and y (m, size), block by block; `same`: without its diagonal."""
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            k = _kernel(x[i : i + _BLOCK], y[j : j + _BLOCK])
            if same and i == j:
                np.fill_diagonal(k, 0)
            rows[i : i + _BLOCK] += k.sum(1)
            columns[j : j + _BLOCK] += k.sum(0)
    return rows, columns


def _jackknife(a: Array, b: Array) -> float:
    """Standard error of `mmd` by leaving out one row at a time, both sides (sums of kernel rows, no second pass)."""
    n, m = len(a), len(b)
    kaa, kbb = kernel_sums(a, a, same=True)[0], kernel_sums(b, b, same=True)[0]
    ka, kb = kernel_sums(a, b)
    saa, sbb, sab = kaa.sum(), kbb.sum(), ka.sum()
    fixed_b, fixed_a = sbb / (m * (m - 1)), saa / (n * (n - 1))
    without_a = (saa - 2 * kaa) / ((n - 1) * (n - 2)) + fixed_b - 2 * (sab - ka) / ((n - 1) * m)
    without_b = fixed_a + (sbb - 2 * kbb) / ((m - 1) * (m - 2)) - 2 * (sab - kb) / (n * (m - 1))
    return float(np.sqrt((n - 1) * without_a.var() + (m - 1) * without_b.var()))


def kid(features_a: ArrayLike, features_b: ArrayLike, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> KID:
    """Kernel Inception distance: the mean of `mmd` over random subsets, drawn as torch-fidelity draws them.

    Subsets without replacement from `RandomState(seed)`, a's indices then b's. A smaller set lowers `subset_size`
    to its size. The subsets overlap, so their spread is no error of the mean; `error` comes from disjoint blocks where
    there are ten of them, else from a jackknife over all rows with the spread of the subsets added.
    """
    a, b = as_pair(features_a, features_b, least=3)
    size = min(subset_size, len(a), len(b))
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows_a = a[draw.choice(len(a), size, replace=False)]
        values.append(mmd(rows_a, b[draw.choice(len(b), size, replace=False)]))
    std = float(np.std(values))
    blocks = min(len(a), len(b)) // size
    if blocks >= 10:
        order_a, order_b = draw.permutation(len(a)), draw.permutation(len(b))
        cut = [slice(i * size, (i + 1) * size) for i in range(blocks)]
        error = float(np.std([mmd(a[order_a[c]], b[order_b[c]]) for c in cut], ddof=1) / np.sqrt(blocks))
    else:
        error = float(np.hypot(_jackknife(a, b), std / np.sqrt(subsets)))
    return KID(float(np.mean(values)), std, error, subsets, size)
