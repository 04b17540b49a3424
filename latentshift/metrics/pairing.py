"""Which rows of two samples belong together: the seeds that both have, else equal numbers of rows."""

from __future__ import annotations

import numpy as np

from ..errors import RequestError, ShapeError
from .sample import Reference, Sample


def aligned(a: Sample, b: Sample | None, paired: bool | None) -> tuple[Sample, Sample | None, bool, list[str]]:
    """Bring two samples to the same number of rows: the seeds that they share, else a draw of the larger."""
    if b is None:
        return a, None, False, []
    notes = []
    if paired is None:
        paired = a.seeds is not None and b.seeds is not None and len(np.intersect1d(a.seeds, b.seeds)) >= 2
        if paired and not _same(a, b) and not (_unique(a) and _unique(b)):
            paired = False
            notes.append("seeds that stand there twice, in another order: the samples are not compared as pairs")
    if paired and a.seeds is not None and b.seeds is not None:
        if _same(a, b):
            return a, b, True, notes
        if not (_unique(a) and _unique(b)):
            raise RequestError("seeds that stand there twice do not say which rows are pairs", way_out="Leave 'paired' out.")
        shared, rows_a, rows_b = np.intersect1d(a.seeds, b.seeds, return_indices=True)
        if len(shared) < 2:
            raise RequestError("the two samples share no seeds", way_out="Leave 'paired' out: they are compared as they are.")
        if len(shared) < max(len(a), len(b)):
            notes.append(f"compared on the {len(shared)} seeds that both have (of {len(a)} and {len(b)})")
        return a.take(rows_a), b.take(rows_b), True, notes
    if paired and len(a) != len(b):
        raise ShapeError(f"a paired comparison needs the same rows on both sides, got {len(a)} and {len(b)}")
    if len(a) != len(b):
        size = min(len(a), len(b))
        notes.append(f"sets of different size ({len(a)} and {len(b)}): {size} drawn of the larger, as metrics depend on it")
        draw = np.random.default_rng(0)
        a, b = (s if len(s) == size else s.take(np.sort(draw.choice(len(s), size, replace=False))) for s in (a, b))
    return a, b, bool(paired), notes


def _same(a: Sample, b: Sample) -> bool:
    return a.seeds is not None and b.seeds is not None and np.array_equal(a.seeds, b.seeds)


def _unique(sample: Sample) -> bool:
    return sample.seeds is not None and len(np.unique(sample.seeds)) == len(sample.seeds)


def check_sizes(a: Sample, b: Sample | None, reference: Reference) -> None:
    """Refuse a single image, and features of another size than the reference's (ShapeError)."""
    size = reference.moments.mean.size
    for sample in (a, b):
        if sample is None:
            continue
        if len(sample) < 2:
            raise ShapeError("one image cannot be evaluated", where=sample.name, way_out="Give 2 images or more.")
        if sample.features.shape[1] != size:
            raise ShapeError(
                f"features of size {sample.features.shape[1]} and {size} cannot be compared",
                where=sample.name,
                way_out="Use one network for both.",
            )
