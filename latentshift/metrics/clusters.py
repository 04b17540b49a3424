"""Shares of clusters: JSD and NDB over k-means cells of the real set (Richardson and Weiss 2018); Inception Score."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..errors import RequestError, ShapeError
from .arrays import Array, ArrayLike, as_pair, as_rows

Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[Any]
#: above so many rows k-means is fitted on a draw of them
FIT_ROWS = 20_000
_ROWS = 8192


class Clusters(NamedTuple):
    """`centres` (clusters, size), `labels` (rows,), `inertia`: sum of squared distances to the centres."""

    centres: Array
    labels: Labels
    inertia: float


def _nearest(x: Array, centres: Array) -> tuple[Labels, Array]:
    """Nearest centre of every row and the squared distance to it; x lies about the origin, so products keep the digits."""
    labels, squared = np.empty(len(x), np.int64), np.empty(len(x))
    offset = (centres**2).sum(1) / 2
    for i in range(0, len(x), _ROWS):
        part = x[i : i + _ROWS]
        half = offset - part @ centres.T
        found = half.argmin(1)
        labels[i : i + _ROWS] = found
        squared[i : i + _ROWS] = np.einsum("ij,ij->i", part, part) + 2 * np.take_along_axis(half, found[:, None], 1)[:, 0]
    return labels, squared.clip(0)


def _spread(x: Array, clusters: int, draw: np.random.Generator) -> Array:
    """k-means++ (Arthur and Vassilvitskii 2007): the next centre is a row drawn by squared distance to the others."""
    norms = np.einsum("ij,ij->i", x, x)

    def to(centre: Array) -> Array:
        distance: Array = (norms - 2 * (x @ centre) + centre @ centre).clip(0)
        distance[distance <= 1e-12 * norms] = 0  # the row itself and its copies
        return distance

    centres = [x[draw.integers(len(x))]]
    squared = to(centres[0])
    for _ in range(1, clusters):
        total = squared.sum()
        row = draw.choice(len(x), p=squared / total) if total > 0 else draw.integers(len(x))
        centres.append(x[row])
        squared = np.minimum(squared, to(x[row]))
    return np.stack(centres)


def kmeans(features: ArrayLike, clusters: int, *, seed: int = 0, starts: int = 3, iterations: int = 100) -> Clusters:
    """Lloyd's k-means from `starts` k-means++ starts, the lowest inertia kept; the same seed gives the same cells.

    An empty cell takes the row that lies farthest from its centre. Raises RequestError for more cells than rows.
    """
    x = as_rows(features)
    if not 1 <= clusters <= len(x):
        raise RequestError(f"{clusters} clusters of {len(x)} images", way_out="Ask for fewer clusters.")
    shift = x.mean(0)
    x = x - shift
    rows = torch.from_numpy(x)
    draw = np.random.default_rng(seed)
    best: Clusters | None = None
    for _ in range(starts):
        centres = _spread(x, clusters, draw)
        labels, squared = _nearest(x, centres)
        for _ in range(iterations):
            sums = torch.zeros(centres.shape, dtype=torch.float64).index_add_(0, torch.from_numpy(labels), rows).numpy()
            sizes = np.bincount(labels, minlength=clusters)
            empty = np.flatnonzero(sizes == 0)
            centres = sums / np.maximum(sizes, 1)[:, None]
            centres[empty] = x[np.argsort(-squared)[: len(empty)]]
            before = labels
            labels, squared = _nearest(x, centres)
            if not len(empty) and np.array_equal(before, labels):
                break
        if best is None or squared.sum() < best.inertia:
            best = Clusters(centres, labels, float(squared.sum()))
    assert best is not None
    return best._replace(centres=best.centres + shift)


def jsd(p: npt.NDArray[np.floating], q: npt.NDArray[np.floating]) -> float:
    """Jensen-Shannon divergence of two histograms (normalised here), in nats: 0 to ln 2."""
    a, b = (np.asarray(h, np.float64) for h in (p, q))
    if a.shape != b.shape or (a < 0).any() or (b < 0).any() or a.sum() == 0 or b.sum() == 0:
        raise ShapeError("a divergence needs two histograms of equal length, no negative count, not all zero")
    a, b = a / a.sum(), b / b.sum()
    mean = (a + b) / 2

    def kl(h: Array) -> float:
        on = h > 0
        return float((h[on] * np.log(h[on] / mean[on])).sum())

    return max(0.0, (kl(a) + kl(b)) / 2)


class Bins(NamedTuple):
    """`ndb`: cells whose shares differ significantly; `jsd` in nats; `bins` cells; shares (bins,) of both sets."""

    ndb: int
    jsd: float
    bins: int
    real_shares: Array
    fake_shares: Array


def cells_of(real: ArrayLike, bins: int, *, seed: int = 0, most: int = FIT_ROWS) -> Clusters:
    """k-means cells of real rows and the cell of every row; above `most` rows the centres are fitted on a draw of `most`."""
    r = as_rows(real)
    if len(r) <= most:
        return kmeans(r, bins, seed=seed)
    picked = np.sort(np.random.default_rng(seed).choice(len(r), most, replace=False))
    found = kmeans(r[picked], bins, seed=seed, starts=1)
    return found._replace(labels=cell_labels(r, found.centres))


def cell_labels(features: ArrayLike, centres: Array) -> Labels:
    """Return the cell (nearest centre) of every row."""
    x, shift = as_rows(features), centres.mean(0)
    if x.shape[1] != centres.shape[1]:
        raise ShapeError(f"features of size {x.shape[1]} have no place in cells of size {centres.shape[1]}")
    parts = [_nearest(x[i : i + _ROWS] - shift, centres - shift)[0] for i in range(0, len(x), _ROWS)]
    return np.concatenate(parts)


def compare_counts(real: Counts, fake: Counts, *, significance: float = 0.05) -> Bins:
    """NDB and JSD of two histograms over the same cells.

    A cell is different by the two-proportion z-test with pooled variance at `significance` (two-sided), without a
    correction for many cells, as published: two real sets give about significance x bins.
    """
    if not 0 < significance < 1:
        raise RequestError(f"a significance between 0 and 1 is needed, not {significance}")
    a, b = real.astype(np.float64), fake.astype(np.float64)
    n, m = a.sum(), b.sum()
    p, q = a / n, b / m
    pooled = (a + b) / (n + m)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    z = np.divide(np.abs(p - q), error, out=np.zeros(len(a)), where=error > 0)
    different = [math.erfc(float(v) / math.sqrt(2)) < significance for v in z]
    return Bins(sum(different), jsd(a, b), len(a), p, q)


def ndb(real: ArrayLike, fake: ArrayLike, *, bins: int = 100, seed: int = 0, significance: float = 0.05) -> Bins:
    """Number of statistically different bins and JSD: k-means on `real`, both sets counted in its cells."""
    r, f = as_pair(real, fake)
    cells = cells_of(r, bins, seed=seed)
    counts = (np.bincount(x, minlength=bins) for x in (cells.labels, cell_labels(f, cells.centres)))
    return compare_counts(*counts, significance=significance)


class InceptionScore(NamedTuple):
    """`value`: mean over the splits, 1 to the number of classes; `std` over the splits."""

    value: float
    std: float
    splits: int


def inception_score(logits: ArrayLike, *, splits: int = 10) -> InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) from class logits (n, classes), in `splits` consecutive parts (Salimans 2016).

    With the logits of another network it is another score: name it by the network.
    """
    x = as_rows(logits, "logits")
    if not 1 <= splits <= len(x):
        raise RequestError(f"{splits} splits of {len(x)} images", way_out="Ask for fewer splits.")
    log_p = x - x.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    values = []
    for part in np.array_split(log_p, splits):
        p = np.exp(part)
        marginal = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
        values.append(float(np.exp((p * (part - marginal)).sum(1).mean())))
    return InceptionScore(float(np.mean(values)), float(np.std(values)), splits)
