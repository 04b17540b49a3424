"""Train the bundled 32x32 Fashion-MNIST pair and export it as a pair folder.

    python examples/train_fashion.py --data DIR --out fashion32

DIR holds `train*-images-idx3-ubyte*` and `t10k*-images-idx3-ubyte*` (plain, .gz or .xz). About 50 minutes on two cores for
16,000 steps; `--steps 200` shows that everything works. Networks and settings: README of the pair (card.json).
Expected at the end: held-out AUC of D between 0.6 and 0.95, ten kinds of garment in grid.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentshift.files.idx import read_idx
from latentshift.layers import LayerNet
from latentshift.train.loop import Settings, Trainer
from latentshift.train.pieces import ShiftAndFlip, initialise

Z = 64


def conv_t(key: str, a: int, b: int) -> list[dict]:
    kw = {"in_channels": a, "out_channels": b, "kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
    norm = {"key": f"{key}.norm", "op": "BatchNorm2d", "kw": {"num_features": b}}
    return [{"key": f"{key}.conv", "op": "ConvTranspose2d", "kw": kw}, norm, {"op": "ReLU"}]


def generator_layers(widths: tuple[int, ...] = (128, 64, 32, 16)) -> list[dict]:
    first = widths[0]
    layers: list[dict] = [
        {"key": "stem.linear", "op": "Linear", "kw": {"in_features": Z, "out_features": first * 16, "bias": False}},
        {"op": "Reshape", "kw": {"shape": [first, 4, 4]}},
        {"key": "stem.norm", "op": "BatchNorm2d", "kw": {"num_features": first}},
        {"op": "ReLU"},
    ]
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += conv_t(f"up{i}", a, b)
    out = {"in_channels": widths[-1], "out_channels": 1, "kernel_size": 3, "padding": 1}
    return [*layers, {"key": "out", "op": "Conv2d", "kw": out}, {"op": "Tanh"}]


def critic_layers(widths: tuple[int, ...] = (32, 64, 128)) -> list[dict]:
    layers: list[dict] = []
    for i, (a, b) in enumerate(zip((1, *widths), widths, strict=False)):
        kw = {"in_channels": a, "out_channels": b, "kernel_size": 4, "stride": 2, "padding": 1}
        layers += [{"key": f"down{i}", "op": "Conv2d", "kw": kw}, {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}}]
    head = {"key": "head", "op": "Linear", "kw": {"in_features": widths[-1] * 16, "out_features": 1}}
    return [*layers, {"op": "Flatten"}, head]


def load(folder: Path, part: str) -> torch.Tensor:
    (path,) = sorted(folder.glob(f"{part}*-images-idx3-ubyte*"))
    x = torch.from_numpy(read_idx(path).copy()).float()[:, None] / 127.5 - 1
    return torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1.0)


def auc(real: torch.Tensor, fake: torch.Tensor) -> float:
    both = torch.cat([real, fake]).double()
    rank = torch.empty_like(both)
    rank[both.argsort()] = torch.arange(1, len(both) + 1, dtype=torch.double)
    n, m = len(real), len(fake)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


def grid(images: torch.Tensor, path: Path) -> None:
    tiles = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()[:, 0]
    Image.fromarray(np.concatenate([np.concatenate(list(tiles[i : i + 8]), 1) for i in range(0, 64, 8)], 0)).resize(
        (768, 768), Image.Resampling.NEAREST
    ).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export-only", action="store_true", help="export from the checkpoint as it is")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    train, held = load(args.data, "train"), load(args.data, "t10k")
    draw = torch.Generator().manual_seed(args.seed)
    G = initialise(LayerNet(generator_layers(), where="G"), 0.02, draw)
    D = initialise(LayerNet(critic_layers(), where="D"), 0.02, draw)

    def data(rows: int, g: torch.Generator) -> tuple[torch.Tensor, None]:
        return train[torch.randint(0, len(train), (rows,), generator=g)], None

    settings = Settings(steps=args.steps, loss="hinge", spectral_norm=True, seed=args.seed)
    trainer = Trainer(G, D, data, lambda n, g: torch.randn(n, Z, generator=g), settings, augment=ShiftAndFlip())
    fixed = torch.randn(64, Z, generator=torch.Generator().manual_seed(1))

    def report(t: Trainer, row: dict[str, float]) -> None:
        t.average.net.eval()
        t.D.eval()
        with torch.no_grad():
            grid(t.average.net(fixed), args.out / "grid.png")
            fake = t.D(t.average.net(torch.randn(1000, Z, generator=torch.Generator().manual_seed(2)))).flatten()
            seen, unseen = t.D(train[:1000]).flatten(), t.D(held[:1000]).flatten()
        row |= {
            "train_logit": seen.mean().item(),
            "held_logit": unseen.mean().item(),
            "fake_logit": fake.mean().item(),
            "auc_held": auc(unseen, fake),
        }
        print(json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)

    G.to(memory_format=torch.channels_last)
    D.to(memory_format=torch.channels_last)
    trainer.run(checkpoint=args.out / "checkpoint.pt", every=min(1000, args.steps), report=report)


if __name__ == "__main__":
    main()
