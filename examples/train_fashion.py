"""Train the bundled 32x32 Fashion-MNIST pair and export it as pair folders.

    python examples/train_fashion.py --data DIR --out fashion32

DIR holds `train*-images-idx3-ubyte*` and `t10k*-images-idx3-ubyte*` (plain, .gz or .xz). Two phases:

1. G and D together: hinge, spectral norm on D, shifts and flips, EMA of G. 16,000 steps, about 35 minutes on one core.
   This D is exported as `fashion32-sn`: it tells real from generated only just (held-out AUC 0.605), and climbing it
   raises its score while the judge's distance *rises*.
2. G frozen, a new D fitted for 600 updates on raw samples, samples refined on the fly, and real images, with R1 as its
   bound (AdvLatGAN-qua's D step with G frozen). Exported with the same G as `fashion32`.

`--steps 200 --updates 20` shows that everything works.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentshift.files.folder import read_pair, write_pair
from latentshift.files.idx import read_idx
from latentshift.layers import LayerNet
from latentshift.train.critic import critic_layers, honest_trainer
from latentshift.train.loop import Settings, Trainer
from latentshift.train.pieces import ShiftAndFlip, baked, initialise

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


CARD = {
    "source": "examples/train_fashion.py of latentshift",
    "licence": "Apache-2.0 (weights); Fashion-MNIST is MIT, Zalando SE",
    "data": "Fashion-MNIST, the first 8,226 training images, padded from 28 to 32 with black",
    "z_size": Z,
    "z_prior": {"kind": "normal"},
    "classes": None,
    "image": {"channels": 1, "height": 32, "width": 32, "range": [-1, 1]},
}


def figures(G: LayerNet, D: LayerNet, held: torch.Tensor, train: torch.Tensor) -> dict[str, float]:
    """Mean scores of 1,000 images of each kind and the AUC of D on held-out real against generated ones."""
    with torch.no_grad():
        fake = D(G(torch.randn(1000, Z, generator=torch.Generator().manual_seed(2)))).flatten()
        seen, unseen = D(train[:1000]).flatten(), D(held[:1000]).flatten()
    means = {"train": seen.mean().item(), "held_out": unseen.mean().item(), "generated": fake.mean().item()}
    return {**{k: round(v, 4) for k, v in means.items()}, "auc_held_out": round(auc(unseen, fake), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--from-folder", type=Path, help="take G of this pair folder and do the second phase only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    train, held = load(args.data, "train"), load(args.data, "t10k")

    def data(rows: int, g: torch.Generator) -> tuple[torch.Tensor, None]:
        return train[torch.randint(0, len(train), (rows,), generator=g)], None

    def prior(rows: int, g: torch.Generator) -> torch.Tensor:
        return torch.randn(rows, Z, generator=g)

    fixed = torch.randn(64, Z, generator=torch.Generator().manual_seed(1))
    command = "python examples/train_fashion.py --data DIR --out OUT"
    if args.from_folder is None:
        draw = torch.Generator().manual_seed(args.seed)
        G = initialise(LayerNet(generator_layers(), where="G"), 0.02, draw).to(memory_format=torch.channels_last)
        D = initialise(LayerNet(critic_layers(1, 32), where="D"), 0.02, draw).to(memory_format=torch.channels_last)
        settings = Settings(steps=args.steps, loss="hinge", spectral_norm=True, seed=args.seed)
        trainer = Trainer(G, D, data, prior, settings, augment=ShiftAndFlip())

        def report(t: Trainer, row: dict[str, float]) -> None:
            net = t.average.net.eval()
            with torch.no_grad():
                grid(net(fixed), args.out / "grid.png")
            print(json.dumps({**row, **figures(net, baked(t.D), held, train)}), flush=True)

        trainer.run(checkpoint=args.out / "checkpoint.pt", every=min(1000, args.steps), report=report)
        G, D = baked(trainer.average.net), baked(trainer.D)
        card = {
            **CARD,
            "name": "fashion32-sn",
            "loss": "hinge, spectral norm on every layer of D",
            "training": f"{command}: {args.steps} steps, batch 64, Adam 2e-4 and 4e-4 (0.5, 0.999), EMA 0.999, flips",
            "critic": {"returns": "critic", "real_is": "high"},
            "metrics": figures(G, D, held, train),
            "notes": ["D as it was trained with G. Climbing it raises its score and the judge's distance: see fashion32."],
        }
        write_pair(args.out / "fashion32-sn", card, G, D, half=True)
        with torch.no_grad():
            grid(G(fixed), args.out / "fashion32-sn" / "grid.png")
    else:
        G = read_pair(args.from_folder).G

    honest = honest_trainer(
        G, data, prior, image=(1, 32, 32), updates=args.updates, augment=ShiftAndFlip(pixels=1), seed=args.seed
    )
    honest.run(
        every=100, report=lambda t, row: print(json.dumps({**row, **figures(G, t.average_d.net, held, train)}), flush=True)
    )
    D = honest.average_d.net
    card = {
        **CARD,
        "name": "fashion32",
        "loss": "G: hinge against a D with spectral norm; D: logistic with R1 (gamma 1), G frozen",
        "training": f"{command}: G as fashion32-sn; D {args.updates} updates on raw, refined and earlier refined samples, "
        "batch 64, Adam 5e-4 (0.5, 0.9), weights averaged",
        "critic": {"returns": "logit", "real_is": "high"},
        "metrics": figures(G, D, held, train),
        "notes": [
            "D is an honest critic: AdvLatGAN-qua's D step with G frozen. It has met refined samples.",
            "G is the EMA of the generator of fashion32-sn, whose own D is bundled there.",
        ],
    }
    write_pair(args.out / "fashion32", card, G, D, half=True)
    with torch.no_grad():
        grid(G(fixed), args.out / "fashion32" / "grid.png")
    print(json.dumps(card["metrics"]))


if __name__ == "__main__":
    main()
