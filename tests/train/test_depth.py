"""How far: longer while held-out real images have nothing against it, shorter or not at all where they have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentshift.calibration import auc
from latentshift.strategies.gradient import IFGSM, MIFGSM
from latentshift.train import depth as module
from latentshift.train.depth import Eye, against, depth, ladder
from latentshift.train.honest import UPTO

TEN = IFGSM(steps=10, step_size=0.05, eps=None, support="auto", unit="prior")


def length(strategy):
    return strategy.steps * strategy.step_size


def world(fault=1.0, gather=0.0, drift=0.0, rows=256):
    """Real images are points of a normal cloud in 6 numbers. Samples lie `fault` off along the first; a climb of length s takes
    2 s of the fault away, draws latents (and samples) together by `gather` s, and moves them along the second number by
    `drift` s."""
    g = torch.Generator().manual_seed(0)
    known, held = torch.randn(400, 6, generator=g), torch.randn(200, 6, generator=g)
    raw = torch.randn(rows, 6, generator=g)
    raw[:, 0] += fault

    def climb(strategy):
        s = length(strategy)
        out = raw * (1 - gather * s)
        out[:, 0] += max(0.0, fault - 2 * s) - fault
        out[:, 1] += drift * s
        return raw * (1 - gather * s), out

    def score(images):
        return auc(-held[:, 0], -images[:, 0])

    return raw, climb, score, [Eye("cloud", lambda x: x, known, held, raw)]


def test_it_goes_as_far_as_nothing_speaks_against():
    found = depth(TEN, *world(fault=2.0))
    assert found.strategy == TEN
    assert [t.steps for t in found.tried] == [2, 5, 10]
    assert all(not t.against for t in found.tried)
    assert found.auc == found.tried[-1].auc < found.tried[0].auc
    assert "10 steps of 0.05" in found.why


def test_it_stops_where_the_critic_no_longer_tells_real_images_apart():
    """Two steps take 0.2 of the fault of 0.9 away and ten all of it: then the critic sees no more."""
    found = depth(TEN, *world(fault=0.9))
    assert found.strategy is not None
    assert found.strategy.steps < 10
    assert "hardly tells held-out real images from what it refined" in found.tried[-1].against
    assert found.tried[-1].against in found.why


def test_a_critic_that_knows_nothing_takes_no_step():
    raw, climb, _, eyes = world()
    found = depth(TEN, raw, climb, lambda images: 0.45, eyes)
    assert found.strategy is None
    assert [(t.steps, t.step_size) for t in found.tried] == [(2, 0.05), (1, 0.05), (1, 0.025), (1, 0.0125), (1, 0.00625)]
    assert found.why.startswith("even 1 step of 0.00625 is too far")
    assert found.auc == 0.45


def test_samples_that_gather_are_climbed_less():
    far, near = (depth(TEN, *world(fault=1.5, gather=g)) for g in (0.0, 2.0))
    assert length(near.strategy) < length(far.strategy)
    assert any("samples gather" in t.against for t in near.tried)
    assert length(near.strategy) * 2 <= 0.05
    none = depth(TEN, *world(fault=1.5, gather=80.0))
    assert none.strategy is None
    assert none.why.startswith("even 1 step of 0.00625 is too far: samples gather")


def test_samples_that_drift_are_climbed_less():
    """Ten steps take the fault away, which the critic sees, and carry the samples off sideways, which it does not."""
    found = depth(TEN, *world(fault=2.0, drift=16.0))
    assert found.strategy is None or length(found.strategy) < 0.05
    assert all(t.auc > 0.85 for t in found.tried)
    assert found.tried[0].changes["cloud"]["distance"] > module.DRIFT
    assert "falls by" in found.tried[0].against


def test_what_is_told_are_plain_values():
    import json

    found = depth(TEN, *world())
    told = json.loads(json.dumps([t.as_dict() for t in found.tried]))
    assert set(told[0]) == {"steps", "step_size", "auc", "gather", "changes", "against"}
    assert set(told[0]["changes"]["cloud"]) == {"recall", "coverage", "distance"}


def test_the_ladder_stays_within_what_was_asked():
    up, down = ladder(replace(TEN, steps=4))
    assert [s.steps for s in up] == [2, 4]
    assert [(s.steps, s.step_size) for s in down] == [(1, 0.05), (1, 0.025), (1, 0.0125), (1, 0.00625)]
    up, down = ladder(replace(TEN, steps=1))
    assert [s.steps for s in up] == [1]
    assert [s.step_size for s in down] == [0.025, 0.0125, 0.00625]
    up, down = ladder(MIFGSM(steps=3, eps=0.3))  # its step length follows from the radius
    assert [s.steps for s in up] == [2, 3]
    assert [s.steps for s in down] == [1]
    assert UPTO.steps == max(module.RUNGS)


@pytest.mark.parametrize(
    ("auc_", "gather", "recall", "coverage", "distance", "text"),
    [
        (0.9, 0.04, 0.04, 0.0, 1.0, ""),
        (0.55, 0.0, 0.0, 0.0, 0.0, "hardly tells"),
        (0.9, 0.06, 0.0, 0.0, 0.0, "6% closer to each other"),
        (0.9, 0.0, 0.06, 0.0, 0.0, "recall falls by 6%"),
        (0.9, 0.0, -0.3, 0.06, 0.0, "coverage falls by 6%"),
        (0.9, 0.0, 0.0, 0.0, 2.5, "2.5 standard errors"),
        (0.9, -0.2, -0.2, -0.2, -5.0, ""),
    ],
)
def test_the_three_questions(auc_, gather, recall, coverage, distance, text):
    said = against(auc_, gather, {"an eye": {"recall": recall, "coverage": coverage, "distance": distance}})
    assert (text in said) if text else said == ""
