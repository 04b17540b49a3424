"""FID, KID and IS against torch-fidelity's own functions on the same features, where that package is installed."""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

import numpy as np
import pytest
import torch

from latentshift.metrics.clusters import inception_score
from latentshift.metrics.evaluate import evaluate
from latentshift.metrics.measures import Setting
from latentshift.metrics.sample import Sample


@pytest.fixture
def fidelity(no_torchvision: None) -> Any:
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is the referee")
    return lambda name: importlib.import_module(f"torch_fidelity.{name}")


def quiet(call: Any, *args: Any, **named: Any) -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        return call(*args, **named)


@pytest.mark.parametrize(("rows", "size"), [(600, 64), (150, 192)])
def test_fid_and_kid_agree_to_a_ten_thousandth(rng: np.random.Generator, fidelity: Any, rows: int, size: int) -> None:
    mix = rng.normal(size=(size, size)) / np.sqrt(size)
    a, b = rng.normal(size=(rows, size)) @ mix + 0.2, np.abs(rng.normal(size=(rows + 50, size))) @ mix
    fid = fidelity("metric_fid")
    theirs = quiet(
        fid.fid_statistics_to_metric,
        *(fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)),
        verbose=False,
    )
    kernel = quiet(
        fidelity("metric_kid").kid_features_to_metric,
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=10, kid_subset_size=100, rng_seed=2020, verbose=False,
    )  # fmt: skip
    found = evaluate(
        a, reals=b, setting=Setting(subsets=10, subset_size=100), groups=["distance", "kernel"], floor=False, draws=5
    )
    tolerance = 1e-4 if rows > size else 2e-3  # of fewer rows than features theirs adds 1e-6 to the diagonal, or drops a part
    assert found.row("fd").a.value == pytest.approx(theirs["frechet_inception_distance"], rel=tolerance)
    assert found.row("kid").a.value == pytest.approx(kernel["kernel_inception_distance_mean"], rel=1e-4)


def test_the_inception_score_agrees(rng: np.random.Generator, fidelity: Any) -> None:
    logits = 2 * rng.normal(size=(500, 10))
    theirs = quiet(fidelity("metric_isc").isc_features_to_metric, torch.from_numpy(logits), splits=10, shuffle=False)
    ours = inception_score(logits, splits=10)
    assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    found = evaluate(Sample.of(rng.normal(size=(500, 3)), logits=logits), reals=rng.normal(size=(50, 3)), groups=["score"])
    assert found.row("is").a.value == ours.value
