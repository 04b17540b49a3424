"""Evaluate one or two samples against real images: every metric with its error, floor, bias and, for two, its change.

    found = evaluate(images, reals=reals, network=pixels(size=32))           # or feature rows (n, size) on both sides
    found = evaluate(raw, refined, reals=reals, paired=True)                 # row i of both comes from one seed
    print(found.table()); found.row("fd").change.z; found.verdict()

The real images are taken as given: intervals and tests are about the generated ones. Samples that carry the same seeds
are compared as pairs. Sets of different size are cut to the smaller one, which is said in `notes`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import UnknownNameError
from .arrays import Array, ArrayLike
from .evaluation import Change, Evaluation, Row, Side, metric_name
from .features import Features
from .floors import Floor
from .judge import Judge
from .measures import FAMILIES, GROUPS, Measured, Setting, floors_of, needs_features
from .moves import moves_of
from .pairing import aligned, check_sizes
from .sample import Ints, Reference, Sample
from .stats import holm

Progress = Callable[[str, int, int], None]  # what is at work, pieces done, pieces in all
CLASS_GROUPS = ("distance", "kernel", "neighbours")
LEAST_OF_A_CLASS = 20


def evaluate(
    a: Sample | ArrayLike,
    b: Sample | ArrayLike | None = None,
    *,
    reals: Reference | Sample | Judge | ArrayLike,
    network: Features | None = None,
    paired: bool | None = None,
    groups: Sequence[str] | None = None,
    setting: Setting | None = None,
    draws: int = 200,
    floor: bool = True,
    classes: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate sample `a`, or `a` (raw) and `b` (refined) side by side, against real images.

    `a`, `b`, `reals`: uint8 images (n, channels, H, W) with a `network`, feature rows (n, size), or a Sample; the reals also
    a Reference or a Judge. `paired`: row i of a and of b comes from one seed (default: where both Samples carry seeds; the
    seeds that they share are then compared). `groups`: some of GROUPS. `draws` of the bootstrap.

    Raises ShapeError for sets that cannot be compared or a single image, NumericError for NaN features, RequestError for a
    group that wants the features of real images where only their statistics are at hand and it was asked for by name.
    """
    setting = setting or Setting()
    judge_network = reals.network if isinstance(reals, Judge) else None
    network = network or judge_network
    left = a if isinstance(a, Sample) else Sample.of(a, network, name="a")
    right = None if b is None else b if isinstance(b, Sample) else Sample.of(b, network, name="b")
    reference = Reference.of(reals, network)
    left, right, together, notes = aligned(left, right, paired)
    check_sizes(left, right, reference)
    wanted = tuple(groups or GROUPS)
    for group in wanted:
        if group not in GROUPS:
            raise UnknownNameError("group of metrics", group, GROUPS, way_out=f"Known: {', '.join(GROUPS)}.")
    if reference.features is None:
        if groups and any(needs_features(g) for g in groups):
            reference.rows  # noqa: B018  # refuses
        wanted = tuple(g for g in wanted if not needs_features(g))
        notes.append("the real images are saved statistics without features: only their distance can be measured")
    rows = _rows(left, right, reference, wanted, setting, draws, floor, together, None, progress)
    by_class: list[Row] = []
    if classes:
        by_class, more = _by_class(left, right, reference, wanted, setting, draws, together, progress)
        notes += more
    warnings = _strange(rows, left, reference)
    moves = () if right is None or not together else tuple(moves_of(left, right, reference))
    names = (left.name or "a", None if right is None else right.name or "b", reference.name or "reals")
    found = reference.moments.network or left.network
    return Evaluation(tuple(_corrected(rows)), tuple(_corrected(by_class)), moves, tuple(notes), tuple(warnings), *names, found)


def _rows(
    a: Sample,
    b: Sample | None,
    reference: Reference,
    groups: Sequence[str],
    setting: Setting,
    draws: int,
    floor: bool,
    paired: bool,
    label: int | None,
    progress: Progress | None,
) -> list[Row]:
    rows = []
    for at, group in enumerate(groups):
        if progress is not None and label is None:
            progress(group, at, len(groups))
        began = time.perf_counter()
        measure = GROUPS[group][1]
        mine = measure(a, reference, setting)
        theirs = None if b is None else measure(b, reference, setting)
        beneath = floors_of(group, a, reference, setting) if floor and mine else {}
        seconds = time.perf_counter() - began
        for family, m in mine.items():
            rows.append(
                _row(
                    family, m, None if theirs is None else theirs[family],
                    a, b, reference, beneath.get(family), draws, setting.seed, paired, label, seconds,
                )
            )  # fmt: skip
    if progress is not None and label is None:
        progress("", len(groups), len(groups))
    return sorted(rows, key=lambda r: list(FAMILIES).index(r.family))


def _row(
    family: str,
    m: Measured,
    other: Measured | None,
    a: Sample,
    b: Sample | None,
    reference: Reference,
    floor: Floor | None,
    draws: int,
    seed: int,
    paired: bool,
    label: int | None,
    seconds: float,
) -> Row:
    network = a.network or reference.moments.network
    bias, value, error = m.bias, None, None
    note = [m.note]
    if floor is not None:
        value, error = floor.value, floor.spread
        bias = floor.value if family in ("jsd", "ndb") else bias
        note.append(floor.note)
    side_a, drawn_a = _side(m, len(a), draws, seed)
    side_b, change = None, None
    if other is not None and b is not None:
        side_b, drawn_b = _side(other, len(b), draws, seed if paired else seed + 1)
        change = _change(m, other, side_a, side_b, drawn_a, drawn_b, paired)
    known = reference.moments.count if family == "fd" or reference.features is None else len(reference.features)
    return Row(
        metric_name(family, len(a), network) + ("" if label is None else f"-class{label}"),
        family,
        network or "features",
        FAMILIES[family],
        known,
        side_a,
        side_b,
        change,
        value,
        error,
        bias,
        label,
        "; ".join(n for n in note if n),
        seconds,
    )


def _side(m: Measured, count: int, draws: int, seed: int) -> tuple[Side, Array]:
    """The value with its interval, and the bootstrap draws about their mean: (draws,). The same seed draws the same rows."""
    draw = np.random.default_rng(seed)
    found = np.empty(draws)
    for i in range(draws):
        index: npt.NDArray[np.int64] = draw.integers(count, size=count)
        if m.draw is not None:
            found[i] = m.draw(index)
        else:
            assert m.rows is not None
            # a side that was cut to fewer rows: its influences are those rows', the error scales with their number
            found[i] = m.rows[index % len(m.rows)].mean() * math.sqrt(count / len(m.rows))
    found -= found.mean()
    if m.error is not None:
        return Side(m.value, m.error, m.value - 1.96 * m.error, m.value + 1.96 * m.error, count), found
    low, high = np.quantile(found, [0.025, 0.975])
    return Side(m.value, float(found.std(ddof=1)), m.value + float(low), m.value + float(high), count), found


def _change(a: Measured, b: Measured, side_a: Side, side_b: Side, drawn_a: Array, drawn_b: Array, paired: bool) -> Change:
    """b - a: the draws of both sides subtracted (paired: they drew the same rows); the error exact from the influences."""
    value, moved = b.value - a.value, drawn_b - drawn_a
    error = float(moved.std(ddof=1))
    if paired and a.rows is not None and b.rows is not None and len(a.rows) == len(b.rows):
        error = float((b.rows - a.rows).std() / math.sqrt(len(a.rows)))
    elif not paired and side_a.error is not None and side_b.error is not None:
        error = math.hypot(side_a.error, side_b.error)
    low, high = np.quantile(moved - moved.mean(), [0.025, 0.975])
    z = value / error if error > 0 else math.copysign(math.inf, value) if value else 0.0
    p = math.erfc(abs(z) / math.sqrt(2))
    return Change(value, error, value + float(low), value + float(high), z, p, p, paired)


def _corrected(rows: list[Row]) -> list[Row]:
    """Holm's correction over the changes of one table."""
    tested = [r.change.p for r in rows if r.change is not None]
    adjusted = iter(holm(tested) if tested else [])
    return [r if r.change is None else replace(r, change=replace(r.change, p_holm=next(adjusted))) for r in rows]


def _by_class(
    a: Sample,
    b: Sample | None,
    reference: Reference,
    groups: Sequence[str],
    setting: Setting,
    draws: int,
    paired: bool,
    progress: Progress | None,
) -> tuple[list[Row], list[str]]:
    """Rows for every class that all sides know and that has enough images on each."""
    if a.labels is None or reference.labels is None or (b is not None and b.labels is None):
        return [], []
    rows: list[Row] = []
    scarce = []
    seen: Ints = np.unique(a.labels)
    for at, label in enumerate(seen.tolist()):
        if progress is not None:
            progress("classes", at, len(seen))
        real = reference.of_class(label)
        mine = a.take(a.labels == label)
        theirs = None if b is None or b.labels is None else b.take(b.labels == label)
        sizes = [len(mine), 0 if real is None else len(real.rows), *([] if theirs is None else [len(theirs)])]
        if real is None or min(sizes) < LEAST_OF_A_CLASS:
            scarce.append(label)
            continue
        pairs = paired and theirs is not None and len(theirs) == len(mine)
        wanted = [g for g in groups if g in CLASS_GROUPS]
        rows += _rows(mine, theirs, real, wanted, setting, draws, True, pairs, label, progress)
    note = f"{len(scarce)} of {len(seen)} classes have fewer than {LEAST_OF_A_CLASS} images on a side and no rows"
    return rows, [note] if scarce else []


def _strange(rows: Sequence[Row], a: Sample, reference: Reference) -> list[str]:
    """Say where the real images are plainly of another kind than the generated ones."""
    found = {r.family: r for r in rows}
    strange = False
    if "density" in found and found["density"].floor is not None:
        strange = found["density"].a.value < 0.01 and found["density"].floor > 0.5
    else:
        apart = a.features.mean(0) - reference.moments.mean
        strange = bool(apart @ apart > 2 * np.trace(reference.moments.cov))
    if not strange:
        return []
    return [
        "hardly one image lies near a real one: are the real images of another kind, size or range than the generated ones?"
    ]
