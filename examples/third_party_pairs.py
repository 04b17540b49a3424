"""Does refinement improve images? Pairs that other people trained, and judges that nothing climbed.

    python examples/third_party_pairs.py --shared DIR --out RESULTS           # about 2 minutes of one idle core a pair
    python examples/third_party_pairs.py --shared DIR --out RESULTS --short   # sprites alone, 100 rows, no fit: 15 s
    python examples/third_party_tables.py RESULTS                             # the tables

DIR holds `reference/pairs`, `reference/real` and `data`. Each pair's real images are split at random: one part for critics, the
other for the judges' reference only. Arms, on the same latents: `raw`; `paper` (20 sign steps of 0.05 up the pair's own D);
`auto` (no real images); `auto, reals` (an honest critic, fitted here for the first hidden layer of G and climbed there as far
as `latentshift.train.depth` lets it); `latents, reals` (the same with the latents in place of the layer); `reals N` (N steps up
that one, whatever the rule says); `random` (as many random sign steps of 0.05 in the latents: a null that must show nothing);
`random, layer` (as many, of the length of `auto, reals`, in the layer: what such noise does); `best of N` by the pair's own D,
N such that it takes the CPU time of `auto, reals` (the fit not counted).

Judges are features of two networks per pair that no critic saw; 64 principal components of the reference, scaled to total
variance 1; FD is 100 times the Frechet distance there. Change / its standard error: 40 paired bootstrap draws of the samples,
two draws of latents. A network that the critic looks through may not judge. Results are kept per pair and arm: a run that was
cut goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import latentshift
from latentshift import Sampler, load
from latentshift.files.folder import read_critic
from latentshift.files.images import read_images
from latentshift.files.pictures import grid, save_png, to_bytes, to_planes
from latentshift.files.write import write_json
from latentshift.metrics.coverage import prdc_rows
from latentshift.metrics.distance import frechet_gaussian
from latentshift.metrics.features import extract
from latentshift.metrics.independence import may_not_judge, refuse_partial
from latentshift.metrics.networks import load_network
from latentshift.metrics.stats import bootstrap_change, paired_test
from latentshift.strategies.base import Info
from latentshift.strategies.gradient import IFGSM
from latentshift.train.honest import fit_critic

PAIRS = {
    "sprites16-dcgan-bce": "sprites",
    "mnist28-mlp-bce": "mnist",
    "faces32-lsgan": "faces",
    "mnist28-wgangp-bn": "mnist",
    "mnist28-cond-wgangp": "mnist",
    "fashion28-dcgan-bce": "fashion",
    "mnist28-dcgan-bce": "mnist",
    "mnist28-vaegan-2d": "mnist",
    "fashion32": "fashion",
    "fashion32-sn": "fashion",
}
ARMS = ("raw", "paper", "auto", "auto, reals", "latents, reals", "random", "random, layer", "best of N")
NETS = {"cnn-mnist": "cnn_mnist", "cnn-fashion": "cnn_fashion_mnist", "resnet20": "resnet20_cifar10"}
JUDGES = {
    "mnist": ("cnn-mnist", "resnet20"),
    "fashion": ("cnn-fashion", "resnet20"),
    "faces": ("resnet20", "pca"),
    "sprites": ("resnet20", "pca"),
    "cifar": ("resnet20", "pca"),
}
#: the same G, so the same honest critic
HONEST_OF = {"fashion32-sn": "fashion32"}
KEPT = (
    "verdict",
    "why",
    "steps",
    "step_size",
    "space",
    "tried",
    "auc_raw",
    "auc_refined",
    "seconds",
    "overfitting",
)  # of a card


@dataclass(frozen=True, kw_only=True)
class RandomSigns(IFGSM):
    """As many steps as long, in random directions: what a change of that size does to a judge by itself."""

    name = "random-signs"

    def step(self, state: Any, t: Any, landscape: Any, draw: Any) -> Any:
        noise = draw.uniform(int(t), "random", (landscape.space.size,)).reshape(state.point.shape)
        move = self.rate(t) * self.scale(landscape) * (noise - 0.5).sign().to(state.point)
        moved = self.inside(state.point + move, state.start, landscape)
        return state._replace(point=moved), Info(torch.zeros(len(moved)))


def real_images(shared: Path, data: str, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (images for critics, images for judges), uint8 (n, C, H, W), split at random once and for all."""
    if data == "faces":
        x = np.load(shared / "reference/real/faces.npz")["faces32"].transpose(0, 3, 1, 2)
    elif data == "sprites":
        x = np.load(shared / "reference/real/sprites16.npz")["sprites16"][:, None]
    elif data == "cifar":
        x = np.concatenate([tiles(path) for path in sorted((shared / "data/cifar10").glob("test_*.webp"))])
    else:
        name = {"mnist": "mnist/t10k-images-idx3-ubyte.gz", "fashion": "fashion-mnist/t10k6978-images-idx3-ubyte.xz"}[data]
        x = read_images(shared / "data" / name).images
    order = np.random.default_rng(0).permutation(len(x))
    half = len(x) // 2
    judge = x[order[half:]][:reference]
    if data == "faces":
        judge = np.concatenate([judge, judge[..., ::-1]])
    return np.ascontiguousarray(x[order[:half]]), np.ascontiguousarray(judge)


def tiles(path: Path) -> np.ndarray:
    """Return the 1,000 images of 32x32 that lie in one picture of 40 rows of 25, uint8 (1000, 3, 32, 32)."""
    with Image.open(path) as picture:
        whole = np.asarray(picture.convert("RGB")).reshape(40, 32, 25, 32, 3)
    return whole.transpose(0, 2, 4, 1, 3).reshape(1000, 3, 32, 32)


class Judge:
    """Features of a network (or of pixels) on the first principal components of the reference."""

    def __init__(self, name: str, shared: Path, reference: np.ndarray) -> None:
        self.net = None if name == "pca" else load_network(shared / "data/nets" / f"{NETS[name]}_fp16.safetensors")
        if self.net is not None:
            self.net.net.to(memory_format=torch.channels_last)
        rows = self._rows(reference)
        self.mean = rows.mean(0)
        size = 48 if name == "pca" else 64
        _, s, v = np.linalg.svd(rows - self.mean, full_matrices=False)
        self.basis = v[:size].T / math.sqrt((s[:size] ** 2).sum() / (len(rows) - 1))
        self.reference = self.see(reference)
        self.moments = self.reference.mean(0), np.cov(self.reference.T)

    def _rows(self, images: np.ndarray) -> np.ndarray:
        if self.net is None:
            return images.reshape(len(images), -1).astype(np.float64) / 255
        return extract(self.net, images).features.numpy().astype(np.float64)

    def see(self, images: np.ndarray) -> np.ndarray:
        return (self._rows(images) - self.mean) @ self.basis

    def distance(self, rows: np.ndarray) -> float:
        return 100 * frechet_gaussian(rows.mean(0), np.cov(rows.T), *self.moments)

    def values(self, rows: np.ndarray) -> tuple[dict[str, float], Any]:
        found = prdc_rows(self.reference, rows)
        v = found.values()
        four = {"precision": v.precision, "recall": v.recall, "density": v.density, "coverage": v.coverage}
        return {"FD": self.distance(rows), **four}, found

    def compare(self, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
        """Return values and changes, each change with its standard error."""
        old, a = self.values(before)
        new, b = self.values(after)
        fd = bootstrap_change(self.distance, before, after, draws=40)
        errors = {
            "FD": fd.sd,
            "precision": paired_test(a.balls > 0, b.balls > 0).error,
            "recall": paired_test(a.recalled, b.recalled).error,
            "density": paired_test(a.balls / a.k, b.balls / b.k).error,
            "coverage": paired_test(a.covered, b.covered).error,
        }
        return {k: {"raw": old[k], "value": new[k], "change": new[k] - old[k], "error": errors[k]} for k in old}


def to_uint8(images: torch.Tensor, pair: Any) -> np.ndarray:
    return to_planes(images, pair.image_range)


def pair_of(name: str, shared: Path) -> Any:
    folder = shared / "reference/pairs" / name
    return load(folder if folder.is_dir() else name)


def prepared(images: np.ndarray, pair: Any) -> np.ndarray:
    """28x28 images get the black border that a 32x32 pair was trained with."""
    short = pair.image_shape[1] - images.shape[2]
    return np.pad(images, ((0, 0), (0, 0), (short // 2,) * 2, (short // 2,) * 2)) if short else images


def honest(
    name: str, pair: Any, reals: np.ndarray, out: Path, kind: str = "both", space: str = "auto"
) -> tuple[Any, dict[str, Any]]:
    """Return the honest critic of a pair, fitted once and kept in a folder, and what its card says."""
    folder = out / "critics" / (f"{name}-{len(reals)}-{kind}" + ("" if space == "auto" else f"-{space}"))
    if not (folder / "card.json").exists():
        began = time.process_time()
        fitted = fit_critic(pair, reals, kind=kind, space=space, report=lambda s: print(f"    {s}", flush=True))
        fitted = replace(fitted, seconds=time.process_time() - began)
        fitted.save(folder)
    return read_critic(folder), json.loads((folder / "card.json").read_text())["honest"]


def in_latents(arm: str) -> bool:
    """Whether an arm climbs an honest critic that was fitted for the latents."""
    return arm == "latents, reals" or arm.startswith("reals ")


def refine_arm(arm: str, pair: Any, seeds: range, critic: Any, card: dict[str, Any], steps: int, n: int) -> Any:
    """Return the result of an arm through the public API."""
    size = (card.get("step_size") or 0.05) if arm in ("auto, reals", "latents, reals", "random, layer") else 0.05
    space = card.get("space", "z") if arm in ("auto, reals", "random, layer") else "z"
    moves = {"steps": steps, "step_size": size, "eps": None, "support": "auto", "unit": "prior"}
    if arm == "raw":
        return Sampler(pair).refine(seeds=seeds, strategy="ifgsm", steps=0)
    if arm == "paper":
        return Sampler(pair, recipe="advlatgan-z/cifar10").refine(seeds=seeds)
    if arm == "auto":
        return Sampler(pair).refine(seeds=seeds)
    if arm == "own 4 x 0.05":  # what `auto` was before this page
        return Sampler(pair).refine(seeds=seeds, steps=4, step_size=0.05)
    if arm.startswith("random"):
        return Sampler(pair, strategy=RandomSigns(**moves), space=space).refine(seeds=seeds)
    if arm == "best of N":
        return Sampler(pair, strategy="best-of-n").refine(seeds=seeds, steps=n)
    if card.get("verdict") != "climb" and not arm.startswith("reals "):
        return Sampler(pair).refine(seeds=seeds, strategy="ifgsm", steps=0)
    return Sampler(pair, critic=critic, recipe="auto/reals", space=space).refine(seeds=seeds, steps=steps, step_size=size)


def run_pair(name: str, args: argparse.Namespace) -> None:
    """Measure every arm of a pair that is not there yet."""
    measure(name, pair_of(name, args.shared), PAIRS[name], args)


def measure(name: str, pair: Any, data: str, args: argparse.Namespace) -> None:
    """Measure every arm of `pair` that is not there yet, with real images of `data`; `name` is what it is kept under."""
    for_critic, for_judge = (prepared(x, pair) for x in real_images(args.shared, data, args.reference))
    for_critic = for_critic[: args.reals]
    arms = [a for a in args.arms if a != "raw"]
    path = args.out / f"{name}-{len(for_critic)}-{args.rows}.json"
    told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"arms": {}}
    if all(a in told["arms"] for a in arms):
        return
    print(f"{name}: {len(for_critic)} real images for the critic, {len(for_judge)} for the judges", flush=True)
    fits: dict[str, tuple[Any, dict[str, Any]]] = {"none": (None, {"steps": 2, "space": "z"})}
    for space, wanted in (("auto", lambda a: a.startswith(("auto, reals", "random"))), ("z", in_latents)):
        if any(wanted(a) for a in arms) and not args.short:
            fits[space] = honest(HONEST_OF.get(name, name), pair, for_critic, args.out, space=space)
    card = fits.get("auto", fits["none"])[1]
    names = JUDGES[data]
    for judge in names:
        refuse_partial(judge, may_not_judge({"honest": card}))
    judges = {j: Judge(j, args.shared, for_judge) for j in names}
    draws = [range(i * 100_000, i * 100_000 + args.rows) for i in range(args.draws)]
    told |= {
        "pair": name, "rows": args.rows, "draws": args.draws, "reals": len(for_critic), "reference": len(for_judge),
        "critic": {k: card[k] for k in KEPT if k in card} if "auto" in fits else told.get("critic"),
        "version": latentshift.__version__, "torch": torch.__version__, "machine": f"{platform.machine()}, one thread",
    }  # fmt: skip
    begun = time.process_time()
    raws = [refine_arm("raw", pair, seeds, None, card, 2, 1) for seeds in draws]
    raw_time = (time.process_time() - begun) / sum(len(d) for d in draws)
    before = {j: [judges[j].see(to_uint8(r.images, pair)) for r in raws] for j in names}
    for arm in arms:
        if arm in told["arms"]:
            continue
        critic, card = fits.get("z" if in_latents(arm) else "auto", fits["none"])
        steps = int(arm.rpartition(" ")[2]) if arm.startswith("reals ") else card["steps"] or 2
        spent = told["arms"].get("auto, reals", {}).get("cpu_ms", 0) / 1000
        n = max(2, min(64, round(spent / raw_time)))
        rows: dict[str, Any] = {"judges": {}, "n": n if arm == "best of N" else None}
        begun = time.process_time()
        results = [refine_arm(arm, pair, seeds, critic, card, steps, n) for seeds in draws]
        rows["cpu_ms"] = 1000 * (time.process_time() - begun) / sum(len(d) for d in draws)
        move = [(r.z - r.z0).flatten(1).norm(dim=1).mean() / r.z0.flatten(1).norm(dim=1).mean() for r in results]
        rows["move"] = float(sum(move) / len(move))
        for j in names:
            rows["judges"][j] = [
                judges[j].compare(b, judges[j].see(to_uint8(r.images, pair))) for b, r in zip(before[j], results)
            ]
        told["arms"][arm] = rows
        write_json(path, told)
        first = {
            j: [
                (
                    round(d["FD"]["raw"], 1),
                    round(d["FD"]["change"] / max(d["FD"]["error"], 1e-9), 1),
                    round(d["FD"]["value"], 1),
                )
                for d in rows["judges"][j]
            ]
            for j in names
        }
        print(f"  {arm}: move {rows['move']:.2f}, {rows['cpu_ms']:.1f} ms a sample; (raw, sd, FD) {first}", flush=True)
        if args.grids and arm in ("auto, reals", "auto", "paper"):
            x0, x1 = (to_bytes(r.images[:24], pair.image_range) for r in (raws[0], results[0]))
            (args.out / "grids").mkdir(exist_ok=True)
            labels = [f"seed {s}" for s in range(24)]
            save_png(
                args.out / "grids" / f"{name}-{arm.replace(', ', '-')}.png",
                grid(x0, x1, labels, columns=8, title=f"{name}: {arm}"),
            )


def options(text: str | None, arms: list[str]) -> argparse.ArgumentParser:
    """Return a parser of what `measure` reads, with these arms by default."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("LATENTSHIFT_SHARED", "../shared")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=arms)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--reals", type=int, default=1000, help="real images for the critic, at most")
    parser.add_argument("--reference", type=int, default=2000, help="real images that judges compare with, at most")
    parser.add_argument("--grids", action="store_true", help="draw the same 24 seeds before and after")
    return parser


def main() -> None:
    parser = options(__doc__, [a for a in ARMS if a != "raw"])
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.short:
        args.pairs, args.rows, args.draws, args.reals, args.reference = ["sprites16-dcgan-bce"], 100, 1, 250, 500
        args.arms = args.arms if "--arms" in sys.argv else ["auto", "random"]
    for name in args.pairs:
        run_pair(name, args)


if __name__ == "__main__":
    main()
