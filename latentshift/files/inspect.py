"""What a file or folder holds, from its headers alone: no torch, no network run. Families read their own files."""

from __future__ import annotations

import contextlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

from .. import registry
from ..errors import DamagedFileError, FileError, LatentshiftError

_HEADER_LIMIT = 100 * 2**20
_SHOWN = 12  # tensors listed by name

_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer, not the file itself", "Download the file itself."),
    (b"<", "a web page, not a model", "Download the file itself; a login or licence page may be in the way."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first."),
)


def inspect_path(path: Path) -> dict[str, Any]:
    """Return what a path holds as plain values: `kind`, `bytes`, and what that kind tells.

    Raises FileError and its children for what is damaged, unsafe or of no known kind.
    """
    path = Path(path)
    if not path.exists():
        raise FileError("no such file or folder", where=str(path))
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileError("neither a file nor a folder", where=str(path))
    size = path.stat().st_size
    if not size:
        raise FileError("an empty file", where=str(path))
    with path.open("rb") as stream:
        head = stream.read(64)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        told = {"kind": "safetensors", "path": str(path), "bytes": size, **_tensors(path)}
        with contextlib.suppress(LatentshiftError):  # of no family, or of one that asks for more files
            told = {**(_family(path) or {}), **told}
        return told
    if head.startswith(b"\x93NUMPY"):
        return {"kind": "npy", "path": str(path), "bytes": size, "arrays": {path.stem: _npy(path)}}
    for magic, what, way_out in _MAGIC:
        if head.lstrip().startswith(magic):
            raise FileError(what, where=str(path), way_out=way_out)
    if head.startswith(b"PK"):
        return _zip(path, size)
    if (by_family := _family(path)) is not None:
        return by_family
    raise FileError(
        "no installed reader knows this kind of file", where=str(path), way_out="'latentshift plugins' lists what is installed."
    )


def _family(path: Path) -> dict[str, Any] | None:
    for name, thing in registry.everything("models")[0].items():
        if getattr(thing, "kind", "pair") == "family" and thing.sniff(path):
            told = thing.describe(path) if hasattr(thing, "describe") else {}
            return {"kind": "model", "family": name, "path": str(path), "bytes": path.stat().st_size, **told}
    return None


def _folder(path: Path) -> dict[str, Any]:
    from .run import read_run

    if (path / "run.json").is_file():
        record = read_run(path)
        told = {k: record.get(k) for k in ("status", "model", "rows", "gain", "score_before", "score_after", "latentshift")}
        recipe = record.get("recipe")
        name = recipe.get("name") if isinstance(recipe, dict) else None
        return {"kind": "run", "path": str(path), "bytes": _total(path), **told, "recipe": name, "files": _names(path)}
    if (path / "card.json").is_file():
        return _pair(path)
    if (found := _family(path)) is not None:
        return found
    raise FileError(
        "neither a pair folder (no card.json) nor a run (no run.json)", where=str(path), way_out="Give one of its files."
    )


def _pair(path: Path) -> dict[str, Any]:
    try:
        card = json.loads((path / "card.json").read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"the card is no JSON: {error}", where=str(path / "card.json")) from None
    if not isinstance(card, dict):
        raise DamagedFileError("the card is no JSON object", where=str(path / "card.json"))
    parts = {}
    for part in ("G", "D"):
        file = path / f"{part}.safetensors"
        if file.is_file():
            held = _tensors(file)
            parts[part] = {"bytes": file.stat().st_size, "parameters": held["parameters"], "dtypes": held["dtypes"]}
    image: Any = card.get("image")
    image = image if isinstance(image, dict) else {}
    shape = [image.get(k) for k in ("channels", "height", "width")]
    known = all(isinstance(v, int) for v in shape)
    return {
        "kind": "pair folder",
        "family": card.get("family", "layers"),
        "name": card.get("name"),
        "path": str(path),
        "bytes": _total(path),
        "z_size": card.get("z_size"),
        "z_prior": card.get("z_prior"),
        "classes": card.get("classes"),
        "image": "x".join(map(str, shape)) if known else None,
        "range": image.get("range"),
        "discriminator": "D" in parts,
        "critic": card.get("critic") if "D" in parts else None,
        "parts": parts,
        "licence": card.get("licence"),
    }


def _names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_file() and p.suffix != ".png" and not p.name.startswith("."))


def _total(path: Path) -> int:
    return sum(p.stat().st_size for p in path.iterdir() if p.is_file())


def _tensors(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
        if length > min(_HEADER_LIMIT, size - 8):
            raise DamagedFileError(f"the safetensors header claims {length} bytes of {size}", where=f"{path}, offset 0")
        text = stream.read(length)
    try:
        header = json.loads(text)
        rows = {k: (list(v["shape"]), str(v["dtype"])) for k, v in header.items() if k != "__metadata__"}
        ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
        counts = [_product(shape) for shape, _ in rows.values()]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise DamagedFileError(f"the safetensors header cannot be read: {error}", where=f"{path}, offset 8") from None
    if max(ends, default=0) != size - 8 - length:
        raise DamagedFileError(
            f"the safetensors header promises {max(ends, default=0)} bytes of tensors, the file has {size - 8 - length}",
            where=str(path),
        )
    shown = dict(list(rows.items())[:_SHOWN])
    return {
        "tensors": len(rows),
        "parameters": sum(counts),
        "dtypes": sorted({dtype for _, dtype in rows.values()}),
        "largest": max(rows, key=lambda k: _product(rows[k][0]), default=None),
        "shapes": {k: f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}" for k, (shape, dtype) in shown.items()},
        "more": max(0, len(rows) - len(shown)) or None,
    }


def _product(shape: list[int]) -> int:
    out = 1
    for n in shape:
        out *= int(n)
    return out


def _zip(path: Path, size: int) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DamagedFileError(f"a damaged zip: {error}", where=str(path)) from None
    if names and all(n.endswith(".npy") for n in names):
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for name in names:
                try:
                    with archive.open(name) as stream:
                        arrays[name[:-4]] = _header(stream)
                except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                    raise DamagedFileError(f"{name} cannot be read: {error}", where=str(path)) from None
        kind = "latents" if {"z", "point"} & set(arrays) else "statistics" if {"mu", "sigma"} <= set(arrays) else "npz"
        return {"kind": kind, "path": str(path), "bytes": size, "arrays": arrays}
    if "dataset.json" not in names and (by_family := _family(path)) is not None:
        return by_family
    if any(n.endswith("data.pkl") for n in names):
        program = any("/code/" in n for n in names)
        way_out = "TorchScript is a program: only --trust-code runs it." if program else "See 'latentshift plugins'."
        raise FileError("a torch archive that no installed family recognises", where=str(path), way_out=way_out)
    if "dataset.json" in names:
        return {"kind": "image archive", "path": str(path), "bytes": size, "members": len(names)}
    raise FileError(f"a zip of {len(names)} members, of no kind that is known here", where=str(path))


def _npy(path: Path) -> str:
    with path.open("rb") as stream:
        try:
            return _header(stream)
        except ValueError as error:
            raise DamagedFileError(f"not a readable .npy: {error}", where=str(path)) from None


def _header(stream: Any) -> str:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    return f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}"
