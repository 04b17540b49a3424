"""The rule that turns what an eye saw, and D's own scale, into an answer."""

from __future__ import annotations

import numpy as np
import pytest

from latentshift.doctor.eye import Change, Eye
from latentshift.doctor.foretell import FEW, WRONG, WRONG_FAR, Pilot, Watch, above, chance, pilot, total, verdict
from latentshift.sampler import load


def seen(fd, density, coverage=0.0):
    return [Change("FD", 1, 1, fd), Change("density", 1, 1, density), Change("coverage", 1, 1, coverage)]


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        (seen(3, 0), "help"),
        (seen(-3, 0), "harm"),
        (seen(2, -2), "nothing"),
        (seen(4, -1), "help"),
        (seen(-1.2, -1.2), "harm"),
        (seen(1.2, 0), "nothing"),
        (seen(0, 0, -9), "harm"),
        (seen(1, 1, 1), "help"),
    ],
)
def test_the_sum_of_distance_density_and_coverage(changes, answer):
    assert verdict(total(changes)) == answer


def test_far_from_real_images_an_answer_is_little_better_than_a_guess():
    for answer in ("help", "harm", "nothing"):
        assert chance(answer, FEW) == WRONG[answer] < chance(answer, FEW / 2) == WRONG_FAR < 0.5
    assert chance("unsure", 0.0) == chance("unsure", 1.0) == 0.5


def test_above_is_a_share_of_real_images():
    real = np.arange(100.0)
    assert above(np.array([-5.0, -1.0, 0.0]), real) == 0
    assert above(np.array([49.5]), real) == 0.5
    assert above(np.array([0.0, 200.0, 300.0]), real) == 1


def test_a_pilot_grows_only_where_it_leaves_the_answer_open():
    """An eye on one number per image: a plain shift is clear at once, a slight one asks for twice as many more."""
    random = np.random.default_rng(0)
    reals = random.normal(size=(400, 3)) + 1
    eye = Eye("plain", lambda x: x, reals)
    for shift, rows in ((0.8, 60), (0.0, 180)):
        asked = []

        def make(setting, first, count, start, shift=shift, asked=asked):
            asked.append((start, count))
            raw = np.random.default_rng(first + start).normal(size=(count, 3))
            return Pilot(raw, raw + shift, np.zeros(count))

        seen = Watch([eye], make, rows=60).see("auto")
        assert seen.rows == len(seen.score) == rows
        assert asked == [(0, 60), (60, 120)][: 1 + (rows > 60)]
        assert verdict(total(seen.changes[0])) == ("help" if shift else "nothing")


def test_a_larger_pilot_is_the_same_pilot_continued():
    pair = load("fashion32")
    whole, rest = pilot(pair, "auto", 710_000, 16), pilot(pair, "auto", 710_000, 8, 8)
    assert all(np.array_equal(a[8:], b) for a, b in zip(whole, rest, strict=True))
