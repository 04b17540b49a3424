"""How near does each rule of the guard come to the step where judges that nothing climbed see the images best?

    python examples/guard_table.py --shared DIR --out RESULTS              # measure what is missing, then the tables
    python examples/guard_table.py --shared DIR --out RESULTS --short      # sprites alone, 64 rows, 6 steps: ten seconds
    python examples/guard_table.py --out RESULTS --table                   # the tables of what is there

DIR holds `reference/pairs`, `reference/real` and `data`; honest critics for the rule `critic` are taken from `--critics DIR`
(the folder `critics` that `third_party_pairs.py` leaves), and that rule is left out where there is none. About a minute of one
core a pair.

The paper's climb (20 sign steps of 0.05, unconstrained) runs once per pair, and every step of every row is kept. A rule of
`latentshift.strategies.guard` is then a step per row at which it would have stopped, and the Frechet distance of what it keeps
is compared with that of every common number of steps. Distances are those of the two judges of `third_party_pairs.py`, as a
share of the distance of the raw samples, geometric mean over the judges. The best step is chosen on the same rows, which
flatters it a little. Expected: the tables of docs/doctor.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party_pairs import HONEST_OF, JUDGES, PAIRS, Judge, pair_of, prepared, real_images

from latentshift import noise
from latentshift.engine.run import Engine, Settings
from latentshift.files.folder import read_critic
from latentshift.files.write import write_json
from latentshift.landscape import Landscape
from latentshift.metrics.distance import frechet_gaussian
from latentshift.sampler import Sampler
from latentshift.space import Context
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.guard import Guard

SIZE = 0.05  # of a step, in latent units
LIMITS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # of the displacement
SHARES = (0.25, 0.5, 0.75)  # quantiles of real images' scores
SHIPPED = ("displacement 0.1", "reals 0.25", "views", "critic")


def first_true(mask: np.ndarray, none: int) -> np.ndarray:
    """Return the first step at which mask (steps, rows) is true, `none` where it never is."""
    return np.where(mask.any(0), mask.argmax(0), none)


def falls(seen: np.ndarray) -> np.ndarray:
    """Return the last step before seen (steps + 1, rows) first falls; the end is not looked at, as in the guard."""
    last = len(seen) - 1
    return first_true(seen[1:last] < np.maximum.accumulate(seen, 0)[: last - 1], last)


def stops(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return {rule: the step at which each row rests}."""
    last = len(kept["moved"]) - 1
    out = {}
    for limit in LIMITS:
        out[f"displacement {limit:g}"] = first_true(kept["moved"][1:] > limit, last)
    for share in SHARES:
        out[f"reals {share:g}"] = first_true(kept["score"][:last] >= np.quantile(kept["real"], share), last)
    for rule in ("views", "critic"):
        if rule in kept:
            out[rule] = falls(kept[rule])
    return out


def climb(pair: Any, z: torch.Tensor, seeds: list[int], labels: Any, steps: int) -> Iterator[tuple[torch.Tensor, Any]]:
    """Yield latents and what the engine made of them at 0, 1, ... steps: free sign steps remember nothing."""
    settings = Settings(chunk=64)
    for t in range(steps + 1):
        move = IFGSM(steps=min(t, 1), step_size=SIZE, eps=None, support="free")
        chunks = Engine(move, pair, settings=settings).run(z, seeds, labels).chunks
        order = np.argsort(np.concatenate([c.rows for c in chunks]))
        z, images, score = (
            torch.from_numpy(np.concatenate([getattr(c, k) for c in chunks])[order]) for k in ("point", "images", "score")
        )
        yield z, (images, score)


def measure(name: str, args: argparse.Namespace) -> None:
    path = args.out / f"{name}.npz"
    if path.exists():
        return
    pair = pair_of(name, args.shared)
    mine, theirs = (prepared(x, pair) for x in real_images(args.shared, PAIRS[name], args.reference))
    seeds = list(range(args.rows))
    labels = torch.arange(args.rows) % pair.classes if pair.classes else None
    folder = args.critics / f"{HONEST_OF.get(name, name)}-{min(len(mine), 1000)}-both" if args.critics else None
    second = read_critic(folder) if folder is not None and folder.is_dir() else None
    eyes = [Judge(n, args.shared, theirs) for n in JUDGES[PAIRS[name]][: args.judges]]
    low, high = pair.image_range
    start = torch.from_numpy(noise.latents(seeds, pair.space.shape, pair.space.prior))
    rows: dict[str, list[Any]] = {k: [] for k in ("moved", "score", "views", "critic", *(f"seen{i}" for i in range(len(eyes))))}
    scape = Landscape(pair, Context(torch.tensor(seeds), label=labels))
    for z, (images, score) in climb(pair, start, seeds, labels, args.steps):
        rows["moved"].append(((z - start).flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)).numpy())
        rows["score"].append(score.numpy())
        rows["views"].append(scape.score_of_views(z).numpy())
        if second is not None:
            with torch.no_grad():
                rows["critic"].append(pair.replaced(critic=second).logit(images, labels).numpy())
        planes = np.ascontiguousarray(((images - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8).numpy())
        for i, eye in enumerate(eyes):
            rows[f"seen{i}"].append(eye.see(planes).astype(np.float32))
    some = torch.from_numpy(mine[:1000].astype(np.float32) / 255 * (high - low) + low)
    with torch.no_grad():
        real = pair.logit(some, torch.zeros(len(some), dtype=torch.long) if pair.critic.labels else None).numpy()
    kept = {k: np.stack(v) for k, v in rows.items() if v}
    for i, eye in enumerate(eyes):
        kept[f"mean{i}"], kept[f"cov{i}"] = eye.moments
    np.savez(path, real=real, **kept)
    if args.check:
        agree(pair, seeds, labels, stops({"real": real, **kept}), args.steps)
    print(f"{name}: kept", flush=True)


def agree(pair: Any, seeds: list[int], labels: Any, told: dict[str, np.ndarray], steps: int) -> None:
    """Compare the steps counted here with where the guard itself, run as a user runs it, takes its rows."""
    inner = IFGSM(steps=steps, step_size=SIZE, eps=None, support="free")
    for rule, key in (("displacement", "displacement 0.1"), ("views", "views")):
        r = Sampler(pair, chunk=64).refine(seeds=seeds, labels=labels, strategy=Guard(inner=inner, rule=rule))
        walked = [sum(s == 0 for s in r.stopped), int((told[key] == steps).sum())]
        stopped = np.array([why == "guard" for why in r.stopped])
        same = float((stopped == (told[key] < steps)).mean())
        print(f"  the guard itself, {rule}: {stopped.mean():.0%} of rows stopped, {same:.1%} as counted {walked[1:]}")


def distance(kept: dict[str, np.ndarray], step: np.ndarray) -> float:
    """Return the distance of rows taken at `step` (rows,) to real images as a share of the raw samples' distance."""
    rows = np.arange(step.size)
    logs = []
    for i in range(sum(key.startswith("seen") for key in kept)):
        both = [kept[f"seen{i}"][t, rows].astype(np.float64) for t in (step, np.zeros_like(step))]
        near = [frechet_gaussian(x.mean(0), np.cov(x.T), kept[f"mean{i}"], kept[f"cov{i}"]) for x in both]
        logs.append(np.log(near[0] / near[1]))
    return float(np.exp(np.mean(logs)))


def weigh(kept: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the distance at every step and of every rule, and each rule's median step."""
    n = kept["moved"].shape[1]
    each = [round(distance(kept, np.full(n, t)), 4) for t in range(len(kept["moved"]))]
    rules = {rule: (round(distance(kept, step), 4), float(np.median(step))) for rule, step in stops(kept).items()}
    return {"steps": each, "rules": rules}


def tables(told: dict[str, dict[str, Any]]) -> str:
    """Return the two tables as Markdown: each pair's distances with the shipped constants, and the mean excess of each rule."""
    lines = ["| pair | best step | all steps | " + " | ".join(SHIPPED) + " |", "| --- | --- | --- |" + " --- |" * len(SHIPPED)]
    for name, t in told.items():
        best = int(np.argmin(t["steps"]))
        row = [f"{t['steps'][best]:.0%} ({best})", f"{t['steps'][-1]:.0%} ({len(t['steps']) - 1})"]
        for rule in SHIPPED:
            row.append("-" if rule not in t["rules"] else f"{t['rules'][rule][0]:.0%} ({t['rules'][rule][1]:g})")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    lines += ["", f"| what | mean excess over the best step, {len(told)} pairs | worst |", "| --- | --- | --- |"]
    for rule, excess in excesses(told).items():
        if len(excess) == len(told):
            worst = max(excess, key=excess.__getitem__)
            mean = np.exp(np.mean(list(excess.values()))) - 1
            lines.append(f"| {rule} | {mean:.0%} | {np.exp(excess[worst]) - 1:.0%} ({worst}) |")
    return "\n".join(lines)


def excesses(told: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return {rule: {pair: log of its distance over that of the best step}}; displacement's limit also by the other pairs."""
    out: dict[str, dict[str, float]] = {"no move": {}, "all steps": {}}
    for name, t in told.items():
        best = min(t["steps"])
        out["no move"][name] = -np.log(best)
        out["all steps"][name] = np.log(t["steps"][-1] / best)
        for rule, (value, _) in t["rules"].items():
            out.setdefault(rule, {})[name] = np.log(value / best)
    for family in ("displacement", "reals"):
        mine = {k: v for k, v in out.items() if k.startswith(family)}
        chosen = {}
        for name in told:
            rule = min(mine, key=lambda k: sum(v for other, v in mine[k].items() if other != name))
            chosen[name] = mine[rule][name]
        out[f"{family}, constant by the other pairs"] = chosen
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("LATENTSHIFT_SHARED", "../shared")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--critics", type=Path, help="honest critics, in folders PAIR-NUMBER-both")
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--reference", type=int, default=2000, help="real images that judges compare with, at most")
    parser.add_argument("--judges", type=int, default=2, help="1: only the first of a pair's judges, half the time")
    parser.add_argument("--check", action="store_true", help="also run the guard itself and compare")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--publish", type=Path, help="also write what the tables are made of, as docs/guard.json")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.short:
        args.pairs, args.rows, args.steps, args.reference, args.check = ["sprites16-dcgan-bce"], 64, 6, 500, True
    if not args.table:
        for name in args.pairs:
            measure(name, args)
    told = {p.stem: weigh(dict(np.load(p))) for p in sorted(args.out.glob("*.npz"))}
    if args.publish:
        write_json(args.publish, told)
    print(tables(told))


if __name__ == "__main__":
    main()
