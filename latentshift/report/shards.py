"""`report.html` of a run in shards: totals and histograms over all rows, a spread of samples and both tails, at any length.

No script, no request; every text of the record is escaped. The pictures come from `page.npz`, which has as many for ten
thousand samples as for ten million.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import __version__
from ..errors import FileError, LatentshiftError
from ..files.pictures import picture, png
from ..files.run import read_npz, read_run
from ..files.scatter import before_after
from ..files.write import write_whole
from . import charts
from .charts import number
from .repeat import judged_by_reals, mapping, one_line, repeat_command

Array = np.ndarray[Any, Any]
_DRAWN = 20000  # values that stand for all in a histogram
_KINDS = ("An even spread", "Largest gains", "Smallest gains")


def is_sharded(folder: Path) -> bool:
    """Whether a folder holds a run in shards."""
    try:
        return "shards" in read_run(folder)
    except FileError:
        return False


def write_shard_report(folder: Path, out: Path | None = None) -> tuple[Path, list[str]]:
    """Write the page of a run in shards and return its path and what is missing; raises FileError where there is no run."""
    record = read_run(folder)
    problems: list[str] = []
    if record.get("status") != "complete":
        problems.append(f"this run is not complete (status: {record.get('status')})")
    found: dict[str, Array] = {}
    try:
        found = read_npz(folder / "page.npz")
    except FileError as error:
        problems.append(f"no samples are shown: {error}")
    data = page(record, found, problems).encode("utf-8", "replace")
    path = folder / "report.html" if out is None else out
    write_whole(path, lambda stream: stream.write(data))
    return path, problems


def page(record: Mapping[str, Any], found: Mapping[str, Array], problems: list[str]) -> str:
    """Return the page as one HTML text."""
    style = (importlib.resources.files(__package__) / "templates/page.css").read_text("utf-8")
    style += ".shown{display:flex;flex-wrap:wrap;gap:.6rem}.shown figure{margin:0;padding:.3rem;text-align:center}"
    style += ".shown img{image-rendering:pixelated;min-width:64px}\n"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    recipe, shards = mapping(record.get("recipe")), mapping(record.get("shards"))
    name = html.escape(f"{record.get('model', 'a model')} · {recipe.get('name', 'custom')}")
    rows = int(record.get("rows") or 0)
    head = f"{rows:,} samples in {shards.get('done', 0):,} shards, refined with {recipe.get('strategy', 'an unknown method')}"
    body = [f"<header><div><p class=brand>latentshift</p><h1>{name}</h1><p class=sub>{html.escape(head)}</p></div></header>"]
    body.append(f'<main><section aria-label="In short"><dl class="tiles">{_tiles(record)}</dl>')
    told = judged_by_reals(record) or "Unverified."
    told += " The score comes from the critic that was climbed. A rising score is no proof of better images."
    body.append(f'<p class="notice plain"><strong>What this shows.</strong> {html.escape(told)}</p>')
    for kind, lines in (("problem", problems), ("warn", record.get("warnings") or [])):
        body += [f'<p class="notice {kind}">{html.escape(one_line(str(line)))}</p>' for line in lines]
    body.append("</section>")
    if found:
        try:
            body += [_charts(found), _samples(found)]
        except (KeyError, ValueError, IndexError, TypeError, LatentshiftError) as error:
            body.append(f'<p class="notice problem">page.npz is damaged: {html.escape(str(error))}</p>')
    settings = [(k, recipe.get(k)) for k in ("name", "strategy", "source", "evidence") if recipe.get(k)]
    settings += list(mapping(recipe.get("options")).items())
    settings += [(k, record.get(k)) for k in ("model_sha256", "plan", "device", "latentshift", "torch") if record.get(k)]
    settings += [(f"passes: {k.replace('_', ' ')}", f"{v:,}") for k, v in mapping(record.get("ledger")).items()]
    settings += [(f"ended: {k}", f"{v:,} ({v / max(rows, 1):.1%})") for k, v in mapping(record.get("stopped")).items()]
    body.append("<section><h2>How it was made</h2><table>" + "".join(_row(k, v) for k, v in settings) + "</table>")
    body.append(f"<pre><code>{html.escape(repeat_command(dict(record)))}</code></pre>")
    body.append(f"<p class=small>Made by latentshift {__version__} from the record of the run.</p></section></main>")
    csp = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{csp}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{name} – latentshift</title><style>{style}</style></head>\n<body>" + "\n".join(body) + "</body></html>\n"
    )


def _row(key: Any, value: Any) -> str:
    said = "none" if value is None else str(value)
    return f'<tr><th scope="row">{html.escape(str(key))}</th><td>{html.escape(said)}</td></tr>'


def _tiles(record: Mapping[str, Any]) -> str:
    raised = record.get("raised")
    tiles = [
        (
            "Score by the critic",
            f"{number(record.get('score_before'))} → {number(record.get('score_after'))}",
            "mean before → after",
        ),
        ("Mean gain", number(record.get("gain"), sign=True), f"{raised:.0%} of the samples rose" if raised is not None else ""),
    ]
    if record.get("samples_per_second"):
        tiles.append(("Rate", f"{number(record['samples_per_second'])}/s", "by one worker"))
    return "".join(f'<div class="tile"><dt>{a}</dt><dd>{b}</dd><dd class="small">{c}</dd></div>' for a, b, c in tiles)


def _charts(found: Mapping[str, Array]) -> str:
    series = [(k, k, _values(found["edges"], found[f"count_{k}"])) for k in ("before", "after")]
    keys = "".join(f'<span class="key {k}">{k}</span>' for k, _, _ in series)
    gain = [("after", "gain", _values(found["gain_edges"], found["count_gain"]))]
    drawn = [("Scores before and after, all samples", charts.histogram(series, "score by the critic"), keys)]
    drawn.append(("Gain, all samples", charts.histogram(gain, "gain"), ""))
    figures = "".join(f"<figure><figcaption><h3>{t}</h3>{legend}</figcaption>{svg}</figure>" for t, svg, legend in drawn)
    return f'<section id="charts"><h2>Charts</h2><div class="charts">{figures}</div></section>'


def _values(edges: Array, counts: Array) -> Array:
    """Return values that are spread over the bins as all rows are, few enough to draw."""
    total = int(counts.sum())
    share = np.rint(counts * min(1.0, _DRAWN / max(total, 1))).astype(np.int64)
    return np.repeat((edges[:-1] + edges[1:]) / 2, share)


def _samples(found: Mapping[str, Array]) -> str:
    before, after, kind = found["before"], found["after"], found["kind"]
    parts = ["<section id='samples'><h2>Before and after</h2>"]
    if after.ndim != 4:
        if after.ndim == 2 and after.shape[1] == 2:
            image = before_after(before.astype(np.float64), after.astype(np.float64), None)
            parts.append(
                f'<img alt="points before and after" src="data:image/png;base64,{base64.b64encode(png(image)).decode()}">'
            )
        return "".join([*parts, "</section>"])
    gain = found["score"].astype(np.float64) - found["score0"].astype(np.float64)
    for which, title in enumerate(_KINDS):
        figures = []
        for i in np.flatnonzero(kind == which):
            said = f"seed {int(found['seeds'][i])} {number(float(gain[i]), sign=True)}"
            pair = "".join(f'<img alt="{word}" src="{_text(x[i])}">' for word, x in (("before", before), ("after", after)))
            figures.append(f"<figure>{pair}<figcaption class=small>{html.escape(said)}</figcaption></figure>")
        if figures:
            parts.append(f'<h3>{title}</h3><div class="shown">{"".join(figures)}</div>')
    return "".join([*parts, "</section>"])


def _text(pixels: Array) -> str:
    stream = io.BytesIO()
    image: Image.Image = picture(pixels)
    image.save(stream, "WEBP", quality=90, method=2)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
