"""The closing lines of a sharded run."""

from __future__ import annotations

import json
from typing import Any

import click

from ..shards.store import Store
from ..shards.watch import clock
from .common import Talk


def close_shards(talk: Talk, place: str, record: dict[str, Any], store: Store) -> None:
    """Print the closing summary, or the record as JSON."""
    shards = record["shards"]
    names = {"png": "shard-*/", "tar": "shard-*.tar", "parquet": "shard-*.parquet"}
    files = [n for n in ("report.html", "run.json", "manifest.jsonl", "fit.npz") if n in store.names()]
    if talk.as_json:
        kept = {k: v for k, v in record.items() if k not in ("request", "job")}
        click.echo(json.dumps({"outdir": place, "files": files, **kept}, indent=2, default=str))
        return
    if record["status"] != "complete":
        talk.fact(f"rank done; {shards.get('done', 0):,} of {shards['count']:,} shards are listed in {place}")
        return
    if record["gain"] is not None:
        mean = f"(mean gain {record['gain']:+.4g})"
        talk.fact(f"score     {record['score_before']:.4g} before, {record['score_after']:.4g} after {mean}")
        talk.fact("judge     the critic that was climbed; unverified: no judge that was not climbed looked")
    wall = record["seconds"]["wall"]
    rate = f" ({record['rows'] / wall:.3g} samples/s)" if wall else ""
    weight = f"{shards['count']:,} shards, {shards['bytes'] / 1e6:,.1f} MB"
    talk.fact(f"samples   {record['rows']:,} in {weight}; {clock(wall)}{rate}")
    talk.fact(f"written   {place}")
    talk.fact(f"          {', '.join([names[shards['as']], 'latents-*.npz', *files])}")
    talk.fact(f"next      latentshift verify {place}")
    talk.fact(f"          latentshift top {place} -k 100")
