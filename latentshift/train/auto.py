"""What `auto` does with real images: fit an honest critic, ask what it sees and how far it holds, climb it so far.

    found = guided(pair, reals)         # found.pair has the honest critic, found.recipe says how it is climbed
    found.told                          # one line: what was found and what follows

Fitted once for the same model, images and options, and kept in the cache folder. Where the critic cannot tell held-out real
images from samples, or there are too few images, the samples are better left alone, and that is what happens.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import LatentshiftWarning
from ..files.cache import cache_folder
from ..files.folder import is_pair_folder, read_card, read_critic
from ..files.write import output_errors
from ..model import Pair
from ..recipe import AUTO, AUTO_REALS, Recipe
from ..strategies.base import Strategy
from .ground import Ground
from .honest import LEAST, UPTO, WANTED, fit_critic, real_images


@dataclass(frozen=True)
class Guided:
    """A pair with its honest critic, the recipe that climbs it, and what the critic's card says of it (None: none fitted)."""

    pair: Pair
    recipe: Recipe
    told: str
    honest: dict[str, Any] | None = None


def guided(
    pair: Pair,
    reals: Any,
    recipe: Recipe = AUTO_REALS,
    *,
    strategy: Strategy | None = None,
    space: str | None = None,
    cache: bool = True,
    report: Callable[[str], None] | None = None,
    **options: Any,
) -> Guided:
    """Return what to climb and how, given real images (a path, what was read, a uint8 array, or floats in the pair's range).

    `strategy` is how the critic is climbed at most (None: ten sign steps; `depth` says how far), `space` where (None: that of
    the recipe, and for `auto` the first hidden layer where G is a row of layers), `options` are those of `fit_critic`. With
    fewer than 100 images no critic is fitted: the recipe without real images is used, with a warning that says how many are
    wanted.
    """
    data = real_images(reals, pair)
    if len(data) < LEAST:
        text = (
            f"{len(data)} real image{'s' * (len(data) != 1)} are too few for an honest critic ({WANTED} or more are wanted, "
            f"{LEAST} at least): refining as without real images"
        )
        warnings.warn(text, LatentshiftWarning, stacklevel=2)
        return Guided(pair, AUTO, text)
    use, plain = strategy or UPTO, recipe is AUTO_REALS
    where = Ground.of(pair, space or ("auto" if plain else recipe.space)).space.name
    folder = _place(pair, data.sha256, use, {"space": where, **options}) if cache and pair.sha256 and data.sha256 else None
    critic, card = None, None
    if folder is not None and is_pair_folder(folder):
        critic, card = read_critic(folder), read_card(folder)["honest"]
        if report:
            report(f"the honest critic for these images and this model is there: {folder}")
    if critic is None or card is None:
        fitted = fit_critic(pair, data, strategy=use, space=where, report=report, **options)
        critic, card = fitted.critic, fitted.card()["honest"]
        if folder is not None:
            with output_errors(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
            fitted.save(folder)
    steps = int(card["steps"]) if card["verdict"] == "climb" else 0
    now = {"steps": steps, **({} if not steps or card.get("step_size") is None else {"step_size": card["step_size"]})}
    if plain:  # the number of steps and the space are the rule's, so the recipe keeps its name
        recipe = replace(recipe, options={**recipe.options, **now}, space=where)
    elif recipe.space != where or any(recipe.options.get(k) != v for k, v in now.items()):
        recipe = recipe.changed(space=where, **now)
    size = f" of {now['step_size']:g}" if "step_size" in now else ""
    size += "" if where == pair.space.name else f" in {where}"
    action = f"climbed {steps} step{'s' * (steps != 1)}{size}" if steps else "the samples are left as they are"
    return Guided(replace(pair, critic=critic), recipe, f"{card['verdict']}: {card['why']}; {action}", card)


def _place(pair: Pair, reals: str, strategy: Strategy, options: dict[str, Any]) -> Path:
    what = [__version__, pair.sha256, list(pair.image_range), pair.space.prior.card(), reals, repr(strategy)]
    key = hashlib.sha256(json.dumps([*what, {k: repr(v) for k, v in sorted(options.items())}]).encode()).hexdigest()
    return cache_folder() / "critics" / key[:24]
