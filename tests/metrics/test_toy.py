"""The 2-D figures against counts done by hand, known distances, and torch's own sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from latentshift.errors import UsageError
from latentshift.metrics.toy import MIXTURES, coverage, wasserstein1


def test_the_mixtures_are_those_of_the_paper() -> None:
    ring, grid = np.array(MIXTURES["ring"].means), np.array(MIXTURES["grid"].means)
    assert ring.shape == (8, 2)
    assert np.allclose(np.hypot(*ring.T), 2.0)
    assert np.allclose(np.linalg.norm(ring - np.roll(ring, 1, 0), axis=1), 4 * math.sin(math.pi / 8))
    assert {tuple(m) for m in grid} == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    for name, sd in (("ring", 0.001), ("grid", 0.0025)):
        points = MIXTURES[name].sample(4000, torch.Generator().manual_seed(0))
        told = coverage(points, MIXTURES[name].means)
        assert told["modes"] == len(MIXTURES[name].means)
        assert told["near"] == 1.0
        assert told["median_distance"] == pytest.approx(sd * math.sqrt(2 * math.log(2)), rel=0.05)  # Rayleigh's median
        assert told["jsd"] < 0.002


def test_coverage_by_hand() -> None:
    means = [[0.0, 0.0], [10.0, 0.0]]
    points = [[0.05, 0.0], [0.0, -0.05], [0.5, 0.0], [3.0, 0.0]]
    told = coverage(points, means)
    assert told["modes"] == 1
    assert told["near"] == 0.5
    assert told["median_distance"] == pytest.approx(0.275)
    # all at one of two: 0.5 (1 ln 4/3 + 0.5 ln 2/3 + 0.5 ln 2)
    assert told["jsd"] == pytest.approx(0.5 * (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)))
    assert coverage(points, means, near=1.0)["near"] == 0.75


def test_a_mode_counts_from_one_percent_of_its_share() -> None:
    means = [[0.0, 0.0], [10.0, 0.0]]
    for few, modes in ((4, 1), (5, 2)):  # 5 of 1,000 are 1 % of the half that should be there
        points = np.zeros((1000, 2))
        points[:few] = means[1]
        assert coverage(points, means)["modes"] == modes


def test_wasserstein_of_a_shift_is_its_length_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 2))
    assert wasserstein1(a, rng.permutation(a) + np.array([3.0, 4.0])) == pytest.approx(5.0)
    assert wasserstein1(a, a[::-1]) == 0.0


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(3, 5\)"):
        coverage(np.zeros((3, 5)), [[0.0, 0.0]])
    with pytest.raises(UsageError, match="3 and 4"):
        wasserstein1(np.zeros((3, 2)), np.zeros((4, 2)))
