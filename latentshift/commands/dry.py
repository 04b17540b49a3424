"""`--dry-run`: plan, files and an estimate; nothing is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ..recipe import Recipe
from ..strategies.base import strategy_name
from .common import Talk

if TYPE_CHECKING:
    from ..engine.estimate import Estimate
    from ..engine.run import Engine
    from ..model import Pair


def plan_line(pair: Pair, rows: int, recipe: Recipe, engine: Engine) -> str:
    """Return what is about to be done, in one line."""
    stages = [f"{strategy_name(part)}, {part.steps} step{'s' * (part.steps != 1)}" for part in engine.strategy.parts]
    tries = getattr(engine.strategy, "tries", 1)
    told = ", then ".join(stages) + (f"; up to {tries} tries" if tries > 1 else "")
    return f"{pair.name}: {rows} samples, {recipe.name} ({told}), {engine.run_.plan}"


LONG = 5.0  # seconds from which on a run says what it will take


def foretell(talk: Talk, told: Estimate, engine: Engine) -> None:
    """Say what a long run will take: after its first steps, so that finding out costs nothing."""
    from ..engine.estimate import held

    if told.seconds < LONG:
        return
    peak = held(engine.device)
    memory = "" if peak is None else f"; memory {peak / 2**30:.2g} GiB"
    talk.note(f"time: {told.line()}, less where samples end early; writing comes on top{memory}")


def dry(
    talk: Talk,
    engine: Engine,
    recipe: Recipe,
    pair: Pair,
    z0: Any,
    numbers: list[int],
    labels: Any,
    names: list[str],
    typed: dict[str, Any],
) -> None:
    """Print plan, files and an estimate from two steps at the real chunk size."""
    from ..engine.estimate import estimate

    told = estimate(engine, z0, numbers, labels)
    seconds = told.seconds
    cost = engine.strategy.cost()
    files = [f"{names[0]}.png … {names[-1]}.png", "latents.npz", "samples.jsonl", "run.json", "grid.png"]
    files += [] if typed["no_report"] else ["report.html"]
    plan = {
        "model": pair.name,
        "samples": len(numbers),
        "recipe": recipe.as_dict(),
        "plan": engine.run_.plan,
        "cost_per_sample": {**cost._asdict(), "final_images": 1},
        "estimate_seconds": round(seconds, 2),
        "files": files,
    }
    if talk.as_json:
        click.echo(json.dumps(plan, indent=2, default=str))
        return
    talk.fact(plan_line(pair, len(numbers), recipe, engine))
    for note in engine.run_.notes:
        talk.fact(f"note: {note}")
    least = "" if cost.exact else "at most "
    talk.fact(
        f"cost per sample: {least}{cost.g_forward:g} passes of G, {cost.d_forward:g} of D, {cost.g_backward:g} backward, "
        "and the images before and after"
    )
    talk.fact(f"{told.line()}, on {pair.device}; writing comes on top")
    talk.fact(f"would write {', '.join(files)}")
