"""`refine --budget N`: the best known recipe for a pair of this kind within so many evaluations per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..budget import TABLE
from ..errors import UsageError
from ..recipe import AUTO
from .common import options

budget_options = options(
    click.option(
        "--budget",
        type=int,
        metavar="N",
        help="Evaluations per sample, forward and backward, that the recipe auto may take ('latentshift recipes auto').",
    ),
)

#: options that say how much is done, each in its own way
_OTHERS = ("strategy", "steps", "more", "then", "keep")


def check(typed: Mapping[str, Any]) -> None:
    """Refuse a budget that nothing keeps, or that another option contradicts, before any model is loaded."""
    budget = typed.get("budget")
    if budget is None:
        return
    least = min(e.evaluations for e in TABLE)
    if budget < least:
        raise UsageError(
            f"no recipe keeps within {budget} evaluations per sample", where="--budget", way_out=f"Give {least} or more."
        )
    others = ["recipe"] * (typed["recipe"] != AUTO.name) + [k for k in _OTHERS if typed[k]]
    if others:
        name = {"more": "option"}.get(others[0], others[0])
        raise UsageError(f"--budget and --{name} both say how much is done", way_out="Give one of them.")
