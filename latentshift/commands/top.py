"""`latentshift top OUT -k K`: the best samples over all shards, without holding all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from .common import Talk, general

_SHOWN = 10  # lines of the table


@click.command(short_help="the best samples over all shards")
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("-k", "count", type=int, default=100, show_default=True, help="How many.")
@click.option("--by", type=click.Choice(["score", "gain"]), default="score", show_default=True, help="What ranks them.")
@click.option("--worst", is_flag=True, help="The lowest in place of the highest.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Write seeds, latents and scores, for refine --latents.",
)
@general
def command(folder: Path, count: int, by: str, worst: bool, out: Path | None, **typed: Any) -> None:
    """Print the best samples over all shards of a run, and write their latents where asked. The score is that of the critic.

    \b
    Examples:
      latentshift top many -k 20
      latentshift top many -k 100 --by gain --out best.npz
    """
    import numpy as np

    from ..files.run import npz_bytes
    from ..files.write import write_whole
    from ..shards.manifest import NAME, Manifest
    from ..shards.read import top
    from .shardjob import opened

    if count < 1:
        raise UsageError(f"-k is at least 1, not {count}")
    talk = Talk(typed["quiet"], typed["as_json"])
    place, store, record, plan = opened(folder)
    manifest = Manifest.read(plan, store.lines(NAME))
    best = top(store, manifest, count, by=by, worst=worst)
    seeds, value = best.arrays["seeds"], best.values
    if out is not None:
        head = {"space": np.array(record["space"]), "model_sha256": np.array(record["model_sha256"])}
        data = npz_bytes({**head, **best.arrays})
        write_whole(out, lambda stream: stream.write(data))
    shards = [manifest.plan.name(int(row) // manifest.plan.size) for row in best.rows]
    rows = [{"seed": int(s), by: float(v), "shard": shard} for s, v, shard in zip(seeds, value, shards, strict=True)]
    if talk.as_json:
        click.echo(json.dumps({"outdir": place, "by": by, "of": manifest.rows, "top": rows}, indent=2))
        return
    talk.fact(f"{'seed':>10}  {by:>10}  shard")
    for row in rows[:_SHOWN]:
        talk.fact(f"{row['seed']:>10}  {row[by]:>10.4g}  {row['shard']}")
    if len(rows) > _SHOWN:
        talk.fact(f"{'...':>10}  {value[-1]:>10.4g}  the last of {len(rows):,} out of {manifest.rows:,}")
    if out is not None:
        talk.fact(f"written   {out}")
