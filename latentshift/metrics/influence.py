"""How much each generated row moves a metric: the linear part of a metric, for errors and paired tests at any size.

A metric of n rows is, to first order, its value plus the mean of one number per row (its influence, mean 0). The standard
error is their standard deviation over sqrt(n); the change of a metric between two sets whose rows share their seeds has
the differences of the two influences. That costs one pass where a bootstrap of a Frechet distance of 50,000 rows by 2,048
features would cost hours. The real images are taken as given. Efron 1982 (the infinitesimal jackknife).
"""

from __future__ import annotations

import numpy as np
from numpy.linalg import eigh

from .arrays import Array
from .coverage import PRDCRows
from .distance import kernel_sums

_ROWS = 8192


def _centred(x: Array) -> Array:
    out: Array = x - x.mean()
    return out


def of_frechet(rows: Array, mean: Array, root: Array, mean_b: Array, root_b: Array) -> Array:
    """Influence (n,) of rows (n, size) on their Frechet distance to a fixed Gaussian b.

    2 (m - m_b).(x - m) + (x - m)^T (1 - T) (x - m), T the optimal map from the rows' Gaussian to b (the gradient of the
    Bures metric). `root`, `root_b`: F with F^T F the covariances, as `distance.root_of` gives them.
    """
    cross = root @ root_b.T
    values, vectors = eigh(cross @ cross.T)  # the squared singular values and their left vectors
    single = np.sqrt(values.clip(0))
    scale = (root**2).sum(1)  # the eigenvalues of the rows' covariance, all above rounding
    to = (root / scale[:, None]).T @ (vectors * np.sqrt(single))  # T = to to^T on the span of the rows
    delta, out = 2 * (mean - mean_b), np.empty(len(rows))
    for i in range(0, len(rows), _ROWS):
        x = rows[i : i + _ROWS] - mean
        moved = x @ to
        out[i : i + _ROWS] = x @ delta + np.einsum("ij,ij->i", x, x) - np.einsum("ij,ij->i", moved, moved)
    return _centred(out)


def of_kid(rows: Array, reals: Array, *, size: int = 1000, seed: int = 0) -> Array:
    """Influence (n,) of rows on the unbiased squared MMD with KID's kernel, from blocks of about `size` rows and reals."""
    draw = np.random.default_rng(seed)
    order, order_r = draw.permutation(len(rows)), draw.permutation(len(reals))
    blocks = max(1, min(len(rows), len(reals)) // size)
    out = np.empty(len(rows))
    for mine, theirs in zip(np.array_split(order, blocks), np.array_split(order_r, blocks)):
        a, b = rows[mine], reals[theirs]
        within = kernel_sums(a, a, same=True)[0] / (len(a) - 1)
        across = kernel_sums(a, b)[0] / len(b)
        out[mine] = _centred(2 * (within - across))
    return _centred(out)


def of_prdc(rows: PRDCRows) -> dict[str, Array]:
    """Influences on precision, recall, density and coverage, (fakes,) each.

    For recall and coverage: what is lost without the row (a jackknife), the radii of the other rows kept.
    """
    n, m = len(rows.balls), len(rows.recalled)
    return {
        "precision": _centred((rows.balls > 0).astype(np.float64)),
        "recall": _centred((n - 1) * rows.only_recalls / m),
        "density": _centred(rows.balls / rows.k),
        "coverage": _centred((n - 1) * rows.only_covers / m),
    }


def of_inception_score(logits: Array) -> Array:
    """Influence (n,) on the Inception Score of the whole set: IS (KL(p_i || p) - mean); the marginal's own part is 0."""
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    kl: Array = (p * (log_p - np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny)))).sum(1)
    return _centred(float(np.exp(kl.mean())) * kl)


def inception_score_bias(logits: Array, splits: int) -> float:
    """Expected bias of the Inception Score, -IS sum_y Var(p_y) / (2 n p_y) with n the rows of one split: it reads low."""
    x = logits - logits.max(1, keepdims=True)
    p = np.exp(x)
    p /= p.sum(1, keepdims=True)
    mean = p.mean(0)
    kl = (p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(mean, 1e-300)))).sum(1).mean()
    spread = np.divide(p.var(0), mean, out=np.zeros_like(mean), where=mean > 0).sum()
    return float(-np.exp(kl) * spread * splits / (2 * len(p)))
