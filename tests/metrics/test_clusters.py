"""k-means, JSD, NDB and the Inception Score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from latentshift.errors import RequestError, ShapeError
from latentshift.metrics.clusters import inception_score, jsd, kmeans, ndb


def blobs(rng: np.random.Generator, counts: list[int]) -> np.ndarray:
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    return np.concatenate([centres[i] + rng.normal(size=(n, 2)) for i, n in enumerate(counts)])


def test_kmeans_finds_blobs_and_is_repeatable(rng: np.random.Generator) -> None:
    x = blobs(rng, [50, 60, 70, 80])
    cells = kmeans(x, 4, seed=3)
    assert sorted(np.bincount(cells.labels)) == [50, 60, 70, 80]
    np.testing.assert_array_equal(cells.labels, kmeans(x, 4, seed=3).labels)
    means = np.stack([x[cells.labels == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(cells.centres, means, atol=1e-9)
    assert cells.inertia == pytest.approx(((x - means[cells.labels]) ** 2).sum())


def test_kmeans_is_as_good_as_scikit_learns(rng: np.random.Generator) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = rng.normal(size=(400, 8))
    theirs = cluster.KMeans(20, n_init=3, random_state=0).fit(x).inertia_
    assert kmeans(x, 20).inertia < 1.03 * theirs


def test_kmeans_with_identical_rows_fills_every_cell() -> None:
    x = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert kmeans(x, 2).inertia == 0
    assert kmeans(np.zeros((5, 2)), 3).inertia == 0
    with pytest.raises(RequestError, match="5 clusters of 4"):
        kmeans(x, 5)


def test_jsd_by_hand() -> None:
    assert jsd(np.array([1, 0]), np.array([0, 1])) == pytest.approx(math.log(2))
    assert jsd(np.array([2, 2]), np.array([5, 5])) == 0.0
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    assert jsd(p, q) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    with pytest.raises(ShapeError):
        jsd(np.array([0, 0]), np.array([1, 0]))


def test_ndb_counts_the_cells_that_changed(rng: np.random.Generator) -> None:
    real, same, lost = blobs(rng, [100] * 4), blobs(rng, [103, 97, 100, 100]), blobs(rng, [200, 0, 100, 100])
    assert ndb(real, same, bins=4).ndb == 0
    got = ndb(real, lost, bins=4)
    assert got.ndb == 2
    assert sorted(got.fake_shares) == [0.0, 0.25, 0.25, 0.5]
    assert got.jsd == pytest.approx(jsd(np.array([100] * 4), np.array([200, 0, 100, 100])))


def test_ndb_uses_the_two_proportion_test(rng: np.random.Generator) -> None:
    """100 of 200 against 120 of 200: pooled .55, error .0497, z 2.01, p .0444: different at .05, not at .04."""
    real = np.repeat([[0.0], [10.0]], 100, axis=0)
    fake = np.repeat([[0.0], [10.0]], [120, 80], axis=0)
    assert ndb(real, fake, bins=2).ndb == 2
    assert ndb(real, fake, bins=2, significance=0.04).ndb == 0


def test_inception_score_bounds() -> None:
    sure = torch.eye(10).repeat(20, 1) * 100
    assert inception_score(sure, splits=2).value == pytest.approx(10)
    assert inception_score(torch.zeros(40, 10), splits=4) == pytest.approx((1.0, 0.0, 4))
    assert inception_score(sure[:10].sort(0).values, splits=1).value < 10


def test_inception_score_by_the_formula(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(30, 5)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [q for q in np.split(p, 3)]
    values = [math.exp(np.mean([(r * np.log(r / q.mean(0))).sum() for r in q])) for q in parts]
    got = inception_score(logits, splits=3)
    assert (got.value, got.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))
