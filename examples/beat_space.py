"""The candidates of `beat_it.py`: its search space, and those that are always there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latentshift.recipe import AUTO, Recipe
from latentshift.strategies.base import Strategy
from latentshift.strategies.chain import Chain

LEAST, LONGEST = 20, 500  # the smallest budget: the forms of `auto` start here; the largest


@dataclass(frozen=True)
class Candidate:
    """A recipe, and before it the stage `first` (OBRS, which picks draws, or truncation) where that is given."""

    recipe: Recipe
    first: Recipe | None = None

    def build(self) -> Strategy:
        """Return the strategy."""
        climb: Strategy = self.recipe.build()
        return Chain(stages=(self.first.build(), climb)) if self.first else climb

    @property
    def line(self) -> str:
        """The candidate on one line: two with the same line are the same."""
        r = self.recipe
        words = [f"{k}={'none' if v is None else v}" for k, v in r.options.items()]
        words += ["keep_best"] * r.keep_best + [f"lower_share={r.lower_share}"] * (r.lower_share not in (None, 1.0))
        before = f"{Candidate(self.first).line}, then " if self.first else ""
        return f"{before}{r.strategy}({', '.join(words)})"


FORMER = AUTO.changed(steps=4, step_size=0.05)  # what `auto` was before it was shortened
RAW = Candidate(Recipe(name="raw", options={"steps": 0}))


@dataclass(frozen=True)
class Dice:
    """Random choices, and numbers on a logarithmic scale with two digits."""

    rng: np.random.Generator

    def pick(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def log(self, low: float, high: float) -> float:
        return short(np.exp(self.rng.uniform(np.log(low), np.log(high))))


def short(x: float) -> float:
    """Return a number with two digits."""
    return float(f"{x:.2g}")


def drawn(rng: np.random.Generator, budget: int, kind: str) -> Candidate:
    """Return a candidate of at most `budget` evaluations: the two functions that this one calls are the search space."""
    return (of_points if kind == "points" else of_images)(Dice(rng), budget)


def of_points(dice: Dice, budget: int) -> Candidate:
    """Return a candidate for pairs that make points."""
    pick, log = dice.pick, dice.log
    method = pick("ifgsm", "ifgsm", "ifgsm", "mifgsm", "free", "collaborative", "dot", "dot-target", "dgflow", "ddls")
    share, keep, first = pick(1.0, 1.0, 0.5), pick(False, True), None
    if method != "dot-target" and pick(True, False, False):
        tries = pick(1.5, 2.0, 3.0, *([5.0, 10.0] if budget > 20 else []))
        most = int(3 * tries)  # a stage takes all its tries together, so all are counted
        options = {"budget": tries, "steps": most, "slope": log(0.3, 30.0)}
        first, share, budget = Recipe(name="pick", strategy="obrs", options=options), 1.0, budget - most
    half, more, space = budget // 2, {}, "z"
    if method in ("ifgsm", "mifgsm"):
        norm = pick("inf", "inf", "2")
        radius = log(0.03, 1.0)
        more = {"eps": radius, "step_size": short(pick(1.25, 2.5, 5.0) * radius / half), "norm": norm}
        more |= {"decay": pick(False, True), "unit": "prior", "support": "auto"}
        more |= {"mu": pick(0.5, 0.9)} if method == "mifgsm" else {}
    elif method == "free":
        method = "ifgsm"
        more = {"eps": None, "step_size": log(0.003, 0.1), "decay": pick(False, True), "unit": "prior", "support": "auto"}
    elif method == "collaborative":
        more, keep = {"step_size": log(1e-4, 1e-1), "mu": pick(0.5, 0.9), "loss": "score"}, False
    elif method == "dot":
        more = {"step_size": log(0.003, 0.1), "optimizer": pick("sgd", "adam"), "k": pick(None, log(0.1, 3.0))}
    elif method == "dot-target":
        more, space = {"step_size": log(0.003, 0.1), "k": pick(None, log(0.01, 3.0))}, "image"
        share, keep = 1.0, False
    elif method == "dgflow":
        more = {"step_size": log(1e-4, 1e-1), "gamma": pick(0.0, 0.001, 0.01), "slope": pick(1.0, 3.0)}
    else:
        more = {"step_size": log(1e-4, 1e-2), "slope": pick(1.0, 3.0, 10.0), "decay": pick(False, True)}
    spare = 2 if method == "collaborative" else 1  # the last look
    steps = (budget - spare) // 2 if share == 1.0 else int(0.9 * budget) - 1  # the upper half ends after its first look
    low = None if share == 1.0 else share
    recipe = Recipe(
        name=method, strategy=method, options={"steps": steps, **more}, keep_best=keep, lower_share=low, space=space
    )
    return Candidate(recipe, first)


def of_images(dice: Dice, budget: int) -> Candidate:
    """Return a candidate for pairs that make images. Their lengths are drawn for the whole path, whatever the steps."""
    pick, log = dice.pick, dice.log
    method = pick("ifgsm", "ifgsm", "mifgsm", "collaborative", "dot", "dgflow", "ddls", "dot-target", "dot-target", "pixels")
    share, keep, first, space = pick(1.0, 1.0, 0.5, 0.25), pick(False, True), None, "z"
    if method in ("dot-target", "pixels"):  # the image itself is moved: only D is asked
        share, keep, space = 1.0, False, "image"
    elif pick(True, False, False):
        options = {"psi": pick(0.98, 0.95, 0.9, 0.8)}
        first, share, keep = Recipe(name="narrow", strategy="truncation", options=options), 1.0, False
    keep = keep and method != "collaborative"
    spare = 1 + (method == "collaborative" or keep) + (first is not None)  # the last look, what keeping the best adds, a stage
    steps = (budget - spare) // 2 if share == 1.0 else int((budget - 3) / (2 * share))  # what is left alone had the first look
    decay = pick(False, True)
    each = (2 if decay else 1) / steps
    if method in ("ifgsm", "mifgsm"):
        norm = pick("inf", "2")
        path = log(0.01, 0.6) * (8 if norm == "2" else 1)  # 8: the root of 64 coordinates
        more = {"eps": pick(None, short(path / 2)), "step_size": short(path * each), "norm": norm, "decay": decay}
        more |= {"unit": "prior", "support": "auto"} | ({"mu": pick(0.5, 0.9)} if method == "mifgsm" else {})
    elif method == "collaborative":
        more = {"step_size": log(0.01, 3.0), "mu": pick(0.5, 0.9), "loss": "score"}
    elif method == "dot":
        more = {"step_size": short(log(0.03, 2.0) / steps), "optimizer": pick("sgd", "adam"), "k": log(0.01, 0.3)}
    elif method == "dgflow":
        more = {"step_size": short(log(0.01, 2.0) / steps), "gamma": pick(0.0, 0.001, 0.01), "slope": pick(1.0, 3.0, 10.0)}
    elif method == "ddls":
        more = {"step_size": short(log(0.003, 0.3) / steps), "slope": pick(3.0, 10.0, 20.0, 40.0), "decay": decay}
    elif method == "dot-target":
        more = {"step_size": short(log(0.003, 0.03) / steps), "k": pick(1e-6, log(0.001, 0.03))}
    else:
        method = "ifgsm"
        more = {"eps": None, "step_size": short(log(0.05, 1.0) * each), "norm": "2", "decay": decay, "support": "clamp"}
    low = None if share == 1.0 else share
    recipe = Recipe(
        name=method, strategy=method, options={"steps": steps, **more}, keep_best=keep, lower_share=low, space=space
    )
    return Candidate(recipe, first)


def fixed(budget: int, kind: str) -> list[Candidate]:
    """Return the candidates that are always there: `auto` and its forms, and what picks draws by their score alone."""
    again = [AUTO, AUTO.changed(lower_share=1.0), FORMER] if budget == LEAST else []
    picks = [
        Recipe(name="obrs", strategy="obrs", options={"budget": tries, "steps": 4 * budget, "slope": slope, "pilot_rows": 4000})
        for tries, slope in ((2.0, 3.0), (budget / 2, 1.0))
    ]
    picks += [
        Recipe(name="best-of-n", strategy="best-of-n", options={"steps": budget - 1}),
        Recipe(name="mh", strategy="mh", options={"steps": budget - 2, "slope": 3.0}),
    ]
    if kind == "images":
        picks += [Recipe(name="truncation", strategy="truncation", options={"psi": psi}) for psi in (0.9, 0.7)]
        picks.append(Recipe(name="mh", strategy="mh", options={"steps": budget - 2, "slope": 20.0}))
    if kind == "images" and budget == LONGEST:  # too dear for a search: the paths of the winners at 20, in more steps
        steps = (budget - 2) // 2
        options = {"steps": steps, "step_size": 4.7e-5, "k": 0.012}
        pixels = Recipe(name="pixels", strategy="dot-target", options=options, space="image")
        by_z = Recipe(
            name="dot", strategy="dot", options={"steps": steps, "step_size": 0.0022, "optimizer": "adam", "k": 0.046}
        )
        narrow = Recipe(name="narrow", strategy="truncation", options={"psi": 0.98})
        return [Candidate(pixels), Candidate(by_z, narrow)]
    few = budget <= (20 if kind == "images" else 100)
    finer = AUTO.changed(steps=(budget - 1) // 2, lower_share=1.0)
    return [Candidate(r) for r in (*again, finer, *(picks if few else []))]
