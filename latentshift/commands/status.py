"""`latentshift status OUT`: how far a run in shards is, from its manifest; no model is loaded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from .common import Talk, general


@click.command(short_help="how far a run in shards is")
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@general
def command(folder: Path, **typed: Any) -> None:
    """Say how far a run in shards is: samples, rate, time left, mean gain, refused rows, and whether it is running.

    \b
    Examples:
      latentshift status many
      latentshift status many --json
    """
    from ..shards.drive import is_held
    from ..shards.manifest import NAME, Manifest
    from ..shards.store import Folder
    from ..shards.totals import Totals
    from ..shards.watch import NAME as STATUS
    from ..shards.watch import clock
    from .shardjob import opened

    talk = Talk(typed["quiet"], typed["as_json"])
    place, store, record, plan = opened(folder)
    manifest = Manifest.read(plan, store.lines(NAME))
    totals = Totals.of(manifest.entries.values())
    try:
        last = json.loads(store.read(STATUS) or b"{}")
    except ValueError:
        last = {}
    held = is_held(folder) if isinstance(store, Folder) else None
    status = str(record["status"])
    if status == "running" and held is False:
        status = "cut"
    age = time.time() - last["updated"] if isinstance(last.get("updated"), int | float) else None
    running = status == "running"
    found: dict[str, Any] = {
        "outdir": place,
        "status": status,
        "rows": len(plan.seeds),
        "rows_done": totals.rows,
        "rows_at_work": sum(last.get("rows_at_work", {}).values()) if running else 0,
        "shards": len(plan),
        "shards_done": totals.shards,
        "samples_per_second": last.get("samples_per_second") if running else None,
        "seconds_left": last.get("seconds_left") if running else None,
        "mean_gain": totals.gain,
        "refused": totals.refused,
        "stopped": totals.stopped,
        "bytes": totals.bytes,
        "seconds_since_update": age,
    }
    if talk.as_json:
        click.echo(json.dumps(found, indent=2))
        return
    share = totals.rows / len(plan.seeds)
    at_work = f", {found['rows_at_work']:,} more in shards at work" if found["rows_at_work"] else ""
    talk.fact(f"status    {status}" + (f", last sign {clock(age)} ago" if running and age is not None else ""))
    talk.fact(f"samples   {totals.rows:,} of {len(plan.seeds):,} ({share:.1%}){at_work}")
    talk.fact(f"shards    {totals.shards:,} of {len(plan):,}, {totals.bytes / 1e6:,.1f} MB")
    if found["samples_per_second"]:
        talk.fact(f"rate      {found['samples_per_second']:.3g}/s, {clock(found['seconds_left'])} left")
    if totals.gain is not None:
        talk.fact(f"gain      {totals.gain:+.4g} in the mean")
    if totals.refused:
        talk.fact("refused   " + ", ".join(f"{count:,} {word}" for word, count in totals.refused.items()))
    if status != "complete" and not running:
        talk.fact(f"next      latentshift refine --resume {place}")
