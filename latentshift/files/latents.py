"""Saved latents: the `latents.npz` of a run, or any `.npy` or `.npz` of plain arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedFileError, FileError, LatentshiftWarning, RequestError, ShapeError
from ..model import Pair
from ..space import Space
from .run import read_npz

Array = np.ndarray[Any, Any]


def space_name(path: Path) -> str:
    """Return the name of the space that a file's latents are of (z where it does not say)."""
    if path.suffix == ".npy":
        return "z"
    found = read_npz(path)
    return str(found["space"]) if "space" in found else "z"


def read_latents(path: Path, pair: Pair, space: Space | None = None) -> tuple[Array, list[int] | None, Array | None]:
    """Return (latents, seeds or None, labels or None) of a file. The refined ones (`z`, `point`) of a run's file are taken.

    `space` is where the latents are points (default: the pair's prior space). A file of projected images (`w`) gives points of
    w+, or of w where all layers have the same. Raises FileError for what cannot be read, RequestError for another space,
    ShapeError for another size; warns where the file was made with another model.
    """
    space = space or pair.space
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DamagedFileError(f"not a readable .npy: {error}", where=str(path)) from None
        found: dict[str, Array] = {"z": array}
    else:
        found = read_npz(path)
    entered = space.name != pair.space.name
    keys = ("point", "w") if entered else ("z", "z0", "arr_0")
    key = next((k for k in keys if k in found), None)
    if key is None:
        raise FileError(
            f"no latents in this file (it holds {', '.join(found) or 'nothing'})",
            where=str(path),
            way_out="Name the array 'w', as the projector does." if entered else "Name the array 'z'.",
        )
    name = str(found["space"]) if "space" in found else space.name
    if name != space.name:
        raise RequestError(f"these latents are of the space {name!r}, the model's is {space.name!r}", where=str(path))
    theirs = str(found.get("model_sha256", ""))
    if theirs and pair.sha256 and theirs != pair.sha256:
        warnings.warn(
            f"{path} was made with another model (sha256 {theirs[:12]}, this one is {pair.sha256[:12]})",
            LatentshiftWarning,
            stacklevel=2,
        )
    z = found[key]
    if z.dtype.kind != "f":
        raise ShapeError(f"latents are {z.dtype}, not floating point", where=str(path))
    if key == "w" and z.ndim == 3 and len(space.shape) == 1:
        if (z != z[:, :1]).any():
            what = "the projected image has another style in each layer"
            raise RequestError(what, where=str(path), way_out="Refine it with --space w+.")
        z = z[:, 0]
    if z.ndim < 2 or z.shape[1:] != space.shape or not len(z):
        raise ShapeError(
            f"latents have shape {z.shape}, this model takes (rows, {', '.join(map(str, space.shape))})", where=str(path)
        )
    seeds = [int(s) for s in found["seeds"]] if "seeds" in found else None
    if seeds is not None and len(seeds) != len(z):
        raise DamagedFileError(f"{len(seeds)} seeds for {len(z)} latents", where=str(path))
    return z.astype(np.float32), seeds, found.get("labels")
