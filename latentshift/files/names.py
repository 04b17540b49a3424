"""From a reference to a pair: one resolver everywhere.

A reference is a known name (`latentshift models`), an address or a place on the hub (fetched into the cache), a path (a pair
folder, or a file of a family that a plug-in reads), or `plugin:NAME`. Things registered under `latentshift.models` are either
pairs (`line`, `card()`, `load()`) or families of files (`line`, `sniff(path)`, `read(path)`).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..errors import FileError, RequestError, UnknownNameError

if TYPE_CHECKING:
    from ..model import Critic, Pair

DEFAULT_MODEL = "fashion32"


@dataclass(frozen=True)
class BundledPair:
    """A pair folder inside a package."""

    name: str
    line: str
    package: str = "latentshift"
    kind: str = "pair"

    @property
    def folder(self) -> Path:
        """Where the folder lies."""
        return Path(str(importlib.resources.files(self.package))) / "data" / self.name

    def card(self) -> dict[str, Any]:
        """Return the folder's card; no network is built, torch is not imported."""
        card: dict[str, Any] = json.loads((self.folder / "card.json").read_text("utf-8"))
        return card

    def load(self) -> Pair:
        """Return the pair."""
        from .folder import read_pair

        return read_pair(self.folder)


FASHION32 = BundledPair("fashion32", "Fashion-MNIST garments, 1x32x32, with an honest D that can be climbed (bundled, default)")
FASHION32_SN = BundledPair("fashion32-sn", "the same G with the D that it was trained with: hinge, spectral norm (bundled)")
RING = BundledPair("ring", "eight Gaussians on a ring, 2-D latent and 2-D points (bundled, paper 000 H.1)")
GRID = BundledPair("grid", "twenty-five Gaussians on a grid, 2-D latent and 2-D points (bundled, paper 000 H.1)")

ALIASES = {
    "stylegan2-afhq": "stylegan2-afhqcat",
    "afhq": "stylegan2-afhqcat",
    **{name: f"stylegan2-{name}" for name in ("ffhq", "ffhq256", "ffhq512", "ffhq1024", "metfaces", "cifar10", "brecahad")},
    **{name: f"stylegan2-{name}" for name in ("afhqcat", "afhqdog", "afhqwild", "celebahq256", "lsundog256")},
}
_TENSORFLOW = ("car", "cat", "church", "horse")  # published for TensorFlow alone


def resolve(reference: str, *, critic: Path | None = None, options: Mapping[str, Any] | None = None) -> Pair:
    """Return the pair of a reference. Raises UnknownNameError with near matches, FileError for what cannot be read.

    `critic` is the file of D where it is another one; `options` are those of the model's family.
    """
    path, about = local_path(reference)
    if path is not None:
        pair = read_path(path, critic=critic, options=options)
        return pair.replaced(**{k: about[k] for k in ("name", "source") if k in about})
    refuse_options(options, reference)
    made: Pair = registry.get("models", ALIASES.get(reference, reference).removeprefix("plugin:")).load()
    return made


def local_path(reference: str) -> tuple[Path | None, dict[str, Any]]:
    """Return where a reference lies on this machine (fetched where it must be), and what is known about it beside.

    The path is None for a pair that a plug-in makes without a file. Raises UnknownNameError with near matches.
    """
    name = ALIASES.get(reference, reference).removeprefix("plugin:")
    if name in registry.names("models"):
        thing = registry.get("models", name)
        if getattr(thing, "kind", "pair") == "pair":
            if hasattr(thing, "fetched"):
                return thing.fetched(), {"name": name, "source": thing.url, "licence": thing.licence}
            folder = getattr(thing, "folder", None)
            return (folder if isinstance(folder, Path) else None), {}
    path = Path(reference).expanduser()
    if path.exists():
        return path, {}
    from .hub import fetch_hub, is_hub, only_file

    if is_hub(reference):
        return only_file(fetch_hub(reference), reference), {"source": reference}
    if reference.startswith(("http://", "https://")):
        from .fetch import fetch

        return fetch(reference), {"source": reference}
    if looks_like_a_path(reference):
        raise FileError("no such file or folder", where=reference, way_out="Check the path; 'latentshift models' lists names.")
    if reference.removeprefix("stylegan2-") in _TENSORFLOW:
        way_out = "Convert it with the publisher's legacy.py, and give the file that it writes."
        raise RequestError(f"{reference!r} was published for TensorFlow, which is not read here", way_out=way_out)
    raise UnknownNameError("model", reference, pair_names(), way_out="'latentshift models' lists all; a path works too.")


def refuse_options(options: Mapping[str, Any] | None, what: str) -> None:
    """Raise RequestError where options of a family were given to a model that has none."""
    if options:
        known = ", ".join(options)
        raise RequestError(f"this model takes no such options ({known})", where=what, way_out="Leave them out.")


def looks_like_a_path(reference: str) -> bool:
    """Whether a reference that names nothing known was meant as a path."""
    return "/" in reference or "\\" in reference or reference.startswith((".", "~")) or bool(Path(reference).suffix)


def pair_names() -> list[str]:
    """Return the names that `resolve` knows."""
    found = registry.everything("models")[0]
    return [n for n, thing in found.items() if getattr(thing, "kind", "pair") == "pair"]


def _families() -> list[Any]:
    return [t for t in registry.everything("models")[0].values() if getattr(t, "kind", "pair") == "family"]


def family_of(path: Path) -> Any | None:
    """Return the family that recognises a file or folder, None where none does.

    Raises FileError where the file cannot be read by any of them, with the first reason.
    """
    refusal: FileError | None = None
    for family in _families():
        try:
            if family.sniff(path):
                return family
        except FileError as error:  # another family may read another format; the reason is kept
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return None


def read_critic_path(path: Path) -> Critic:
    """Return the critic in a pair folder, or the discriminator in a file of a family.

    Raises FileError where there is none that is known.
    """
    from .folder import is_pair_folder, read_critic

    if is_pair_folder(path):
        return read_critic(path)
    family = family_of(path)
    if family is None or not hasattr(family, "read_critic"):
        raise FileError("no discriminator of a known family in this file", where=str(path), way_out="Give a pair folder.")
    critic: Critic = family.read_critic(path)
    return critic


def read_path(path: Path, *, critic: Path | None = None, options: Mapping[str, Any] | None = None) -> Pair:
    """Return the pair of a folder or file: a pair folder, else the first family that recognises it.

    `critic` is D's own file, read with G by the same family; `options` are that family's.
    """
    from .folder import is_pair_folder, read_pair

    if is_pair_folder(path):
        return read_pair(path, options)
    own = {"critic": critic} if critic is not None else {}
    pair: Pair = need_family(path).read(path, **own, **dict(options or {}))
    return pair


def need_family(path: Path) -> Any:
    """Return the family that recognises a file or folder, or raise FileError with what is known about it."""
    family = family_of(path)
    if family is not None:
        return family
    for other in _families():
        if path.is_file() and getattr(other, "explains", False):
            other.read(path)
    if path.is_dir():
        raise FileError(
            "not a pair folder: it has no card.json",
            where=str(path),
            way_out="See 'the pair folder' in the docs, or give a file.",
        )
    raise FileError(
        "no installed model family recognises this file", where=str(path), way_out="'latentshift plugins' lists them."
    )
