"""From a file of tensors to a pair, and to a pair folder and back. Files come from strangers: nothing in them is run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from latentshift.errors import DamagedFileError, RequestError
from latentshift.files.checkpoint import read_tensors
from latentshift.files.folder import folder_sha256, read_safetensors
from latentshift.files.tensors import write_tensors
from latentshift.files.write import write_json
from latentshift.model import Critic, Pair
from latentshift.space import Space

from .networks import Judge, Painter, Sizes

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class File:
    """What a file holds: the two state dicts, the sizes that their shapes tell, and where it came from."""

    path: Path
    sha256: str
    sizes: Sizes
    painter: Tensors
    judge: Tensors | None


def is_ours(path: Path) -> bool:
    """Return whether a file has the names of a tile GAN."""
    tree = read_tensors(path).tree if path.is_file() else None
    return isinstance(tree, dict) and {"painter.plan.weight", "painter.brush.weight"} <= set(tree)


def read_file(path: Path) -> File:
    """Return the contents of a file; raises FileError and its children where it cannot be used."""
    contents = read_tensors(path)
    tree: Tensors = contents.tree
    painter = {k.removeprefix("painter."): v for k, v in tree.items() if k.startswith("painter.")}
    judge = {k.removeprefix("judge."): v for k, v in tree.items() if k.startswith("judge.")}
    return File(path, contents.sha256, sizes_of(painter, str(path)), painter, judge or None)


def sizes_of(painter: Tensors, where: str) -> Sizes:
    """Return the sizes that the painter's shapes tell; raises DamagedFileError where they contradict each other."""
    plan, brush = (tuple(painter[k].shape) if k in painter else () for k in ("plan.weight", "brush.weight"))
    if len(plan) != 2 or len(brush) != 4 or not brush[1]:
        raise DamagedFileError(f"a painter with a plan of {plan} and a brush of {brush}", where=where)
    tile = math.isqrt(plan[0] // brush[1])
    if tile < 1 or tile**2 * brush[1] != plan[0]:
        raise DamagedFileError(f"a plan of {plan[0]} numbers is no square tile of {brush[1]} channels", where=where)
    return Sizes(plan[1], brush[1], tile)


def filled(net: torch.nn.Module, tensors: Tensors, where: str) -> Any:
    """Return a network with the tensors of a file, frozen; names and shapes must agree."""
    for name, want in net.state_dict().items():
        have = tensors.get(name)
        if have is None or have.shape != want.shape:
            shape = "missing" if have is None else tuple(have.shape)
            raise DamagedFileError(f"the tensor {name!r} is {shape}, not {tuple(want.shape)}", where=where)
    net.load_state_dict({k: v.float() for k, v in tensors.items()})
    return net.eval().requires_grad_(False)


def critic_of(file: File) -> Critic:
    """Return a file's judge. Raises RequestError where it has none."""
    if file.judge is None:
        raise RequestError("no judge in this file", where=str(file.path), way_out="Give the file of a whole tile GAN.")
    judge = filled(Judge(file.sizes), file.judge, str(file.path))
    return Critic(judge, "judge", "logit", features_call=judge.features)


def pair_of(file: File, other: File | None = None, *, repeats: int = 2) -> Pair:
    """Return the pair of a file, with the judge of another one where it is given."""
    if not 1 <= repeats <= 64:
        raise RequestError(f"a tile is repeated 1 to 64 times, not {repeats}")
    sizes = replace(file.sizes, repeats=repeats)
    source = other or file
    critic = critic_of(source) if other is not None or file.judge is not None else None
    return made(filled(Painter(sizes), file.painter, str(file.path)), critic, file.path.stem, str(file.path), file.sha256)


def made(painter: Painter, critic: Critic | None, name: str, source: str, sha256: str) -> Pair:
    """Return the Pair: everything that code cannot guess is said here."""
    side = painter.sizes.side
    space = Space("z", (painter.sizes.z,))  # a standard normal prior
    return Pair(painter, critic, space, name=name, source=source, sha256=sha256, image_shape=(3, side, side))


def write_folder(pair: Pair, folder: Path) -> Path:
    """Write a pair folder: a card that names the family and its config, tensors in safetensors."""
    sizes = pair.G.sizes  # type: ignore[attr-defined]
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "G.safetensors", pair.G.state_dict())  # type: ignore[attr-defined]
    card: dict[str, Any] = {
        "schema": 1,
        "name": pair.name,
        "family": "tilegan",
        "config": {"z": sizes.z, "width": sizes.width, "tile": sizes.tile, "repeats": sizes.repeats},
        "z_size": sizes.z,
        "z_prior": {"kind": "normal"},
        "classes": None,
        "image": {"channels": 3, "height": sizes.side, "width": sizes.side, "range": [-1, 1]},
    }
    if pair.critic is not None:
        write_tensors(folder / "D.safetensors", pair.critic.call.state_dict())  # type: ignore[attr-defined]
        card["critic"] = {"returns": "logit", "real_is": "high"}
    write_json(folder / "card.json", card)
    return folder


def from_folder(folder: Path, card: dict[str, Any]) -> Pair:
    """Return the pair of a folder that `write_folder` wrote."""
    where = str(folder / "card.json")
    try:
        sizes = Sizes(**{k: int(v) for k, v in card["config"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"the card's config cannot be used: {error}", where=where) from None
    tensors = read_safetensors(folder / "G.safetensors")
    if replace(sizes_of(tensors, where), repeats=sizes.repeats) != sizes:
        raise DamagedFileError(f"the card says {sizes}, the tensors {sizes_of(tensors, where)}", where=where)
    critic = None
    if (folder / "D.safetensors").is_file():
        judge = filled(Judge(sizes), read_safetensors(folder / "D.safetensors"), where)
        critic = Critic(judge, "judge", "logit", features_call=judge.features)
    name = str(card.get("name", folder.name))
    return made(filled(Painter(sizes), tensors, where), critic, name, str(folder), folder_sha256(folder))
