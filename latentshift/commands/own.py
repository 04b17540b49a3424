"""Options that only some models take: how a style-based generator is run, and what a family's loader may be told."""

from __future__ import annotations

from typing import Any

import click

from ..errors import UsageError

#: options of this file: `pair_of` takes them, the record of a run keeps them
OWN_KEYS = ("trunc", "noise_mode", "translate", "rotate", "model_options", "trust_code")

model_option = click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the model's family may be told, as grouping=alone or network=G (repeatable; docs/models.md).",
)

own_options = (
    click.option("--trunc", type=float, metavar="PSI", help="Truncation of w (StyleGAN) or z (BigGAN); 1 is none."),
    click.option(
        "--noise-mode",
        type=click.Choice(["const", "random", "none"]),
        help="StyleGAN2's noise maps: those of the file, drawn from the seed and held, or none.",
    ),
    click.option("--translate", metavar="X,Y", help="Move the image of a StyleGAN3, in image widths."),
    click.option("--rotate", type=float, metavar="DEG", help="Turn the image of a StyleGAN3."),
    model_option,
    click.option(
        "--trust-code",
        is_flag=True,
        help="Run a model file that is a program (TorchScript, torch.export, a whole module). It can do all that you can.",
    ),
)


def value_of(text: str) -> Any:
    """Return an option's value: a number, true, false, none, or the text."""
    low = text.lower()
    if low in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[low]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def options_of_typed(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of KEY=VALUE texts; raises UsageError for another form."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"cannot read {text!r}", where="--model-option", way_out="Write KEY=VALUE.")
        found[key.replace("-", "_")] = value_of(value)
    return found


def own_of(typed: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the model's family that were typed, under the names that families know."""
    found = options_of_typed(tuple(typed.get("model_options") or ()))
    if typed.get("trunc") is not None:
        found["trunc"] = typed["trunc"]
    if typed.get("noise_mode") is not None:
        found["noise"] = typed["noise_mode"]
    if typed.get("rotate") is not None:
        found["rotate"] = typed["rotate"]
    if typed.get("translate") is not None:
        x, comma, y = typed["translate"].partition(",")
        try:
            found["translate"] = (float(x), float(y))
        except ValueError:
            comma = ""
        if not comma:
            raise UsageError(f"cannot read {typed['translate']!r}", where="--translate", way_out="Write X,Y, as in 0.25,0.")
    return found
