"""What other judges say of a recipe that one judge likes: Frechet distance before and after, on several pairs.

    python examples/beat_second.py --shared DIR --out RESULTS                       # about four minutes of one core
    python examples/beat_second.py --shared DIR --out RESULTS --pairs fashion32     # one pair

DIR, pairs and judges are those of `third_party_pairs.py` (two networks or one and pixels, per pair; half of the real images).
`ARMS` are the winners of `beat_it.py images`. The same latents, raw and refined: 400 seeds from 40,000,000, which no search has
seen; the standard error is that of 30 paired bootstrap draws. Features are kept in RESULTS: a second call goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from third_party_pairs import JUDGES, PAIRS, Judge, pair_of, real_images

from latentshift import Pair, Sampler
from latentshift.files.pictures import to_planes
from latentshift.metrics.stats import bootstrap_change
from latentshift.recipe import Recipe

FIRST, ROWS, DRAWS = 40_000_000, 400, 30
DOT = "dot:steps=9,step_size=0.061,optimizer=adam"
ARMS = {
    "raw": Recipe(name="raw", options={"steps": 0}),
    "winner by KID": Recipe(
        name="pixels", strategy="dot-target", space="image", options={"steps": 9, "step_size": 0.0013, "k": 0.012}
    ),
    "winner by z": Recipe(name="by z", strategy="truncation", options={"psi": 0.98}, then=(f"{DOT},k=0.046",)),
    "the same, k learned": Recipe(name="k learned", strategy="truncation", options={"psi": 0.98}, then=(DOT,)),
}
CHOSEN = ("fashion32", "fashion28-dcgan-bce", "faces32-lsgan", "sprites16-dcgan-bce", "mnist28-dcgan-bce")


def features(pair: Pair, recipe: Recipe, judges: dict[str, Judge], kept: Path, rows: int) -> dict[str, np.ndarray]:
    """Return what each judge sees in a recipe's images: (rows, components) by judge's name; read from `kept` where it is."""
    key = hashlib.sha256(repr((pair.name, recipe, rows, FIRST)).encode()).hexdigest()[:16]
    path = kept / f"{key}.npz"
    if not path.is_file():
        made = Sampler(pair, recipe=recipe, chunk=64).refine(seeds=range(FIRST, FIRST + rows))
        images = to_planes(np.asarray(made.images), pair.image_range)
        kept.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: judge.see(images) for name, judge in judges.items()})
    with np.load(path) as found:
        return {name: found[name] for name in judges}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=list(CHOSEN), choices=list(PAIRS))
    parser.add_argument("--rows", type=int, default=ROWS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| pair | judge | recipe | FD raw | change | of raw |\n| --- | --- | --- | --- | --- | --- |")
    for name in args.pairs:
        pair = pair_of(name, args.shared)
        _, reference = real_images(args.shared, PAIRS[name], 1500)
        judges = {j: Judge(j, args.shared, reference) for j in JUDGES[PAIRS[name]]}
        seen = {arm: features(pair, recipe, judges, args.out, args.rows) for arm, recipe in ARMS.items()}
        for arm in list(ARMS)[1:]:
            for j, judge in judges.items():
                before, after = seen["raw"][j], seen[arm][j]
                start, change = judge.distance(before), bootstrap_change(judge.distance, before, after, draws=DRAWS)
                moved = judge.distance(after) - start
                cells = [name, j, arm, f"{start:.2f}", f"{moved:+.2f} +- {change.sd:.2f}", f"{100 * moved / start:+.0f} %"]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
