"""The floor of every metric: what real images get against real images at the same size, and what sampling alone adds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array
from .clusters import compare_counts, inception_score
from .coverage import prdc
from .distance import Moments, frechet_moments, frechet_roots, kid, root_of
from .sample import Reference

MOST = 10_000  # images a side for the floors of precision to coverage: their cost grows with the square
DRAWS = 4


class Floor(NamedTuple):
    """Mean and spread over the draws (None with one draw), and what to know about it."""

    value: float
    spread: float | None = None
    note: str = ""


def gaussian_moments(root: Array, mean: Array, count: int, draw: np.random.Generator) -> Moments:
    """Moments of `count` draws of a Gaussian with covariance root^T root, without the draws where they are many.

    The scatter of n draws is Wishart with n - 1 degrees: L L^T with normals below the diagonal of L and chi on it
    (Bartlett 1933), so 50,000 draws of 2,048 numbers cost one product of square matrices.
    """
    size = len(root)
    if count - 1 < size:
        return Moments.of(draw.normal(size=(count, size)) @ root + mean)
    below = np.tril(draw.normal(size=(size, size)), -1)
    below[np.diag_indices(size)] = np.sqrt(draw.chisquare(count - 1 - np.arange(size)))
    factor = root.T @ below
    return Moments(mean + draw.normal(size=size) @ root / np.sqrt(count), factor @ factor.T, count)


def of_frechet(reference: Reference, count: int, *, seed: int = 0) -> Floor:
    """FD of `count` real images to the others; of Gaussian draws where there are fewer than twice as many."""
    m, draw = reference.moments, np.random.default_rng(seed)
    whole = reference.features is not None and len(reference.features) == m.count and 2 * count <= m.count
    cost = m.mean.size**3 + (count * m.mean.size**2 if whole else 0)
    values = []
    for _ in range(DRAWS if cost < 2e9 else 1):
        if whole:
            rows = reference.rows[draw.choice(m.count, count, replace=False)]
            values.append(frechet_moments(Moments.of(rows, network=m.network), m.without(rows)))
        else:
            fresh = gaussian_moments(reference.root, m.mean, count, draw)
            values.append(frechet_roots(fresh.mean, root_of(fresh.cov), m.mean, reference.root))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Floor(float(np.mean(values)), spread, "" if whole else "floor from Gaussian draws")


def _halves(reference: Reference, most: int) -> tuple[Array, Array]:
    half = min(most, len(reference.rows) // 2)
    rows = reference.rows[reference.order]
    return rows[:half], rows[half : 2 * half]


def of_kid(reference: Reference, count: int, size: int) -> Floor | None:
    """KID of one half of the real images to the other: 0 but for its error."""
    a, b = _halves(reference, min(count, MOST))
    if len(a) < 3:
        return None
    found = kid(a, b, subsets=20, subset_size=size)
    return Floor(found.value, found.error)


def of_prdc(reference: Reference, count: int, k: int) -> dict[str, Floor]:
    """Precision, recall, density, coverage of one half of the real images against the other."""
    a, b = _halves(reference, min(count, MOST))
    if len(a) <= k:
        return {}
    note = "" if len(a) == count else f"floor at {len(a)} images"
    found = prdc(a, b, k=k)
    return {name: Floor(getattr(found, name), None, note) for name in ("precision", "recall", "density", "coverage")}


def of_inception_score(reference: Reference, count: int, splits: int) -> Floor | None:
    """The score of as many real images (here a ceiling)."""
    if reference.logits is None or len(reference.logits) < splits:
        return None
    order = np.random.default_rng(0).permutation(len(reference.logits))[:count]
    note = "" if len(order) == count else f"floor at {len(order)} images"
    return Floor(inception_score(reference.logits[order], splits=splits).value, None, note)


def of_cells(reference: Reference, count: int, bins: int, *, draws: int = 200, seed: int = 0) -> dict[str, Floor]:
    """JSD and NDB of two real sets of these sizes: both drawn from the shares of the cells."""
    real = np.bincount(reference.cells(bins).labels, minlength=bins)
    share, draw = real / real.sum(), np.random.default_rng(seed)
    found = [compare_counts(draw.multinomial(real.sum(), share), draw.multinomial(count, share)) for _ in range(draws)]
    return {
        "jsd": Floor(float(np.mean([f.jsd for f in found])), float(np.std([f.jsd for f in found]))),
        "ndb": Floor(float(np.mean([f.ndb for f in found])), float(np.std([f.ndb for f in found]))),
    }
