"""Paper 000 Table 7: what the methods add to the time of a training step, as ratios of process CPU time beside the paper's.

    python examples/papers/training_overhead.py                    # about two minutes of one core
    python examples/papers/training_overhead.py --only toy --rounds 3     # the short form: seconds

One generator step with n_d = 1, rounds interleaved (every method once a round), the median of the rounds' ratios to vanilla.
The paper's figures are wall seconds per 1,000 generator steps on an RTX 3090 (STL-10 at 32 and 64 pixels). Passes are counted
by hooks: -qua adds exactly one forward of G, one of D and one backward to z. Expected: -qua 1.2 to
1.4 times vanilla (paper 1.35, 1.23); docs/training-tables.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from latentshift.layers import LayerNet
from latentshift.strategies.gradient import IFGSM
from latentshift.train.assistant import AdvAs
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import BACKBONES
from latentshift.train.pieces import GradientPenalty, initialise
from latentshift.train.shifts import Climb, TowardsOther
from latentshift.train.terms import Mine, ModeSeeking, RandomPartner

GP: dict[str, Any] = {"loss": "wasserstein", "penalties": [GradientPenalty()]}
SN: dict[str, Any] = {"loss": "hinge", "spectral_norm": True}
BCE: dict[str, Any] = {"loss": "bce"}
#: network -> (backbone, sample shape, latent size, rows of D's batch, rows of G's batch)
SIZES = {
    "toy": ("mlp", (2,), 2, 50, 50),
    "small": ("small", (1, 32, 32), 64, 16, 16),
    "sngan": ("sngan", (3, 32, 32), 100, 8, 16),
}
PAPER = {("sngan", "SNGAN"): (71.01, 95.96), ("sngan", "WGAN-GP"): (103.20, 127.39)}


def qua() -> Climb:
    return Climb(IFGSM(steps=1, step_size=0.04, eps=None, support="free"))


def methods(base: dict[str, Any], clamp: tuple[float, float] | None) -> dict[str, dict[str, Any]]:
    return {
        "vanilla": base,
        "+ qua": {**base, "latent_shift": qua()},
        "+ DAT": {**base, "image_shift": TowardsOther(clamp=clamp)},
        "+ MSGAN": {**base, "partner": RandomPartner(), "terms": [ModeSeeking()]},
        "+ div": {**base, "partner": Mine(), "terms": [ModeSeeking()]},
        "+ AdvAs": {**base, "assistant": AdvAs()},
    }


def trainer(size: str, options: dict[str, Any]) -> Trainer:
    name, shape, z, rows, g_rows = SIZES[size]
    slots = {k: v for k, v in options.items() if k not in ("loss", "spectral_norm")}
    settings = Settings(
        steps=10**6,
        loss=options["loss"],
        spectral_norm=options.get("spectral_norm", False),
        batch=rows,
        g_batch=g_rows,
        ema=0.0,
    )
    draw = torch.Generator().manual_seed(0)
    G, D = LayerNet(BACKBONES[name].generator(z, shape, None)), LayerNet(BACKBONES[name].critic(shape, None, 1))
    initialise(G, 0.02, draw), initialise(D, 0.02, draw)
    return Trainer(
        G,
        D,
        lambda n, g: (torch.randn(n, *shape, generator=g), None),
        lambda n, g: torch.randn(n, z, generator=g),
        settings,
        **slots,
    )


def counts(t: Trainer) -> dict[str, int]:
    """Forwards of G and D in one step."""
    seen = {"F_G": 0, "F_D": 0}
    hooks = [
        net.register_forward_hook(lambda m, a, o, n=name: seen.update({n: seen[n] + 1}))
        for name, net in (("F_G", t.G), ("F_D", t.D))
    ]
    t.one_step()
    for h in hooks:
        h.remove()
    return seen


def ratios(runs: dict[str, Trainer], rounds: int, steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median ratio to vanilla and the CPU milliseconds of a step."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, t in runs.items():
            began = time.process_time()
            for _ in range(steps):
                t.one_step()
            times[name].append((time.process_time() - began) / steps)
    ratio = {n: statistics.median(a / b for a, b in zip(times[n], times["vanilla"], strict=True)) for n in runs}
    return ratio, {n: 1000 * statistics.median(v) for n, v in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(SIZES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| network | loss | method | F_G | F_D | ms | ratio | paper |\n|" + " --- |" * 8)
    for size in [args.only] if args.only else list(SIZES):
        for loss, base in (("BCE", BCE), ("SNGAN", SN), ("WGAN-GP", GP)):
            made = methods(base, None if size == "toy" else (-1.0, 1.0))
            kept = ["vanilla", "+ qua"] if size == "sngan" else list(made)
            if size == "sngan" and loss == "BCE":
                continue
            runs = {n: trainer(size, made[n]) for n in kept}
            passes = {n: counts(t) for n, t in runs.items()}
            ratio, ms = ratios(runs, args.rounds, 10 if size == "toy" else 1)
            for n in kept:
                paper = PAPER.get((size, loss)) if n == "+ qua" else None
                told = f"{paper[1] / paper[0]:.2f} ({paper[1]:.1f} to {paper[0]:.1f} s)" if paper else ""
                f_g, f_d = passes[n]["F_G"], passes[n]["F_D"]
                print(f"| {size} | {loss} | {n} | {f_g} | {f_d} | {ms[n]:.1f} | {ratio[n]:.2f} | {told} |", flush=True)
                rows.append({"network": size, "loss": loss, "method": n, "ms": ms[n], "ratio": ratio[n], **passes[n]})
    if args.out:
        args.out.write_text(json.dumps({"rounds": args.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
