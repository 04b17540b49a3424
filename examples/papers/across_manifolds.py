"""Paper 001 Fig. 3, paper 000 Fig. 15: walks between samples, before and after the shift of their latents.

    python examples/papers/across_manifolds.py ring                          # 200 walks of 11 points; five seconds
    python examples/papers/across_manifolds.py grid
    python examples/papers/across_manifolds.py fashion32                     # 60 walks of 9 garments, its judge; 15 s
    python examples/papers/across_manifolds.py FOLDER --reals DATA --network FILE.safetensors
    python examples/papers/across_manifolds.py ring --walks 20 --steps 20    # the short form: two seconds

Between two samples of different modes a generator without jumps makes things that lie in no mode. The papers show such walks
and say that the shifted ones stay on the data; they print pictures and no number. Here each frame of every walk is shifted on
its own: 100 sign steps of 0.003 for points, the paper's 20 of 0.05 for images. Printed for each place on the walk: points
within 0.1 of a mode (ends in different modes), or the share of images that a network which nothing climbed finds inside the
real data (precision, k = 5), and the mean score.

Expected of inner frames, raw to shifted: ring 73.4 % to 99.6 %, grid 27.2 % to 98.8 %, fashion32 87.6 % to 85.2 % (no gain).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from interpolation import between

from latentshift import Sampler, load
from latentshift.files.images import read_images
from latentshift.files.pictures import grid, save_png, to_bytes, to_planes
from latentshift.files.scatter import RAW, REFINED, Panel, scatter
from latentshift.metrics.coverage import prdc_rows
from latentshift.metrics.features import extract
from latentshift.metrics.judge import Judge, load_judge
from latentshift.metrics.networks import load_network
from latentshift.metrics.toy import MIXTURES
from latentshift.noise import latents
from latentshift.strategies.gradient import IFGSM


def ends(pair: Any, walks: int, means: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return two latents per walk, (walks, n) each; with `means` samples that lie in different modes, within 0.1."""
    z = latents(range(20 * walks if means is not None else 2 * walks), pair.space.shape, pair.space.prior)
    if means is None:
        return z[:walks], z[walks:]
    with torch.no_grad():
        x = pair.generate(torch.from_numpy(z)).numpy()
    far = np.linalg.norm(x[:, None] - means[None], axis=2)
    z, mode = z[far.min(1) < 0.1], far.argmin(1)[far.min(1) < 0.1]
    half = len(z) // 2
    apart = mode[:half] != mode[half : 2 * half]
    return z[:half][apart][:walks], z[half : 2 * half][apart][:walks]


def near_modes(means: np.ndarray) -> Any:
    return lambda x: np.linalg.norm(np.asarray(x)[:, None] - means[None], axis=2).min(1) < 0.1


def in_the_data(judge: Judge, pair: Any) -> Any:
    """Return a function from images to whether each lies in a ball of the reference."""

    def on(x: Any) -> np.ndarray:
        seen = extract(judge.network, to_planes(x, pair.image_range)).features
        return prdc_rows(judge.features, seen, k=5).balls > 0

    return on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="ring")
    parser.add_argument("--walks", type=int, help="default: 200 of points, 60 of images")
    parser.add_argument("--frames", type=int, help="default: 11, 9")
    parser.add_argument("--steps", type=int, help="default: 100, 20")
    parser.add_argument("--step-size", type=float, help="default: 0.003, 0.05")
    parser.add_argument("--reals", type=Path)
    parser.add_argument("--network", type=Path)
    parser.add_argument("--out", type=Path, help="the picture; default: MODEL-walks.png")
    args = parser.parse_args()
    if (args.reals is None) != (args.network is None):
        raise SystemExit("--reals and --network belong together")
    torch.set_num_threads(1)
    began = time.process_time()
    pair = load(args.model)
    points = pair.name in MIXTURES
    defaults = (200, 11, 100, 0.003) if points else (60, 9, 20, 0.05)
    typed = (args.walks, args.frames, args.steps, args.step_size)
    walks, frames, steps, size = (d if v is None else v for v, d in zip(typed, defaults, strict=True))
    means = np.array(MIXTURES[pair.name].means) if points else None
    a, b = ends(pair, walks, means)
    round_ = pair.space.prior.kind == "normal" and pair.space.size > 8
    z = np.stack([between(p, q, frames, round_) for p, q in zip(a, b, strict=True)]).astype(np.float32)
    climb = IFGSM(steps=steps, step_size=size, eps=None, support="free")
    r = Sampler(pair, chunk=256 if points else 64).refine(z.reshape(-1, *z.shape[2:]), strategy=climb, before=True)
    on = near_modes(means) if means is not None else in_the_data(judge_of(args, pair), pair)
    held = [on(x).reshape(len(a), frames) for x in (r.images0, r.images)]
    score = [np.asarray(s).reshape(len(a), frames) for s in (r.score0, r.score)]
    print(
        f"{pair.name}, {len(a)} walks: " + ("within 0.1 of a mode" if points else "precision") + ", score, by place on the walk"
    )
    print("| walk | " + " | ".join(f"{t:.2f}" for t in np.linspace(0, 1, frames)) + " | inner | mean score |")
    print("| --- |" + " --- |" * (frames + 2))
    for name, h, s in zip(("raw", f"{steps} steps of {size:g}"), held, score, strict=True):
        cells = [f"{v:.0%}" for v in h.mean(0)]
        print(f"| {name} | {' | '.join(cells)} | {h[:, 1:-1].mean():.1%} | {s[:, 1:-1].mean():.3f} |")
    out = args.out or Path(f"{pair.name}-walks.png")
    few = 12 if points else 5
    if points:
        clouds = [np.asarray(x).reshape(len(a), frames, 2)[:few].reshape(-1, 2) for x in (r.images0, r.images)]
        notes = [f"{h[:, 1:-1].mean():.0%} of inner points within 0.1 (all walks)" for h in held]
        panels = [Panel("raw", clouds[0], notes[0], colour=RAW), Panel("shifted", clouds[1], notes[1], colour=REFINED)]
        scatter(panels, marks=means).save(out, optimize=True)
    else:
        before, after = (to_bytes(np.asarray(x)[: few * frames], pair.image_range) for x in (r.images0, r.images))
        names = [f"{t:.2f}{'' if ok else ' out'}" for row in held[1][:few] for t, ok in zip(np.linspace(0, 1, frames), row)]
        title = f"{pair.name}: walks between two seeds, raw above shifted; out: not in the data for the judge, after"
        save_png(out, grid(before, after, names, None, columns=frames, title=title))
    print(f"{out}: {time.process_time() - began:.0f} s")


def judge_of(args: argparse.Namespace, pair: Any) -> Judge:
    """Return the judge: the bundled one of garments, or a network on real images."""
    if args.reals is None:
        return load_judge("fashion32-judge")
    channels, side, _ = pair.image_shape
    return Judge.of(load_network(args.network), read_images(args.reals, size=side, channels=channels).images[:3000])


if __name__ == "__main__":
    main()
