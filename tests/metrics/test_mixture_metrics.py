"""Metrics of 2-D mixtures: by hand, against POT, and the published rows of real data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from latentshift.errors import RequestError, ShapeError
from latentshift.metrics.toy import DOT25, Mixture, mode_metrics, w1_to_data, wasserstein1


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_by_hand() -> None:
    """Modes at 0 and 10, std 1: HQ below 4. Samples 0.6, 3.9 in the first; 4.0 is outside; 10 in the second."""
    two = Mixture("two", ((0.0, 0.0), (10.0, 0.0)), 1.0)
    got = mode_metrics(np.array([[0.6, 0.0], [0.0, 3.9], [0.0, 4.0], [10.0, 0.0]]), two)
    assert (got.hq, got.modes1, got.modes20) == (75.0, 2, 0)
    assert got.kl == pytest.approx(2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert got.in_std == pytest.approx(math.sqrt((0.36 + 15.21) / 3 / 2))


def test_one_mode_and_no_mode() -> None:
    grid = DOT25
    one = mode_metrics(np.repeat(np.array(grid.means[:1]), 30, 0), grid)
    assert (one.modes1, one.modes20, one.in_std) == (1, 1, 0)
    assert one.kl == pytest.approx(math.log(25))
    none = mode_metrics(np.full((5, 2), 50.0), grid)
    assert (none.hq, none.modes1) == (0, 0)
    assert math.isnan(none.kl)
    assert math.isnan(none.in_std)


def test_real_data_gives_the_published_row() -> None:
    """Row "data": HQ 99.9 +- 0.07, all modes, in-std 17.66e-3 +- 0.15e-3, W1 7.7e-3 +- 0.2e-3 (2,000 samples)."""
    grid = DOT25
    rows = [mode_metrics(grid.balanced(2000, drawn(seed)), grid) for seed in range(5)]
    assert np.mean([r.hq for r in rows]) == pytest.approx(99.97, abs=0.07)
    assert all((r.modes1, r.modes20) == (25, 25) for r in rows)
    assert np.mean([r.in_std for r in rows]) == pytest.approx(0.01766, abs=0.00015)
    assert max(r.kl for r in rows) < 1e-3
    assert w1_to_data(grid.balanced(2000, drawn(100)), grid) == pytest.approx(0.0077, abs=0.0004)
    iid = mode_metrics(grid.sample(2000, drawn(7)), grid)
    assert iid.kl == pytest.approx(0.005, abs=0.004)


def test_w1_is_the_best_matching(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    best = min(np.linalg.norm(a - b[list(p)], axis=1).mean() for p in itertools.permutations(range(6)))
    assert wasserstein1(a, b) == pytest.approx(best)
    assert wasserstein1(a, a[::-1]) == 0.0
    assert wasserstein1(a, a + np.array([3.0, 4.0])) == pytest.approx(5.0)


def test_w1_is_pots(rng: np.random.Generator) -> None:
    ot = pytest.importorskip("ot", reason="POT is the referee")
    a, b = rng.normal(size=(150, 2)), rng.normal(size=(150, 2)) + 1
    assert wasserstein1(a, b) == pytest.approx(ot.emd2([], [], ot.dist(a, b, "euclidean")), rel=1e-9)


def test_uneven_draws_are_refused() -> None:
    with pytest.raises(RequestError, match="2001 points"):
        DOT25.balanced(2001, drawn(0))
    with pytest.raises(ShapeError, match="size 3 and 2"):
        mode_metrics(np.zeros((4, 3)), DOT25)
