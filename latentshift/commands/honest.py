"""`refine --reals DATA`: an honest critic is fitted once, kept, and climbed, where the recipe is `auto` or it is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import FileError, RequestError, UsageError
from .common import Talk, options

if TYPE_CHECKING:
    from ..files.reals import Reals
    from ..model import Pair
    from ..recipe import Recipe

honest_options = options(
    click.option(
        "--honest/--no-honest",
        default=None,
        help="Fit an honest critic to --reals and climb it.  [default: with the recipe auto and the model's own critic]",
    ),
)


def told_of(critic: str | None) -> dict[str, Any] | None:
    """Return what the card of a folder given by --critic says of an honest critic, for the record; None where it is none."""
    from ..files.folder import is_pair_folder, read_card

    if critic is None or not is_pair_folder(Path(critic)):
        return None
    found = read_card(Path(critic)).get("honest")
    return {k: v for k, v in found.items() if k != "parts"} if isinstance(found, dict) else None


def as_fitted(typed: dict[str, Any], recipe: Recipe, told: dict[str, Any] | None) -> Recipe:
    """Return `auto/reals` climbed as far, and where, as the card of --critic says, for what was not typed.

    Raises FileError for a card whose words are of another kind."""
    from ..recipe import AUTO_REALS, parse_option

    plain = typed["recipe"] == AUTO_REALS.name and typed["strategy"] is None
    if told is None or not plain or told.get("verdict") != "climb":
        return recipe
    for key, kind in (("steps", int), ("step_size", int | float), ("space", str)):
        if (value := told.get(key)) is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise FileError(
                f"the card's honest.{key} is {value!r}", where=str(typed["critic"]), way_out="Fit the critic again."
            )
    said = {parse_option(text)[0] for text in typed["more"]} | {k for k, v in typed.items() if v is not None}
    now = {k: told[k] for k in ("steps", "step_size") if k not in said and told.get(k) is not None}
    space = recipe.space if "space" in said else told.get("space") or recipe.space
    return replace(recipe, options={**recipe.options, **now}, space=space)


def wants_critic(typed: dict[str, Any], pair: Pair) -> bool:
    """Whether an honest critic is to be fitted; refuses what contradicts itself."""
    asked = typed["honest"]
    if asked and typed["reals"] is None:
        raise UsageError("an honest critic is fitted to real images", where="--honest", way_out="Give --reals DATA.")
    if asked and typed["critic"] is not None:
        raise UsageError("--honest and --critic both name the critic", way_out="Give one of them.")
    images = len(pair.image_shape or ()) == 3
    if asked and not images:
        raise RequestError(f"{pair.name!r} makes no images: an honest critic is fitted to images", where="--honest")
    if asked is not None:
        return bool(asked)
    plain = typed["recipe"] == "auto" and typed["strategy"] is None and typed["critic"] is None
    return plain and images and typed["reals"] is not None


def with_critic(
    typed: dict[str, Any], pair: Pair, recipe: Recipe, reals: Reals, talk: Talk, space: str | None = None
) -> tuple[Pair, Recipe, dict[str, Any] | None]:
    """Return the pair with its honest critic, the recipe that climbs it, and what the record says of it; `space` was asked."""
    from ..recipe import AUTO_REALS
    from ..registry import make_strategy
    from ..train.auto import guided
    from .method import recipe_of

    strategy = None
    if typed["recipe"] == "auto" and typed["strategy"] is None:
        recipe = recipe_of({**typed, "recipe": AUTO_REALS.name, "budget": None, "space": None})
        recipe = AUTO_REALS if recipe == AUTO_REALS else recipe
    if recipe is not AUTO_REALS:
        strategy = make_strategy(recipe.strategy, **recipe.options)
    found = guided(pair, reals, recipe, strategy=strategy, space=space, report=talk.note)
    talk.note(f"honest critic: {found.told}")
    told = found.honest
    if told is not None:
        told = {k: v for k, v in told.items() if k != "parts"}
    return found.pair, found.recipe, told
