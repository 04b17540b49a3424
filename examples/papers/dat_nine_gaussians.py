"""DAT (paper 002) in the plane: nine Gaussians even and uneven (figure 1), attack counts (figure 3), learning rates (4, 5).

    python examples/papers/dat_nine_gaussians.py                            # about seven minutes of one core
    python examples/papers/dat_nine_gaussians.py --steps 2000 --seeds 2   # as recorded: three minutes
    python examples/papers/dat_nine_gaussians.py --steps 30 --seeds 1       # the short form: seconds

Means {-1, 0, 1}^2, variance 0.1 in each coordinate as printed (sd 0.316), MLPs with four layers of 64; the uneven case has
column weights 0.15, 0.05, 0.8. Compared at a fifth, a third and the end of --steps (the paper: 2k, 3k, 10k). The paper prints
pictures; here are W1 to fresh data, the columns' weights, and the attack steps until real and generated points score alike
(paper, MNIST and DCGAN: 3.2 generated / 3.9 real untrained, 37.4 / 7.4 after DAT). Expected at a third
of 1,500 steps, even: W1 0.27 plain, 0.39 DAT; attack steps 7.5 / 10.3 and 32.4 / 19.1 (docs/training-tables.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentshift.files.write import once
from latentshift.layers import LayerNet
from latentshift.metrics.toy import wasserstein1
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import mlp
from latentshift.train.shifts import TowardsOther

WEIGHTS = {"even": (1 / 3, 1 / 3, 1 / 3), "uneven": (0.15, 0.05, 0.8)}
SD = 0.1**0.5
WIDTHS = (64, 64, 64, 64)


def sample(case: str, rows: int, g: torch.Generator) -> Tensor:
    column = torch.multinomial(torch.tensor(WEIGHTS[case]), rows, replacement=True, generator=g)
    row = torch.randint(0, 3, (rows,), generator=g)
    return torch.stack([column - 1.0, row - 1.0], 1) + SD * torch.randn(rows, 2, generator=g)


def trainer(case: str, dat: bool, seed: int, steps: int, lr: float) -> Trainer:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        G, D = LayerNet(mlp(2, 2, WIDTHS)), LayerNet(mlp(2, 1, WIDTHS))
    settings = Settings(
        steps=steps, loss="bce", batch=64, lr_g=lr, lr_d=lr, betas=(0.0, 0.9), decay_share=0.0, ema=0.0, seed=seed
    )
    shift = TowardsOther(eps=1.0, clamp=None) if dat else None
    return Trainer(
        G, D, lambda n, g: (sample(case, n, g), None), lambda n, g: torch.randn(n, 2, generator=g), settings, image_shift=shift
    )


def figures(t: Trainer, case: str, rows: int = 1000) -> dict[str, Any]:
    g = torch.Generator().manual_seed(99)
    with torch.no_grad():
        points = t.G(torch.randn(rows, 2, generator=g))
    shares = [float(((points[:, 0] - c).abs() < 0.5).float().mean()) for c in (-1.0, 0.0, 1.0)]
    return {"w1": wasserstein1(points, sample(case, rows, g)), "columns": shares}


def attack_steps(t: Trainer, case: str, side: str, *, most: int = 200, size: float = 0.02, rows: int = 200) -> float:
    """Mean sign steps until a point's score is within 0.02 of the other side's mean (`most` where it is never)."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        fake, real = t.G(torch.randn(rows, 2, generator=g)), sample(case, rows, g)
        x, goal = (fake, torch.sigmoid(t.D(real)).mean()) if side == "generated" else (real, torch.sigmoid(t.D(fake)).mean())
    took = torch.full((rows,), float(most))
    for step in range(most):
        x = x.detach().requires_grad_(True)
        score = torch.sigmoid(t.D(x)).flatten()
        there = (score - goal).abs() <= 0.02
        took = torch.where(there & (took == most), torch.full_like(took, float(step)), took)
        if bool((took < most).all()):
            break
        (grad,) = torch.autograd.grad((score - goal).abs().sum(), x)
        x = torch.where((took < most)[:, None], x, x - size * grad.sign())
    return float(took.mean())


def cell(case: str, dat: bool, lr: float, seed: int, stops: list[int], attack: int) -> list[dict[str, Any]]:
    """Train one run and return its figures at every stop."""
    t, told = trainer(case, dat, seed, stops[-1], lr), []
    for stop in stops:
        while t.step < stop:
            t.one_step()
        told.append({**figures(t, case), **{s: attack_steps(t, case, s, most=attack) for s in ("generated", "real")}})
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", default="0.0001,0.001,0.005", help="learning rates of the sensitivity table")
    parser.add_argument("--attack", type=int, default=200, help="give an attack up after so many steps")
    parser.add_argument("--cache", type=Path, help="a folder for finished runs")
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    every = sorted({max(1, args.steps // 5), max(1, args.steps // 3), args.steps})
    rows: list[dict[str, Any]] = []
    print("| case | method | rate | step | W1 | columns | attack steps, generated / real |\n|" + " --- |" * 7)
    runs = [(case, dat, 1e-3) for case in WEIGHTS for dat in (False, True)]
    runs += [("even", dat, float(r)) for r in args.rates.split(",") if float(r) != 1e-3 for dat in (False, True)]
    for case, dat, lr in runs:
        stops, told = every if lr == 1e-3 else every[-1:], []
        for seed in range(args.seeds):
            name = f"dat-{case}-{'dat' if dat else 'vanilla'}-{lr:g}-{seed}-{args.steps}-{args.attack}.json"
            kept = args.cache / name if args.cache else None
            told.append(once(kept, partial(cell, case, dat, lr, seed, stops, args.attack)))
        for i, stop in enumerate(stops):
            at = [t[i] for t in told]
            w1 = [r["w1"] for r in at]
            row = {
                "case": case,
                "method": "DAT" if dat else "vanilla",
                "rate": lr,
                "step": stop,
                "w1": statistics.fmean(w1),
                "w1_sd": statistics.stdev(w1) if len(w1) > 1 else 0.0,
                "columns": [statistics.fmean(r["columns"][c] for r in at) for c in range(3)],
                **{s: statistics.fmean(r[s] for r in at) for s in ("generated", "real")},
            }
            rows.append(row)
            columns = " ".join(f"{c:.2f}" for c in row["columns"])
            print(
                f"| {case} | {row['method']} | {lr:g} | {stop} | {row['w1']:.3f} ± {row['w1_sd']:.3f} | {columns} | "
                f"{row['generated']:.1f} / {row['real']:.1f} |",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps({"steps": args.steps, "seeds": args.seeds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
