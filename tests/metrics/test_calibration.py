"""Calibration against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentshift.calibration import (
    auc,
    fit_beta,
    fit_isotonic,
    fit_logistic,
    fit_temperature,
    pool_adjacent,
    z_statistic,
)
from latentshift.errors import NumericError, RequestError


@pytest.fixture
def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Real N(1.2, 1), generated N(0, 1): the log ratio is 1.2 d - 0.72, and 800 real stand against 1,500."""
    return rng.normal(size=800) + 1.2, rng.normal(size=1500)


def both(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([real, fake]), np.concatenate([np.ones(len(real)), np.zeros(len(fake))])


def test_logistic_is_scikit_learns_without_penalty(scores: tuple[np.ndarray, np.ndarray]) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    d, y = both(*scores)
    theirs = linear.LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(d[:, None], y)
    ours = fit_logistic(*scores)
    assert ours.a == pytest.approx(theirs.coef_[0, 0], rel=1e-5)
    assert ours.b == pytest.approx(theirs.intercept_[0] - np.log(800 / 1500), rel=1e-5)


def test_logistic_finds_the_true_log_ratio_whatever_the_counts(rng: np.random.Generator) -> None:
    ours = fit_logistic(1.2 + rng.normal(size=40_000), rng.normal(size=10_000))
    assert (ours.a, ours.b) == (pytest.approx(1.2, abs=0.04), pytest.approx(-0.72, abs=0.04))


def test_logistic_stands_any_scale_and_offset(scores: tuple[np.ndarray, np.ndarray]) -> None:
    plain = fit_logistic(*scores)
    far = fit_logistic(*(1e5 + 1e-3 * s for s in scores))
    assert far.a == pytest.approx(1e3 * plain.a, rel=1e-6)
    assert far(torch.tensor(1e5 + 1e-3, dtype=torch.float64)) == pytest.approx(plain.a + plain.b, abs=1e-6)


def test_temperature_solves_its_likelihood(rng: np.random.Generator) -> None:
    """Scores that are the true log ratio times 4 have T = 4; the score equation sum d (y - p) = 0 holds."""
    real, fake = rng.normal(size=30_000) + 0.5, rng.normal(size=30_000) - 0.5
    fit = fit_temperature(4 * real, 4 * fake)
    assert 1 / fit.a == pytest.approx(4, rel=0.03)
    d, y = both(4 * real, 4 * fake)
    assert abs((d * (y - 1 / (1 + np.exp(-fit.a * d)))).mean()) < 1e-9
    assert fit.b == 0


def test_isotonic_is_scikit_learns(scores: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    real, fake = (np.round(s, 1) for s in scores)  # many ties
    d, y = both(real, fake)
    theirs = isotonic.IsotonicRegression().fit_transform(d, y).clip(0.5 / len(d), 1 - 0.5 / len(d))
    logits = fit_isotonic(real, fake)(torch.from_numpy(d)).numpy() + np.log(800 / 1500)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), theirs, rtol=1e-9)


def test_pool_adjacent_by_hand() -> None:
    assert pool_adjacent(np.array([1.0, 3.0, 2.0, 2.0, 5.0]), np.ones(5)) == pytest.approx([1, 7 / 3, 7 / 3, 7 / 3, 5])
    assert pool_adjacent(np.array([2.0, 1.0]), np.array([1.0, 3.0])) == pytest.approx([1.25, 1.25])
    assert pool_adjacent(np.array([3.0, 2.0, 1.0]), np.ones(3)) == pytest.approx([2, 2, 2])


def test_beta_undoes_a_power_of_the_odds(rng: np.random.Generator) -> None:
    """p with logit 2 x the true log ratio: a = b = 1/2."""
    true = lambda x: 1.2 * x - 0.72  # noqa: E731
    real, fake = (
        torch.sigmoid(torch.from_numpy(2 * true(x))) for x in (1.2 + rng.normal(size=30_000), rng.normal(size=30_000))
    )
    fit = fit_beta(real, fake)
    assert (fit.a, fit.b) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.5, abs=0.05))
    with pytest.raises(RequestError, match="takes probabilities"):
        fit_beta(2 * real, fake)


def test_auc_counts_pairs(rng: np.random.Generator) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])) == pytest.approx((1 + 1.5 + 2) / 6)
    real, fake = np.round(rng.normal(size=50) + 0.3, 1), np.round(rng.normal(size=70), 1)
    d, y = both(real, fake)
    assert auc(real, fake) == pytest.approx(metrics.roc_auc_score(y, d))
    assert auc(torch.ones(3), torch.ones(4)) == 0.5


def test_z_passes_a_calibrated_critic_and_fails_a_raw_one(rng: np.random.Generator) -> None:
    real, fake = rng.normal(size=2000) + 1.2, rng.normal(size=3000)
    fit = fit_logistic(rng.normal(size=5000) + 1.2, rng.normal(size=5000))
    assert abs(z_statistic(fit.a * real + fit.b, fit.a * fake + fit.b)) < 3
    assert abs(z_statistic(real, fake)) > 10
    # two scores, even odds each: (1 - 2 x 1/2) = 0; with logits 0 and p = 2/3 for 2 real of 3: sum(y - p) = 0 again
    assert z_statistic(np.zeros(4), np.zeros(2)) == pytest.approx(0.0, abs=1e-12)


def test_critics_that_cannot_be_calibrated_are_refused(rng: np.random.Generator) -> None:
    real, fake = rng.normal(size=100) - 1, rng.normal(size=100) + 1
    for fit in (fit_logistic, fit_temperature):
        with pytest.raises(RequestError, match="anti-informative"):
            fit(real, fake)
    with pytest.raises(RequestError, match="anti-informative"):
        fit_isotonic(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    with pytest.raises(RequestError, match="perfectly"):
        fit_logistic(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    with pytest.raises(RequestError, match="separate"):
        fit_temperature(np.array([2.0, 3.0]), np.array([-2.0, -1.0]))
    with pytest.raises(RequestError, match="equal"):
        fit_logistic(np.ones(5), np.ones(5))
    with pytest.raises(NumericError, match="1 of 2 real"):
        fit_logistic(np.array([1.0, np.nan]), np.ones(5))
