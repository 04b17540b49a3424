"""How often is the doctor right? Its forecasts beside what judges that it does not use say.

    python examples/doctor_table.py --shared DIR --out RESULTS            # measure what is missing, then the table
    python examples/doctor_table.py --shared DIR --out RESULTS --short    # sprites alone, 100 rows: half a minute
    python examples/doctor_table.py --shared DIR --out RESULTS --fresh RESULTS2/pairs    # pairs that fresh_pairs.py trained
    python examples/doctor_table.py --out RESULTS --table                 # the tables of what is there

DIR holds `reference/pairs`, `reference/real` and `data`, as for `third_party_pairs.py`. One to four minutes of one core a pair;
every cell is kept, so a run that was cut goes on, and with --keep the samples are, so that another eye can look at the same.

The truth of a setting: the change of Frechet distance, density and coverage by two judges over two draws of `--rows` latents.
A judge speaks for (against) a setting by the balance of its metrics that are better (worse) by 3 standard errors; one for and
none against is help, the reverse harm, else nothing. The doctor sees other latents and the other half of the real images.

Leave-one-pair-out: the constant of the rule is chosen on all other pairs of others and then counted on the pair; unsure would
count as half. The constant answer is the most frequent truth. Pairs of `--fresh` choose nothing: they are told by the constant
that all pairs of others choose. Expected: the tables of docs/doctor.md.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import math
import os
import textwrap
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party_pairs import PAIRS, pair_of, prepared, real_images

from latentshift import load
from latentshift.doctor.eye import Change, Eye
from latentshift.doctor.foretell import FEW, SETTINGS, Pilot, Watch, above, eyes, pilot, scores_of, total, verdict
from latentshift.files.write import write_json
from latentshift.metrics.features import extract
from latentshift.metrics.networks import load_network

JUDGES = {
    "mnist": ("resnet20_cifar10", "cnn_mnist"),
    "fashion": ("resnet20_cifar10", "cnn_fashion_mnist"),
    "faces": ("resnet20_cifar10", "resnet56_cifar10"),
    "sprites": ("resnet20_cifar10", "resnet56_cifar10"),
    "cifar": ("resnet20_cifar10", "resnet56_cifar10"),
}
Key = tuple[str, str]
Cells = dict[Key, tuple[dict[str, Any], str]]
METRICS = ("FD", "density", "coverage")
ERRORS = 3.0  # standard errors that a truth needs

#: the one constant of a rule: standard deviations that an answer needs
SURE = (1.5, 2.0, 3.0, 4.0, 5.0)
BANDS = (0.0, 0.05, FEW, 0.5, math.inf)  # densities of the raw samples
DECIDES = "squeezenet-fire5"
FORMS = {"the rule": 3, "without coverage": 2, "distance alone": 1}  # how many of the metrics are added up


def moved(judges: dict[str, list[list[float]]]) -> list[list[float]]:
    """Return each judge's changes over all draws from {judge: [draw][metric]}, in standard errors (+ is better)."""
    return [[sum(metric) / len(metric) ** 0.5 for metric in zip(*draws, strict=True)] for draws in judges.values()]


def truth(judges: dict[str, list[list[float]]]) -> str:
    """Return help, nothing or harm from {judge: [draw][metric]}."""
    return sign([sum(v >= ERRORS for v in z) - sum(v <= -ERRORS for v in z) for z in moved(judges)])


def cancels(judges: dict[str, list[list[float]]]) -> bool:
    """Tell whether the truth is "nothing" not because nothing moved, but because metrics or judges contradict each other."""
    return truth(judges) == "nothing" and any(abs(v) >= ERRORS for z in moved(judges) for v in z)


def sign(balance: list[int]) -> str:
    up, down = max(balance) > 0, min(balance) < 0
    return "help" if up and not down else "harm" if down and not up else "nothing"


def answer(seen: dict[str, Any], sure: float, form: str = "the rule") -> str:
    """Return what a rule says of {eye: [metric]}."""
    metrics = zip(METRICS[: FORMS[form]], seen[DECIDES], strict=False)
    return verdict(total([Change(m, 0, 0, v) for m, v in metrics]), sure)


def points(told: str, true: str) -> float:
    return 1.0 if told == true else 0.5 if told == "unsure" else 0.0


def foretold(cells: Cells, form: str, fresh: Collection[str] = ()) -> tuple[dict[Key, str], list[float]]:
    """Return each cell's answer by the constant that is right most often on the other pairs (the least of equals); these."""
    said: dict[Key, str] = {}
    constants = []
    for name in sorted({pair for pair, _ in cells}):
        rest = [c for (pair, _), c in cells.items() if pair != name and pair not in fresh]
        best = max(SURE, key=lambda sure: sum(points(answer(seen, sure, form), true) for seen, true in rest))
        constants.append(best)
        said |= {key: answer(c[0], best, form) for key, c in cells.items() if key[0] == name}
    return said, constants


def zs(changes: list[Change]) -> list[float]:
    return [round(c.better, 2) for c in changes]


def measure(name: str, args: argparse.Namespace) -> None:
    """Measure the truth and the doctor's view of every setting of a pair that is not there yet."""
    path = args.out / f"{name}.json"
    told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"truth": {}, "seen": {}, "seconds": {}}
    if all(s in told[part] for s in SETTINGS for part in ("truth", "seen")):
        return
    pair = pair_of(name, args.shared) if name in PAIRS else load(args.fresh / name)
    data = kind_of(name)
    make = partial(kept, args.keep, pair, name) if args.keep else partial(pilot, pair)
    mine, theirs = (prepared(x, pair) for x in real_images(args.shared, data, args.reference))
    mine = mine[: args.reals]
    told |= {
        "pair": name,
        "fresh": name not in PAIRS,
        "rows": args.rows,
        "pilots": args.pilots,
        "reals": [len(mine), len(theirs)],
    }
    judges: list[Eye] = []
    before: dict[tuple[str, int], np.ndarray] = {}
    watch: Watch | None = None
    for setting in SETTINGS:
        began = time.process_time()
        if setting not in told["seen"]:
            watch = watch or Watch(eyes(mine), make, args.pilots)
            seen = watch.see(setting)
            view: dict[str, Any] = {eye.name: zs(c) for eye, c in zip(watch.look, seen.changes, strict=True)}
            among = {"among": round(seen.changes[0][1].before, 3)}  # density of the raw samples
            told["seen"][setting] = {**view, "rows": seen.rows, **among, **known(pair, seen.score, mine)}
            told["seconds"]["seen"] = told["seconds"].get("seen", 0) + time.process_time() - began
            write_json(path, told)
        began = time.process_time()
        if setting not in told["truth"]:
            judges = judges or [judge(n, args.shared, theirs) for n in JUDGES[data]]
            found: dict[str, list[list[float]]] = {eye.name: [] for eye in judges}
            for first in (0, 10_000):
                made = make(setting, first, args.rows, 0)
                for eye in judges:
                    if (eye.name, first) not in before:  # the same seeds under every setting
                        before[eye.name, first] = eye.see(made.before)
                    a, b = before[eye.name, first], eye.see(made.after)
                    found[eye.name].append(zs(eye.changes(a, b, paired=SETTINGS[setting][2])))
            told["truth"][setting] = found
            told["seconds"]["truth"] = told["seconds"].get("truth", 0) + time.process_time() - began
            write_json(path, told)
        print(f"{name} {setting}: kept ({sum(told['seconds'].values()):.0f} s CPU)", flush=True)


def kind_of(name: str) -> str:
    """Return what the images of a pair are: known, or the first word of its name."""
    return PAIRS.get(name, name.partition("-")[0])


def kept(folder: Path, pair: Any, name: str, setting: str, first: int, rows: int, start: int) -> Pilot:
    """Return pilot samples from a file that grows as more are asked for: another eye can look at the same ones."""
    path = folder / f"{name}-{setting}-{first}.npz"
    have = Pilot(**np.load(path)) if path.exists() else None
    there = 0 if have is None else len(have.after)
    if there < start + rows:
        new = pilot(pair, setting, first, start + rows - there, there)
        have = new if have is None else Pilot(*(np.concatenate(both) for both in zip(have, new, strict=True)))
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path.with_suffix(".part.npz"), **have._asdict())
        path.with_suffix(".part.npz").rename(path)
    return Pilot(*(x[start : start + rows] for x in have))


def known(pair: Any, score: np.ndarray, reals: np.ndarray) -> dict[str, list[float]]:
    """Return the share of real images that D scores below the median sample, where D wants no labels."""
    real = scores_of(pair, reals[:1000])
    return {} if real is None else {"above": [round(above(score, real), 3)]}


def judge(net: str, shared: Path, reals: np.ndarray) -> Eye:
    network = load_network(shared / "data/nets" / f"{net}_fp16.safetensors")
    network.net.to(memory_format=torch.channels_last)
    return Eye(network.name, lambda x: extract(network, x).features.numpy(), reals, components=64)


def cells_of(records: list[dict[str, Any]]) -> Cells:
    return {
        (r["pair"], s): (r["seen"][s], truth(r["truth"][s]))
        for r in records
        for s in SETTINGS
        if s in r["seen"] and s in r["truth"]
    }


def group_of(record: dict[str, Any]) -> str:
    if not record.get("fresh"):
        return "pairs of others"
    return (
        "pairs trained here" if int(record["pair"].rpartition("-")[2]) > 1000 else "pairs trained here for 300 or 1,000 steps"
    )


def tables(records: list[dict[str, Any]]) -> str:
    """Return the counts and the tables of hits and misses as Markdown, of others' pairs and of those trained here."""
    cells, fresh = cells_of(records), [r["pair"] for r in records if r.get("fresh")]
    told = {form: foretold(cells, form, fresh) for form in FORMS}
    groups: dict[str, list[dict[str, Any]]] = {}
    for r in records:
        groups.setdefault(group_of(r), []).append(r)
    parts = [table(words, groups[words], cells, told) for words in sorted(groups, key=len)]
    return "\n\n".join([*parts, *by_density(records, told["the rule"][0])])


def by_density(records: list[dict[str, Any]], said: dict[Key, str]) -> list[str]:
    """Return a table of how often the rule is right where many and where few raw samples lie among real images."""
    rows = [
        (r["seen"][s]["among"], said[r["pair"], s], truth(r["truth"][s]))
        for r in records
        for s in SETTINGS
        if (r["pair"], s) in said and "among" in r["seen"][s]
    ]
    lines = []
    for low, high in itertools.pairwise(BANDS):
        band = [(told, true) for among, told, true in rows if low <= among < high]
        right, swapped = sum(a == b for a, b in band), sum({a, b} == {"help", "harm"} for a, b in band)
        if band:
            text = f"{low:g} and more" if high == BANDS[-1] else f"{low:g} to {high:g}"
            lines.append(f"| {text} | {len(band)} | {right} ({right / len(band):.0%}) | {swapped} |")
    head = "| density of raw samples | cells of all pairs | right | help for harm, or harm for help |\n| --- |" + " --- |" * 3
    return ["\n".join([head, *lines])] if lines else []


def table(words: str, records: list[dict[str, Any]], cells: Cells, told: dict[str, tuple[dict[Key, str], list[float]]]) -> str:
    """Return the counts and the tables of some of the pairs."""
    names = [r["pair"] for r in records]
    true = {key: c[1] for key, c in cells.items() if key[0] in names}
    said, constants = told["the rule"]
    n = len(true)
    right = {form: sum(points(v[0][k], true[k]) for k in true) for form, v in told.items()}
    counts = [f"{form} {v:g} ({v / n:.0%})" for form, v in right.items()]
    common, count = collections.Counter(true.values()).most_common(1)[0]
    spread = " to ".join(f"{v:g}" for v in sorted({min(constants), max(constants)}))
    cancelled = {(r["pair"], s) for r in records for s in SETTINGS if s in r["truth"] and cancels(r["truth"][s])} & true.keys()
    plain = [said[k] == true[k] for k in true.keys() - cancelled]
    always = f'always "{common}" {count / n:.0%}'
    text = (
        f"{n} cells of {len(names)} {words}, constants {spread}, right: {'; '.join(counts)}; {always}. "
        f"In {len(cancelled)} of them judges or metrics contradict each other, so that nothing is the truth; of the others "
        f"{sum(plain)} of {len(plain)} ({sum(plain) / max(1, len(plain)):.0%}) are right."
    )
    lines = [
        textwrap.fill(text, 126),
        "",
        "| pair | " + " | ".join(f"{s}: foretold, true" for s in SETTINGS) + " |",
        "| --- |" + " --- |" * len(SETTINGS),
    ]
    for name in names:
        row = []
        for s in SETTINGS:
            key = (name, s)
            both = f"{said[key]}, {true[key]}" if key in true else "-"
            row.append(both if key not in true or said[key] == true[key] else f"**{both}**")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    lines += [
        "",
        "| foretold | " + " | ".join(f"truly {t}" for t in ("help", "nothing", "harm")) + " |",
        "| --- |" + " --- |" * 3,
    ]
    for answered in ("help", "nothing", "harm"):
        row = [sum(said[k] == answered and true[k] == t for k in true) for t in ("help", "nothing", "harm")]
        lines.append(f"| {answered} | " + " | ".join(str(v) for v in row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("LATENTSHIFT_SHARED", "../shared")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="*", help="names; all that there are, if none is given")
    parser.add_argument("--fresh", type=Path, help="a folder of pair folders, in place of the pairs of others")
    parser.add_argument("--rows", type=int, default=1000, help="latents of each of the two draws of the truth")
    parser.add_argument("--pilots", type=int, default=500, help="latents that the doctor sees first")
    parser.add_argument("--reals", type=int, default=2000, help="real images that the doctor sees, at most")
    parser.add_argument("--reference", type=int, default=2000, help="real images that judges compare with, at most")
    parser.add_argument("--keep", type=Path, help="keep pilots and samples here, so that they need not be made again")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--publish", type=Path, help="also write all records as one JSON file, as docs/doctor.json")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.short:
        args.pairs, args.rows, args.pilots = ["sprites16-dcgan-bce"], 100, 100
        args.reals = args.reference = 500
    if not args.table:
        all_pairs = sorted(p.name for p in args.fresh.iterdir()) if args.fresh else list(PAIRS)
        for name in args.pairs or all_pairs:
            measure(name, args)
    records = [json.loads(p.read_text()) for p in sorted(args.out.glob("*.json"))]
    records = [r for r in records if r["truth"] and r["seen"]]
    if args.publish:
        write_json(args.publish, [{k: v for k, v in r.items() if k != "seconds"} for r in records])
    print(tables(records))


if __name__ == "__main__":
    main()
