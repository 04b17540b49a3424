"""Paper 000, Figures 12 and 13: post-training latent shifts on Ring and Grid, as one picture and one table.

    python examples/papers/ring_grid.py ring                 # about one minute of one core, writes ring.png
    python examples/papers/ring_grid.py grid --steps 20,100  # the short form: a few seconds

Sign steps of 0.003 up the raw critic, no ball and no clamp, as published; the paper draws 8,000 of them. Expected for 1,000
samples (seeds 0 to 999) of the bundled pairs:

                within 0.1    modes      JSD   mean D                     within 0.1    modes      JSD   mean D
    ring raw         75.1%   8 of 8   0.0004   -1.127        grid raw          20.6% 24 of 25   0.0029   -0.173
    100 steps        99.9%   8 of 8   0.0005   -1.010        100 steps         98.1% 25 of 25   0.0021    0.394
    8000 steps       99.9%   8 of 8   0.0005   -1.009        8000 steps        99.1% 25 of 25   0.0021    0.396

The paper's claim holds here: the samples between the modes move onto them. Nearly all of it happens in the first 100 steps; the
other 7,900 change little, because sign steps of a fixed size oscillate about a maximum of D. JSD, the weights of the modes,
hardly moves: refinement sharpens, it does not rebalance.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import latentshift
from latentshift.engine.run import Engine, Settings
from latentshift.files.folder import read_pair
from latentshift.files.scatter import RAW, REAL, REFINED, Panel, scatter
from latentshift.metrics.toy import MIXTURES, coverage
from latentshift.noise import latents
from latentshift.strategies.gradient import IFGSM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(MIXTURES))
    parser.add_argument("--steps", default="100,8000", help="step counts to stop at and draw, as in 20,100")
    parser.add_argument("--step-size", type=float, default=0.003)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--model", type=Path, help="a pair folder of 2-D points; default: the bundled pair")
    parser.add_argument("--out", type=Path, help="the picture; default: NAME.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stops = sorted({int(s) for s in args.steps.split(",")})
    mixture = MIXTURES[args.name]
    pair = read_pair(args.model or Path(latentshift.__file__).parent / "data" / args.name)
    seeds = list(range(args.rows))
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    real = mixture.sample(args.rows, torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = pair.generate(z)
        stages = [("real data", real, pair.logit(real), REAL), ("raw", raw, pair.logit(raw), RAW)]
    began, at = time.perf_counter(), 0
    for stop in stops:  # sign steps without a ball remember nothing: going on from a stage is the same as an uncut run
        climb = IFGSM(steps=stop - at, step_size=args.step_size, eps=None, support="free")
        (chunk,) = Engine(climb, pair, settings=Settings(chunk=args.rows)).run(z, seeds).chunks
        z, at = torch.from_numpy(chunk.point), stop
        stages.append((f"{stop} steps", torch.from_numpy(chunk.images), torch.from_numpy(chunk.score), REFINED))
    print(f"{'':12} {'within 0.1':>10} {'modes':>8} {'JSD':>8} {'mean D':>8}")
    panels = []
    for title, points, score, colour in stages:
        told = coverage(points, mixture.means)
        modes = f"{told['modes']} of {len(mixture.means)}"
        print(f"{title:12} {told['near']:10.1%} {modes:>8} {told['jsd']:8.4f} {float(score.mean()):8.3f}")
        panels.append(Panel(title, points, f"{told['near']:.1%} within 0.1, {modes} modes", colour=colour))
    out = args.out or Path(f"{args.name}.png")
    scatter(panels, marks=mixture.means).save(out, optimize=True)
    print(f"{out}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
