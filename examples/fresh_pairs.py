"""Does `auto` with real images help pairs that no rule was chosen on? Small ones, trained here, judged like those of strangers.

    python examples/fresh_pairs.py --shared DIR --out RESULTS          # 18 pairs; a minute of training and 4 of the rest each
    python examples/fresh_pairs.py --shared DIR --out RESULTS --stages 1000 --data mnist     # three of them

DIR is as for `third_party_pairs.py`, whose judges, arms and splits these are. For digits and for garments: a DCGAN with plain
BCE, the same with hinge loss and spectral norm, and WGAN-GP, each kept after 300, 1,000 and 3,000 steps of batch 32 (32x32,
latents of 64 normal numbers, widths 64 to 8 up and 16 to 64 down, weights averaged). They are trained on the half of the images
that critics may see; `--data` also takes sprites (16x16), faces and cifar. Results are kept per pair and arm, pairs in
RESULTS/pairs: a run that was cut goes on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party_pairs import measure, options, real_images

from latentshift import load
from latentshift.files.folder import write_pair
from latentshift.layers import LayerNet
from latentshift.train.build import finished
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import small_critic, small_generator
from latentshift.train.pieces import GradientPenalty, initialise

Z = 64
WIDTHS = (64, 32, 16, 8), (16, 32, 64)
LOSSES: dict[str, dict[str, Any]] = {
    "bce": {"loss": "bce"},
    "hinge-sn": {"loss": "hinge", "spectral_norm": True},
    "wgan-gp": {"loss": "wasserstein", "betas": (0.0, 0.9)},
}
STAGES = (300, 1000, 3000)
ARMS = ("auto, reals", "random")


def train(out: Path, name: str, loss: str, stages: tuple[int, ...], images: np.ndarray) -> None:
    """Train one network pair and write a pair folder at each stage that is not there yet."""
    folders = {n: out / "pairs" / f"{name}-{loss}-{n}" for n in stages}
    if all((f / "card.json").exists() for f in folders.values()):
        return
    edge = (-images.shape[2] % 8 // 2,) * 2  # 28 pixels to 32
    x = torch.from_numpy(np.pad(images, ((0, 0), (0, 0), edge, edge))).float() / 127.5 - 1
    shape = (x.shape[1], x.shape[2], x.shape[3])
    draw = torch.Generator().manual_seed(0)
    G = initialise(LayerNet(small_generator(Z, shape, None, WIDTHS[0])), 0.02, draw)
    D = initialise(LayerNet(small_critic(shape, None, 1, WIDTHS[1])), 0.02, draw)
    settings = Settings(steps=max(stages), batch=32, ema=0.99, seed=0, decay_share=0.0, **LOSSES[loss])
    trainer = Trainer(
        G,
        D,
        lambda n, g: (x[torch.randint(0, len(x), (n,), generator=g)], None),
        lambda n, g: torch.randn(n, Z, generator=g),
        settings,
        penalties=[GradientPenalty(10.0)] if loss == "wgan-gp" else [],
    )
    began = time.process_time()

    def keep(t: Trainer, row: dict[str, float]) -> None:
        if t.step not in folders:
            return
        seconds = time.process_time() - began
        card = {
            "name": folders[t.step].name,
            "source": "examples/fresh_pairs.py",
            "data": f"{len(x)} images of {name}",
            "licence": "not for passing on",
            "loss": loss,
            "z_size": Z,
            "z_prior": {"kind": "normal"},
            "classes": None,
            "image": {**dict(zip(("channels", "height", "width"), shape, strict=True)), "range": [-1, 1]},
            "critic": {"returns": "logit" if loss == "bce" else "critic", "real_is": "high"},
            "training": {"steps": t.step, "cpu_seconds": round(seconds, 1)},
        }
        write_pair(folders[t.step], card, *finished(t))
        print(f"{folders[t.step].name}: {seconds:.0f} s", flush=True)

    trainer.run(every=max(stages), after_step=keep)


def main() -> None:
    parser = options(__doc__, list(ARMS))
    parser.add_argument(
        "--data", nargs="*", default=["mnist", "fashion"], choices=["mnist", "fashion", "sprites", "faces", "cifar"]
    )
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--stages", nargs="*", type=int, default=list(STAGES))
    parser.add_argument("--train-only", action="store_true")
    args = parser.parse_args()
    args.short = False
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.data:
        images, _ = real_images(args.shared, name, args.reference)
        for loss in args.losses:
            train(args.out, name, loss, tuple(args.stages), images)
            if not args.train_only:
                for stage in args.stages:
                    folder = f"{name}-{loss}-{stage}"
                    measure(folder, load(args.out / "pairs" / folder), name, args)


if __name__ == "__main__":
    main()
