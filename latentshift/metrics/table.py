"""An evaluation as text: a table of at most so many columns, and one JSON line a metric in StyleGAN's layout."""

from __future__ import annotations

import json
import math
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.write import plain
from .evaluation import Change, Evaluation, Row, Side

NAMES = {"fd": "FD", "kid": "KID", "is": "IS", "jsd": "JSD", "ndb": "NDB"}


def figure(value: float | None, error: float | None = None) -> str:
    """A number with two digits of its error, or three digits without one.

    >>> figure(46.4213, 0.512), figure(0.0123), figure(None), figure(1234.5)
    ('46.42', '0.0123', '', '1234')
    """
    if value is None or not math.isfinite(value):
        return ""
    scale = error if error and math.isfinite(error) and error > 0 else abs(value) / 10 or 1.0
    digits = min(max(0, 1 - math.floor(math.log10(scale))), 7)
    return f"{value:.{digits}f}"


def _side(side: Side | None) -> str:
    if side is None:
        return ""
    return figure(side.value, side.error) + (f" ±{figure(side.error, side.error)}" if side.error else "")


def _change(change: Change | None) -> str:
    if change is None:
        return ""
    return f"{'+' if change.value >= 0 else ''}{figure(change.value, change.error)} ±{figure(change.error, change.error)}"


def reading(row: Row) -> str:
    """better, worse or = by three standard errors; empty without a change."""
    if row.change is None:
        return ""
    if not abs(row.change.z) >= 3:
        return "="
    return "better" if (row.change.value < 0) == (row.better == "lower") else "worse"


def _p(change: Change | None) -> str:
    if change is None:
        return ""
    return "<.001" if change.p_holm < 0.001 else f"{change.p_holm:.3f}".lstrip("0") if change.p_holm < 1 else "1"


def _columns(found: Evaluation, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    label = any(r.label is not None for r in rows)
    two = found.b is not None
    head = ["metric", *(["class"] if label else []), *(["raw" if two else "value"])]
    head += ["refined", "change", "p", ""] if two else ["bias"]
    head += ["floor"]
    lines = []
    for r in rows:
        line = [NAMES.get(r.family, r.family), *([str(r.label)] if label else []), _side(r.a)]
        line += [_side(r.b), _change(r.change), _p(r.change), reading(r)] if two else [figure(r.bias)]
        lines.append([*line, figure(r.floor, r.a.error)])
    return head, lines


def _laid_out(head: list[str], lines: list[list[str]], width: int) -> list[str]:
    wide = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    gap = 2 if sum(wide) + 2 * len(wide) <= width else 1
    out = []
    for line in [head, *lines]:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, wide))]
        out.append((" " * gap).join(cells).rstrip()[:width])
    return out


def table(found: Evaluation, width: int = 80) -> str:
    """Return the table, at most `width` columns: rows, classes, moves, notes."""
    first = found.rows[0] if found.rows else None
    out = []
    if first is not None:
        sides = found.a if found.b is None else f"{found.a} > {found.b}"
        how = ""
        if first.change is not None:
            how = ", paired by seed" if first.change.paired else ", unpaired"
        title = f"{sides}: {first.a.count} images{how}; {first.reference} real ({found.reals}); features: {first.network}"
        out += textwrap.wrap(title, width, break_on_hyphens=False)
        out += ["", *_laid_out(*_columns(found, found.rows), width)]
    if found.classes:
        out += ["", "by class", *_laid_out(*_columns(found, found.classes), width)]
    if found.moves:
        out.append("")
        for move in found.moves:
            value = figure(move.value, move.error) + (f" ±{figure(move.error, move.error)}" if move.error else "")
            out += textwrap.wrap(f"{move.name} {value}: {move.meaning}", width, subsequent_indent="  ")
    out.append("")
    legend = "±: standard error, the real images taken as given; floor: real against real at this size"
    legend += "; p: Holm; better, worse: by 3 standard errors" if found.b is not None else "; bias: what the sample size adds"
    out += textwrap.wrap(legend, width)
    said: dict[str, list[str]] = {}
    for row in found.rows:
        if row.note:
            said.setdefault(row.note, []).append(NAMES.get(row.family, row.family))
    for note, families in said.items():
        out += textwrap.wrap(f"{', '.join(families)}: {note}", width, subsequent_indent="  ")
    for note in found.notes:
        out += textwrap.wrap(f"note: {note}", width, subsequent_indent="  ")
    for warning in found.warnings:
        out += textwrap.wrap(f"warning: {warning}", width, subsequent_indent="  ")
    return "\n".join(out)


def lines(found: Evaluation, source: str | None = None) -> list[dict[str, Any]]:
    """Return one record a metric with StyleGAN's keys (`metric-*.jsonl`); what it has no key for stands under `more`.

    `results` holds the refined sample's value where there are two, the raw one's stands under `more`.
    """
    out = []
    told = found.as_dict()
    for row, more in zip((*found.rows, *found.classes), (*told["metrics"], *told["classes"])):
        value = (row.b or row.a).value
        out.append(
            {
                "results": {row.metric: value},
                "metric": row.metric,
                "total_time": row.seconds,
                "total_time_str": _seconds(row.seconds),
                "num_gpus": 0,
                "snapshot_pkl": source,
                "timestamp": time.time(),
                "more": more,
            }
        )
    return out


def _seconds(seconds: float) -> str:
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m {s % 60:02d}s" if s < 3600 else f"{s // 3600}h {s // 60 % 60:02d}m {s % 60:02d}s"


def append_lines(found: Evaluation, folder: Path, source: str | None = None) -> list[Path]:
    """Append one line to `folder/metric-NAME.jsonl` for each metric, as StyleGAN does; return the files."""
    from ..files.write import output_errors

    files = []
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for record in lines(found, source):
            path = folder / f"metric-{record['metric']}.jsonl"
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(plain(record), allow_nan=False) + "\n")
            files.append(path)
    return files
