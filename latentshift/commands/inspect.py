"""`latentshift inspect FILE`: what a file or folder holds, without building a network."""

from __future__ import annotations

import json

import click

from .common import general
from .listing import _tree


@click.command(short_help="what a file holds")
@click.argument("file", metavar="FILE")
@general
def command(file: str, as_json: bool, quiet: bool, debug: bool) -> None:
    """What a file, a folder or a known model holds: kind, family, parts, resolution, classes, whether there is a D, sizes.

    Nothing in the file is run and no network is built. It reads pair folders, runs, safetensors, npz and npy; further kinds
    through the model families that are installed.

    \b
    Examples:
      latentshift inspect my-pair
      latentshift inspect my-pair/G.safetensors --json
      latentshift inspect latentshift-out/00000-fashion32-ifgsm
    """
    from pathlib import Path

    from ..files.inspect import inspect_path
    from ..files.names import local_path

    path = Path(file)
    found = inspect_path(path if path.exists() or path.is_symlink() else local_path(file)[0] or path)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    _tree({k: v for k, v in found.items() if v is not None})
