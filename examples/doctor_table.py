"""How often is the doctor right? Its forecasts beside what judges that it does not use say.

    python examples/doctor_table.py --pair FOLDER --reals DATA --judges A.safetensors B.safetensors

For each setting the truth is the change of Frechet distance, density and coverage by the judges, over two draws of `--rows`
latents: a judge speaks for (against) a setting by the balance of its metrics that are better (worse) by 3 standard errors; one
for and none against is help, the reverse harm, else nothing. The doctor sees other latents and the other half of the real
images. `docs/doctor.md` holds the table of seven pairs. About two minutes a pair of 28 pixels, 600 rows, one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from latentshift import load
from latentshift.doctor.eye import Change, Eye
from latentshift.doctor.foretell import SETTINGS, as_bytes, foretell, pilot
from latentshift.files.reals import read_reals
from latentshift.metrics.features import extract
from latentshift.metrics.networks import load_network


def truth(draws: list[list[list[Change]]]) -> str:
    """Return help, nothing or harm from changes[draw][judge][metric], each `better` in standard errors."""
    balance = []
    for judge in zip(*draws, strict=True):
        z = [sum(c.better for c in metric) / len(metric) ** 0.5 for metric in zip(*judge, strict=True)]
        balance.append(sum(v >= 3 for v in z) - sum(v <= -3 for v in z))
    up, down = max(balance) > 0, min(balance) < 0
    return "help" if up and not down else "harm" if down and not up else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", required=True)
    parser.add_argument("--reals", required=True)
    parser.add_argument("--judges", type=Path, nargs="+", required=True)
    parser.add_argument("--rows", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pair = load(args.pair)
    reals = as_bytes(read_reals(args.reals, pair).images, pair)
    reals = reals[np.random.default_rng(0).permutation(len(reals))]
    mine, theirs = reals[: len(reals) // 2], reals[len(reals) // 2 :]
    judges = []
    for path in args.judges:
        network = load_network(path)
        judges.append(Eye(network.name, lambda x, n=network: extract(n, x).features.numpy(), theirs, components=64))
    told = {f.setting: f for f in foretell(pair, mine)}
    print(f"| {pair.name} | doctor | truth | what the doctor saw |")
    print("| --- | --- | --- | --- |")
    for name, (_, _, paired, _) in SETTINGS.items():
        draws = []
        for first in (0, 10_000):
            before, after = pilot(pair, name, first, args.rows)
            draws.append([judge.changes(before, after, paired=paired) for judge in judges])
        print(f"| {name} | {told[name].answer} | {truth(draws)} | {told[name].evidence} |", flush=True)


if __name__ == "__main__":
    main()
