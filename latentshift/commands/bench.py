"""`latentshift bench`: what a step costs here, beside the published-style loop, on the papers' two pairs at 48x48."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from .common import Talk, general


@click.command(short_help="measure the engine on this machine")
@click.option("--pairs", "names", default="A,B", show_default=True, help="A (DCGAN), B (SNGAN), B-wgan.")
@click.option("--rows", default="1,16,64", show_default=True, help="Batch sizes.")
@click.option("--rounds", default=7, show_default=True, help="Paired rounds; the medians and the spread are over them.")
@click.option("--steps", default=20, show_default=True, help="Sign steps for the gain of each variant; 0: no gain.")
@click.option("--shrink", default=1, show_default=True, help="Divide every width of the networks (for a quick look).")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.json", help="Also write (or extend) a result file.")
@general
def command(**typed: Any) -> None:
    """Measure a step of the engine beside the published-style loop: one thread, process CPU time, paired rounds.

    The short form (the default) takes some minutes. Times do not depend on the weights, which are random; a ratio counts
    only with the gain and the agreement of signs beside it.

    \b
    Examples:
      latentshift bench --pairs A --rows 8 --rounds 2 --steps 2 --shrink 8
    """
    talk = Talk(typed["quiet"], typed["as_json"])
    if typed["shrink"] not in (1, 2, 4, 8, 16):
        raise UsageError(f"--shrink is 1, 2, 4, 8 or 16, not {typed['shrink']}")
    names = [n.strip() for n in typed["names"].split(",")]
    if unknown := [n for n in names if n not in ("A", "B", "B-wgan")]:
        raise UsageError(f"there is no pair {unknown[0]!r} to measure", way_out="Known: A, B, B-wgan.")
    try:
        rows = tuple(int(r) for r in typed["rows"].split(","))
    except ValueError:
        raise UsageError(f"--rows is whole numbers with commas, not {typed['rows']!r}") from None
    if min(rows) < 1 or typed["rounds"] < 1 or typed["steps"] < 0:
        raise UsageError("--rows and --rounds are at least 1, --steps at least 0")
    from ..bench.tables import markdown, measured, merged

    result = measured(names, rows, rounds=typed["rounds"], steps=typed["steps"], shrink=typed["shrink"], say=talk.note)
    if typed["out"]:
        from ..files.write import write_whole

        old = json.loads(typed["out"].read_text("utf-8")) if typed["out"].exists() else None
        result = merged(old, result)
        text = (json.dumps(result, indent=1) + "\n").encode()
        write_whole(typed["out"], lambda f: f.write(text))
    if talk.as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        talk.fact(markdown(result))
