"""AdvAs (paper 003) on MNIST: with an instance-norm convolutional critic (E.1), and alone, without G's own loss (C.3).

    python examples/papers/advas_mnist.py --data DIR --judge NET                         # about 4 minutes
    python examples/papers/advas_mnist.py --data DIR --judge NET --steps 160 --seeds 1   # as recorded: under a minute
    python examples/papers/advas_mnist.py --data DIR --judge NET --steps 10 --seeds 1 --rows 40    # the short form: seconds

DIR: MNIST's idx files; where only the t10k files are there, 8,000 of them train and 2,000 are held out, and the output says so.
NET: a network's file that knows digits; its features give the Fréchet distance to the held-out images. Networks of the paper
with --width of their channels. Arms: WGAN-GP and WGAN-GP + AdvAs (instance norm in both networks, Adam (0.5, 0.999)), compared
at equal steps and at equal CPU time; "alone": the weights of D are clipped, G (bilinear upsampling, batch norm) follows the
gradient of r alone. The paper prints curves: FID falls faster with AdvAs and ends alike; alone, digits are partly recognisable
after 100,000 steps. Expected of the recorded line (one seed, held-out FD): 110 WGAN-GP, 126 with AdvAs at equal steps, 208
alone (189 before any step). Results: docs/training-tables.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from at_gan import load

from latentshift.files.pictures import grid, to_bytes, to_planes
from latentshift.files.write import once
from latentshift.layers import LayerNet
from latentshift.metrics.distance import Moments, frechet_moments
from latentshift.metrics.judge import Judge
from latentshift.metrics.networks import load_network
from latentshift.train.assistant import AdvAs
from latentshift.train.build import finished
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import advas_critic, advas_generator, conv, linear, norm
from latentshift.train.penalties import WeightClip
from latentshift.train.pieces import GradientPenalty

SHAPE, Z = (1, 28, 28), 64
ARMS: dict[str, dict[str, Any]] = {
    "WGAN-GP": {"penalties": [GradientPenalty()]},
    "WGAN-GP + AdvAs": {"penalties": [GradientPenalty()], "assistant": AdvAs()},
    "AdvAs alone": {"after_d": [WeightClip(0.05)], "assistant": AdvAs(scale="alone")},
}


def upsampling_generator(first: int) -> list[dict[str, Any]]:
    """C.3's kind of G: linear to 7x7, twice bilinear upsampling with convolution, batch norm, ReLU; tanh."""
    layers: list[dict[str, Any]] = [linear("stem", Z, first * 49), {"op": "Reshape", "kw": {"shape": [first, 7, 7]}}]
    for i, (a, b) in enumerate(((first, first // 2), (first // 2, first // 4))):
        layers += [{"op": "UpsampleBilinear", "kw": {"scale_factor": 2}}, conv(f"conv{i}", a, b, 3, 1, 1)]
        layers += [norm(f"norm{i}", b), {"op": "ReLU"}]
    return [*layers, conv("out", first // 4, 1, 3, 1, 1), {"op": "Tanh"}]


def trainer(arm: str, seed: int, steps: int, batch: int, width: float, images: torch.Tensor) -> Trainer:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        first = int(64 * width)
        G = LayerNet(upsampling_generator(2 * first) if arm == "AdvAs alone" else advas_generator(Z, SHAPE, None, first))
        D = LayerNet(advas_critic(SHAPE, None, 1, [int(w * width) for w in (64, 128, 256)]))
    settings = Settings(
        steps=steps, loss="wasserstein", batch=batch, lr_g=1e-3, lr_d=1e-3, decay_share=0.0, ema=0.9, seed=seed, n_d=1
    )
    return Trainer(
        G,
        D,
        lambda n, g: (images[torch.randint(0, len(images), (n,), generator=g)], None),
        lambda n, g: torch.randn(n, Z, generator=g),
        settings,
        **ARMS[arm],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--stops", type=int, default=4, help="how often to measure")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--cache", type=Path, help="a folder for finished runs and their pictures")
    parser.add_argument("--out", type=Path, help="write the curves as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images, _, held, _, where = load(args.data)
    print(f"{where}; width {args.width:g}, batch {args.batch}", flush=True)
    judge = Judge.of(load_network(args.judge), np.ascontiguousarray(to_planes(held[:2000].numpy())))
    stops = sorted({max(1, args.steps * (i + 1) // args.stops) for i in range(args.stops)})

    def run(arm: str, seed: int) -> list[dict[str, float]]:
        t, seconds, curve = trainer(arm, seed, args.steps, args.batch, args.width, images), 0.0, []
        for stop in stops:
            began = time.process_time()
            while t.step < stop:
                t.one_step()
            seconds += time.process_time() - began
            G, _ = finished(t)
            z = torch.randn(args.rows, Z, generator=torch.Generator().manual_seed(9))
            with torch.no_grad():
                made = torch.cat([G(p) for p in z.split(250)])
            fd = frechet_moments(Moments.of(judge.see(to_planes(made.numpy()))), judge.moments)
            curve.append({"step": stop, "fd": fd, "seconds": seconds})
        if args.cache:
            args.cache.mkdir(parents=True, exist_ok=True)
            picture = grid(
                None, to_bytes(made[:40].numpy()), [""] * min(40, args.rows), columns=10, title=f"{arm}, step {stop}"
            )
            picture.save(args.cache / f"{arm}-{seed}.png".replace(" ", "-"))
        return curve

    table = []
    print("| arm | " + " | ".join(f"FD at {s}" for s in stops) + " | CPU s at the end |\n|" + " --- |" * (len(stops) + 2))
    for arm in args.arms.split(","):
        curves = []
        for seed in range(args.seeds):
            name = f"advas-{arm}-{seed}-{args.steps}-{args.stops}-{args.batch}-{args.width:g}-{args.rows}.json"
            kept = args.cache / name.replace(" ", "-") if args.cache else None
            curves.append(once(kept, partial(run, arm, seed)))
        cells = []
        for at in zip(*curves, strict=True):
            values = [c["fd"] for c in at]
            cells.append(f"{statistics.fmean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}")
        seconds = statistics.fmean(c[-1]["seconds"] for c in curves)
        print(f"| {arm} | " + " | ".join(cells) + f" | {seconds:.0f} |", flush=True)
        table.append({"arm": arm, "curves": curves})
    if args.out:
        args.out.write_text(
            json.dumps({"data": where, "steps": args.steps, "batch": args.batch, "rows": table}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
