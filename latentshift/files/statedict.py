"""From what a checkpoint holds to plain state dicts of networks: nests, prefixes, copies, and normalised weights.

    found = unwrap(tree)                    # nested dicts of tensors, as a reader gives them
    G, notes = bake(found.generator().tensors)

`unwrap` says which parts it found and why it took or left them; `bake` multiplies every known form of spectral norm and
weight norm into plain weights, so that networks need no normalising layers. Both are pure: inputs are not changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..errors import FileError
from .normalised import Tensors, as_float, bake, bake_spectral_norm

__all__ = [
    "Part",
    "Tensors",
    "Unwrapped",
    "as_float",
    "bake",
    "bake_spectral_norm",
    "describe_unknown",
    "is_optimizer",
    "read_name",
    "unwrap",
]

Role = Literal["G", "D", ""]

_DEPTH = 8  # nests deeper than this hold no network that anyone saves

# Names under which people nest networks. Compared in lower case, without '_', '-' and the endings of _ENDINGS.
_G_NAMES = {"g", "netg", "gen", "generator", "modelg", "gnet"}
_D_NAMES = {"d", "netd", "dis", "disc", "discriminator", "modeld", "dnet", "critic"}
_ENDINGS = ("statedict", "weights", "params", "model", "state")
_EMA_MARKS = ("ema", "average", "averaged", "avg")
_SKIP_MARKS = ("optim", "sched", "scaler", "opt")
# A prefix of all keys that only says how the network was wrapped.
_WRAPPERS = ("module.", "_orig_mod.", "ema_model.", "model.", "state_dict.")


@dataclass(frozen=True)
class Part:
    """One network's tensors. `role` is empty where the names do not tell; `path` is the nest that held it."""

    tensors: Tensors
    role: Role = ""
    ema: bool = False
    path: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unwrapped:
    """All parts of a file in order, what was left out, and what was noticed."""

    parts: tuple[Part, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def generator(self) -> Part | None:
        """Return the generator: its averaged copy where there is one. None where no part is named as one."""
        named = [p for p in self.parts if p.role == "G"]
        return next((p for p in named if p.ema), named[0] if named else None)

    def discriminator(self) -> Part | None:
        """Return the discriminator, never an averaged copy unless there is no other."""
        named = [p for p in self.parts if p.role == "D"]
        return next((p for p in named if not p.ema), named[0] if named else None)

    def unnamed(self) -> tuple[Part, ...]:
        """Return the parts whose names do not tell what they are."""
        return tuple(p for p in self.parts if not p.role)


def _words(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def read_name(name: str) -> tuple[Role, bool]:
    """Return the role that a nest's name tells, and whether it is an averaged copy.

    >>> read_name("g_ema"), read_name("discriminator_state_dict"), read_name("model_state_dict")
    (('G', True), ('D', False), ('', False))
    """
    words = _words(name)
    ema = False
    changed = True
    while changed:
        changed = False
        for ending in (*_ENDINGS, *_EMA_MARKS):
            is_ema = ending in _EMA_MARKS
            if words.endswith(ending) and words != ending:
                words, ema, changed = words[: -len(ending)], ema or is_ema, True
            elif is_ema and words.startswith(ending) and words != ending:
                words, ema, changed = words[len(ending) :], True, True
    if words in _EMA_MARKS:
        return "", True
    role: Role = "G" if words in _G_NAMES else "D" if words in _D_NAMES else ""
    return role, ema


def is_optimizer(tree: Mapping[str, Any]) -> bool:
    """Return whether this dict is an optimizer's state."""
    return "state" in tree and "param_groups" in tree


def _skipped(name: str) -> bool:
    words = _words(name)
    return any(words.startswith(mark) or words.endswith(mark) for mark in _SKIP_MARKS)


def _split_roles(tensors: Tensors) -> list[tuple[str, Role, bool, Tensors]]:
    """Split `generator.x`, `discriminator.y` in one flat dict (a training module saved whole) by their first names."""
    groups: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        head, _, rest = key.partition(".")
        groups.setdefault(head if rest else "", {})[rest or key] = tensor
    named = {head: (*read_name(head), found) for head, found in groups.items() if head}
    if {role for role, _, _ in named.values()} >= {"G", "D"} or (len(groups) == 1 and any(r for r, _, _ in named.values())):
        return [(head, role, ema, found) for head, (role, ema, found) in named.items() if role]
    return []


def _strip(tensors: Tensors) -> tuple[Tensors, list[str]]:
    notes: list[str] = []
    while True:
        counter = [k for k in tensors if k == "n_averaged"]
        if counter:
            tensors = {k: v for k, v in tensors.items() if k != "n_averaged"}
            notes.append("left out 'n_averaged', a counter of weight averaging")
        prefix = next((p for p in _WRAPPERS if tensors and all(k.startswith(p) for k in tensors)), None)
        if prefix is None:
            return tensors, notes
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
        notes.append(f"took the prefix {prefix!r} off all keys")


def _walk(tree: Mapping[str, Any], path: str, role: Role, ema: bool, parts: list[Part], skipped: list[str], depth: int) -> None:
    if is_optimizer(tree):
        skipped.append(f"{path or 'the file'}: an optimizer's state, no weights")
        return
    direct = {str(k): v for k, v in tree.items() if isinstance(v, Tensor)}
    nests = {str(k): v for k, v in tree.items() if isinstance(v, Mapping) and v}
    if direct and not any(read_name(k)[0] for k in nests):
        if "n_averaged" in direct:
            ema = True
        stripped, notes = _strip(direct)
        split = _split_roles(stripped)
        for head, part_role, part_ema, tensors in split:
            plain, more = _strip(tensors)
            where = f"{path}.{head}" if path else head
            parts.append(Part(plain, part_role, part_ema or ema, where, (*notes, f"split off {head!r} by its name", *more)))
        if not split:
            parts.append(Part(stripped, role, ema, path, tuple(notes)))
        return
    for name, nest in nests.items():
        where = f"{path}.{name}" if path else name
        if _skipped(name):
            skipped.append(f"{where}: training state")
        elif depth >= _DEPTH:
            skipped.append(f"{where}: nested deeper than {_DEPTH}")
        else:
            child_role, child_ema = read_name(name)
            _walk(nest, where, child_role or role, child_ema or ema, parts, skipped, depth + 1)


def unwrap(tree: Mapping[str, Any], *, where: str = "") -> Unwrapped:
    """Return the networks' state dicts inside nested dicts of tensors.

    Known nests (`net_G`, `g_ema`, `generator`, `model_state_dict`, ...) name the parts; `module.` and other prefixes common
    to all keys are taken off; optimizer and scheduler states are left out. Every step is noted. Tensors are not copied.
    Raises FileError where there are no weights at all, saying what the file is instead.
    """
    parts: list[Part] = []
    skipped: list[str] = []
    _walk(tree, "", "", False, parts, skipped, 0)
    if not parts:
        if is_optimizer(tree):
            text, way_out = "an optimizer's state, no weights", "Give the network's file beside it (without '_optim')."
        elif {"itr", "config", "save_num"} <= set(tree):
            text, way_out = "a BigGAN-PyTorch run's settings, no weights", "Give its folder, or G_ema.pth beside it."
        else:
            keys = ", ".join(list(map(str, tree))[:10]) or "nothing"
            text, way_out = f"holds no tensors of a network (top level: {keys})", "Give a state dict."
        raise FileError(text, where=where, way_out=way_out)
    notes = []
    if len([p for p in parts if p.role == "G"]) > 1:
        names = ", ".join(repr(p.path) for p in parts if p.role == "G")
        notes.append(f"several generators ({names}): an averaged copy goes before the others")
    return Unwrapped(tuple(parts), tuple(skipped), tuple(notes))


def describe_unknown(tensors: Mapping[str, Tensor], near: Iterable[str] = (), limit: int = 10) -> str:
    """Return what an error text needs of a state dict that no family knows: sizes and the first keys with their shapes."""
    size = sum(math.prod(t.shape) for t in tensors.values())
    keys = "; ".join(f"{k} {tuple(t.shape)}" for k, t in list(tensors.items())[:limit])
    text = f"{len(tensors)} tensors, {size:,} numbers; first keys: {keys}"
    return "; ".join([text, *near])
