"""Single precision screens, double precision decides: bounds that hold, and results equal to float64 where that is hard."""

from __future__ import annotations

import numpy as np
import pytest

from latentshift.metrics import neighbours
from latentshift.metrics.coverage import nearest_distances, prdc_rows
from latentshift.metrics.neighbours import Screen, kth_distances


def hard_sets(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sets in which float32 products alone are wrong."""
    n, m, size = 220, 190, 24
    x, y = rng.normal(size=(n, size)), rng.normal(size=(m, size)) * 0.9
    if name == "far from the origin":
        return x + 1e6, y + 1e6
    if name == "far from each other":
        return x, y + 1e4
    if name == "tight clusters":
        centres = rng.normal(size=(6, size)) * 100
        return x * 1e-5 + centres[rng.integers(0, 6, n)], y * 1e-5 + centres[rng.integers(0, 6, m)]
    if name == "an outlier":
        x[7], y[3] = 1e5, -1e5
    if name == "copies":
        x[:40], y[:30], y[30:60] = x[0], x[0], x[50:80]
    if name == "tiny":
        return x * 1e-25, y * 1e-25
    if name == "many features":
        mix = rng.normal(size=(8, 2048))
        return np.abs(rng.normal(size=(n, 8)) @ mix), np.abs(rng.normal(size=(m, 8)) @ mix)
    if name == "a grid, all ties":
        return rng.integers(0, 3, (n, 4)).astype(float), rng.integers(0, 3, (m, 4)).astype(float)
    return x, y


SETS = (
    "plain",
    "far from the origin",
    "far from each other",
    "tight clusters",
    "an outlier",
    "copies",
    "tiny",
    "many features",
    "a grid, all ties",
)


def gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gap = a[:, None] - b[None]
    return np.sqrt(np.einsum("ijk,ijk->ij", gap, gap))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("block", "spare"), [(4096, 6), (64, 0)])
def test_equals_float64(name: str, block: int, spare: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "SPARE", spare)
    x, y = hard_sets(name, rng)
    k = 5
    rx, ry, d = np.sort(gaps(x, x), 1)[:, k], np.sort(gaps(y, y), 1)[:, k], gaps(x, y)
    assert np.array_equal(kth_distances(x, k), rx)
    rows = prdc_rows(x, y, k=k)
    inside, held = d < rx[:, None], d < ry[None]
    assert np.array_equal(rows.balls, inside.sum(0))
    assert np.array_equal(rows.covered, inside.any(1))
    assert np.array_equal(rows.recalled, held.any(1))
    assert np.array_equal(rows.only_covers, (inside & (inside.sum(1, keepdims=True) == 1)).sum(0))
    assert np.array_equal(rows.only_recalls, (held & (held.sum(1, keepdims=True) == 1)).sum(0))
    known = prdc_rows(x, y, k=k, radii=nearest_distances(x, k))
    assert np.array_equal(known.balls, rows.balls), "radii that were kept give the same balls, ties and all"


@pytest.mark.parametrize("name", SETS)
def test_the_bounds_hold_and_are_tight(name: str, rng: np.random.Generator) -> None:
    x, y = hard_sets(name, rng)
    screen = Screen(x, y)
    low = screen.low(slice(0, len(x)), slice(0, len(y))).numpy().astype(np.float64)
    true = (gaps(x / screen.unit, y / screen.unit)) ** 2
    norms = screen.xx[:, None] + screen.yy[None]
    assert (low <= true + 1e-30).all()
    assert (true <= low + 2.1 * screen.slack * norms + 1e-30).all()
    assert screen.slack < 3e-7 * (x.shape[1] + 10), "a loose bound would measure every pair again"


def test_few_pairs_are_measured_twice(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point of it: of 900 x 900 pairs of 256 features, some percent are measured in float64."""
    count = []
    measure = neighbours.distances
    monkeypatch.setattr(neighbours, "distances", lambda x, y, i, j: count.append(len(i)) or measure(x, y, i, j))
    x, y = rng.normal(size=(900, 256)), rng.normal(size=(900, 256))
    prdc_rows(x, y)
    assert sum(count) < 0.04 * 900 * 900 * 3
