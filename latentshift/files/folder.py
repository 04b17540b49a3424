"""The pair folder: G.safetensors, D.safetensors (or only one), card.json. Read and written; nothing in it is code."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import DamagedFileError, FileError, LatentshiftError, RequestError
from ..layers import LayerNet, output_shape
from ..model import RETURNS, Critic, Pair
from ..space import Space, prior_of_card
from .cache import known_sha256
from .tensors import write_tensors
from .write import output_errors, write_json

_HEADER_LIMIT = 100 * 2**20


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file; raises DamagedFileError for a header that lies."""
    if not path.is_file():
        raise FileError(f"no file {path.name}", where=str(path.parent))
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
    if len(head) < 8:
        raise DamagedFileError(f"not a safetensors file: {size} bytes", where=str(path))
    if head.startswith((b"<", b"version ")):
        raise FileError("a web page or a git-LFS pointer, not a model", where=str(path), way_out="Download the file itself.")
    (length,) = struct.unpack("<Q", head)
    if length > min(_HEADER_LIMIT, size - 8):
        raise DamagedFileError(f"the safetensors header claims {length} bytes of {size}", where=f"{path}, offset 0")
    try:
        return load_file(str(path))
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise DamagedFileError(f"damaged safetensors file: {str(error).splitlines()[0]}", where=str(path)) from None


def read_card(folder: Path) -> dict[str, Any]:
    """Return a folder's card; raises FileError where there is none, DamagedFileError where it is no JSON object."""
    path = folder / "card.json"
    if not path.is_file():
        raise FileError(
            "not a pair folder: it has no card.json", where=str(folder), way_out="'latentshift convert' writes one."
        )
    if path.stat().st_size > 16 * 2**20:
        raise DamagedFileError("a card of more than 16 MB", where=str(path))
    try:
        card = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"the card is no JSON: {error}", where=str(path)) from None
    if not isinstance(card, dict):
        raise DamagedFileError("the card is no JSON object", where=str(path))
    if card.get("schema") != 1:
        raise FileError(f"a card of schema {card.get('schema')!r}; this version reads schema 1", where=str(path))
    return card


def _field(card: Mapping[str, Any], where: str, *path: str, kind: type | tuple[type, ...]) -> Any:
    value: Any = card
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            raise DamagedFileError(f"the card lacks {'.'.join(path)}", where=where)
        value = value[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise DamagedFileError(f"the card's {'.'.join(path)} is {value!r}", where=where)
    return value


def folder_sha256(folder: Path) -> str:
    """Return one hash of the networks' files and the card, in a fixed order."""
    total = hashlib.sha256()
    for name in ("G.safetensors", "D.safetensors", "card.json"):
        path = folder / name
        if path.is_file():
            total.update(name.encode() + b"\0" + bytes.fromhex(known_sha256(path)))
    return total.hexdigest()


def is_pair_folder(path: Path) -> bool:
    """Whether a path looks like a pair folder."""
    return path.is_dir() and ((path / "card.json").is_file() or (path / "G.safetensors").is_file())


def _network(card: Mapping[str, Any], folder: Path, part: str) -> LayerNet | None:
    path = folder / f"{part}.safetensors"
    if not path.exists():
        return None
    entries = _field(card, str(folder / "card.json"), "layers", part, kind=list)
    if len(entries) > 4096 or not all(isinstance(e, dict) for e in entries):
        raise DamagedFileError(f"layers.{part} is no list of at most 4096 entries", where=str(folder / "card.json"))
    where = f"{folder / 'card.json'} layers.{part}"
    return LayerNet(entries, where=where, meta=True).load(read_safetensors(path)).eval().requires_grad_(False)


def read_pair(folder: str | Path, options: Mapping[str, Any] | None = None) -> Pair:
    """Return the Pair of a folder. Raises FileError and its children with both values where card and tensors disagree.

    `options` are those of the family that the card names; a folder of layer lists takes none.
    """
    folder = Path(folder)
    card = read_card(folder)
    where = str(folder / "card.json")
    if "family" in card:
        from .. import registry

        family = registry.get("models", str(card["family"]))
        built: Pair = family.from_folder(folder, card, **dict(options or {}))
        return built
    if options:
        raise RequestError(f"a pair of layer lists takes no options ({', '.join(options)})", where=str(folder))
    z_size = _field(card, where, "z_size", kind=int)
    if not 0 < z_size <= 10**7:
        raise DamagedFileError(f"the card's z_size is {z_size}", where=where)
    classes = card.get("classes")
    if classes is not None and (not isinstance(classes, int) or not 0 < classes <= 10**7):
        raise DamagedFileError(f"the card's classes is {classes!r}", where=where)
    try:
        prior = prior_of_card(card.get("z_prior") or {"kind": "normal"})
    except (LatentshiftError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"the card's z_prior is {card.get('z_prior')!r}: {error}", where=where) from None
    shape = (
        tuple(_field(card, where, "image", name, kind=int) for name in ("channels", "height", "width"))
        if "image" in card
        else None
    )
    span = card.get("image", {}).get("range", [-1, 1]) if shape else [-1, 1]
    if not (isinstance(span, list) and len(span) == 2 and all(isinstance(v, int | float) for v in span) and span[0] < span[1]):
        raise DamagedFileError(f"the card's image.range is {span!r}", where=where)
    G, D = _network(card, folder, "G"), _network(card, folder, "D")
    if G is None:
        raise FileError(
            "no G.safetensors in this folder", where=str(folder), way_out="For a critic alone, use --critic FOLDER."
        )
    made = output_shape(G, (z_size,))
    if shape and made != shape:
        raise DamagedFileError(f"the card says images of {shape}, the layers of G make {made}", where=where)
    return Pair(
        G,
        _critic(card, where, D, made),
        Space("z", (z_size,), prior),
        name=str(card.get("name", folder.name)),
        source=str(folder),
        sha256=folder_sha256(folder),
        classes=classes,
        image_shape=made,
        image_range=(float(span[0]), float(span[1])),
        card=card,
    )


def _critic(card: Mapping[str, Any], where: str, D: LayerNet | None, image_shape: tuple[int, ...]) -> Critic | None:
    if D is None:
        return None
    if trunk := card.get("critic", {}).get("trunk"):
        return _on_trunk(card, str(trunk), D, image_shape)
    returns = _field(card, where, "critic", "returns", kind=str)
    real_is = card["critic"].get("real_is", "high")
    if returns not in RETURNS or real_is not in ("high", "low"):
        raise DamagedFileError(f"the card's critic is {card['critic']!r}", where=where)
    out = output_shape(D, image_shape)
    if int(np.prod(out)) != 1:
        raise DamagedFileError(f"D gives {out} for an image of {image_shape}, not one number", where=where)
    if returns == "probability" and D.entries[-1]["op"] == "Sigmoid":
        D, returns = D.without_last("Sigmoid"), "logit"
    return Critic(D, "D", returns, real_is, D.needs_label, calibrated=card["critic"].get("calibrated") is True)


def _on_trunk(card: Mapping[str, Any], name: str, head: LayerNet, image_shape: tuple[int, ...]) -> Critic:
    """Return a critic whose frozen network comes from a plug-in: the folder holds its head alone."""
    from .. import registry

    trunk = registry.get("trunks", name).build(max(image_shape[1:]), tuple(card["image"].get("range", (-1, 1))))
    return Critic(torch.nn.Sequential(trunk, head).eval().requires_grad_(False), "D", "critic")


def read_critic(folder: str | Path) -> Critic:
    """Return the critic of a pair folder (its G is not needed)."""
    folder = Path(folder)
    card = read_card(folder)
    D = _network(card, folder, "D")
    if D is None:
        raise FileError("no D.safetensors in this folder", where=str(folder))
    shape = tuple(_field(card, str(folder / "card.json"), "image", n, kind=int) for n in ("channels", "height", "width"))
    critic = _critic(card, str(folder / "card.json"), D, shape)
    assert critic is not None
    return critic


def write_pair(
    folder: str | Path,
    card: Mapping[str, Any],
    G: LayerNet | None = None,
    D: LayerNet | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write a pair folder: tensors under the names of the layer lists (float16 with `half`), the card with those lists."""
    folder = Path(folder)
    with output_errors(folder, full="Free some and run again.", denied="Give another folder."):
        folder.mkdir(parents=True, exist_ok=True)
    card = {"schema": 1, **card, "layers": dict(card.get("layers", {}))}
    for part, net in (("G", G), ("D", D)):
        if net is None:
            continue
        card["layers"][part] = [dict(e) for e in net.entries]
        tensors = {k: v.detach().cpu().contiguous() for k, v in net.tensors().items()}
        if half:
            tensors = {k: v.half() if v.dtype == torch.float32 else v for k, v in tensors.items()}
        write_tensors(folder / f"{part}.safetensors", tensors)
    write_json(folder / "card.json", card)
    return folder
