"""`convert`: whatever can be loaded, as a pair folder, which gives the same bits in a fraction of the time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, registry
from ..errors import FileError, OutputError, RequestError
from .cache import SETTLED, known_sha256
from .names import local_path, need_family
from .write import output_errors, write_json, write_whole

if TYPE_CHECKING:
    from ..model import Pair

PARTS = ("G.safetensors", "D.safetensors", "grid.png")


def convert(
    reference: str,
    folder: str | Path,
    *,
    critic: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the pair of `reference` (a name, address, file or folder) to `folder` and return it.

    `critic` is D's file where it is another one; `options` are the family's own. Raises OutputError where `folder` holds
    something else, RequestError where the reference has no tensors of a known form, and what reading it raises.
    """
    folder = Path(folder)
    path, about = local_path(reference)
    if path is None:
        return from_pair(registry.get("models", reference.removeprefix("plugin:")).load(), folder, overwrite=overwrite)
    if (path / "card.json").is_file():
        if critic is not None or options:
            raise RequestError("a pair folder is copied as it is", where=str(path), way_out="Leave the options out.")
        return _copied(path, folder, overwrite)
    family = need_family(path)
    if not hasattr(family, "convert"):
        raise FileError("its model family does not convert", where=str(path), way_out="Its plug-in must have `convert`.")
    with_room(folder, overwrite)
    family.convert(path, folder, critic=critic, **dict(options or {}))
    card = json.loads((folder / "card.json").read_text("utf-8"))
    if card.get("source") == str(path):
        card["source"] = path.name
    files = [path] if path.is_file() else []
    origin = {"from": [p.name for p in files] or [path.name], "sha256": [known_sha256(p) for p in files]}
    write_json(folder / "card.json", {**card, **about, "converted": {**origin, "by": f"latentshift {__version__}"}})
    return settled(folder)


def from_pair(pair: Pair, folder: Path, *, overwrite: bool = False) -> Path:
    """Write a pair whose networks are layer lists; raises RequestError for other networks."""
    from ..layers import LayerNet
    from .folder import write_pair

    nets = {"G": pair.G, "D": pair.critic.call if pair.critic else None}
    for part, net in nets.items():
        if net is not None and not isinstance(net, LayerNet):
            raise RequestError(
                f"{part} of {pair.name!r} is {type(net).__name__}, which a pair folder cannot hold",
                way_out="Convert the file that it comes from.",
            )
    with_room(folder, overwrite)
    height, width = (pair.image_shape or (0, 0, 0))[-2:]
    card = {
        "name": pair.name,
        "source": pair.source,
        "z_size": pair.space.size,
        "z_prior": {"kind": pair.space.prior.kind},
        "classes": pair.classes,
        "image": {"channels": (pair.image_shape or (0,))[0], "height": height, "width": width, "range": list(pair.image_range)},
        **({"critic": {"returns": pair.critic.returns, "real_is": pair.critic.real_is}} if pair.critic else {}),
        **pair.card,
    }
    return settled(write_pair(folder, card, nets["G"], nets["D"]))  # type: ignore[arg-type]


def _copied(path: Path, folder: Path, overwrite: bool) -> Path:
    if folder.exists() and folder.samefile(path):
        raise OutputError("the folder to write is the folder to read", where=str(folder), way_out="Give another folder.")
    with_room(folder, overwrite)
    for name in PARTS:
        if (path / name).is_file():
            with (path / name).open("rb") as source:
                write_whole(folder / name, lambda stream, source=source: shutil.copyfileobj(source, stream))  # type: ignore[misc]
    text = (path / "card.json").read_bytes()
    write_whole(folder / "card.json", lambda stream: stream.write(text))
    return settled(folder)


def with_room(folder: Path, overwrite: bool) -> None:
    """Make `folder`, or raise OutputError where it is a file or holds something; `overwrite` takes a pair folder's place."""
    with output_errors(folder, full="Free some and run again.", denied="Give another folder."):
        if folder.exists() and not folder.is_dir():
            raise OutputError("the folder to write is a file", where=str(folder), way_out="Give another folder.")
        if folder.is_dir() and any(folder.iterdir()):
            is_pair = (folder / "card.json").is_file()
            if not (overwrite and is_pair):
                what = "this folder holds a pair" if is_pair else "this folder is not empty and holds no pair"
                way_out = "Give another folder, or --overwrite." if is_pair else "Give another folder."
                raise OutputError(what, where=str(folder), way_out=way_out)
            for name in (*PARTS, "card.json"):
                (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)


def settled(folder: Path) -> Path:
    """Return `folder` once the digests of its files are remembered, so that the first load need not compute them."""
    from .folder import folder_sha256

    time.sleep(1.2 * SETTLED / 1e9)
    folder_sha256(folder)
    return folder
