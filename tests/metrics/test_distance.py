"""Frechet distance and KID against closed forms and against scipy's matrix square root."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from latentshift.errors import DamagedFileError, FileError, NumericError, ShapeError
from latentshift.metrics.distance import (
    Moments,
    expected_bias,
    frechet,
    frechet_gaussian,
    frechet_moments,
    kid,
    mmd,
)


def referee(a: np.ndarray, b: np.ndarray) -> float:
    """The form of pytorch-fid and torch-fidelity: scipy's square root of the product."""
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    delta = a.mean(0) - b.mean(0)
    return float(delta @ delta + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * np.trace(root.real))


def mmd_referee(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate as written, by loops over pairs."""
    k = lambda u, v: (u @ v / len(u) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return float(xx + yy - 2 * sum(k(u, v) for u in x for v in y) / (n * m))


@pytest.mark.parametrize("size", [3, 40])
def test_frechet_is_scipys(rng: np.random.Generator, size: int) -> None:
    a = rng.normal(size=(500, size)) @ rng.normal(size=(size, size))
    b = rng.normal(size=(300, size)) @ rng.normal(size=(size, size)) + 0.3
    assert frechet(a, b) == pytest.approx(referee(a, b), rel=1e-9)


def test_frechet_of_shifted_and_scaled_gaussians_is_the_closed_form() -> None:
    """N(m1, diag s1^2) to N(m2, diag s2^2): |m1 - m2|^2 + sum (s1 - s2)^2."""
    s1, s2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    shift = np.array([1.0, -2.0, 0.5])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    value = frechet_gaussian(np.zeros(3), turn @ np.diag(s1**2) @ turn.T, turn @ shift, turn @ np.diag(s2**2) @ turn.T)
    assert value == pytest.approx(shift @ shift + ((s1 - s2) ** 2).sum(), rel=1e-12)


def test_a_shifted_copy_is_the_squared_shift(rng: np.random.Generator) -> None:
    a = rng.normal(size=(200, 30))
    assert frechet(a, a + 0.25) == pytest.approx(30 * 0.0625, rel=1e-9)


@pytest.mark.parametrize("rows", [20, 400])
def test_a_set_against_itself_is_zero_also_with_fewer_rows_than_features(rng: np.random.Generator, rows: int) -> None:
    a = rng.normal(size=(rows, 100)) * 10.0 ** rng.uniform(-4, 2, 100)
    assert frechet(a, a[::-1]) < 1e-10 * a.var(0).sum()


def test_fewer_rows_than_features_still_equals_the_exact_value(rng: np.random.Generator) -> None:
    """30 rows in 80 dimensions: tr (A B)^(1/2) is the nuclear norm of the product of centred sets, taken directly."""
    a, b = rng.normal(size=(30, 80)), rng.normal(size=(25, 80)) * 2
    ca, cb = a - a.mean(0), b - b.mean(0)
    cross = np.linalg.svd(ca @ cb.T, compute_uv=False).sum() / np.sqrt(29 * 24)
    exact = ((a.mean(0) - b.mean(0)) ** 2).sum() + (ca**2).sum() / 29 + (cb**2).sum() / 24 - 2 * cross
    assert frechet(a, b) == pytest.approx(exact, rel=1e-10)


def test_constant_features_are_no_obstacle() -> None:
    a = np.tile([1.0, 2.0], (5, 1))
    assert frechet(a, a + 3) == pytest.approx(18.0)


def test_streamed_moments_are_numpys(rng: np.random.Generator, tmp_path: Path) -> None:
    a = rng.normal(size=(1000, 7)) + 1e6  # a one-pass sum of squares would lose 12 digits here
    parts = Moments(network="x")
    for piece in np.split(a[:600], [1, 250]):
        parts.update(piece)
    parts.merge(Moments.of(a[600:]))
    np.testing.assert_allclose(parts.cov, np.cov(a.T), rtol=1e-8, atol=1e-8)
    parts.save(tmp_path / "s.npz")
    back = Moments.load(tmp_path / "s.npz")
    assert (back.count, back.network) == (1000, "x")
    np.testing.assert_allclose(back.cov, parts.cov)
    assert frechet_moments(back, parts) < 1e-8


def test_statistics_of_other_tools_and_damaged_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(DamagedFileError, match="of how many images"):
        Moments.load(tmp_path / "theirs.npz")
    assert Moments.load(tmp_path / "theirs.npz", count=50000).cov == pytest.approx(np.eye(2))
    bad = {
        "asymmetric": np.array([[1.0, 2.0], [0.0, 1.0]]),
        "negative": -np.eye(2),
        "nan": np.full((2, 2), np.nan),
        "shape": np.eye(3),
        "pickled": np.array([[object(), 1], [1, 1]]),
    }
    for name, sigma in bad.items():
        np.savez(tmp_path / f"{name}.npz", mu=np.zeros(2), sigma=sigma, count=10)
        with pytest.raises(FileError):
            Moments.load(tmp_path / f"{name}.npz")
    (tmp_path / "text.npz").write_text("<html>")
    with pytest.raises(DamagedFileError):
        Moments.load(tmp_path / "text.npz")


def test_statistics_of_two_networks_are_not_compared(rng: np.random.Generator) -> None:
    a = rng.normal(size=(10, 2))
    with pytest.raises(ShapeError, match="resnet20"):
        frechet_moments(Moments.of(a, network="resnet20"), Moments.of(a, network="squeezenet227"))
    with pytest.raises(ShapeError, match="size 2 and 3"):
        frechet(a, rng.normal(size=(10, 3)))


def test_nan_rows_are_named(rng: np.random.Generator) -> None:
    a = rng.normal(size=(10, 2))
    b = a.copy()
    b[[3, 7], 1] = np.nan, np.inf
    for metric in (frechet, mmd, lambda x, y: kid(x, y, subsets=2)):
        with pytest.raises(NumericError, match=r"features b: 2 of 10 rows .* row 3"):
            metric(a, b)
    with pytest.raises(ShapeError, match="1 rows where 2"):
        frechet(a, b[:1])


def test_expected_bias_is_what_repeated_sampling_shows(rng: np.random.Generator) -> None:
    scale = np.linspace(0.2, 2, 12)
    cov = np.diag(scale**2)
    draws = [Moments.of(rng.normal(size=(150, 12)) * scale) for _ in range(60)]
    values = [frechet_gaussian(m.mean, m.cov, np.zeros(12), cov) for m in draws]
    assert expected_bias(cov, 150) == pytest.approx(np.mean(values), rel=0.08)


def test_mmd_is_the_sum_over_pairs(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(20, 5)), rng.normal(size=(15, 5)) + 0.2
    assert mmd(a, b) == pytest.approx(mmd_referee(a, b), rel=1e-9)


def test_kid_takes_the_stated_subsets(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(40, 5)), rng.normal(size=(30, 5)) + 0.2
    draw, values = np.random.RandomState(2020), []
    for _ in range(4):
        ia = draw.choice(40, 10, replace=False)
        values.append(mmd_referee(a[ia], b[draw.choice(30, 10, replace=False)]))
    got = kid(a, b, subsets=4, subset_size=10)
    assert (got.value, got.std) == (pytest.approx(np.mean(values), rel=1e-9), pytest.approx(np.std(values), rel=1e-9))
    assert kid(a, b, subsets=1).subset_size == 30


@pytest.mark.parametrize("size", [1000, 12])
def test_kids_error_is_its_spread_over_fresh_draws(rng: np.random.Generator, size: int) -> None:
    """Both routes (jackknife; disjoint blocks) against the spread of KID over 60 independent pairs of sets."""
    runs = [kid(rng.normal(size=(150, 4)), rng.normal(size=(150, 4)) * 1.5, subsets=10, subset_size=size) for _ in range(60)]
    spread = np.std([r.value for r in runs], ddof=1)
    assert np.mean([r.error for r in runs]) == pytest.approx(spread, rel=0.35)
