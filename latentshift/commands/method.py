"""The options that say how to refine, and the recipe that they make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..budget import settled
from ..errors import RequestError, UsageError
from ..recipe import Recipe, get_recipe, parse_option
from ..registry import get, option_docs
from .budget import check
from .common import known, options
from .guard import guard_option


def _doc(name: str) -> str:
    from ..strategies.gradient import IFGSM

    text = option_docs(IFGSM)[name].help
    return text[0].upper() + text[1:] + "."


method_options = options(
    click.option(
        "--recipe",
        default="auto",
        show_default=True,
        metavar="NAME",
        shell_complete=known("recipes"),
        help="Named settings ('latentshift recipes'), or a TOML file.",
    ),
    click.option(
        "--strategy",
        metavar="NAME",
        shell_complete=known("strategies"),
        help="A method ('latentshift strategies') in place of the recipe's.",
    ),
    click.option("--steps", type=int, help=f"{_doc('steps')[:-1]}; for evolgan and best-of-n the budget b of evaluations."),
    click.option("--step-size", metavar="NUMBER", help=_doc("step_size")),
    click.option("--eps", metavar="NUMBER", help=_doc("eps")),
    click.option("--norm", type=click.Choice(["inf", "2"]), help=_doc("norm")),
    click.option("--space", metavar="NAME", help="What moves: z, or another space of the model."),
    click.option("--objective", metavar="LINK", help="What is climbed: logit, bce, saturating, softplus, hinge, probability."),
    click.option("--target", type=float, help="End a sample once its score has reached this."),
    guard_option,
    click.option("--keep-best/--last", default=None, help="Hand back the best point of the path, or the last."),
    click.option(
        "--calibration",
        type=click.Choice(["auto", "logistic", "temperature", "isotonic", "head", "none"]),
        help="How a method that reads the critic as log odds fits it on --reals; none: read it as it stands.",
    ),
    click.option("--option", "more", multiple=True, metavar="KEY=VALUE", help="Another option of the strategy (repeatable)."),
)


def _number(text: str | None, name: str) -> Any:
    if text is None or text.lower() == "none":
        return text and "none"
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"cannot read {text!r} as a number", where=name, way_out="Write a number, or none.") from None


def recipe_of(typed: dict[str, Any], shape: Sequence[int] | None = None) -> Recipe:
    """Return the recipe that the method options ask for; wrong values are refused before any model is loaded.

    Once there is a pair, the `shape` of what it makes says what `auto` is.
    """
    check(typed)
    name = typed["recipe"]
    path = Path(name)
    recipe = Recipe.from_toml(path.read_text("utf-8"), name) if path.suffix == ".toml" and path.is_file() else get_recipe(name)
    if shape is not None and typed["strategy"] is None:
        recipe = settled(recipe, shape, typed.get("budget"))
    more = dict(parse_option(text) for text in typed["more"])
    more = {k: "none" if v is None else v for k, v in more.items()}
    for key in ("steps", "norm"):
        if typed[key] is not None:
            more[key] = typed[key]
    if typed["calibration"] is not None:
        kind = get("strategies", typed["strategy"] or recipe.strategy)
        if "calibration" not in option_docs(kind):
            raise RequestError(
                f"'{typed['strategy'] or recipe.strategy}' does not read the critic as log odds",
                where="--calibration",
                way_out="Leave it out: this method needs no calibration.",
            )
        more["calibration"] = typed["calibration"]
    for key in ("step_size", "eps"):
        if (value := _number(typed[key], f"--{key.replace('_', '-')}")) is not None:
            more[key] = value
    if typed["strategy"] is not None:
        get("strategies", typed["strategy"])
    recipe = recipe.changed(
        strategy=typed["strategy"],
        keep_best=typed["keep_best"],
        target=typed["target"],
        guard=typed["guard"],
        link=typed["objective"],
        space=typed["space"],
        then=typed["then"] or None,
        keep=typed["keep"],
        drop=typed["drop"] or None,
        **more,
    )
    recipe.check()
    recipe.objective()
    return recipe
