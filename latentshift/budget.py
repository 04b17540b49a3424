"""What `auto` is: the best known recipe for a kind of pair and a budget of evaluations, with how each was found.

An evaluation is one pass of a sample through G and D, forward or backward, as the ledger counts them: the last look at what
came out is one; constants that a method learns once on pilot samples are not. `examples/beat_it.py` is the search, and
docs/methods.md has its figures on seeds that it did not see. Adding a winner is one line of `TABLE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UsageError
from .recipe import AUTO, Recipe, get_recipe

Kind = Literal["points", "images"]


@dataclass(frozen=True)
class Entry:
    """A line of the table: the recipe to take from this many evaluations per sample on, and how it was chosen."""

    kind: Kind
    evaluations: int
    recipe: str
    how: str


#: of each kind the first is what `auto` is where no budget is named
TABLE: tuple[Entry, ...] = (
    Entry("points", 20, "auto/points-20", "best of 49 candidates in mean W1 over three pairs"),
    Entry("points", 100, "auto/points-100", "best of 37 candidates, the best at 20 among them"),
    Entry("points", 500, "auto/points-100", "as at 100: of 18 candidates the first lost on seeds that were held out"),
    Entry("points", 10, "auto", "not searched: W1 falls by 14 to 28 % on the same three pairs"),
    Entry("images", 10, "auto", "two short steps: worse nowhere on ten pairs with two judges (docs/third-party.md)"),
    Entry("images", 20, "auto", "as at 10: the best of 52 on fashion32, fashion32/kid-20, harms the pair most like it"),
    Entry("images", 100, "auto", "as at 10: of 21 candidates none is better on fashion32 than the best at 20"),
    Entry("images", 500, "auto", "as at 10: a small search (16 candidates) came back to the winner at 20"),
)


def kind_of(shape: Sequence[int] | None) -> Kind:
    """Return the kind of a pair by what it makes: points of the plane, or anything else.

    >>> kind_of((2,)), kind_of((3, 64, 64))
    ('points', 'images')
    """
    return "points" if tuple(shape or ()) == (2,) else "images"


def entry(kind: Kind, budget: int | None = None) -> Entry:
    """Return the line with the most evaluations within a budget; raises UsageError for one that is below them all."""
    lines = sorted((e for e in TABLE if e.kind == kind), key=lambda e: e.evaluations)
    if budget is None:
        return next(e for e in TABLE if e.kind == kind)
    if budget < lines[0].evaluations:
        raise UsageError(
            f"no recipe for {kind} within {budget} evaluations per sample",
            where="budget",
            way_out=f"The table begins at {lines[0].evaluations}: {', '.join(str(e.evaluations) for e in lines)}.",
        )
    return [e for e in lines if e.evaluations <= budget][-1]


def settled(recipe: Recipe, shape: Sequence[int] | None, budget: int | None = None) -> Recipe:
    """Return what the recipe `auto` is for a pair that makes such images or points; any other recipe as it is."""
    if recipe is not AUTO:
        if budget is not None:
            raise UsageError(
                f"a budget chooses among the recipes of 'auto', and the recipe is {recipe.name!r}",
                way_out="Leave one of them out.",
            )
        return recipe
    return get_recipe(entry(kind_of(shape), budget).recipe)
