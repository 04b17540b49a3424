"""Seeds as ranges, and the latents of many seeds at once: equal to numpy's own draws to the bit."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentshift import mersenne, noise
from latentshift.errors import UsageError
from latentshift.seeds import SeedRanges
from latentshift.space import Normal, Prior, Sphere, TruncatedNormal, Uniform


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12, unique=True), st.data())
def test_ranges_are_the_list_that_they_stand_for(cuts: list[int], data: st.DataObject) -> None:
    spans = [(10 * a, 10 * a + a % 10) for a in cuts]
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    flat = [s for a, b in spans for s in range(a, b + 1)]
    seeds = SeedRanges.parse(text)
    assert len(seeds) == len(flat)
    assert seeds.largest == max(flat)
    start = data.draw(st.integers(0, len(flat)))
    stop = data.draw(st.integers(start, len(flat) + 3))
    assert seeds.part(start, stop).tolist() == flat[start:stop]
    if start < min(stop, len(flat)):
        assert SeedRanges.parse(seeds.text(start, stop)).part(0, 10**6).tolist() == flat[start:stop]
    assert seeds.text() == text


def test_a_billion_seeds_weigh_nothing() -> None:
    began = time.process_time()
    seeds = SeedRanges.parse("0-999999999")
    assert len(seeds) == 10**9
    assert seeds.part(10**9 - 3, 10**9).tolist() == [999999997, 999999998, 999999999]
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("text", ["", "a", "5-", "-5", "7-3", "1,1", "0-9,9-12", "0-9,3", "4294967296", "1.5", "²"])
def test_what_is_no_list_of_seeds(text: str) -> None:
    with pytest.raises(UsageError):
        SeedRanges.parse(text)


PRIORS: list[Prior] = [Normal(), Uniform(), Uniform(-0.3, 2.0), TruncatedNormal(), TruncatedNormal(2.0, 0.4), Sphere()]


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: p.kind)
@pytest.mark.parametrize("size", [1, 2, 64, 129, 700])
def test_many_seeds_are_drawn_as_one_by_one(prior: Prior, size: int) -> None:
    seeds = np.random.default_rng(size).integers(0, 2**32, 80 if size > 100 else 500)
    seeds[:3] = 0, 1, 2**32 - 1
    single = [prior.draw(np.random.RandomState(int(s)), (1, size))[0] for s in seeds]
    assert np.array_equal(noise.latents(seeds.tolist(), (size,), prior), np.stack(single).astype(np.float32))


def test_shapes_of_three_axes() -> None:
    got = noise.latents(range(70), (6, 2, 2), Normal())
    assert np.array_equal(got[69], np.random.RandomState(69).randn(1, 6, 2, 2)[0].astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5), st.integers(1, 40))
def test_doubles_and_normals_of_any_seed(seeds: list[int], count: int) -> None:
    many = mersenne.ManyStates(seeds)
    for got, draw in ((many.randn(len(seeds), count), "randn"), (many.uniform(0.0, 1.0, (len(seeds), count)), "random_sample")):
        assert np.array_equal(got, np.stack([getattr(np.random.RandomState(s), draw)(count) for s in seeds]))


def test_a_machine_of_other_arithmetic_draws_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mersenne, "agrees", lambda: False)
    monkeypatch.setattr(mersenne, "ManyStates", None)
    assert noise.latents(range(70), (2,), Normal())[3, 0] == np.float32(np.random.RandomState(3).randn())


def test_rows_that_need_more_tries_than_most() -> None:
    # with three tries one seed in a hundred has no pair yet, and is drawn again with six
    seeds = np.arange(60000)
    assert np.array_equal(mersenne._normals(seeds, 1, tries=3)[:2000], mersenne._normals(seeds[:2000], 1))


def test_it_is_worth_it() -> None:
    def cost(f: object, *args: object) -> float:
        began = time.process_time()
        f(*args)  # type: ignore[operator]
        return time.process_time() - began

    one = lambda n: [np.random.RandomState(s).randn(1, 64) for s in range(n)]  # noqa: E731
    ratios = [cost(one, 300) / 300 / (cost(noise.latents, range(4096), (64,), Normal()) / 4096) for _ in range(5)]
    assert np.median(ratios) > 4, ratios
