"""`latentshift fetch URL`: download and check a file, no more. No torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from .common import Talk, general


@click.command(short_help="download and check")
@click.argument("reference", metavar="NAME|URL|hf://...")
@click.option("--sha256", metavar="HEX", help="What the file must be.")
@click.option("--size", type=int, metavar="BYTES", help="How large it must be.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to put it.  [default: the cache]")
@general
def command(reference: str, sha256: str | None, size: int | None, out: Path | None, **typed: Any) -> None:
    """Download a file into the cache and check it; print its path. What was begun is taken up, what is there is not asked for.

    Nothing in the file is read or run; no token is sent. The cache is LATENTSHIFT_CACHE, else the platform's.

    \b
    Examples:
      latentshift fetch fashion32
    """
    from ..errors import UsageError
    from ..files.cache import file_sha256
    from ..files.fetch import fetch
    from ..files.hub import fetch_hub, is_hub

    talk = Talk(typed["quiet"], typed["as_json"])
    address = _address(reference)
    if is_hub(reference):
        if sha256 is not None or size is not None or out is not None:
            raise UsageError("--sha256, --size and --out are for addresses", way_out="The hub's own library checks its files.")
        path = fetch_hub(reference)
    elif address is None:
        path = _bundled(reference)
    else:
        bar = _Bar() if sys.stderr.isatty() and not talk.quiet else None
        try:
            path = fetch(address, out, sha256=sha256, size=size, progress=bar)
        finally:
            if bar is not None:
                bar.close()
    if talk.as_json:
        size, digest = (path.stat().st_size, file_sha256(path)) if path.is_file() else (None, None)
        click.echo(json.dumps({"path": str(path), "bytes": size, "sha256": digest}, indent=2))
    else:
        click.echo(str(path))


def _address(reference: str) -> str | None:
    """Return the address behind a reference: itself, or that of a published model; None for what is on this machine."""
    if "://" in reference:
        return reference
    from .. import registry
    from ..files.names import ALIASES

    thing = registry.get("models", ALIASES.get(reference, reference))
    url = getattr(thing, "url", None)
    if url is None:
        return None
    print(f"note: {reference}: {thing.what}; licence: {thing.licence}", file=sys.stderr)
    return str(url)


def _bundled(name: str) -> Path:
    from .. import registry
    from ..errors import RequestError

    thing = registry.get("models", name)
    folder = getattr(thing, "folder", None)
    if not isinstance(folder, Path):
        raise RequestError(f"{name!r} is a family of files, not a file", way_out="Give the address of a file.")
    return folder


class _Bar:
    def __init__(self) -> None:
        from tqdm import tqdm

        self.bar = tqdm(unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr, dynamic_ncols=True)

    def __call__(self, have: int, total: int | None) -> None:
        self.bar.total = total
        self.bar.update(have - self.bar.n)

    def close(self) -> None:
        self.bar.close()
