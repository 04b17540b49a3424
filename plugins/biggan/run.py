"""The files of a BigGAN run: which copy is taken, which network, what its state file tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latentshift.errors import DamagedFileError, FileError, RequestError

from ..loaded import Loaded
from .load import Options, load_tree

Reader = Callable[[Path], Mapping[str, Any]]
_DEFAULT = Options()

_RUN_FILE = re.compile(r"(G_ema|G_optim|D_optim|G|D|state_dict)(_[A-Za-z0-9]+)?\.pth")


def run_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the files of a run's folder: suffix ("", "_best1", ...) to name ("G_ema", "D", ...) to path."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if m := _RUN_FILE.fullmatch(path.name):
            found.setdefault(m[2] or "", {})[m[1]] = path
    return found


def choose_suffix(files: Mapping[str, Mapping[str, Path]], folder: Path, wanted: str | None) -> str:
    """Return the copy to take: the one asked for, else the plain one, else the newest by time of its file."""
    usable = {s for s, names in files.items() if {"G", "G_ema"} & set(names)}
    if wanted is not None:
        suffix = wanted if not wanted or wanted.startswith("_") else f"_{wanted}"
        if suffix not in usable:
            raise RequestError(f"no copy {wanted!r} in this run: {sorted(s or '(plain)' for s in usable)}", where=str(folder))
        return suffix
    if not usable:
        what = "a BigGAN-PyTorch run without a generator's file"
        raise FileError(what, where=str(folder), way_out="It needs G_ema.pth or G.pth.")
    return "" if "" in usable else max(usable, key=lambda s: (max(p.stat().st_mtime for p in files[s].values()), s))


def is_folder(folder: Path) -> bool:
    """Return whether a folder looks like a BigGAN-PyTorch run or a pytorch-pretrained-BigGAN model."""
    if (folder / "pytorch_model.bin").is_file() and (folder / "config.json").is_file():
        return "attention_layer_position" in (folder / "config.json").read_text(errors="replace")
    return any({"G", "G_ema"} & set(names) for names in run_files(folder).values())


def load_path(path: Path, read: Reader, critic: Path | None = None, options: Options = _DEFAULT) -> Loaded:
    """Return the pair of a run's folder or of a file; `read` gives the tree of tensors of a file.

    From a folder `G_ema.pth` is taken before `G.pth`, with the D and the settings of the same copy; a file of a run brings
    the same along. A pytorch-pretrained-BigGAN folder gives a generator alone.
    """
    folder = path if path.is_dir() else path.parent
    hub = folder / "pytorch_model.bin"
    if (path.is_dir() and hub.is_file()) or path == hub:
        config = _json(folder / "config.json") if (folder / "config.json").is_file() else None
        d_tree = read(critic) if critic else None
        return load_tree(read(hub), d_tree, config=config, options=options, where=str(hub))
    m = _RUN_FILE.fullmatch(path.name)
    if not path.is_dir() and (m is None or m[1] not in ("G", "G_ema")):
        return load_tree(read(path), read(critic) if critic else None, options=options, where=str(path))
    files = run_files(folder)
    suffix = choose_suffix(files, folder, options.suffix) if path.is_dir() else m[2] or "" if m else ""
    names = dict(files[suffix])
    if path.is_dir():
        chosen = names["G_ema" if "G_ema" in names and (options.ema or "G" not in names) else "G"]
    else:
        chosen = path
    if critic is not None:
        names["D"] = critic
    return _load_copy(chosen, names, files, suffix, read, options)


def _load_copy(
    chosen: Path,
    names: Mapping[str, Path],
    files: Mapping[str, Mapping[str, Path]],
    suffix: str,
    read: Reader,
    options: Options,
) -> Loaded:
    run: Any = read(names["state_dict"]).get("config") if "state_dict" in names else None
    d_tree = read(names["D"]) if "D" in names else None
    settings = run if isinstance(run, Mapping) else {}
    loaded = load_tree(read(chosen), d_tree, run=settings, options=options, where=str(chosen))
    others = sorted(s or "(plain)" for s in files if s != suffix)
    notes = [f"took {chosen.name}" + ("" if d_tree is None else f" and {names['D'].name}")]
    notes += [f"other copies in this run: {', '.join(others)}"] if others else []
    left = [p.name for s in files.values() for n, p in s.items() if n.endswith("_optim")]
    notes += [f"left out optimizer states: {', '.join(left)}"] if left else []
    if not isinstance(run, Mapping):
        notes.append("no settings of a run beside it: BN_eps 1e-5 and a standard normal prior were assumed")
    return loaded.with_notes(*notes)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        out = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DamagedFileError(f"not a readable JSON file: {error}", where=str(path)) from None
    if not isinstance(out, dict):
        raise DamagedFileError("not a JSON object", where=str(path))
    return out
