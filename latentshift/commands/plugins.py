"""`latentshift plugins`: which packages add what. No torch."""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
import warnings

import click

from .. import registry
from .common import general


@click.command(short_help="what is installed")
@general
def command(as_json: bool, quiet: bool, debug: bool) -> None:
    """What is installed and what each package adds; a broken plug-in is named with its error.

    \b
    Examples:
      latentshift plugins
      latentshift plugins --json
    """
    packages: dict[str, dict[str, list[str]]] = {}
    broken = []
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # each is listed below
        for group in registry.GROUPS:
            found, bad = registry.everything(group)
            for name in found:
                packages.setdefault(registry.package_of(group, name), {}).setdefault(group, []).append(name)
            broken += bad
    if as_json:
        rows = [{"package": p, **{g: adds.get(g, []) for g in registry.GROUPS}} for p, adds in sorted(packages.items())]
        click.echo(json.dumps({"packages": rows, "broken": [vars(b) for b in broken]}, indent=2))
        return
    for package, adds in sorted(packages.items()):
        click.echo(package)
        for group, names in adds.items():
            click.echo(textwrap.fill(", ".join(names), 80, initial_indent=f"  {group + ':':<12}", subsequent_indent=" " * 14))
    for b in broken:
        click.echo(textwrap.fill(f"broken: {b.name} ({b.group}) of {b.package}: {b.why}", 80, subsequent_indent="  "))
