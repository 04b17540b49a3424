"""Weights of a file for modules that somebody else's code makes (`--factory`): found by names and shapes, loaded whole.

A file may hold one network or several, nested, wrapped, averaged, with either form of spectral norm; the module may have its
norms in either form, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import FileError
from .checkpoint import read_tensors
from .statedict import Part, Role, Unwrapped, bake, describe_unknown, unwrap

_COUNTER = "num_batches_tracked"


def read_parts(path: Path) -> Unwrapped:
    """Return the networks' tensors in a checkpoint of any kind. Nothing in it is run. Raises FileError and its children."""
    tree = read_tensors(path).tree
    if not isinstance(tree, Mapping):
        raise FileError(f"holds {type(tree).__name__}, not named tensors", where=str(path), way_out="Give a state dict.")
    return unwrap(tree, where=str(path))


def load_weights(module: nn.Module, found: Unwrapped, role: Role, where: str) -> tuple[str, ...]:
    """Load the part of a file that fits `module`, in place, and return notes on what was taken.

    Parts that are named for `role` come first (averaged copies for G, never for D where there is another), unnamed ones next.
    Raises FileError (status 4) where none fits, with the first key that is missing, left over or of another shape.
    """
    plain: nn.Module | None = None
    reasons = []
    for part in _ordered(found, role):
        reason = _difference(module.state_dict(), part.tensors)
        if not reason:
            module.load_state_dict(_only(module, part.tensors), strict=False)
            return _notes(role, part)
        baked, notes = bake(part.tensors)
        plain = plain or without_norms(module)
        why = _difference(plain.state_dict(), baked)
        if not why:
            plain.load_state_dict(_only(plain, baked), strict=False)
            return (*_notes(role, part), *(f"{role}: {n}" for n in notes))
        reasons.append((part, why))
    if not reasons:
        raise FileError(
            f"no {role} in this file", where=where, way_out="Give the file of D with --critic." if role == "D" else ""
        )
    part, why = reasons[0]
    raise FileError(
        f"the weights are not those of the {role} that the factory makes: {why} ({describe_unknown(part.tensors, limit=3)})",
        where=where,
        way_out="Make the network with the sizes it was trained with.",
    )


def _ordered(found: Unwrapped, role: Role) -> list[Part]:
    named = sorted((p for p in found.parts if p.role == role), key=lambda p: p.ema != (role == "G"))
    return [*named, *found.unnamed()]


def _notes(role: Role, part: Part) -> tuple[str, ...]:
    named = f"{role} is {part.path!r}" + (", an averaged copy" if part.ema else "")
    return ((named,) if part.path else ()) + part.notes


def _only(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {k: tensors[k] for k in module.state_dict() if k in tensors}


def _difference(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    for key, want in mine.items():
        if key not in theirs and not key.endswith(_COUNTER):
            return f"{key!r} is missing"
        if key in theirs and theirs[key].shape != want.shape:
            return f"{key!r} is {tuple(theirs[key].shape)} in the file and {tuple(want.shape)} in the network"
    left = next((k for k in theirs if k not in mine and not k.endswith(_COUNTER)), None)
    return f"{left!r} belongs to no layer" if left is not None else ""


def without_norms(module: nn.Module) -> nn.Module:
    """Take torch's own spectral and weight norms out of a module, in place: its weights become plain parameters."""
    from torch.nn.utils import parametrize

    for sub in module.modules():
        if parametrize.is_parametrized(sub):
            for name in list(sub.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(sub, name, leave_parametrized=True)
        for key, hook in list(sub._forward_pre_hooks.items()):
            if type(hook).__name__ in ("SpectralNorm", "WeightNorm") and hasattr(hook, "remove"):
                hook.remove(sub)
                del sub._forward_pre_hooks[key]
                for old in [k for k, h in sub._state_dict_hooks.items() if "spectral" in type(h).__name__.lower()]:
                    del sub._state_dict_hooks[old]
                for old in [k for k, h in sub._load_state_dict_pre_hooks.items() if "SpectralNorm" in repr(h)]:
                    del sub._load_state_dict_pre_hooks[old]
    return module
