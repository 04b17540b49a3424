"""Search for the recipe that is best at 20, 100 and 500 evaluations per sample, and look at it on seeds it was not chosen on.

    python examples/beat_it.py points --pair reference/dot_25gaussians --cache runs/beat     # exact W1 to fresh data
    python examples/beat_it.py images --cache runs/beat                                      # KID by the bundled judge

An evaluation is one pass of a sample through G and D, forward or backward (for moves of the image itself, through D alone), as
the ledger counts them: the last look at what came out is one. Constants learned once on pilot samples are not counted. A budget
is what a sample may take on average. Candidates are drawn at random from the space in `beat_space.py` (`drawn`), after the few
of `fixed`; every smaller budget's best go on into the larger ones, its winners into their last round. Successive halving: all
candidates on one block of search seeds, the best of them on more and larger blocks (`RUNGS`); the best mean of the last rung is
the winner, on each pair and over the pairs of the kind (mean of figure / figure of raw samples); on images, also of those that
move z alone. Then the winners, `auto` and the best of N by D run on held-out seeds, which no choice has seen. Prints Markdown.
Needs scipy for W1; POT makes it fast.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from beat_space import RAW, Candidate, drawn, fixed
from methods_table import exact_w1, load_pair, mark

from latentshift import Pair, __version__, load
from latentshift.budget import settled
from latentshift.engine.run import Engine, Settings
from latentshift.files.pictures import to_planes
from latentshift.metrics.coverage import prdc
from latentshift.metrics.distance import mmd
from latentshift.metrics.judge import load_judge
from latentshift.metrics.toy import DOT25, MIXTURES, Mixture, mode_metrics
from latentshift.noise import latents
from latentshift.recipe import AUTO, Recipe

BUDGETS = (20, 100, 500)
SEARCH, HELD_OUT = (
    10_000_000,
    30_000_000,
)  # first seeds of the search (a million further on for every rung), of what is reported
COUNTS = {"points": {20: 40, 100: 24, 500: 5}, "images": {20: 40, 100: 14, 500: 8}}  # random candidates


class Rung(NamedTuple):
    """A round of the search: blocks of so many rows for every candidate left; the best of each ranking go on."""

    rows: int
    blocks: int
    go_on: int


RUNGS = {
    "points": {
        20: (Rung(500, 1, 6), Rung(1000, 2, 3)),
        100: (Rung(500, 1, 6), Rung(1000, 2, 3)),
        500: (Rung(300, 1, 3), Rung(1000, 1, 2)),
    },
    "images": {
        20: (Rung(400, 1, 6), Rung(1000, 2, 3)),
        100: (Rung(200, 1, 4), Rung(1000, 1, 2)),
        500: (Rung(200, 1, 3),),
    },
}
REPORTED = {"points": (2000, 3), "images": (500, 4)}  # rows of a block that was held out, and how many
BY_Z = "images by z"
FIGURE = {"points": "W1 x 1e3", "images": "KID x 1e3"}  # what is ranked by
BESIDE = {"points": ("HQ %", "KL"), "images": ("FD", "recall", "coverage")}  # shown beside it
NEAR = 0.1 / 4  # HQ means within 0.1 of a mode of ring and grid: four of their own standard deviations are met by nothing


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
    """Return the judge of images: KID x 1e3 (all rows at once, unbiased) by the bundled judge; FD, recall, coverage too."""
    network = load_judge("fashion32-judge")
    assert network.features is not None

    def judge(images: np.ndarray, seed: int) -> Figures:
        rows = network.see(torch.from_numpy(to_planes(images)))
        near = prdc(network.features[: len(rows)], rows)  # as many real images: they depend on both sizes
        spread = {"recall": near.recall, "coverage": near.coverage}
        return {"figure": 1e3 * mmd(rows, network.features), "FD": network.distance(rows, floor_draws=0).value, **spread}

    return judge


def fields(kind: str, reference: str | None) -> list[Field]:
    """Return the pairs that are searched on. (What other pairs and judges say of the winner on images: `beat_second.py`.)"""
    if kind == "images":
        return [Field("fashion32", load("fashion32"), kernel_distance())]
    found = [Field(n, load(n), plane(load(n), MIXTURES[n], NEAR)) for n in ("ring", "grid")]
    if reference:
        pair = load_pair(reference)
        found.insert(0, Field("25 Gaussians", pair, plane(pair, DOT25, DOT25.sd)))
    return found


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
    """Return a candidate's figure in the first rung; infinite where it cannot run here or takes more than the budget."""
    try:
        found = run(field, candidate, SEARCH, rows, 0, cache)
    except Exception as error:
        print(f"<!-- {field.name}: {candidate.line}: {error} -->", flush=True)
        return float("inf")
    return found["figure"] if found["evaluations"] <= budget else float("inf")


def mean(field: Field, candidate: Candidate, budget: int, number: int, rung: Rung, cache: Path | None) -> float:
    """Return a candidate's figure in a rung, the mean over its blocks."""
    if number == 0:
        return tried(field, candidate, budget, rung.rows, cache)
    first = SEARCH + number * 1_000_000
    return float(np.mean([run(field, candidate, first, rung.rows, b, cache)["figure"] for b in range(rung.blocks)]))


def search(kind: str, on: list[Field], cache: Path | None, budgets: list[int]) -> dict[tuple[str, int], Candidate]:
    """Return the winner per (pair, budget), and over all pairs under the name of the kind."""
    ahead, winners = [RAW], {}
    for budget in budgets:
        rng = np.random.default_rng(budget)
        more = (drawn(rng, budget, kind) for _ in range(COUNTS[kind][budget]))
        known = {c.line: c for c in (*ahead, *fixed(budget, kind), *more)}
        left, rungs, before = list(known), RUNGS[kind][budget], {c.line for c in winners.values()}
        for number, rung in enumerate(rungs):
            means = {line: {f.name: mean(f, known[line], budget, number, rung, cache) for f in on} for line in left}
            kept = {RAW.line, *before}
            for name, rank in ranks(kind, on, means[RAW.line]).items():
                value = {line: rank(known[line], means[line]) for line in means}
                order = sorted(means, key=value.__getitem__)
                kept |= set(order[: rung.go_on])
                winners[name, budget] = known[order[0]]  # the last rung's is the one that stands
                if number == len(rungs) - 1:
                    best = "; ".join(f"{value[line]:.4g} {line}" for line in order[:4])
                    told = f"{name}, {budget}, {len(known)} candidates, raw {value[RAW.line]:.4g}"
                    print(f"<!-- {told}: {best} -->", flush=True)
            left = sorted(kept)
        ahead = [known[line] for line in left]
    return winners


def ranks(kind: str, on: list[Field], raw: Figures) -> dict[str, Callable[[Candidate, Figures], float]]:
    """Return what is to be low: a pair's own figure, and for the kind the mean of figure over the raw samples'; on images the
    KID, and the KID of those alone that move z and leave the image to G."""

    def own(name: str) -> Callable[[Candidate, Figures], float]:
        return lambda candidate, figures: figures[name]

    if len(on) == 1:  # a KID may be 0 or less: no ratio
        name = on[0].name
        by_z = {BY_Z: lambda c, figures: float("inf") if c.recipe.space == "image" else figures[name]}
        return {kind: own(name), **(by_z if kind == "images" else {})}
    every = {f.name: own(f.name) for f in on}
    return {**every, kind: lambda candidate, figures: float(np.mean([figures[f.name] / raw[f.name] for f in on]))}


def held_out(kind: str, field: Field, rows: dict[str, Candidate], cache: Path | None) -> None:
    """Print the held-out figures of candidates on one pair: mean over blocks, and the paired change against raw samples."""
    size, blocks = REPORTED[kind]
    start = [run(field, RAW, HELD_OUT, size, b, cache) for b in range(blocks)]
    for title, candidate in {"raw": RAW, **rows}.items():
        got = [run(field, candidate, HELD_OUT, size, b, cache) for b in range(blocks)]
        value = np.array([g["figure"] for g in got])
        change = value - np.array([s["figure"] for s in start])
        cells = [field.name, title, candidate.line if candidate is not RAW else ""]
        cells += [f"{np.mean([g['evaluations'] for g in got]):.1f}", f"{value.mean():.2f}"]
        cells += [f"{change.mean():+.2f} +- {change.std(ddof=1) / np.sqrt(blocks):.2f}"]
        cells += [f"{np.mean([g[k] for g in got]):.3g}" for k in BESIDE[kind]]
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
    on = fields(args.kind, args.pair)
    winners = search(args.kind, on, args.cache, args.budgets)
    columns = ["pair", "samples", "recipe", "evaluations"]
    more = ["modes"] if args.kind == "points" else []
    columns += [FIGURE[args.kind], "change", *BESIDE[args.kind], *more]
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for field in on:
        rows = {"auto": Candidate(settled(AUTO, field.pair.image_shape))}
        if args.kind == "points":
            rows["auto of images"] = Candidate(AUTO)
        for budget in args.budgets:
            if len(on) > 1:
                rows[f"best here, {budget}"] = winners[field.name, budget]
            for name in (args.kind, BY_Z):
                if (name, budget) in winners:
                    rows[f"best of {name}, {budget}"] = winners[name, budget]
            if args.kind == "points" or budget == BUDGETS[0]:  # on images one is enough to see what it does
                rows[f"highest D of {budget - 1}"] = Candidate(
                    Recipe(name="b", strategy="best-of-n", options={"steps": budget - 1})
                )
        held_out(args.kind, field, rows, args.cache)
    spent = time.process_time() - began
    print(f"\ntorch {torch.__version__}, latentshift {__version__}, one thread; this call took {spent:.0f} s of CPU time.")


if __name__ == "__main__":
    main()
