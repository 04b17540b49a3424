"""The files of a classic run: which step is taken, and where its discriminator lies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from latentshift.errors import FileError, RequestError
from latentshift.files.statedict import unwrap

from ..loaded import Loaded
from ..residual import ResidualD
from .load import Options, find_half, load_tree

Reader = Callable[[Path], Mapping[str, Any]]
_DEFAULT = Options()

_POOLS: dict[str, Literal["sum", "mean"]] = {"dcgan": "sum", "wgan": "mean"}
_STEP = re.compile(r"(\d+)(?=\D*$)")
_PAIRS = (("netG", "netD"), ("net_G", "net_D"), ("generator", "discriminator"), ("Generator", "Discriminator"), ("gen", "disc"))


def partner(path: Path) -> Path | None:
    """Return the file of D that lies beside a file of G: the same name and folder with "netG" as "netD", and so on."""
    parent = path.parent
    for g, d in (*_PAIRS, ("G", "D")):
        if g not in path.name:
            continue
        name = path.name.replace(g, d)
        for place in (parent / name, parent.parent / parent.name.replace(g, d) / name):
            if place != path and place.is_file():
                return place
    return None


def step_of(path: Path) -> int:
    """Return the last number in a file's name, -1 where there is none: the step it was saved at."""
    m = _STEP.search(path.stem)
    return int(m[1]) if m else -1


def run_files(folder: Path) -> tuple[Path, Path | None] | None:
    """Return (file of G or of the pair, file of D) of a run's folder, the latest step; None where it is no such folder.

    Known: mimicry's `checkpoints/netG`, `netD` (the newest step that both have), gan-collections' `model.pt`, AdvLatGAN's
    `models/model<k>.pt`, `netG*.pth` beside `netD*.pth`.
    """
    for base in (folder, folder / "checkpoints"):
        gs = {step_of(p): p for p in sorted((base / "netG").glob("netG_*.pth"))}
        ds = {step_of(p): p for p in sorted((base / "netD").glob("netD_*.pth"))}
        if gs:
            both = gs.keys() & ds.keys()
            if ds and not both:
                raise RequestError(
                    f"no step has both networks: G at {sorted(gs)}, D at {sorted(ds)}", where=str(folder),
                    way_out="Name two files.",
                )  # fmt: skip
            step = max(both or gs)
            return gs[step], ds.get(step)
    if (folder / "model.pt").is_file():
        return folder / "model.pt", None
    for place in (folder / "models", folder):
        runs = sorted(place.glob("model*.pt"), key=step_of)
        if runs:
            return runs[-1], None
    pairs = sorted((p for p in folder.glob("*.pth") if re.search(r"net_?G|[Gg]enerator", p.name)), key=step_of)
    return (pairs[-1], partner(pairs[-1])) if pairs else None


def load_path(path: Path, read: Reader, d_path: Path | None = None, options: Options = _DEFAULT) -> Loaded:
    """Return the pair of a file (and D's file, found beside it where it is not given) or of a run's folder."""
    if path.is_dir():
        files = run_files(path)
        if files is None:
            raise FileError("no checkpoint of a known family in this folder", where=str(path))
        path, found = files
        d_path = d_path or found
    tree = read(path)
    told = next((pool for word, pool in _POOLS.items() if word in str(path).lower()), None)
    beside = partner(path) if d_path is None else None
    if beside is not None and find_half(unwrap(tree, where=str(path)), "D", options) is None:
        d_path = beside
    loaded = load_tree(tree, read(d_path) if d_path else None, options=options, where=str(path), d_where=str(d_path or path))
    if options.pool is None and told and isinstance(loaded.D, ResidualD) and loaded.loss == "wasserstein":
        # DCGAN and WGAN-GP have the same tensors; the folder's name is the only thing that tells
        loaded = load_tree(tree, read(d_path) if d_path else None, options=replace(options, pool=told), where=str(path))
        loaded = loaded.with_notes(f"D's last pooling is a {told}, as the path says")
    return loaded.with_notes(f"took {path.name}" + (f" and {d_path.name}" if d_path else ""))
