"""What a training recipe is: plain data (torch is not imported), and how options change it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UnknownNameError, UsageError

Piece = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """`settings`: fields of `latentshift.train.loop.Settings`; `slots`: slot -> pieces; `labels`: how labels are used.

    `labels`: "none"; "both" (G and D are conditional); "heads" (D's last layer gives classes too); "classifier" (a network of
    its own). `refine`: the refinement recipe that makes it a "+" recipe.
    """

    name: str
    line: str
    backbone: str = "small"
    z_size: int = 64
    size: int | None = None  # side of the images; None: as the data are
    channels: int | None = None
    labels: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    flip: bool = False
    pixels: int = 0  # augmentation: shifts by up to so many pixels, in D's and in G's step
    noise: float = 0.0  # uniform noise on real images, in units of [-1, 1]
    refine: str = ""
    source: str = ""
    evidence: str = ""

    def changed(self, options: Mapping[str, Any]) -> TrainRecipe:
        """Return this recipe with fields, settings or options of pieces changed: `z_size`, `batch`, `latent_shift.step_size`.

        None as `loss` is the pair "none" (the word that --option reads as no value).
        Raises UsageError for a name that is none of them.
        """
        fields = {f.name for f in dataclasses.fields(self)} - {"name", "line", "settings", "slots", "source", "evidence"}
        mine = {k: v for k, v in options.items() if k in fields}
        settings, slots = dict(self.settings), dict(self.slots)
        for key, value in options.items():
            slot, dot, option = key.partition(".")
            if key in fields:
                continue
            if dot:
                if slot not in slots:
                    raise UsageError(f"{self.name} has no {slot!r}", where=f"--option {key}", way_out=_has(slots))
                slots[slot] = tuple((kind, {**kw, option: value}) for kind, kw in slots[slot])
            elif key in SETTINGS:
                settings[key] = "none" if key == "loss" and value is None else value
            else:
                known = (*sorted(fields), *SETTINGS)
                raise UnknownNameError("option", key, known, where="--option", way_out=f"Known: {', '.join(known)}.")
        return dataclasses.replace(self, **mine, settings=settings, slots=slots)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        slots = {slot: [[kind, dict(kw)] for kind, kw in pieces] for slot, pieces in self.slots.items()}
        return {**dataclasses.asdict(dataclasses.replace(self, slots={})), "settings": dict(self.settings), "slots": slots}


def _has(slots: Mapping[str, Any]) -> str:
    return f"It has: {', '.join(slots) or 'no piece'}."


#: fields of the run's settings that a recipe or --option may set
SETTINGS = (
    "steps",
    "loss",
    "batch",
    "g_batch",
    "n_d",
    "lr_g",
    "lr_d",
    "betas",
    "decay_share",
    "ema",
    "spectral_norm",
    "ema_d",
    "train_g",
    "weight_decay",
    "pair_in_d",
    "precision",
)
