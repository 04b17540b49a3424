"""`latentshift report OUT`: the page of a run again, from its record alone. No torch, no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .common import Talk, general


@click.command(short_help="make a run's page again")
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write.  [default: OUT/report.html]")
@general
def command(folder: Path, out: Path | None, **typed: Any) -> None:
    """Make the page of a run again from its folder: one HTML file that opens anywhere, without a network.

    What is missing or cut in the folder is said in one line each, here and on the page; the rest is shown.

    \b
    Examples:
      latentshift report latentshift-out/00000-fashion32-ifgsm
      latentshift report latentshift-out/00000-fashion32-ifgsm --out page.html
    """
    from ..report.page import write_report

    talk = Talk(typed["quiet"], typed["as_json"])
    path, problems = write_report(folder, out)
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    size = path.stat().st_size
    if talk.as_json:
        click.echo(json.dumps({"report": str(path), "bytes": size, "problems": problems}, indent=2))
    talk.fact(f"wrote {path} ({size / 1e6:.2f} MB)")
