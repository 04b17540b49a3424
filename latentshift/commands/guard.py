"""`--guard RULE`: stop a sample by a second opinion; `critic:REF` names the second critic as `--critic` names the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import RequestError, UsageError
from .common import options

if TYPE_CHECKING:
    from ..model import Pair
    from ..objective import Term
    from ..recipe import Recipe

RULES = ("displacement", "reals", "views")


def _known(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or value in RULES:
        return value
    rule, _, name = value.partition(":")
    if rule == "critic" and name:
        return value
    if rule == "critic":
        raise UsageError(
            "which critic?", where="--guard", way_out="Write --guard critic:REF, a folder or a name as --critic takes."
        )
    raise UsageError(f"unknown rule {value!r}", where="--guard", way_out=f"Known: {', '.join(RULES)}, critic:REF.")


guard_option = options(
    click.option(
        "--guard",
        metavar="RULE",
        callback=_known,
        help="Stop a sample by a second opinion: displacement (how far it moved), reals (real images' scores; --reals), views "
        "(moved views of it), critic:REF (a second critic, as --critic takes it).",
    )
)


def judge_of(recipe: Recipe, pair: Pair) -> Term | None:
    """Return the second critic that the recipe's guard asks for `pair`, tried on it once; None where it asks for none."""
    rule, _, name = (recipe.guard or "").partition(":")
    if rule != "critic":
        return None
    from ..strategies.guard import SecondCritic
    from .critics import critic_of

    own = pair.critic
    pair = pair.replaced(critic=critic_of(name, pair)).to(pair.device).probed()
    if own is not None and pair.need_critic() is own:
        raise RequestError(
            "the guard's critic is the one that is climbed: it never objects",
            where="--guard",
            way_out="Name another one; 'latentshift critic' fits one to your images.",
        )
    return SecondCritic(pair.need_critic())
