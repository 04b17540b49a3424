"""Where the samples start when they do not come from seeds: saved latents of any space, or projected images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RequestError

if TYPE_CHECKING:
    from ..model import Pair
    from ..space import Space

projected_option = click.option(
    "--projected-w",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Start at projected images of a style model (`w`: rows, layers, size) in place of seeds; --space w or w+.",
)


def start_file(typed: dict[str, Any]) -> Path | None:
    """Return the file that was given in place of seeds, if one was."""
    path: Path | None = typed.get("projected_w") or typed["latents"]
    return path


def space_of(typed: dict[str, Any], pair: Pair, name: str, *, asked: bool) -> Space:
    """Return the space that moves: the one named, or that of the file that the samples start from.

    `asked` says that `name` was typed. Raises RequestError where the model has no such space or the file is of another one.
    """
    from ..files.latents import space_name

    theirs = ""
    if typed.get("projected_w") is not None:
        theirs = name if asked else "w+"
        if theirs not in ("w", "w+"):
            raise RequestError(f"projected images move in w or w+, not in {theirs!r}", where="--space")
    elif typed["latents"] is not None:
        theirs = space_name(typed["latents"])
        theirs = "" if theirs == pair.space.name else theirs
    if theirs and asked and theirs != name:
        raise RequestError(
            f"these latents are of the space {theirs!r}", where=str(start_file(typed)), way_out="Give that --space."
        )
    chosen = theirs or name
    if chosen not in pair.spaces:
        where = str(start_file(typed)) if theirs else "--space"
        raise RequestError(f"{pair.name!r} has no space {chosen!r}", where=where, way_out=f"It has: {', '.join(pair.spaces)}.")
    space = pair.spaces[chosen]
    return replace(space, entered=True) if theirs else space
