"""The evaluation: values against closed forms and single functions, errors against fresh draws, pairs, refusals, texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from latentshift.errors import NumericError, RequestError, ShapeError, UnknownNameError
from latentshift.metrics import influence
from latentshift.metrics.clusters import inception_score, ndb
from latentshift.metrics.coverage import prdc, prdc_rows
from latentshift.metrics.distance import Moments, frechet, frechet_moments, kid, mmd, root_of
from latentshift.metrics.evaluate import evaluate
from latentshift.metrics.evaluation import Evaluation
from latentshift.metrics.features import pixels
from latentshift.metrics.floors import gaussian_moments
from latentshift.metrics.measures import Setting
from latentshift.metrics.sample import Reference, Sample
from latentshift.metrics.table import lines

QUICK = Setting(bins=10, subsets=5, subset_size=100)


@pytest.fixture(scope="module")
def found() -> tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(300, 6)) + 0.6
    refined, reals = raw - 0.4, rng.normal(size=(500, 6))
    a, b = (Sample.of(x, name=n, seeds=np.arange(300), labels=np.arange(300) % 2) for x, n in ((raw, "raw"), (refined, "new")))
    labelled = Sample.of(reals, labels=np.arange(500) % 2)
    return evaluate(a, b, reals=labelled, setting=QUICK), raw, refined, reals


def test_values_are_those_of_the_single_functions(found: tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray]) -> None:
    told, raw, refined, reals = found
    for x, side in ((raw, "a"), (refined, "b")):
        value = lambda family: getattr(told.row(family), side).value  # noqa: B023, E731
        assert value("fd") == pytest.approx(frechet(x, reals), rel=1e-10)
        assert value("kid") == pytest.approx(kid(x, reals, subsets=5, subset_size=100).value, rel=1e-12)
        order = np.sort(np.random.default_rng(0).permutation(500)[:300])
        assert [value(n) for n in ("precision", "recall", "density", "coverage")] == pytest.approx(prdc(reals[order], x)[:4])
        cells = ndb(reals, x, bins=10)
        assert (value("jsd"), value("ndb")) == (pytest.approx(cells.jsd), cells.ndb)


def test_a_paired_shift_towards_the_data_is_seen_and_both_ways(
    found: tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    told, raw, refined, reals = found
    change = told.row("fd").change
    assert change is not None
    assert change.paired
    assert change.z < -3
    assert change.low < change.value < change.high < 0
    assert told.verdict() == "help"
    assert evaluate(refined, raw, reals=reals, paired=True, setting=QUICK).verdict() == "harm"
    assert evaluate(raw, raw, reals=reals, paired=True, setting=QUICK).verdict() == "none"
    unpaired = evaluate(raw, refined, reals=reals, setting=QUICK).row("fd").change
    assert unpaired is not None
    assert not unpaired.paired
    assert unpaired.error > 1.3 * change.error


def test_classes_stand_in_rows_of_their_own(found: tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray]) -> None:
    told, raw, _, reals = found
    assert {r.label for r in told.classes} == {0, 1}
    assert told.row("fd", 1).a.value == pytest.approx(frechet(raw[1::2], reals[1::2]), rel=1e-10)
    assert told.row("fd", 1).metric == "fd150-features-class1"
    assert told.row("fd").metric == "fd300-features"


def test_a_set_against_itself_and_shifted_gaussians(rng: np.random.Generator) -> None:
    x = rng.normal(size=(400, 8))
    same = evaluate(x, reals=x, groups=["distance", "neighbours"], floor=False)
    assert same.row("fd").a.value < 1e-9
    assert same.row("precision").a.value == same.row("coverage").a.value == 1
    moved = evaluate(x + 2.0, reals=x, groups=["distance"], floor=False)
    assert moved.row("fd").a.value == pytest.approx(8 * 4.0, rel=1e-12)
    scaled = evaluate(3 * x, reals=x, groups=["distance"], floor=False)
    mean, cov = x.mean(0), np.cov(x, rowvar=False)
    assert scaled.row("fd").a.value == pytest.approx(4 * mean @ mean + 4 * np.trace(cov), rel=1e-12)


@pytest.mark.parametrize("size", [16, 60])
def test_linear_errors_are_the_spread_over_fresh_draws(rng: np.random.Generator, size: int) -> None:
    """16 features: exact to a fifth. Recall and coverage by a jackknife: at least the spread, at most twice it."""
    mix = rng.normal(size=(size, size)) / np.sqrt(size)
    reference = rng.normal(size=(1500, size)) @ mix
    m, n, seen, told = Moments.of(reference), 300, [], []
    root, weights = root_of(m.cov), rng.normal(size=(size, 10))
    for _ in range(40):
        x = 1.1 * rng.normal(size=(n, size)) @ mix + 0.15
        own = Moments.of(x)
        rows = prdc_rows(reference[:n], x)
        logits = x @ weights
        values = [frechet_moments(own, m), mmd(x, reference[:n]), inception_score(logits, splits=1).value, *rows.values()[:4]]
        moved = [influence.of_frechet(x, own.mean, root_of(own.cov), m.mean, root)]
        moved += [influence.of_kid(x, reference[:n]), influence.of_inception_score(logits), *influence.of_prdc(rows).values()]
        seen.append(values)
        told.append([i.std() / np.sqrt(n) for i in moved])
    ratio = np.mean(told, 0) / np.std(seen, 0, ddof=1)
    assert (ratio[[0, 1, 2, 3, 5]] > 0.7).all(), ratio
    assert (ratio[[0, 1, 2, 3, 5]] < 1.4).all(), ratio
    assert (ratio[[4, 6]] > 0.9).all(), ratio
    assert (ratio[[4, 6]] < 2.2).all(), ratio


def test_the_bias_of_the_inception_score(rng: np.random.Generator) -> None:
    weights = rng.normal(size=(4, 10))
    truth = inception_score(rng.normal(size=(40_000, 4)) @ weights, splits=1).value
    some = [rng.normal(size=(1000, 4)) @ weights for _ in range(20)]
    seen = np.mean([inception_score(x, splits=10).value for x in some]) - truth
    assert np.mean([influence.inception_score_bias(x, 10) for x in some]) == pytest.approx(seen, rel=0.35)


def test_what_a_row_alone_covers(rng: np.random.Generator) -> None:
    """Taking out a fake lowers coverage by exactly what it alone covered."""
    real, fake = rng.normal(size=(60, 3)), rng.normal(size=(40, 3))
    whole = prdc_rows(real, fake, k=3)
    for j in range(40):
        rest = prdc_rows(real, np.delete(fake, j, 0), k=3)
        assert whole.covered.sum() - rest.covered.sum() == whole.only_covers[j]


def test_wishart_moments_have_the_mean_and_spread_of_draws(rng: np.random.Generator) -> None:
    root = rng.normal(size=(5, 5))
    quick = [gaussian_moments(root, np.zeros(5), 50, rng).cov for _ in range(600)]
    slow = [np.cov(rng.normal(size=(50, 5)) @ root, rowvar=False) for _ in range(600)]
    assert np.mean(quick, 0) == pytest.approx(root.T @ root, abs=0.35)
    assert np.std(quick, 0) == pytest.approx(np.std(slow, 0), rel=0.15)


def test_large_features_get_a_linear_interval_that_agrees_with_the_bootstrap(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = rng.normal(size=(400, 10)) + 0.5
    refined, reals = raw * 0.95 - 0.1, rng.normal(size=(800, 10))
    options = {"reals": reals, "paired": True, "groups": ["distance"], "floor": False}
    whole = evaluate(raw, refined, **options).row("fd")
    monkeypatch.setattr("latentshift.metrics.measures.BOOTSTRAP_COST", 0)
    linear = evaluate(raw, refined, **options).row("fd")
    assert linear.a.error == pytest.approx(whole.a.error, rel=0.2)
    assert linear.change.error == pytest.approx(whole.change.error, rel=0.2)


def test_seeds_make_pairs_and_other_sizes_are_cut(rng: np.random.Generator) -> None:
    x, reals = rng.normal(size=(120, 4)), rng.normal(size=(200, 4))
    a = Sample.of(x[:100], seeds=np.arange(100))
    b = Sample.of(x[20:] + 0.1, seeds=np.arange(20, 120))
    told = evaluate(a, b, reals=reals, groups=["distance"], draws=20)
    assert told.row("fd").a.count == 80
    assert told.row("fd").change.paired
    assert told.notes == ("compared on the 80 seeds that both have (of 100 and 100)",)
    assert {m.name for m in told.moves} >= {"displacement-features", "drift-fd"}
    told = evaluate(x, x[:50], reals=reals, groups=["distance"], draws=20)
    assert told.row("fd").a.count == told.row("fd").b.count == 50
    assert "sets of different size (120 and 50)" in told.notes[0]
    with pytest.raises(ShapeError, match="same rows on both sides, got 120 and 50"):
        evaluate(x, x[:50], reals=reals, paired=True)
    with pytest.raises(RequestError, match="share no seeds"):
        evaluate(Sample.of(x, seeds=range(120)), Sample.of(x, seeds=range(500, 620)), reals=reals, paired=True)


def test_seeds_that_stand_there_twice(rng: np.random.Generator) -> None:
    x, reals = rng.normal(size=(40, 3)), rng.normal(size=(60, 3))
    twice = np.repeat(np.arange(20), 2)  # one seed, two classes: row i is row i
    same = evaluate(Sample.of(x, seeds=twice), Sample.of(x + 0.1, seeds=twice), reals=reals, groups=["distance"], draws=10)
    assert same.row("fd").change.paired
    a, b = Sample.of(x, seeds=twice), Sample.of(x, seeds=twice[::-1])
    told = evaluate(a, b, reals=reals, groups=["distance"], draws=10)
    assert not told.row("fd").change.paired
    assert "stand there twice" in told.notes[0]
    with pytest.raises(RequestError, match="stand there twice"):
        evaluate(a, b, reals=reals, paired=True)


def test_bad_sets_have_one_clear_message(rng: np.random.Generator) -> None:
    x = rng.normal(size=(30, 4))
    broken = x.copy()
    broken[7] = np.nan
    with pytest.raises(NumericError, match=r"1 of 30 rows are NaN or infinite, the first is row 7"):
        evaluate(broken, reals=x)
    with pytest.raises(ShapeError, match="one image cannot be evaluated"):
        evaluate(x[:1], reals=x)
    with pytest.raises(ShapeError, match="one real image is no reference"):
        evaluate(x, reals=x[:1])
    with pytest.raises(ShapeError, match="features of size 4 and 3"):
        evaluate(x, reals=x[:, :3])
    with pytest.raises(RequestError, match="images need a feature network"):
        evaluate(np.zeros((3, 1, 8, 8), np.uint8), reals=x)
    with pytest.raises(UnknownNameError, match="'distances'"):
        evaluate(x, reals=x, groups=["distances"])
    with pytest.raises(ShapeError, match="3 labels for 30 images"):
        Sample.of(x, labels=[1, 2, 3])
    with pytest.raises(UnknownNameError, match="'is'"):
        evaluate(x, reals=x, groups=["distance"], draws=5).row("is")


def test_fewer_images_than_features_is_said(rng: np.random.Generator) -> None:
    told = evaluate(rng.normal(size=(20, 40)), reals=rng.normal(size=(100, 40)), groups=["distance"], draws=20)
    assert "fewer images than features (40)" in told.row("fd").note
    assert told.row("fd").floor is not None


def test_real_images_of_another_kind_are_named(rng: np.random.Generator) -> None:
    x, reals = rng.normal(size=(100, 5)) + 30, rng.normal(size=(100, 5))
    assert "another kind" in evaluate(x, reals=reals, setting=QUICK, draws=10).warnings[0]
    assert "another kind" in evaluate(x, reals=Moments.of(reals), draws=10).warnings[0]
    assert evaluate(reals + 0.3, reals=reals, setting=QUICK, draws=10).warnings == ()


def test_statistics_alone_give_the_distance_alone(rng: np.random.Generator) -> None:
    x, reals = rng.normal(size=(100, 5)), rng.normal(size=(300, 5))
    told = evaluate(x, reals=Moments.of(reals), draws=10)
    assert [r.family for r in told.rows] == ["fd"]
    assert "statistics without features" in told.notes[0]
    with pytest.raises(RequestError, match="statistics without features"):
        evaluate(x, reals=Reference.of(Moments.of(reals)), groups=["neighbours"])


def test_images_go_through_the_network(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    told = evaluate(images[:20], reals=images[20:], network=pixels(1, 8), groups=["distance"], draws=5)
    assert told.row("fd").metric == "fd20-pixels8"
    assert told.row("fd").a.value == pytest.approx(
        frechet(images[:20].reshape(20, -1) / 255, images[20:].reshape(20, -1) / 255), rel=1e-4
    )


def test_the_table_fits_and_says_what_was_found(found: tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray]) -> None:
    told = found[0]
    text = told.table(80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "raw > new: 300 images, paired by seed" in text
    row = next(line for line in text.splitlines() if line.startswith("FD"))
    assert row.split()[-2] == "better"
    assert "by class" in text
    assert "KID" in evaluate(found[1], reals=found[3], setting=QUICK, draws=10).table(80)


def test_lines_have_the_layout_of_stylegan(found: tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray]) -> None:
    record = json.loads(json.dumps(lines(found[0], "network.pkl")[0], allow_nan=False))
    assert list(record)[:7] == ["results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"]
    assert record["results"] == {"fd300-features": pytest.approx(found[0].row("fd").b.value)}
    assert record["snapshot_pkl"] == "network.pkl"
    assert record["more"]["change"]["paired"] is True


def test_progress_names_what_is_at_work(rng: np.random.Generator) -> None:
    x, seen = rng.normal(size=(40, 3)), []
    evaluate(x, reals=x, draws=5, setting=QUICK, progress=lambda *step: seen.append(step))
    assert seen[0] == ("distance", 0, 5)
    assert seen[-1] == ("", 5, 5)
