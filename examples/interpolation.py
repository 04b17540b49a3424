"""Between two seeds, before and after refinement (paper 001 Fig. 3): is the refined path as smooth as the raw one?

    python examples/interpolation.py                                 # interpolation.png of the bundled garments, seeds 4 and 6
    python examples/interpolation.py --model FOLDER --seeds 3,8 --frames 12 --out path.png

The latents between the ends are spherical for a normal prior (straight lines leave the shell where G was trained) and straight
for any other. Every one of them is refined on its own. Printed: the mean change from frame to frame, which is that of the
pixels. Expected for the defaults: the mean score rises at every inner frame that the recipe moves, and the largest jump between
neighbours grows, since refinement pulls the frames to different sides. About 2 s of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from latentshift import Sampler, load
from latentshift.files.pictures import grid, save_png, to_bytes
from latentshift.noise import latents, parse_seeds


def between(a: np.ndarray, b: np.ndarray, frames: int, round_: bool) -> np.ndarray:
    """Return (frames, n) latents from a to b: on the great circle with lengths in between, or on the straight line."""
    t = np.linspace(0, 1, frames)[:, None]
    if not round_:
        return (1 - t) * a + t * b
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    angle = np.arccos(np.clip(u @ v, -1, 1))
    way = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle) if angle > 1e-6 else (1 - t) * u + t * v
    return way * ((1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="fashion32")
    parser.add_argument("--seeds", default="4,6", help="two seeds")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--recipe", default="advlatgan-z/ball")
    parser.add_argument("--out", type=Path, default=Path("interpolation.png"))
    typed = parser.parse_args()
    pair = load(typed.model)
    first, last = parse_seeds(typed.seeds)
    ends = latents([first, last], pair.space.shape, pair.space.prior)
    z = between(ends[0], ends[1], typed.frames, pair.space.prior.kind == "normal").astype(np.float32)
    result = Sampler(pair, recipe=typed.recipe).refine(z, before=True)
    jumps = [np.abs(np.diff(np.asarray(x), axis=0)).mean((1, 2, 3)) for x in (result.images0, result.images)]
    print(f"score    {result.score0.mean():+.3f} before, {result.score.mean():+.3f} after")
    for name, jump in zip(("before", "after"), jumps, strict=True):
        print(f"{name:<8} mean change {jump.mean():.4f} from frame to frame, largest {jump.max():.4f}")
    before, after = (to_bytes(np.asarray(x), pair.image_range) for x in (result.images0, result.images))
    names = [f"seed {first}", *[f"{k / (typed.frames - 1):.2f}" for k in range(1, typed.frames - 1)], f"seed {last}"]
    title = f"{pair.name}: from seed {first} to seed {last}, before above after ({typed.recipe})"
    save_png(typed.out, grid(before, after, names, np.asarray(result.gain).tolist(), columns=typed.frames, title=title))
    print(f"wrote    {typed.out}")


if __name__ == "__main__":
    main()
