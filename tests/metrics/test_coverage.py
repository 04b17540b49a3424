"""Precision, recall, density, coverage against prdc, against the definition, and in cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from latentshift.errors import NumericError, RequestError, ShapeError
from latentshift.metrics import neighbours
from latentshift.metrics.coverage import nearest_distances, prdc, prdc_rows


def by_definition(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """All pairs by differences, radii by sorting (the first entry of a row is the row itself)."""
    pairs = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))  # noqa: E731
    rr, ff = np.sort(pairs(real, real), 1)[:, k], np.sort(pairs(fake, fake), 1)[:, k]
    d = pairs(real, fake)
    inside = d < rr[:, None]
    return (
        inside.any(0).mean(),
        (d < ff[None]).any(1).mean(),
        inside.sum(0).mean() / k,
        (d.min(1) < rr).mean(),
    )


@pytest.mark.parametrize(("n", "m", "size", "k"), [(300, 200, 6, 5), (50, 120, 64, 3), (90, 90, 2, 1)])
@pytest.mark.parametrize("block", [37, 4096])
def test_equals_the_definition_in_any_block(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, n: int, m: int, size: int, k: int, block: int
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    real, fake = rng.normal(size=(n, size)) + 100, rng.normal(size=(m, size)) * 0.8 + 100.3
    assert prdc(real, fake, k=k)[:4] == pytest.approx(by_definition(real, fake, k), abs=1e-12)


def test_equals_the_prdc_package(rng: np.random.Generator) -> None:
    package = pytest.importorskip("prdc", reason="the package prdc is the referee")
    real, fake = rng.normal(size=(400, 20)), rng.normal(size=(300, 20)) * 0.9 + 0.1
    theirs = package.compute_prdc(real, fake, nearest_k=5)
    ours = prdc(real, fake, k=5)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(ours, name) == pytest.approx(theirs[name], abs=1e-12)


def test_by_hand_on_a_line() -> None:
    """Reals 0, 1, 3, k = 1: radii 1, 1, 2. Fakes 0.5, 10, 11: radii 9.5, 1, 1. 0.5 lies in the balls of 0 and 1."""
    got = prdc(np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [10.0], [11.0]]), k=1)
    assert got[:4] == pytest.approx((1 / 3, 1.0, 2 / 3, 2 / 3))


def test_the_same_set_covers_itself(rng: np.random.Generator) -> None:
    x = rng.normal(size=(100, 3))
    assert prdc(x, x, k=3)[:4] == pytest.approx((1.0, 1.0, by_definition(x, x, 3)[2], 1.0))
    far = prdc(x, x + 1000, k=3)
    assert far[:4] == (0.0, 0.0, 0.0, 0.0)


def test_rows_average_to_the_values_and_duplicates_have_radius_zero(rng: np.random.Generator) -> None:
    rows = prdc_rows(rng.normal(size=(40, 2)), rng.normal(size=(30, 2)), k=2)
    assert rows.values().precision == (rows.balls > 0).mean()
    assert nearest_distances(np.zeros((4, 2)), 2) == pytest.approx(np.zeros(4))


def test_what_makes_no_sense_is_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 2))
    with pytest.raises(ShapeError, match="more than 6 rows"):
        prdc(x, x, k=6)
    with pytest.raises(RequestError, match="1 or more"):
        prdc(x, x, k=0)
    with pytest.raises(ShapeError, match="size 2 and 1"):
        prdc(x, x[:, :1])
    with pytest.raises(NumericError, match="features a: 1 of 6"):
        prdc(np.where(np.arange(6)[:, None] == 2, np.nan, x), x, k=2)
