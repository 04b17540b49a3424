"""`--reals DATA`: real images (or points) for the pair at hand, read in one place for every command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import Talk, options

if TYPE_CHECKING:
    from ..files.reals import Reals
    from ..model import Pair

POINTS = 10_000  # drawn from a known mixture

reals_options = options(
    click.option(
        "--reals",
        metavar="DATA",
        help="Real images: a folder or zip of pictures, an npz, npy or idx file; ring, grid or dot25 for pairs of points.",
    ),
)


def reals_of(data: str, pair: Pair, talk: Talk, *, least: int = 2) -> Reals:
    """Return the real samples that `--reals` names, as `pair` would make them, and say what was converted."""
    from ..files.reals import Reals, read_reals

    if pair.image_shape == (2,) and not Path(data).exists():
        import hashlib

        import torch

        from ..metrics.toy import DOT25, MIXTURES

        known = {**MIXTURES, "dot25": DOT25}
        if data in known:
            points = known[data].sample(POINTS, torch.Generator().manual_seed(0))
            return Reals(points, None, hashlib.sha256(points.numpy().tobytes()).hexdigest(), data)
    found = read_reals(data, pair, least=least)
    for note in found.notes:
        talk.note(f"note: {data}: {note}")
    return found
