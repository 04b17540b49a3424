"""`report.html`: one self-contained page of a run, made from its record.

Nothing that stands in the record is trusted: every text is escaped, the data lie in a JSON block that no text can leave, and a
content security policy names the page's own script and style by hash and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..files.write import plain, write_whole
from . import charts
from .charts import number
from .data import RunView, read_view
from .repeat import judged_by_reals, mapping, one_line, place, repeat_command
from .shards import is_sharded, write_shard_report

STOPPED = {
    "steps": "all steps used",
    "target": "target score reached",
    "no_gain": "could not be raised further",
    "nan": "NaN or infinite number met: last finite point kept",
    "rejected": "move rejected",
    "guard": "stopped by the guard",
    "good_already": "left alone: score above the threshold already",
}


def write_report(run: str | Path, out: str | Path | None = None) -> tuple[Path, list[str]]:
    """Write the page of a run's folder and return its path and the problems that it tells.

    `out` is the file to write (`report.html` in the folder where left out). Raises FileError where the folder is no run or
    nothing of it can be read, OutputError where the page cannot be written.
    """
    if is_sharded(Path(run)):
        return write_shard_report(Path(run), None if out is None else Path(out))
    view = read_view(run)
    path = Path(run) / "report.html" if out is None else Path(out)
    data = page(view).encode("utf-8", "replace")
    write_whole(path, lambda stream: stream.write(data))
    return path, view.problems


def page(view: RunView) -> str:
    """Return the page as one HTML text."""
    style, script = _template("page.css"), _template("page.js")
    record = view.record
    recipe = mapping(record.get("recipe"))
    name = f"{record.get('model', 'a model')} · {recipe.get('name', 'custom')}"
    values = {
        "csp": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(name),
        "subtitle": html.escape(_subtitle(view, recipe)),
        "style": style,
        "script": script,
        "tiles": _tiles(view),
        "notices": _notices(view),
        "charts": _charts(view),
        "stopped": _stopped(view),
        "recipe": _rows(_recipe_rows(view, recipe)),
        "cost": _rows(_cost_rows(view)),
        "command": html.escape(repeat_command(record)),
        "evidence": html.escape(str(recipe.get("evidence", "") or "No evidence is on record for these settings.")),
        "made": html.escape(f"Made by latentshift {__version__} from the record of the run."),
        "kind": "points" if view.points is not None else "pictures",
        "judge_sort": '<option value="judge">judge\'s gain</option>' if view.judged else "",
        "data": _block(_data(view, recipe)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], _template("page.html"))


def _template(name: str) -> str:
    return (importlib.resources.files(__package__) / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(value: Any) -> str:
    text = json.dumps(plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _mean(values: Any) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _subtitle(view: RunView, recipe: Mapping[str, Any]) -> str:
    steps = mapping(recipe.get("options")).get("steps")
    method = f"{recipe.get('strategy', 'unknown method')}" + (f", {steps} steps" if steps is not None else "")
    shown = "" if len(view.shown) == len(view.samples) else f"; {len(view.shown)} of them are shown: a spread and both tails"
    return f"{len(view.samples):,} samples refined with {method}{shown}"


def _tiles(view: RunView) -> str:
    before, after, gain = view.column("score_before"), view.column("score_after"), view.column("gain")
    rose = float(np.mean(gain > 0))
    moved = view.column("displacement_l2")
    tiles = [
        ("Score by the critic", f"{number(_mean(before))} → {number(_mean(after))}", "mean before → after"),
        ("Mean gain", number(_mean(gain), sign=True), f"{rose:.0%} of the samples rose"),
        (
            "Moved",
            f"{float(np.mean(moved > 0)):.0%}",
            f"mean distance {number(_mean(moved[moved > 0]))} in {place(view.record)}",
        ),
    ]
    if view.judged:
        j0, j1 = view.column("judge_before"), view.column("judge_after")
        change = f"{number(_mean(j0))} → {number(_mean(j1))}"
        tiles.insert(1, ("Judge, not climbed", change, f"{np.mean(j1 > j0):.0%} of the samples rose"))
    seconds = mapping(view.record.get("seconds")).get("refine")
    if isinstance(seconds, int | float) and seconds > 0:
        rate = len(view.samples) / seconds
        tiles.append(("Time", _time(seconds), f"{number(rate)} samples a second on {view.record.get('device', '?')}"))
    return "".join(
        f'<div class="tile"><dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd><dd class="small">{html.escape(c)}</dd></div>'
        for a, b, c in tiles
    )


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def verdict(view: RunView) -> str:
    """Return what the run proves, in one sentence or two."""
    if view.judged:
        j0, j1 = _mean(view.column("judge_before")), _mean(view.column("judge_after"))
        way = "rose" if (j1 or 0) > (j0 or 0) else "did not rise"
        return f"A judge that was not climbed scored the same samples: its mean {way} ({number(j0)} → {number(j1)})."
    if view.record.get("real_scores"):
        return (
            "Checked against real images in score only: the judge is the critic that was climbed, and a score closer to the "
            "real images' is no proof of better images."
        )
    if told := judged_by_reals(view.record):
        return (
            f"{told} The score is that of the critic that was climbed; a judge that no critic used is the evidence. Look at "
            "the pairs below."
        )
    return (
        "Unverified: no real images were given, and the score comes from the critic that was climbed. A rising score is no "
        "proof of better images. Look at the pairs below."
    )


def _notices(view: RunView) -> str:
    kind = "good" if view.judged else "plain"
    parts = [f'<p class="notice {kind}"><strong>What this shows.</strong> {html.escape(verdict(view))}</p>']
    warned = view.record.get("warnings")
    warned = [str(w) for w in warned] if isinstance(warned, list) else []
    parts += [f'<p class="notice problem"><strong>Record.</strong> {html.escape(_sentence(p))}</p>' for p in view.problems]
    warned = list(dict.fromkeys(warned))
    parts += [f'<p class="notice warn"><strong>Warning.</strong> {html.escape(_sentence(w))}</p>' for w in warned]
    return "\n".join(parts)


def _sentence(text: str) -> str:
    text = one_line(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _charts(view: RunView) -> str:
    series = [("before", "before", view.column("score_before")), ("after", "after", view.column("score_after"))]
    reals = view.record.get("real_scores")
    if isinstance(reals, list):
        real = np.array([v for v in reals if isinstance(v, int | float)], np.float64)
        if len(real):
            series.append(("real", "real images", real))
    keys = "".join(f'<span class="key {kind}">{name}</span>' for kind, name, _ in series)
    drawn = [("Scores before and after", charts.histogram(series, "score by the critic"), keys)]
    path = view.record.get("score_per_step")
    if isinstance(path, list) and len(path) > 1 and all(isinstance(v, int | float) for v in path):
        drawn.append(("Mean score per step", charts.steps(np.array(path, np.float64), "mean score"), ""))
    moved, gain = view.column("displacement_l2"), view.column("gain")
    said = "a dot is a sample; press one to see it" if len(view.shown) == len(gain) else "a dot is a sample shown above"
    if np.isfinite(moved).any():
        drawn.append(
            (
                "Distance against gain",
                charts.displacement(moved, gain, view.shown, place(view.record)),
                f'<span class="small">{said}</span>',
            )
        )
    return "".join(f"<figure><figcaption><h3>{title}</h3>{legend}</figcaption>{svg}</figure>" for title, svg, legend in drawn)


def _stopped(view: RunView) -> str:
    counts: dict[str, int] = {}
    for s in view.samples:
        counts[s["stopped"]] = counts.get(s["stopped"], 0) + 1
    rows = []
    for word, count in sorted(counts.items(), key=lambda item: -item[1]):
        text = STOPPED.get(word, word or "unknown")
        share = count / len(view.samples)
        rows.append(
            f'<tr><td class="num">{count:,}</td><td><meter min="0" max="1" value="{share:.4f}" aria-hidden="true"></meter></td>'
            f"<td>{html.escape(text)} <code>{html.escape(word)}</code></td></tr>"
        )
    return "".join(rows)


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<tr><th scope="row">{html.escape(a)}</th><td>{html.escape(b)}</td></tr>' for a, b in rows)


def _recipe_rows(view: RunView, recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    r = view.record
    rows = [("model", str(r.get("model", "?"))), ("sha256", str(r.get("model_sha256", ""))[:64] or "not known")]
    rows += [(k, str(recipe[k])) for k in ("name", "line", "strategy", "source") if recipe.get(k)]
    rows += [(k, _said(v)) for k, v in mapping(recipe.get("options")).items()]
    wraps = ("keep_best", "target", "lower_share", "guard", "link", "space")
    rows += [(k.replace("_", " "), _said(recipe[k])) for k in wraps if k in recipe]
    rows += [(k, str(r[k])) for k in ("plan", "precision", "latentshift", "torch") if r.get(k)]
    return rows


def _said(value: Any) -> str:
    return "none" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _cost_rows(view: RunView) -> list[tuple[str, str]]:
    names = {
        "g_forward": "passes of G",
        "d_forward": "passes of D",
        "g_backward": "backward passes of G",
        "d_backward": "backward passes of D",
    }
    ledger = mapping(view.record.get("ledger"))
    rows = []
    for key, text in names.items():
        if isinstance(ledger.get(key), int):
            rows.append((text, f"{ledger[key]:,} ({ledger[key] / len(view.samples):.3g} a sample)"))
    fit = mapping(mapping(view.record.get("fit")).get("ledger"))
    if any(isinstance(v, int) and v for v in fit.values()):
        spent = ", ".join(f"{v:,} {names[k]}" for k, v in fit.items() if k in names and isinstance(v, int) and v)
        rows.append(("to learn from pilot samples", spent))
    for key, value in mapping(view.record.get("seconds")).items():
        if isinstance(value, int | float):
            rows.append((f"time to {key}", _time(value)))
    if isinstance(view.record.get("peak_memory_mb"), int | float):
        rows.append(("most memory", f"{view.record['peak_memory_mb']:,.0f} MB"))
    return rows


def _data(view: RunView, recipe: Mapping[str, Any]) -> dict[str, Any]:
    p = view.pictures
    rows = []
    for i in view.shown:
        s = view.samples[i]
        row = {
            "i": i,
            "name": s["name"],
            "seed": s["seed"],
            "label": s["label"],
            "before": s["score_before"],
            "after": s["score_after"],
            "gain": s["gain"],
            "moved": s["displacement_l2"],
            "passes": s["evaluations"],
            "why": STOPPED.get(s["stopped"], s["stopped"])
            + ("" if s["guard"] is None else f"; the guard saw {s['guard']:.3g}"),
            "j0": s["judge_before"],
            "j1": s["judge_after"],
        }
        if i in p.before:
            row["ib"] = p.before[i]
        if i in p.after:
            row["ia"] = p.after[i]
        elif i in p.same:
            row["same"] = True
        rows.append(row)
    out: dict[str, Any] = {
        "model": view.record.get("model"),
        "model_sha256": view.record.get("model_sha256"),
        "recipe": recipe,
        "latentshift": view.record.get("latentshift"),
        "total": len(view.samples),
        "mime": p.mime,
        "side": p.side,
        "ratio": p.ratio,
        "samples": rows,
    }
    if view.points is not None:
        start, end = view.points
        some = np.asarray(view.shown if len(end) > 20000 else range(len(end)), dtype=int)
        out["points"] = {
            "index": some,
            "before": None if start is None else np.round(start[some], 5),
            "after": np.round(end[some], 5),
        }
    return out
