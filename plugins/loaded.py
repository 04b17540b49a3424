"""What a family plug-in found in files: networks with all that code cannot guess, ready to become a Pair or a pair folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from latentshift.errors import DamagedFileError, FileError, LatentshiftError, RequestError
from latentshift.files.checkpoint import FileContents, read_tensors
from latentshift.files.folder import folder_sha256, read_safetensors, write_pair
from latentshift.files.tensors import write_tensors
from latentshift.files.write import output_errors, write_json
from latentshift.layers import LayerNet
from latentshift.model import Critic, Pair
from latentshift.space import Space, prior_of_card


@dataclass(frozen=True)
class Loaded:
    """A generator, its discriminator where there is one, and the facts of both.

    `family` is the plug-in's registered name. `image` is (channels, height, width), `image_range` what the generator gives.
    `returns` says what D's last layer gives (`logit`, `critic`, `least-squares`), higher for more real. `prior` has the form
    of a card's `z_prior`. `config` rebuilds networks that are no layer lists.
    """

    family: str
    G: nn.Module
    D: nn.Module | None
    z_size: int
    image: tuple[int, int, int]
    prior: Mapping[str, Any] = field(default_factory=lambda: {"kind": "normal"})
    classes: int | None = None
    d_classes: int | None = None
    image_range: tuple[float, float] = (-1.0, 1.0)
    returns: str = "logit"
    loss: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layered(self) -> bool:
        """Whether both networks are layer lists, so that any reader of pair folders can rebuild them."""
        return isinstance(self.G, LayerNet) and (self.D is None or isinstance(self.D, LayerNet))

    def card(self, name: str = "") -> dict[str, Any]:
        """Return the card of a pair folder."""
        channels, height, width = self.image
        form: dict[str, Any] = {"family": self.family, "config": dict(self.config)}
        if self.layered:
            nets = {"G": self.G} | ({"D": self.D} if self.D is not None else {})
            form = {"layers": {part: [dict(e) for e in net.entries] for part, net in nets.items()}}  # type: ignore[union-attr]
        return {
            "schema": 1,
            **({"name": name} if name else {}),
            "source": self.source,
            "loss": self.loss,
            **form,
            "z_size": self.z_size,
            "z_prior": dict(self.prior),
            "classes": self.classes,
            "image": {"channels": channels, "height": height, "width": width, "range": list(self.image_range)},
            **({"critic": {"returns": self.returns, "real_is": "high"}} if self.D is not None else {}),
            "notes": list(self.notes),
        }

    def details(self) -> dict[str, Any]:
        """Return what `latentshift inspect` shows beyond what all families have."""
        return {}

    def with_notes(self, *notes: str) -> Loaded:
        """Return this with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def pair(self, *, name: str, source: str = "", sha256: str = "", card: Mapping[str, Any] | None = None) -> Pair:
        """Return the Pair; without a discriminator it has no critic, and what needs one says so."""
        critic = None
        if self.D is not None:
            features = getattr(self.D, "features", None)
            critic = Critic(self.D, "D", self.returns, "high", bool(self.d_classes), True, features)
        return Pair(
            self.G,
            critic,
            Space("z", (self.z_size,), prior_of_card(dict(self.prior))),
            name=name,
            source=source,
            sha256=sha256,
            classes=self.classes,
            image_shape=self.image,
            image_range=self.image_range,
            card=dict(card) if card is not None else self.card(name),
        )

    def write(self, folder: str | Path, name: str = "") -> Path:
        """Write a pair folder: G.safetensors, D.safetensors where there is one, card.json."""
        folder = Path(folder)
        card = self.card(name or folder.name)
        if self.layered:
            assert isinstance(self.G, LayerNet)
            assert self.D is None or isinstance(self.D, LayerNet)
            return write_pair(folder, card, self.G, self.D)
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for part, net in (("G", self.G), ("D", self.D)):
            if net is not None:
                write_tensors(folder / f"{part}.safetensors", net.state_dict())
        write_json(folder / "card.json", card)
        return folder


def check_fit(family: str, g_size: int, d_size: int | None, g_classes: int | None, d_classes: int | None) -> None:
    """Raise RequestError where a discriminator is not for this generator's images or labels (`d_size` None: any size)."""
    if d_size is not None and d_size != g_size:
        what = f"{family}: G makes images of {g_size} px, D is for {d_size} px"
        raise RequestError(what, way_out="Give the D of the same run.")
    if g_classes != d_classes:
        told = [f"{who} has {'no classes' if n is None else f'{n} classes'}" for who, n in (("G", g_classes), ("D", d_classes))]
        raise RequestError(f"{family}: {' and '.join(told)}", way_out="Give the D of the same run.")


_PEEKED: list[FileContents] = []  # the file that families were shown last: whoever reads it next takes it over


def _same(contents: FileContents, path: Path) -> bool:
    return contents.path == path and path.is_file() and contents.size == path.stat().st_size


def peek(path: Path) -> Any:
    """Return the tree of a file, read once for all families that are asked about it.

    Raises FileError and its children for a file that cannot be used.
    """
    if not any(_same(contents, path) for contents in _PEEKED):
        _PEEKED[:] = [read_tensors(path)]
    return _PEEKED[0].tree


class Files:
    """Reads files through the safe reader, remembers them for the pair's hash and keeps what the reader noticed."""

    def __init__(self) -> None:
        self.contents: dict[Path, FileContents] = {}
        self.peeked = _PEEKED.copy()
        _PEEKED.clear()  # a large file must not stay in memory behind the networks made of it

    def __call__(self, path: Path) -> Mapping[str, Any]:
        if path not in self.contents:
            peeked = next((contents for contents in self.peeked if _same(contents, path)), None)
            self.contents[path] = peeked or read_tensors(path)
        tree = self.contents[path].tree
        if not isinstance(tree, Mapping):
            raise FileError(f"holds {type(tree).__name__}, not named tensors", where=str(path), way_out="Give a state dict.")
        return tree

    @property
    def notes(self) -> list[str]:
        """What the reader noticed, with the file's name."""
        return [f"{path.name}: {note}" for path, read in self.contents.items() for note in read.notes]

    def sha256(self) -> str:
        """The hash of the one file, or one hash of all files' hashes in the order of reading."""
        hashes = [read.sha256 for read in self.contents.values()]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


Rebuild = Callable[[Mapping[str, Any], Mapping[str, Tensor], Mapping[str, Tensor] | None], Loaded]


def from_folder(folder: Path, card: Mapping[str, Any], rebuild: Rebuild) -> Pair:
    """Return the Pair of a pair folder whose card names a family; `rebuild` makes the networks of its `config`.

    Raises FileError where G is missing, DamagedFileError where the card contradicts itself or its tensors.
    """
    where = str(folder / "card.json")
    if not (folder / "G.safetensors").is_file():
        way_out = "For a critic alone, use --critic FOLDER."
        raise FileError("no G.safetensors in this folder", where=str(folder), way_out=way_out)
    config = card.get("config")
    if not isinstance(config, Mapping):
        raise DamagedFileError("the card names a family and has no config", where=where)
    D = read_safetensors(folder / "D.safetensors") if (folder / "D.safetensors").is_file() else None
    try:
        made = rebuild(config, read_safetensors(folder / "G.safetensors"), D)
        critic = card.get("critic") or {}
        made = replace(
            made,
            image_range=tuple(card["image"]["range"]),
            prior=card.get("z_prior") or {"kind": "normal"},
            returns=critic.get("returns", "logit"),
            loss=str(card.get("loss", "")),
        )
        told = (card["z_size"], card.get("classes"), tuple(card["image"][k] for k in ("channels", "height", "width")))
        if told != (found := (made.z_size, made.classes, made.image)):
            raise DamagedFileError(f"the card says z_size, classes, image {told}; its config makes {found}", where=where)
        return made.pair(name=str(card.get("name", folder.name)), source=str(folder), sha256=folder_sha256(folder), card=card)
    except LatentshiftError as error:
        if isinstance(error, FileError):
            raise
        raise DamagedFileError(f"the card cannot be used: {error.what}", where=where) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise DamagedFileError(f"the card's config cannot be used: {type(error).__name__} {error}", where=where) from None
