"""`refine --shard-size N --dry-run`: the plan of a sharded run and what it will weigh, from one small shard made elsewhere."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..seeds import SeedRanges
from ..shards.maker import Maker
from ..shards.manifest import Entry, Manifest, Piece
from ..shards.plan import ShardPlan
from ..shards.store import Folder
from ..shards.watch import clock
from .common import Talk
from .shardjob import Parts

_TRIAL = 64  # rows of the trial shard
_LINES = 2000  # lines of a manifest that are read to see how long that takes


def dry_shards(parts: Parts, talk: Talk, devices: list[str]) -> None:
    """Print the plan, its weight and an estimate of its time; nothing is left behind."""
    engine = parts.engine(parts.typed["chunk"])
    plan = parts.plan
    rows, shards = len(plan.seeds), len(plan)
    trial = replace(plan, seeds=_first(plan, min(_TRIAL, rows)), size=min(_TRIAL, rows))
    with tempfile.TemporaryDirectory(prefix="latentshift-") as folder:
        maker: Maker = parts.maker(engine, Folder(Path(folder)))
        maker.plan = trial
        maker.make(0)  # the first call also warms up
        began = time.perf_counter()
        entry = maker.make(0)
        each = (time.perf_counter() - began) / entry.rows
    weight = (entry.main.bytes + entry.latents.bytes) / entry.rows
    line, read = _manifest(plan, entry)
    cost = engine.strategy.cost()
    found: dict[str, Any] = {
        "model": parts.pair.name,
        "samples": rows,
        "recipe": parts.recipe.as_dict(),
        "plan": engine.run_.plan,
        "cost_per_sample": {**cost._asdict(), "final_images": 1},
        "estimate_seconds": round(each * rows / len(devices), 2),
        "files": [f"{plan.name(0)} … {plan.name(shards - 1)}", "latents-*.npz", "manifest.jsonl", "run.json", "report.html"],
        "shards": shards,
        "shard_size": plan.size,
        "workers": len(devices),
        "bytes": round(weight * rows),
        "manifest_bytes": line * shards,
        "resume_seconds": round(read * shards, 2),
    }
    if talk.as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    cut = f"{rows:,} samples in {shards:,} shards of {plan.size:,}"
    talk.fact(f"{parts.pair.name}: {cut}, {parts.recipe.name}, workers: {len(devices)}")
    talk.fact(f"shards    {found['files'][0]} ({plan.kind})")
    talk.fact(f"disk      about {weight * rows / 1e9:,.3g} GB ({weight:,.0f} bytes a sample, from {entry.rows} samples)")
    talk.fact(f"manifest  {line * shards / 1e6:,.3g} MB; a resume reads it and looks at all shards in {clock(read * shards)}")
    talk.fact(f"time      about {clock(found['estimate_seconds'])} on {', '.join(sorted(set(devices)))}")
    if plan.kind == "png" and rows > 10**6:
        talk.fact(f"note      {rows:,} single files are a burden for most disks: --shards-as tar makes {2 * shards:,}")


def _first(plan: ShardPlan, rows: int) -> SeedRanges:
    return SeedRanges.parse(plan.seeds.text(0, rows))


def _manifest(plan: ShardPlan, entry: Entry) -> tuple[int, float]:
    """Return bytes of a line, and seconds to read one and look at its two files."""
    last = len(plan) - 1
    count = min(_LINES, len(plan))
    start, stop = plan.rows(last)
    with tempfile.TemporaryDirectory(prefix="latentshift-") as folder:
        store = Folder(Path(folder))
        probe = Piece("probe", 1, "0" * 64)
        (Path(folder) / "probe").write_bytes(b"x")
        line = replace(
            entry,
            index=last,
            seeds=plan.text(last),
            rows=stop - start,
            main=replace(entry.main, name=plan.name(last)),
            latents=replace(entry.latents, name=plan.latents_name(last)),
        ).line()
        began = time.perf_counter()
        Manifest.read(plan, [line] * count)
        for _ in range(2 * count):
            store.size(probe)
        return len(line), (time.perf_counter() - began) / count
