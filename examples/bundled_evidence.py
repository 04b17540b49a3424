"""Does refinement help on the bundled image pair? The judge is a classifier that nothing climbed.

    python examples/bundled_evidence.py --rows 1000

Prints, for the honest D (`fashion32`) and the D that was trained with G (`fashion32-sn`), the share of rows whose score rose,
the mean score and the judge's Frechet distance before and after, with the paired 95 % interval of the change. About two
minutes on one core. Expected at 1,000 rows: raw 0.90; `auto` on fashion32 about 0.85, on fashion32-sn about 1.0. With
`--picture FILE` the sixteen rows of largest gain of the first 64 are drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from latentshift.files.pictures import grid, save_png, to_bytes, to_planes
from latentshift.metrics.judge import load_judge
from latentshift.sampler import Sampler, load

SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "auto": ("auto", {}),
    "auto, all rows, last iterate": ("auto", {"lower_share": 1.0, "keep_best": False}),
    "20 steps in a ball of 0.3": ("advlatgan-z/ball", {}),
    "published, 20 steps of 0.05": ("advlatgan-z/cifar10", {}),
}


def pixels(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(to_planes(images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    judge = load_judge("fashion32-judge")
    print(f"| D | setting | moved rows that rose | mean score | {judge.network.name}: FD before | after | change (95 %) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in ("fashion32", "fashion32-sn"):
        for title, (recipe, changes) in SETTINGS.items():
            result = Sampler(load(name), recipe=recipe).refine(seeds=range(args.rows), before=True, **changes)
            before, after = pixels(result.images0), pixels(result.images)
            moved = torch.tensor([s != "good_already" for s in result.stopped])
            change = next(iter(judge.change(before, after).values()))
            print(
                f"| {name} | {title} | {(result.gain[moved] > 0).float().mean():.1%} of {int(moved.sum())} "
                f"| {result.score0.mean():.3f} to {result.score.mean():.3f} | {judge.distance(before).value:.3f} "
                f"| {judge.distance(after).value:.3f} | {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}] |",
                flush=True,
            )
    if args.picture:
        result = Sampler(load("fashion32")).refine(seeds=range(64), before=True)
        best = np.argsort(-result.gain.numpy(), kind="stable")[:16]
        names = [result.names()[i] for i in best]
        x0, x1 = (to_bytes(x)[best] for x in (result.images0, result.images))
        save_png(args.picture, grid(x0, x1, names, result.gain.numpy()[best].tolist(), columns=8))


if __name__ == "__main__":
    main()
