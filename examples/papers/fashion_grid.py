"""Fashion-MNIST: the training methods side by side, and whether a D trained with -qua deserves to be climbed more.

    python examples/papers/fashion_grid.py --data DIR --cache cells            # 5 methods, 2 backbones, 3 seeds: some 4 hours
    python examples/papers/fashion_grid.py --data DIR --steps 800 --batch 32 --rows 500 --backbones T
    python examples/papers/fashion_grid.py --data DIR --steps 250 --batch 32 --rows 500 --backbones T --methods vanilla,qua
    python examples/papers/fashion_grid.py --data DIR --steps 2 --batch 8 --rows 64 --seeds 1 --backbones T     # seconds

The second line is the recorded table: 800 CPU seconds of training and about two minutes of judging, one core. The third is the
short form, two to three minutes; that and the four hours are scaled from the second, not timed. Expected of the second (FD raw,
after 20 steps): vanilla 11.1, 10.0; qua 10.7, 10.0; dat 10.5, 9.4; div 10.4, 9.9; advas 13.7, 11.8; each by about 1 to 2.

Hinge, spectral norm on D, EMA, shifts and flips; backbone S is the bundled pair's network, T half of its channels. Every
finished (backbone, method, seed) is kept in --cache. Judge: the bundled classifier that nothing climbed; FD, density and
coverage against held-out test images, before and after AdvLatGAN-z with the D of the same run: 5 steps of 0.02, and 20 steps in
a ball of 0.3. Methods share their seeds (first networks, order of the data, latents), so changes are compared seed by seed.
Papers (CIFAR-10, FID): vanilla to -qua to -qua+ 25.5, 22.3, 21.9 (SNGAN); DAT 30.20 to 26.98 (BCE); paper 000 Table 7 has the
cost. Results: docs/training-tables.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentshift.files.idx import read_idx
from latentshift.files.pictures import grid, to_bytes, to_planes
from latentshift.files.write import once
from latentshift.layers import LayerNet
from latentshift.metrics.coverage import prdc
from latentshift.metrics.distance import Moments, frechet_moments
from latentshift.metrics.judge import load_judge
from latentshift.strategies.gradient import IFGSM
from latentshift.train.assistant import AdvAs
from latentshift.train.build import finished
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import small_critic, small_generator
from latentshift.train.pieces import ShiftAndFlip, initialise
from latentshift.train.progress import auc
from latentshift.train.shifts import Climb, TowardsOther, moved
from latentshift.train.terms import Mine, ModeSeeking

Z, SHAPE = 64, (1, 32, 32)
BACKBONES = {"S": ((128, 64, 32, 16), (32, 64, 128)), "T": ((64, 32, 16, 8), (16, 32, 64))}
METHODS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "qua": {"latent_shift": Climb(IFGSM(steps=1, step_size=0.04, eps=None, support="free"))},
    "dat": {"image_shift": TowardsOther(eps=1.0)},
    "advas": {"assistant": AdvAs()},
    "div": {"partner": Mine(), "terms": [ModeSeeking()]},
}
CLIMBS = {"5": IFGSM(steps=5, step_size=0.02, eps=None, support="free"), "20": IFGSM(steps=20, eps=0.3)}


def load(folder: Path, part: str) -> torch.Tensor:
    (path,) = sorted(folder.glob(f"{part}*-images-idx3-ubyte*"))
    x = torch.from_numpy(read_idx(path).copy()).float()[:, None] / 127.5 - 1
    return torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1.0)


def one(backbone: str, method: str, seed: int, args: Any, train: torch.Tensor, held: Any) -> dict[str, Any]:
    g_widths, d_widths = BACKBONES[backbone]
    draw = torch.Generator().manual_seed(seed)
    G = initialise(LayerNet(small_generator(Z, SHAPE, None, g_widths)), 0.02, draw)
    D = initialise(LayerNet(small_critic(SHAPE, None, 1, d_widths)), 0.02, draw)
    settings = Settings(steps=args.steps, batch=args.batch, spectral_norm=True, ema=0.99, seed=seed)
    t = Trainer(
        G,
        D,
        lambda n, g: (train[torch.randint(0, len(train), (n,), generator=g)], None),
        lambda n, g: torch.randn(n, Z, generator=g),
        settings,
        augment=ShiftAndFlip(),
        **METHODS[method],
    )
    began = time.process_time()
    t.run(every=args.steps)
    seconds = time.process_time() - began
    best, critic = finished(t)
    z = torch.randn(args.rows, Z, generator=torch.Generator().manual_seed(1000 + seed))
    judge, test, reals = held

    @torch.no_grad()
    def look(points: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        images = torch.cat([best(p) for p in points.split(100)])
        seen = judge.see(to_planes(images.numpy()))
        near = prdc(reals[: len(seen)], seen, k=5)
        score = torch.cat([critic(p).flatten() for p in images.split(100)])
        return images, {
            "fd": frechet_moments(Moments.of(seen), Moments.of(reals)),
            "density": near.density,
            "coverage": near.coverage,
            "logit": float(score.mean()),
            "auc": auc(critic(test[: len(images)]).flatten(), score),
        }

    shown, told = look(z)
    row: dict[str, Any] = {"raw": told, "seconds": seconds}
    tiles = [shown[:10]]
    for name, climb in CLIMBS.items():
        images, row[name] = look(torch.cat([moved(climb, p, None, best, critic, "running") for p in z.split(100)]))
        tiles.append(images[:10])
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        pixels = to_bytes(torch.cat([*tiles, shown[10:50]]).numpy())
        title = f"{method}: raw, 5 and 20 steps; below, more of raw"
        grid(None, pixels, [""] * len(pixels), columns=10, title=title).save(args.pictures / f"{backbone}-{method}-{seed}.png")
    return row


def told(values: list[float], digits: int = 2) -> str:
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def changes(rows: list[dict[str, Any]], climb: str) -> list[float]:
    """FD after a climb minus FD before it, seed by seed."""
    return [r[climb]["fd"] - r["raw"]["fd"] for r in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST's idx files")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--cache", type=Path, help="a folder for finished cells")
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of every run")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = load(args.data, "train"), load(args.data, "t10k")[:2000]
    judge = load_judge("fashion32-judge")
    held = (judge, test, judge.see(to_planes(test.numpy())))
    table, of = [], {}
    print("| backbone | method | FD raw | 5 steps | change | 20 steps | change | density raw, 5, 20 | AUC | CPU s |")
    print("|" + " --- |" * 10)
    for backbone in args.backbones.split(","):
        for method in args.methods.split(","):
            rows = []
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                name = f"fashion-{backbone}-{method}-{seed}-{args.steps}-{args.batch}-{args.rows}.json"
                kept = args.cache / name if args.cache else None
                rows.append(once(kept, partial(one, backbone, method, seed, args, train, held)))
            cells = [told([r["raw"]["fd"] for r in rows])]
            for climb in CLIMBS:
                cells += [told([r[climb]["fd"] for r in rows]), told(changes(rows, climb))]
            cells.append(", ".join(f"{statistics.fmean(r[when]['density'] for r in rows):.2f}" for when in ("raw", *CLIMBS)))
            cells += [told([r["raw"]["auc"] for r in rows]), f"{statistics.fmean(r['seconds'] for r in rows):.0f}"]
            print(f"| {backbone} | {method} | " + " | ".join(cells) + " |", flush=True)
            table.append({"backbone": backbone, "method": method, "rows": rows})
            of[backbone, method] = rows
    for (backbone, method), rows in of.items():
        plain = of.get((backbone, "vanilla"))
        if plain is None or method == "vanilla":
            continue
        print(f"\n{backbone}, {method} minus vanilla, seed by seed (below 0: {method} is better):")
        print(f"  FD raw: {apart([r['raw']['fd'] for r in rows], [r['raw']['fd'] for r in plain])}")
        for climb in CLIMBS:
            print(f"  change of FD by {climb} steps: {apart(changes(rows, climb), changes(plain, climb))}")
    if args.out:
        args.out.write_text(json.dumps({"steps": args.steps, "batch": args.batch, "rows": table}, indent=1) + "\n")


def apart(a: list[float], b: list[float]) -> str:
    return ", ".join(f"{x - y:+.2f}" for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
