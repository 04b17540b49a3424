"""Search for the recipe that is best at 20, 100 and 500 evaluations per sample, and look at it on seeds it was not chosen on.

    python examples/beat_it.py points --pair reference/dot_25gaussians --cache runs/beat     # exact W1 to fresh data
    python examples/beat_it.py images --cache runs/beat                                      # KID by the bundled judge

An evaluation is one pass of a sample through G and D, forward or backward (for moves of the image itself, through D alone). The
looks at a sample's start and end, and constants learned once on pilot samples, are not counted. Candidates are drawn at random
from the space in `drawn`, after the few of `fixed`; every smaller budget's best go on into the larger ones. Round 1: all
candidates on one block of search seeds. Round 2: the best of them on further blocks; the best mean is the winner, on each pair
and over the pairs of the kind (mean of figure / figure of raw samples). Then the winners and `auto` run on held-out seeds,
which no choice has seen. Prints Markdown. Needs scipy for W1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods_table import exact_w1, load_pair, mark

from latentshift import Pair, __version__, load
from latentshift.engine.run import Engine, Settings
from latentshift.files.pictures import to_planes
from latentshift.metrics.distance import mmd
from latentshift.metrics.judge import load_judge
from latentshift.metrics.toy import DOT25, MIXTURES, Mixture, mode_metrics
from latentshift.noise import latents
from latentshift.recipe import Recipe, get_recipe
from latentshift.strategies.base import Strategy
from latentshift.strategies.chain import Chain

BUDGETS = (20, 100, 500)
SEARCH, AGAIN, HELD_OUT = 10_000_000, 11_000_000, 20_000_000  # first seeds of round 1, round 2, and of what is reported
COUNTS = {"points": {20: 30, 100: 14, 500: 2}, "images": {20: 14, 100: 4, 500: 1}}  # random candidates
ROWS = {"points": (1000, 1000, 2000), "images": (500, 500, 500)}  # of a block: round 1, round 2, held out
BLOCKS = {"points": (2, 3), "images": (2, 4)}  # round 2, held out
GO_ON = {"points": 3, "images": 6}  # candidates per ranking that reach round 2
NEAR = 0.1 / 4  # HQ means within 0.1 of a mode of ring and grid: four of their own standard deviations are met by nothing


@dataclass(frozen=True)
class Candidate:
    """A recipe, after draws were picked by `first` (an OBRS stage) where that is given."""

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


RAW = Candidate(Recipe(name="raw", options={"steps": 0}))
Figures = dict[str, float]


@dataclass(frozen=True)
class Field:
    """A pair and its judge: of images and a block's seed, the figure by which it is ranked (lower is better), and others."""

    name: str
    pair: Pair
    judge: Callable[[np.ndarray, int], Figures]


def plane(pair: Pair, mixture: Mixture, near: float) -> Callable[[np.ndarray, int], Figures]:
    """Return the judge of points: exact W1 x 1e3 to fresh data with equal counts in every mode; HQ and KL beside it."""
    wide = Mixture(mixture.name, mixture.means, near)

    def judge(points: np.ndarray, seed: int) -> Figures:
        rows = len(points) // len(mixture.means) * len(mixture.means)
        data = mixture.balanced(rows, torch.Generator().manual_seed(seed)).numpy()
        found = mode_metrics(points, wide)
        return {"figure": 1e3 * exact_w1(points[:rows], data), "HQ %": found.hq, "KL": found.kl}

    return judge


def kernel_distance() -> Callable[[np.ndarray, int], Figures]:
    """Return the judge of images: KID x 1e3 (all rows at once, unbiased) by the bundled judge; FD beside it."""
    network = load_judge("fashion32-judge")
    assert network.features is not None

    def judge(images: np.ndarray, seed: int) -> Figures:
        rows = network.see(torch.from_numpy(to_planes(images)))
        return {"figure": 1e3 * mmd(rows, network.features), "FD": network.distance(rows, floor_draws=0).value}

    return judge


def fields(kind: str, reference: str | None) -> tuple[list[Field], list[Field]]:
    """Return the pairs that are searched on, and those that a winner is only checked on."""
    if kind == "images":
        judge = kernel_distance()
        return [Field("fashion32", load("fashion32"), judge)], [Field("fashion32-sn", load("fashion32-sn"), judge)]
    found = [Field(n, load(n), plane(load(n), MIXTURES[n], NEAR)) for n in ("ring", "grid")]
    if reference:
        pair = load_pair(reference)
        found.insert(0, Field("25 Gaussians", pair, plane(pair, DOT25, DOT25.sd)))
    return found, []


def drawn(rng: np.random.Generator, budget: int, kind: str) -> Candidate:
    """Return a candidate of at most `budget` evaluations: this function is the search space."""

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def log(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.2g}")

    method = pick("ifgsm", "ifgsm", "ifgsm", "mifgsm", "free", "collaborative", "dot", "dot-target", "dgflow", "ddls")
    share, keep, first = pick(1.0, 1.0, 0.5), pick(False, True), None
    if kind == "points" and method != "dot-target" and pick(True, False, False):
        tries = pick(1.5, 2.0, 3.0, *([5.0, 10.0] if budget > 20 else []))
        most = int(3 * tries)  # a stage takes all its tries together, so all are counted
        options = {"budget": tries, "steps": most, "slope": log(0.3, 30.0)}
        first, share, budget = Recipe(name="pick", strategy="obrs", options=options), 1.0, budget - most
    half, more, space = budget // 2, {}, "z"
    if method in ("ifgsm", "mifgsm"):
        norm = pick("inf", "inf", "2")
        radius = log(0.03, 1.0) * (8 if norm == "2" and kind == "images" else 1)  # 8: the root of 64 coordinates
        more = {"eps": radius, "step_size": float(f"{pick(1.25, 2.5, 5.0) * radius / half:.2g}"), "norm": norm}
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
    spare = 1 if keep or method == "collaborative" else 0
    steps = (budget - spare) // 2 if share == 1.0 else budget - 1  # the upper half ends after its first look
    low = None if share == 1.0 else share
    recipe = Recipe(
        name=method, strategy=method, options={"steps": steps, **more}, keep_best=keep, lower_share=low, space=space
    )
    return Candidate(recipe, first)


def fixed(budget: int, kind: str) -> list[Candidate]:
    """Return the candidates that are always there: `auto` and its forms, and what picks draws by their score alone."""
    auto = get_recipe("auto")
    again = [auto, auto.changed(lower_share=1.0)] if budget == BUDGETS[0] else []
    picks = [
        Recipe(name="obrs", strategy="obrs", options={"budget": tries, "steps": 4 * budget, "slope": slope, "pilot_rows": 4000})
        for tries, slope in ((2.0, 3.0), (budget / 2, 1.0))
    ]
    picks += [
        Recipe(name="best-of-n", strategy="best-of-n", options={"steps": budget - 1}),
        Recipe(name="mh", strategy="mh", options={"steps": budget - 1, "slope": 3.0}),
    ]
    few = budget <= (100 if kind == "points" else 20)
    finer = auto.changed(steps=(budget - 1) // 2, lower_share=1.0)
    return [Candidate(r) for r in (*again, finer, *(picks if few else []))]


def run(field: Field, candidate: Candidate, first: int, rows: int, block: int, cache: Path | None) -> Figures:
    """Return the figures of one block: seeds first + block * rows on, with the evaluations that a sample took."""
    key = repr((field.name, candidate.line, first, rows, block))
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json" if cache else None
    if path and path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8"))["figures"])
    start = first + block * rows
    seeds = range(start, start + rows)
    z = torch.from_numpy(latents(seeds, field.pair.space.shape, field.pair.space.prior))
    space = field.pair.spaces[candidate.recipe.space]
    chunk = 32 if len(field.pair.image_shape or ()) > 1 else rows
    engine = Engine(candidate.build(), field.pair, space=space, settings=Settings(chunk=chunk))
    done = engine.run(z, seeds)
    images = np.concatenate([c.images for c in done.chunks])
    ahead, back = done.ledger.as_tuple()[:2], done.ledger.as_tuple()[2:]
    out = {**field.judge(images, start), "evaluations": (max(ahead) + max(back)) / rows}
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps({"run": key, "figures": out}), encoding="utf-8")
        path.with_suffix(".part").replace(path)
    return out


def tried(field: Field, candidate: Candidate, budget: int, rows: int, cache: Path | None) -> float:
    """Return a candidate's figure in round 1; infinite where it cannot run here or takes more than the budget."""
    try:
        found = run(field, candidate, SEARCH, rows, 0, cache)
    except Exception as error:
        print(f"<!-- {field.name}: {candidate.line}: {error} -->", flush=True)
        return float("inf")
    return found["figure"] if found["evaluations"] <= budget + 2.1 else float("inf")  # 2: the looks at start and end


def search(kind: str, on: list[Field], cache: Path | None, budgets: list[int]) -> dict[tuple[str, int], Candidate]:
    """Return the winner per (pair, budget), and over all pairs under the name of the kind."""
    (small, large, _), (blocks, _) = ROWS[kind], BLOCKS[kind]
    ahead, winners = [RAW], {}
    for budget in budgets:
        rng = np.random.default_rng(budget)
        more = (drawn(rng, budget, kind) for _ in range(COUNTS[kind][budget]))
        known = {c.line: c for c in (*ahead, *fixed(budget, kind), *more)}
        first = {line: {f.name: tried(f, c, budget, small, cache) for f in on} for line, c in known.items()}
        kept = {RAW.line}
        for rank in ranks(kind, on, first[RAW.line]).values():
            kept |= set(sorted(first, key=lambda line, rank=rank: rank(first[line]))[: GO_ON[kind]])
        mean = {
            line: {
                f.name: float(np.mean([run(f, known[line], AGAIN, large, b, cache)["figure"] for b in range(blocks)]))
                for f in on
            }
            for line in sorted(kept)
        }
        for name, rank in ranks(kind, on, mean[RAW.line]).items():
            order = sorted(mean, key=lambda line, rank=rank: rank(mean[line]))
            winners[name, budget] = known[order[0]]
            best = "; ".join(f"{rank(mean[line]):.4g} {line}" for line in order[:4])
            print(f"<!-- {name}, {budget}, raw {rank(mean[RAW.line]):.4g}: {best} -->", flush=True)
        ahead = [known[line] for line in sorted(kept)]
    return winners


def ranks(kind: str, on: list[Field], raw: Figures) -> dict[str, Callable[[Figures], float]]:
    """Return what is to be low: a pair's own figure, and for the kind the mean of figure over the raw samples'."""

    def own(name: str) -> Callable[[Figures], float]:
        return lambda figures: figures[name]

    every = {f.name: own(f.name) for f in on}
    return {**every, kind: lambda figures: float(np.mean([figures[f.name] / raw[f.name] for f in on]))}


def held_out(kind: str, field: Field, rows: dict[str, Candidate], cache: Path | None) -> None:
    """Print the held-out figures of candidates on one pair: mean over blocks, and the paired change against raw samples."""
    size, blocks = ROWS[kind][2], BLOCKS[kind][1]
    start = [run(field, RAW, HELD_OUT, size, b, cache) for b in range(blocks)]
    for title, candidate in {"raw": RAW, **rows}.items():
        got = [run(field, candidate, HELD_OUT, size, b, cache) for b in range(blocks)]
        value = np.array([g["figure"] for g in got])
        change = value - np.array([s["figure"] for s in start])
        cells = [field.name, title, candidate.line if candidate is not RAW else ""]
        cells += [f"{max(0.0, np.mean([g['evaluations'] for g in got]) - 2):.1f}", f"{value.mean():.2f}"]
        cells += [f"{change.mean():+.2f} +- {change.std(ddof=1) / np.sqrt(blocks):.2f}"]
        cells += [f"{np.mean([g[k] for g in got]):.3g}" for k in (("HQ %", "KL") if kind == "points" else ("FD",))]
        if kind == "points":
            cells += [mark(float(np.mean([g["KL"] for g in got])), float(np.mean([s["KL"] for s in start])))]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("points", "images"))
    parser.add_argument("--pair", help="folder of the reference pair of 25 Gaussians (points; without it ring and grid alone)")
    parser.add_argument("--cache", type=Path, help="folder that keeps every finished run; a second call goes on from there")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), choices=BUDGETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    on, check = fields(args.kind, args.pair)
    winners = search(args.kind, on, args.cache, args.budgets)
    columns = ["pair", "samples", "recipe", "evaluations"]
    columns += ["W1 x 1e3", "change", "HQ %", "KL", "modes"] if args.kind == "points" else ["KID x 1e3", "change", "FD"]
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for field in [*on, *check]:
        rows = {"auto": Candidate(get_recipe("auto"))}
        for budget in args.budgets:
            if len(on) > 1:
                rows[f"best here, {budget}"] = winners[field.name, budget]
            rows[f"best of {args.kind}, {budget}"] = winners[args.kind, budget]
        held_out(args.kind, field, rows, args.cache)
    spent = time.process_time() - began
    print(f"\ntorch {torch.__version__}, latentshift {__version__}, one thread; this call took {spent:.0f} s of CPU time.")


if __name__ == "__main__":
    main()
