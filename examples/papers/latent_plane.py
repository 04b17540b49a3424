"""Paper 000 H.2, paper 001 Fig. 8: where I-FGSM takes the latents of a pair with two of them.

    python examples/papers/latent_plane.py --model FOLDER      # a pair with a 2-D latent, as mnist28-vaegan-2d
    python examples/papers/latent_plane.py --train DATA --loss wgan-gp --steps 1000   # train one first: minutes
    python examples/papers/latent_plane.py --train DATA --loss bce --steps 30 --rows 200   # the short form: seconds

`--train` takes a folder with idx images (MNIST or Fashion-MNIST; the last file by name) and trains a small DCGAN with a 2-D
normal latent by the training core, with BCE or WGAN-GP, as the paper does: 0.06 s a step, WGAN-GP 0.14. Drawn: the critic's
score over the plane, where raw latents and latents after 30 sign steps of 0.03 lie, and the images under the highest peaks and
the lowest valleys that are within reach of the prior. Printed: the mean score of both, the share of the refined that has
gathered (least area that holds half of the latents, against that of the raw ones) and the plane's score at peaks and valleys.
The paper shows the picture and no number: "the latents gather at the peaks of D". Expected on mnist28-vaegan-2d with 2,000
rows (6 s): mean score -0.291 to 0.132, area that holds half of them 3.84 to 1.52. The claim holds: they line up along the
ridges, whose images are clean digits, and leave the valleys, whose images lie between two digits. Expected of `--train MNIST
--loss bce --steps 250 --rows 500` (23 s): -0.117 to -0.055, area 3.00 to 0.60; digits are half formed by then, the gathering
on ridges is plain.
WGAN-GP, 700 steps, 2,000 rows (two minutes): 16.86 to 17.19, 3.84 to 0.64.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from latentshift import Sampler, load
from latentshift.files.idx import read_idx
from latentshift.files.pictures import to_bytes
from latentshift.layers import LayerNet
from latentshift.model import Critic, Pair
from latentshift.space import Normal, Space
from latentshift.train.loop import Settings, Trainer
from latentshift.train.pieces import GradientPenalty, initialise

SIDE, REACH = 61, 3.0  # points per axis of the map, and its half width


def generator() -> list[dict]:
    up = {"kernel_size": 4, "stride": 2, "padding": 1}
    return [
        {"key": "stem", "op": "Linear", "kw": {"in_features": 2, "out_features": 64 * 49}},
        {"op": "Reshape", "kw": {"shape": [64, 7, 7]}},
        {"key": "norm0", "op": "BatchNorm2d", "kw": {"num_features": 64}},
        {"op": "ReLU"},
        {"key": "up0", "op": "ConvTranspose2d", "kw": {"in_channels": 64, "out_channels": 32, **up}},
        {"key": "norm1", "op": "BatchNorm2d", "kw": {"num_features": 32}},
        {"op": "ReLU"},
        {"key": "up1", "op": "ConvTranspose2d", "kw": {"in_channels": 32, "out_channels": 1, **up}},
        {"op": "Tanh"},
    ]


def critic() -> list[dict]:
    down = {"kernel_size": 4, "stride": 2, "padding": 1}
    return [
        {"key": "down0", "op": "Conv2d", "kw": {"in_channels": 1, "out_channels": 32, **down}},
        {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}},
        {"key": "down1", "op": "Conv2d", "kw": {"in_channels": 32, "out_channels": 64, **down}},
        {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}},
        {"op": "Flatten"},
        {"key": "head", "op": "Linear", "kw": {"in_features": 64 * 49, "out_features": 1}},
    ]


def trained(folder: Path, loss: str, steps: int, seed: int = 0) -> Pair:
    """Train a small pair with a 2-D latent and return it."""
    (path,) = sorted(folder.glob("*-images-idx3-ubyte*"))[-1:]
    x = torch.from_numpy(read_idx(path).copy()).float()[:, None] / 127.5 - 1
    G, D = (
        initialise(LayerNet(layers, where=part), 0.05, torch.Generator().manual_seed(seed + i))
        for i, (part, layers) in enumerate((("G", generator()), ("D", critic())))
    )
    wgan = loss == "wgan-gp"
    settings = Settings(
        steps=steps,
        loss="wasserstein" if wgan else "bce",
        lr_g=1e-3,
        lr_d=2e-4,
        betas=(0.5, 0.9),
        n_d=2 if wgan else 1,
        ema=0.99,
        seed=seed,
    )
    trainer = Trainer(
        G,
        D,
        lambda rows, g: (x[torch.randint(0, len(x), (rows,), generator=g)], None),
        lambda rows, g: torch.randn(rows, 2, generator=g),
        settings,
        penalties=[GradientPenalty(10.0)] if wgan else [],
    )
    trainer.run()
    net = trainer.average.net
    return Pair(
        net.eval(), Critic(D.eval(), "D", "critic" if wgan else "logit"), Space("z", (2,), Normal()), f"2-D {loss}"
    ).probed()


def gathered(z: np.ndarray, share: float = 0.5, cells: int = 40) -> float:
    """Return the least area, in squares of the prior's standard deviation, that holds `share` of the latents."""
    counts = np.histogram2d(z[:, 0], z[:, 1], bins=cells, range=[[-4, 4], [-4, 4]])[0].ravel()
    order = np.sort(counts)[::-1].cumsum()
    return float((np.searchsorted(order, share * len(z)) + 1) * (8 / cells) ** 2)


def extremes(score: np.ndarray, sign: int, count: int = 6) -> list[tuple[int, int]]:
    """Return grid places of the best local maxima (sign 1) or minima (-1) within two standard deviations of the origin."""
    axis = np.linspace(-REACH, REACH, SIDE)
    s = sign * score
    found = []
    for i in range(1, SIDE - 1):
        for j in range(1, SIDE - 1):
            if axis[i] ** 2 + axis[j] ** 2 <= 4 and s[i, j] >= s[i - 1 : i + 2, j - 1 : j + 2].max():
                found.append((s[i, j], i, j))
    return [(i, j) for _, i, j in sorted(found, reverse=True)[:count]]


def shade(score: np.ndarray, scale: int = 8) -> Image.Image:
    low, high = np.quantile(score, [0.02, 0.98])
    t = ((score - low) / max(high - low, 1e-9)).clip(0, 1)[..., None]
    cold, warm = np.array([24, 40, 82]), np.array([250, 214, 120])
    rgb = (cold + t * (warm - cold)).astype(np.uint8)
    return Image.fromarray(rgb.transpose(1, 0, 2)[::-1]).resize((SIDE * scale,) * 2, Image.Resampling.BILINEAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model")
    what.add_argument("--train", type=Path, metavar="DATA")
    parser.add_argument("--loss", choices=["bce", "wgan-gp"], default="bce")
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("latent-plane.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    pair = load(args.model) if args.model else trained(args.train, args.loss, args.steps)
    if pair.space.shape != (2,):
        raise SystemExit(f"{pair.name} has a latent of {pair.space.shape}, not (2,)")
    axis = torch.linspace(-REACH, REACH, SIDE)
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        images = pair.generate(plane)
        score = pair.logit(images).reshape(SIDE, SIDE).numpy()
    r = Sampler(pair, recipe="advlatgan-z/mnist-2d", chunk=256).refine(seeds=range(args.rows))
    z0, z = np.asarray(r.z0), np.asarray(r.z)
    print("| latents | mean score | area that holds half of them (prior sd^2) |")
    print("| --- | --- | --- |")
    print(f"| raw | {float(r.score0.mean()):.3f} | {gathered(z0):.2f} |")
    print(f"| 30 sign steps of 0.03 | {float(r.score.mean()):.3f} | {gathered(z):.2f} |")
    peaks, valleys = extremes(score, 1), extremes(score, -1)
    for name, places in (("peaks", peaks), ("valleys", valleys)):
        print(f"{name}: " + ", ".join(f"{score[p]:.2f} at ({axis[p[0]]:.1f}, {axis[p[1]]:.1f})" for p in places))
    sheet(args.out, score, z0, z, images, peaks, valleys, pair)
    print(f"wrote {args.out}")


def sheet(out: Path, score, z0, z, images, peaks, valleys, pair) -> None:
    """Draw the two planes side by side and the images of peaks and valleys below."""
    planes = []
    for points in (z0, z):
        picture = shade(score)
        pen = ImageDraw.Draw(picture)
        at = (points[:, 0] + REACH) / (2 * REACH) * picture.width, (REACH - points[:, 1]) / (2 * REACH) * picture.height
        for x, y in zip(*at, strict=True):
            pen.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=(225, 60, 60))
        planes.append(picture)
    side, gap = planes[0].width, 12
    whole = Image.new("RGB", (2 * side + 3 * gap, side + 3 * gap + 2 * 92), "white")
    for k, picture in enumerate(planes):
        whole.paste(picture, (gap + k * (side + gap), gap))
    pixels = to_bytes(images.numpy(), pair.image_range)[..., 0]
    pen = ImageDraw.Draw(whole)
    for row, (name, places) in enumerate((("peaks", peaks), ("valleys", valleys))):
        top = side + 2 * gap + row * 92
        pen.text((gap, top + 34), name, fill="black")
        for k, (i, j) in enumerate(places):
            tile = Image.fromarray(pixels[i * SIDE + j]).resize((84, 84), Image.Resampling.NEAREST)
            whole.paste(tile, (gap + 60 + k * 92, top))
    whole.save(out, optimize=True)


if __name__ == "__main__":
    main()
