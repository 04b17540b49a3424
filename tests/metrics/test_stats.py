"""Bootstrap, paired tests and Holm against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from latentshift.errors import RequestError, ShapeError
from latentshift.metrics.distance import frechet
from latentshift.metrics.stats import bootstrap, bootstrap_change, holm, paired_test, sign_flip_test


def test_bootstrap_of_a_mean_has_its_standard_error(rng: np.random.Generator) -> None:
    x = rng.normal(size=400) * 3
    got = bootstrap(np.mean, x, draws=2000)
    assert got.value == x.mean()
    assert got.sd == pytest.approx(x.std() / 20, rel=0.06)
    assert got.high - got.value == pytest.approx(1.96 * got.sd, rel=0.1)
    assert got == bootstrap(np.mean, x, draws=2000)


def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100(rng: np.random.Generator) -> None:
    hits = 0
    for i in range(200):
        got = bootstrap(np.mean, rng.normal(size=60), draws=200, seed=i)
        hits += got.low <= 0 <= got.high
    assert 0.89 <= hits / 200 <= 0.985


def test_pairing_cancels_what_both_sides_share(rng: np.random.Generator) -> None:
    before = rng.normal(size=(300, 5))
    after = before + 0.1
    reference = rng.normal(size=(300, 5))
    change = bootstrap_change(lambda x: frechet(x, reference), before, after, draws=60)
    assert change.value == pytest.approx(frechet(after, reference) - frechet(before, reference))
    alone = bootstrap(lambda x: frechet(x, reference), before, draws=60)
    assert change.sd < alone.sd
    apart = bootstrap(lambda a, b: frechet(b, reference) - frechet(a, reference), before, after, paired=False, draws=60)
    assert change.sd < apart.sd
    assert change.z == pytest.approx(change.value / change.sd)


def test_paired_z_is_scipys_t_for_many_rows(rng: np.random.Generator) -> None:
    a = rng.normal(size=2000)
    b = a + rng.normal(size=2000) * 0.5 + 0.02
    ours, theirs = paired_test(a, b), scipy.stats.ttest_rel(b, a)
    assert ours.z == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, rel=0.01)
    assert ours.rose == (b > a).mean()
    assert paired_test(a, a).p == 1.0
    assert paired_test(a, a + 1e-9).p < 1e-9


def test_sign_flips_are_exact_for_few_rows() -> None:
    """Changes 1, 2, 3: of 8 sign patterns two give a sum of 6 in size: p = 1/4. With -1, 2, 3 (4): 4 of 8."""
    assert sign_flip_test(np.zeros(3), np.array([1.0, 2, 3])) == 0.25
    assert sign_flip_test(np.zeros(3), np.array([-1.0, 2, 3])) == 0.5
    assert sign_flip_test(np.zeros(50), np.ones(50), draws=999) == pytest.approx(0.001)


def test_sign_flips_agree_with_the_z_test(rng: np.random.Generator) -> None:
    a = rng.normal(size=300)
    b = a + rng.normal(size=300) + 0.12
    assert sign_flip_test(a, b, draws=4000) == pytest.approx(paired_test(a, b).p, abs=0.02)


def test_holm_by_hand() -> None:
    assert holm([0.005, 0.5, 0.011, 0.02]) == pytest.approx([0.02, 0.5, 0.033, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(RequestError):
        holm([math.nan])


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 and 4"):
        paired_test(np.zeros(3), np.zeros(4))
    with pytest.raises(ShapeError, match="same rows"):
        bootstrap(lambda a, b: 0.0, np.zeros(3), np.zeros(4))
