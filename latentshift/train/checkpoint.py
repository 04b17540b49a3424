"""A training run on the disk: all that a resume needs, written whole; another run's checkpoint is refused by what changed."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DamagedFileError, UsageError
from ..files.write import write_whole

if TYPE_CHECKING:
    from .loop import Trainer

#: the slots of a Trainer whose pieces a checkpoint must agree on
SLOTS = ("augment", "latent_shift", "image_shift", "g_shift", "partner", "assistant")


def state_of(t: Trainer) -> dict[str, Any]:
    """Return weights, averages, optimisers, random state, step and log."""
    return {
        "G": t.G.state_dict(),
        "D": t.D.state_dict(),
        "classifier": t.classifier.state_dict() if t.classifier else {},
        "average": t.average.net.state_dict(),
        "average_d": t.average_d.net.state_dict() if t.average_d else {},
        "opt_g": t.opt_g.state_dict(),
        "opt_d": t.opt_d.state_dict(),
        "generator": t.generator.get_state(),
        "step": t.step,
        "made_of": json.dumps(made_of(t)),
        "log": json.dumps(t.log),
    }


def made_of(t: Trainer) -> dict[str, Any]:
    """Return what a checkpoint must agree on, as plain values: settings, pieces, layers."""
    return {
        **asdict(t.settings),
        "betas": list(t.settings.betas),
        **{name: [told(p) for p in getattr(t, name)] for name in ("penalties", "terms", "after_d")},
        **{name: told(getattr(t, name)) for name in SLOTS},
        "heads of D": t.heads,
        "layers of G": list(t.G.entries),
        "layers of D": list(t.D.entries),
        "layers of the classifier": list(t.classifier.entries) if t.classifier else None,
    }


def told(piece: Any) -> str | None:
    """Return a piece in words that are the same in every process: its options, or a function's name."""
    if piece is None or dataclasses.is_dataclass(piece):
        return None if piece is None else repr(piece)
    name = getattr(piece, "__qualname__", type(piece).__qualname__)
    return f"{getattr(piece, '__module__', '')}.{name}"


def save(t: Trainer, path: Path) -> None:
    """Write all that a resume needs, whole or not at all."""
    stream = io.BytesIO()
    torch.save(state_of(t), stream)
    # in one piece: torch turns the refusal of a full disk into a text about its own archive
    write_whole(path, lambda out: out.write(stream.getbuffer()))


def restore(t: Trainer, path: Path) -> None:
    """Take up the state of `save`; refuses a checkpoint of another run and names what changed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = json.loads(state["made_of"])
        log = json.loads(state["log"])
        missing = [k for k in state_of(t) if k not in state]
    except Exception as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedFileError(f"not a training checkpoint: {text}", where=str(path)) from None
    if missing:
        raise DamagedFileError(f"a training checkpoint without {missing[0]!r}", where=str(path))
    mine = json.loads(json.dumps(made_of(t)))
    for k in mine:
        if mine[k] != theirs.get(k):
            raise UsageError(
                f"the checkpoint was made with {k} = {theirs.get(k)!r}, not {mine[k]!r}",
                where=str(path),
                way_out="Give the same settings, or another file.",
            )
    t.G.load_state_dict(state["G"])
    t.D.load_state_dict(state["D"])
    if t.classifier:
        t.classifier.load_state_dict(state["classifier"])
    t.average.net.load_state_dict(state["average"])
    if t.average_d:
        t.average_d.net.load_state_dict(state["average_d"])
    t.opt_g.load_state_dict(state["opt_g"])
    t.opt_d.load_state_dict(state["opt_d"])
    t.generator.set_state(state["generator"])
    t.step, t.log = state["step"], log
