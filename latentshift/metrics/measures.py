"""Every metric of one sample against the reference, each with what its error and its paired change are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import floors, influence
from .arrays import Array
from .clusters import cell_labels, compare_counts, inception_score
from .coverage import prdc_rows
from .distance import Moments, frechet_moments, frechet_roots, kid, root_of
from .floors import Floor
from .sample import Reference, Sample

#: family -> which way is better, in the order of the table
FAMILIES = {
    "fd": "lower",
    "kid": "lower",
    "is": "higher",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "jsd": "lower",
    "ndb": "lower",
}
NEAREST = ("precision", "recall", "density", "coverage")
BOOTSTRAP_COST = 1.5e7  # multiply-adds of one Frechet distance above which its interval is linearised
SPLITS = 10


@dataclass(frozen=True)
class Setting:
    """Sizes that the metrics depend on; `size` is the number of rows that both sides are measured at."""

    k: int = 5
    bins: int = 100
    subsets: int = 100
    subset_size: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Measured:
    """`value`, and either `rows` (n,), the influence of each row, or `draw(index)`, the metric of resampled rows.

    `error`: a standard error that is known better than from the rows (KID's, with the real images' part). `bias`: what
    sampling alone is expected to add.
    """

    value: float
    rows: Array | None = None
    draw: Callable[[npt.NDArray[np.int64]], float] | None = None
    error: float | None = None
    bias: float | None = None
    note: str = ""


def measure_fd(sample: Sample, reference: Reference, setting: Setting) -> dict[str, Measured]:
    """FD with its bias; bootstrap where that is cheap, else the linear form."""
    x, m = sample.features, reference.moments
    mine = Moments.of(x, network=sample.network)
    n, size = x.shape
    root = root_of(mine.cov)
    if sample.network and m.network and sample.network != m.network:
        frechet_moments(mine, m)  # refuses
    value = frechet_roots(mine.mean, root, m.mean, reference.root)
    bias = reference.bias(n)
    notes = []
    if n <= size:
        notes.append(f"fewer images than features ({size}): read it beside the floor only")
    elif bias > 0.1 * value:
        notes.append(f"{min(1.0, bias / value) if value else 1.0:.0%} of it is bias of the sample size")
    if n * size**2 + 10 * size**3 <= BOOTSTRAP_COST:

        def draw(index: npt.NDArray[np.int64]) -> float:
            again = Moments.of(x[index])
            return frechet_roots(again.mean, root_of(again.cov), m.mean, reference.root)

        return {"fd": Measured(value, draw=draw, bias=bias, note="; ".join(notes))}
    rows = influence.of_frechet(x, mine.mean, root, m.mean, reference.root)
    return {"fd": Measured(value, rows, bias=bias, note="; ".join(notes))}


def measure_kid(sample: Sample, reference: Reference, setting: Setting) -> dict[str, Measured]:
    """KID over subsets drawn as torch-fidelity draws them; unbiased, so its bias is 0."""
    x, ref = sample.features, reference.rows
    if min(len(x), len(ref)) < 3:
        return {}
    found = kid(x, ref, subsets=setting.subsets, subset_size=setting.subset_size)
    rows = influence.of_kid(x, ref, size=found.subset_size, seed=setting.seed)
    return {"kid": Measured(found.value, rows, error=found.error, bias=0.0)}


def measure_is(sample: Sample, reference: Reference, setting: Setting) -> dict[str, Measured]:
    """Inception Score of the network's own classes; nothing without logits or below ten images a split."""
    if sample.logits is None or len(sample) < 10 * SPLITS:
        return {}
    found = inception_score(sample.logits, splits=SPLITS)
    bias = influence.inception_score_bias(sample.logits, SPLITS)
    return {"is": Measured(found.value, influence.of_inception_score(sample.logits), bias=bias)}


def measure_prdc(sample: Sample, reference: Reference, setting: Setting) -> dict[str, Measured]:
    """Precision, recall, density, coverage at equal sizes: both sides cut to the smaller one, by a fixed draw."""
    size = min(len(sample), len(reference.rows))
    if size <= setting.k:
        return {}
    x, note = sample.features, ""
    if len(x) > size:
        keep = np.sort(np.random.default_rng(setting.seed).choice(len(x), size, replace=False))
        x, note = x[keep], f"at {size} images a side"
    rows = prdc_rows(reference.part(size), x, k=setting.k, radii=reference.radii(size, setting.k))
    values, moved = rows.values(), influence.of_prdc(rows)
    return {name: Measured(getattr(values, name), moved[name], note=note) for name in NEAREST}


def measure_cells(sample: Sample, reference: Reference, setting: Setting) -> dict[str, Measured]:
    """JSD and NDB over k-means cells of the real images; fewer cells where a cell would hold fewer than ten of them."""
    bins = cells_for(reference, setting)
    if bins < 2:
        return {}
    cells = reference.cells(bins)
    real = np.bincount(cells.labels, minlength=bins)
    labels = cell_labels(sample.features, cells.centres)
    found = compare_counts(real, np.bincount(labels, minlength=bins))

    def draw(what: str) -> Callable[[npt.NDArray[np.int64]], float]:
        def value(index: npt.NDArray[np.int64]) -> float:
            return float(getattr(compare_counts(real, np.bincount(labels[index], minlength=bins)), what))

        return value

    note = f"{bins} cells"
    return {
        "jsd": Measured(found.jsd, draw=draw("jsd"), note=note),
        "ndb": Measured(float(found.ndb), draw=draw("ndb"), note=note),
    }


def cells_for(reference: Reference, setting: Setting) -> int:
    """How many cells: those asked for, or a tenth of the real images."""
    return min(setting.bins, len(reference.rows) // 10)


#: what is measured in one go -> (its families, the function)
GROUPS: dict[str, tuple[tuple[str, ...], Callable[[Sample, Reference, Setting], dict[str, Measured]]]] = {
    "distance": (("fd",), measure_fd),
    "kernel": (("kid",), measure_kid),
    "score": (("is",), measure_is),
    "neighbours": (NEAREST, measure_prdc),
    "cells": (("jsd", "ndb"), measure_cells),
}


def floors_of(group: str, sample: Sample, reference: Reference, setting: Setting) -> dict[str, Floor]:
    """The floors of a group's families at the sample's size."""
    n = len(sample)
    found: dict[str, Floor | None] = {}
    if group == "distance":
        found = {"fd": floors.of_frechet(reference, n, seed=setting.seed)}
    elif reference.features is None and group != "score":
        return {}
    elif group == "kernel":
        found = {"kid": floors.of_kid(reference, n, min(setting.subset_size, n))}
    elif group == "score":
        found = {"is": floors.of_inception_score(reference, n, SPLITS)}
    elif group == "neighbours":
        found.update(floors.of_prdc(reference, min(n, len(reference.rows)), setting.k))
    elif cells_for(reference, setting) >= 2:
        found.update(floors.of_cells(reference, n, cells_for(reference, setting), seed=setting.seed))
    return {name: f for name, f in found.items() if f is not None}


def needs_features(group: str) -> bool:
    """Whether a group wants the real images' features, where `distance` does with their moments and `score` with none."""
    return group not in ("distance", "score")


def plain_number(value: Any) -> float | None:
    """A float, or None for what is missing or not finite."""
    return None if value is None or not np.isfinite(value) else float(value)
