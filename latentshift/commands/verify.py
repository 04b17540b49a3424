"""`latentshift verify OUT`: is what a run lists there, whole, and once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import DamagedFileError
from .common import Talk, general

_SHOWN = 20  # problems that are printed


@click.command(short_help="check a run in shards")
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Compare sizes, not checksums.")
@general
def command(folder: Path, quick: bool, **typed: Any) -> None:
    """Check a finished or cut run in shards: every listed file against its size and checksum, its seeds against the plan.

    A cut run whose finished shards are sound is fine: what is missing is said, with the line that goes on. Status 4 where
    something that is listed is damaged, missing, or doubled.

    \b
    Examples:
      latentshift verify many
      latentshift verify many --quick
    """
    from ..shards.check import verify
    from .shardjob import opened

    talk = Talk(typed["quiet"], typed["as_json"])
    place, store, record, plan = opened(folder)
    found = verify(store, plan, sums=not quick)
    again = f"latentshift refine --resume {place}"
    if talk.as_json:
        click.echo(json.dumps({"outdir": place, "status": record["status"], **found.as_dict()}, indent=2))
    for line in found.wrong[:_SHOWN]:
        talk.fact(f"wrong     {line}")
    if len(found.wrong) > _SHOWN:
        talk.fact(f"          and {len(found.wrong) - _SHOWN:,} more")
    how = "size" if quick else "checksum and seeds"
    talk.fact(f"shards    {len(found.manifest.entries):,} of {len(plan):,} are sound by {how}")
    talk.fact(f"samples   {found.manifest.rows:,} of {len(plan.seeds):,}, each once")
    if found.loose:
        talk.fact(f"loose     {len(found.loose):,} names that the manifest does not list, such as {found.loose[0]}")
    if found.wrong:
        count = len(found.wrong)
        raise DamagedFileError(f"{count} problem{'s' * (count > 1)} in this run", where=place, way_out=f"Mend it with: {again}")
    if found.missing:
        talk.fact(f"next      {again}")
