"""The rule that turns what an eye saw, and D's own scale, into an answer."""

from __future__ import annotations

import numpy as np
import pytest

from latentshift.doctor.eye import Change
from latentshift.doctor.foretell import above, verdict


def seen(fd, density, coverage=0.0):
    return [Change("FD", 1, 1, fd), Change("density", 1, 1, density), Change("coverage", 1, 1, coverage)]


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        (seen(2, 0), "help"),
        (seen(-2, 0), "harm"),
        (seen(2, -2), "nothing"),
        (seen(4, -2), "help"),
        (seen(-0.8, -0.8), "harm"),
        (seen(1.2, 0), "nothing"),
        (seen(0, 0, -9), "nothing"),
    ],
)
def test_the_sum_of_distance_and_density(changes, answer):
    assert verdict(changes) == answer


def test_above_is_a_share_of_real_images():
    real = np.arange(100.0)
    assert above(np.array([-5.0, -1.0, 0.0]), real) == 0
    assert above(np.array([49.5]), real) == 0.5
    assert above(np.array([0.0, 200.0, 300.0]), real) == 1
