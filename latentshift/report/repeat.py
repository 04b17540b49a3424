"""The command line that repeats a run, from its record."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

_OPTIONS = {
    "image_range": "range",
    "tiles": "grid",
    "more": "option",
    "classes": "class",
    "keep_best": None,
}
_UNSAID = {"model": "fashion32", "recipe": "auto", "device": "auto", "tiles": "8x8", "shards_as": "png", "precision": "fp32"}


def repeat_command(record: Mapping[str, Any]) -> str:
    """Return the command line that repeats a run (without --outdir), or where it was made from Python, says how."""
    request = mapping(record.get("request"))
    if not request:
        model = shlex.quote(str(record.get("model", "MODEL")))
        made = "# made from Python; with recipe.toml holding the recipe below:"
        return f"{made}\nlatentshift refine --model {model} --recipe recipe.toml"
    words = ["latentshift", "refine"]
    for key, value in request.items():
        if value is None or value is False or value == [] or _UNSAID.get(key) == value:
            continue
        if key == "keep_best":
            words.append("--keep-best" if value else "--last")
            continue
        option = f"--{(_OPTIONS.get(key) or key).replace('_', '-')}"
        for v in value if isinstance(value, list) else [value]:
            words += [option] if v is True else [option, one_line(str(v))]
    if request.get("keep_best") is False:
        words.append("--last")
    if request.get("honest") is False:
        words.append("--no-honest")
    return " ".join(w if re.fullmatch(r"--[\w-]+", w) else shlex.quote(w) for w in words)


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def judged_by_reals(record: Mapping[str, Any]) -> str:
    """Return what real images say of a run, '' where none were given; `record` may be anybody's."""
    honest = mapping(record.get("honest"))
    if not honest:
        return "The real images calibrated the critic; they judge nothing here." if record.get("reals_sha256") else ""
    raw, after, count = (honest.get(k) for k in ("auc_raw", "auc_refined", "reals"))
    if not all(isinstance(v, int | float) for v in (raw, after, count)):
        return "The critic was fitted to real images."
    if honest.get("verdict") != "climb":
        return (
            f"The critic was fitted to {count} real images; on those held out it has AUC {raw:.2f} against raw samples, and "
            "they say not to climb it."
        )
    return (
        f"The critic was fitted to {count} real images. On those held out of the fit it tells real from raw samples (AUC "
        f"{raw:.2f}) and from refined ones ({after:.2f}), and they say how far it may be climbed."
    )


def place(record: Mapping[str, Any]) -> str:
    """Return where samples moved, in words."""
    space = record.get("space")
    return "the latent" if space in (None, "z") else one_line(str(space))
