"""Post-training sampling side by side: paper 001 tables 3, 9 and 10, paper 000 Table 10, on pairs that are at hand.

    python examples/papers/post_training.py                              # the bundled pair and its judge; about 3 minutes
    python examples/papers/post_training.py --rows 64 --only raw,ifgsm   # the short form: ten seconds
    python examples/papers/post_training.py --model FOLDER --reals DATA --network FILE.safetensors

Each method at the setting of its recipe, the same seeds, judged by a network that nothing climbed: Inception Score by its
logits, Frechet distance, precision, density and coverage. The paper's figures stand beside (IS / FID, DCGAN and SNGAN on
CIFAR-10, its tables 4, 9, 10; optimisers: WGAN-GP and SNGAN, paper 000 Table 10). They come from other networks and another
Inception: what can be compared is the order. Expected for 500 rows of fashion32 (IS / FD / density / coverage):

    raw 4.311 / 1.006 / .852 / .838        evolgan a=0 b=80 3.550 / 1.532 / .655 / .704     ddls 4.203 / 1.049 / .820 / .846
    ifgsm 4.056 / 1.261 / .668 / .736      evolgan a=1 b=20 3.281 / 2.254 / .718 / .650     dot  4.350 / 0.986 / .833 / .842
    mifgsm 3.847 / 2.133 / .545 / .614     pgd 3.956 / 1.110 / .703 / .714                  auto 4.336 / 0.950 / .830 / .822

The paper's gains do NOT hold on this well-trained pair: its own setting (ifgsm) is worse than raw in every column, as EvolGAN
and momentum are; that EvolGAN is the worst does hold. Only short moves (dot, auto) stay within the noise of raw.

Out of reach of a machine without a card and without the data: CIFAR-10 at full length, STL-10, LSUN, CelebA, ImageNet (the same
command with --model, --reals and --network inception elsewhere), and human evaluation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from latentshift import Sampler, load
from latentshift.files.images import read_images
from latentshift.files.pictures import to_planes
from latentshift.metrics.judge import Judge, load_judge
from latentshift.metrics.networks import load_network

#: name -> (recipe, changes, paper: DCGAN IS / FID, SNGAN IS / FID on CIFAR-10)
METHODS: dict[str, tuple[str, dict, str, str]] = {
    "raw": ("advlatgan-z/ball", {"steps": 0}, "5.92 / 46.4", "7.29 / 25.5"),
    "ifgsm": ("advlatgan-z/cifar10", {}, "6.09 / 45.8", "7.83 / 23.5"),
    "mifgsm": ("advlatgan-z/cifar10", {"strategy": "mifgsm", "steps": 20, "step_size": 0.05, "eps": 1.0}, "-", "8.26 / 18.2"),
    "pgd": ("advlatgan-z/cifar10", {"strategy": "pgd", "steps": 20, "step_size": 0.05, "eps": 1.0}, "-", "8.11 / 18.8"),
    "evolgan a=0 b=80": ("evolgan/a0-b80", {}, "5.89 / 48.4 (best of four)", "7.30 / 27.4 (best of four)"),
    "evolgan a=1 b=20": ("evolgan/a1-b20", {}, "", ""),
    "ddls": ("ddls/640", {"steps": 100, "calibration": "none"}, "5.50 / 58.1", "6.88 / 27.5"),
    "dot": ("dot/latent", {"steps": 20}, "-", "-"),
    "auto": ("auto", {}, "-", "-"),
}


def judge_of(args: argparse.Namespace, pair) -> Judge:
    """Return the judge: the bundled one, or a network on the real images that were given."""
    if args.reals is None:
        return load_judge("fashion32-judge")
    channels, side, _ = pair.image_shape
    reals = read_images(args.reals, size=side, channels=channels).images
    return Judge.of(load_network(args.network), reals[: args.reference])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion32")
    parser.add_argument("--reals", type=Path)
    parser.add_argument("--network", type=Path)
    parser.add_argument("--reference", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--only", help="methods, as in raw,ifgsm")
    args = parser.parse_args()
    if (args.reals is None) != (args.network is None):
        raise SystemExit("--reals and --network belong together")
    torch.set_num_threads(1)
    pair = load(args.model)
    judge = judge_of(args, pair)
    wanted = args.only.split(",") if args.only else list(METHODS)
    head = f"| method ({pair.name}, {args.rows} rows, {judge.network.name}) | IS | FD | precision | density | coverage "
    print(head + "| CPU s | paper: DCGAN | SNGAN |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in wanted:
        recipe, changes, dcgan, sngan = METHODS[name]
        began = time.process_time()
        result = Sampler(pair, recipe=recipe, chunk=64).refine(seeds=range(args.rows), **changes)
        spent = time.process_time() - began
        images = to_planes(result.images, pair.image_range)
        seen = {r.metric.split("-")[0]: r.value for r in judge.readings(images)}
        cells = [f"{seen[k]:.3f}" if k in seen else "-" for k in ("IS", "FD", "precision", "density", "coverage")]
        print(f"| {name} | {' | '.join(cells)} | {spent:.0f} | {dcgan} | {sngan} |", flush=True)


if __name__ == "__main__":
    main()
