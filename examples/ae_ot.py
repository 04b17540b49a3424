"""AE-OT on Fashion-MNIST: a small autoencoder gives codes of real images, and the prior is transported to them.

    python examples/ae_ot.py --data DIR --out ae-ot
    latentshift refine --model ae-ot --strategy ae-ot --option codes=ae-ot/codes.npy

DIR holds `train*-images-idx3-ubyte*` and `t10k*-images-idx3-ubyte*` (plain, .gz or .xz). The decoder is written as a pair's G
(its prior: uniform on a cube; its critic: the D of the bundled pair, which only scores), the codes as `codes.npy`. Printed, by
the bundled judge and against test images that nothing was fitted on: the decoder on raw draws of the prior, on transported
ones, on codes drawn at random, and on the reconstructions of other real images, which no transport can beat.

As it stands (400 codes, 1,000 samples, a few minutes on one thread): FD by the judge 20.1 for raw draws, 4.40 for transported
ones, 3.78 for codes drawn at random, 3.87 for reconstructions; KID x 1000 1648, 147, 121, 140. Pictures are blobs before and
garments after, as soft as the decoder's. 400 updates of the heights leave the worst cell 86 % off its share (`--iterations`).

`--steps 30 --codes 40 --samples 128` shows that everything works.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from latentshift import Sampler, load
from latentshift.files.folder import read_pair, write_pair
from latentshift.files.idx import read_idx
from latentshift.files.pictures import grid, save_png, to_bytes, to_planes
from latentshift.layers import LayerNet
from latentshift.metrics.distance import frechet, kid
from latentshift.metrics.judge import load_judge
from latentshift.train.pieces import initialise

SIZE = 16  # numbers in a code


def layers_of() -> tuple[list[dict], list[dict]]:
    """Return the layer lists of the encoder (32x32 to SIZE) and of the decoder."""
    encoder: list[dict] = []
    for i, (a, b) in enumerate(((1, 16), (16, 32), (32, 64))):
        kw = {"in_channels": a, "out_channels": b, "kernel_size": 4, "stride": 2, "padding": 1}
        encoder += [{"key": f"down{i}", "op": "Conv2d", "kw": kw}, {"op": "ReLU"}]
    encoder += [{"op": "Flatten"}, {"key": "code", "op": "Linear", "kw": {"in_features": 1024, "out_features": SIZE}}]
    decoder: list[dict] = [
        {"key": "stem", "op": "Linear", "kw": {"in_features": SIZE, "out_features": 1024}},
        {"op": "Reshape", "kw": {"shape": [64, 4, 4]}},
        {"op": "ReLU"},
    ]
    for i, (a, b) in enumerate(((64, 32), (32, 16), (16, 1))):
        kw = {"in_channels": a, "out_channels": b, "kernel_size": 4, "stride": 2, "padding": 1}
        decoder += [{"key": f"up{i}", "op": "ConvTranspose2d", "kw": kw}, {"op": "ReLU" if b > 1 else "Tanh"}]
    return encoder, decoder


def images(folder: Path, part: str) -> torch.Tensor:
    """Return images (n, 1, 32, 32) in [-1, 1]: 28x28 with a black border of 2."""
    (path,) = sorted(folder.glob(f"{part}*-images-idx3-ubyte*"))
    x = torch.from_numpy(read_idx(path).copy()).float()[:, None] / 127.5 - 1
    return torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1.0)


def train(data: torch.Tensor, steps: int) -> tuple[LayerNet, LayerNet, float]:
    """Return (encoder, decoder, last mean squared error), fitted by Adam on batches of 64."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    encoder, decoder = (initialise(LayerNet(part), 0.02, draw) for part in layers_of())
    for net in (encoder, decoder):
        for p in net.parameters():
            if p.ndim > 1:
                torch.nn.init.kaiming_normal_(p, generator=draw)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    last = 0.0
    for step in range(steps):
        x = data[torch.randint(len(data), (64,), generator=draw)]
        loss = (decoder(encoder(x)) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        last = loss.item() if step == 0 else 0.98 * last + 0.02 * loss.item()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: squared error {last:.4f}", flush=True)
    return encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False), last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("ae-ot"))
    parser.add_argument("--steps", type=int, default=2000, help="updates of the autoencoder")
    parser.add_argument("--codes", type=int, default=400, help="real images that are transported to")
    parser.add_argument("--samples", type=int, default=1000, help="samples that are judged")
    parser.add_argument("--iterations", type=int, default=400, help="updates of the transport's heights, at most")
    args = parser.parse_args()
    data, held = images(args.data, "train"), images(args.data, "t10k")[: args.samples]
    encoder, decoder, error = train(data, args.steps)
    with torch.no_grad():
        codes = torch.cat([encoder(x) for x in data[: args.codes].split(256)])
    bundled = load("fashion32")
    card = {
        "name": "ae-ot",
        "source": "python examples/ae_ot.py",
        "licence": "yours: trained on the images that you gave",
        "data": "Fashion-MNIST",
        "z_size": SIZE,
        "z_prior": {"kind": "uniform", "low": -1.0, "high": 1.0},
        "classes": None,
        "image": {"channels": 1, "height": 32, "width": 32, "range": [-1, 1]},
        "critic": dict(bundled.card["critic"]),
        "metrics": {"squared_error": round(error, 5)},
    }
    assert isinstance(bundled.D, LayerNet)
    write_pair(args.out, card, G=decoder, D=bundled.D)
    np.save(args.out / "codes.npy", codes.numpy())
    pair = read_pair(args.out)
    seeds = range(args.samples)
    moved = Sampler(pair, recipe="ae-ot/images").refine(
        seeds=seeds, codes=str(args.out / "codes.npy"), iterations=args.iterations, tolerance=0.05, before=True
    )
    fitted = moved.run.strategy
    with torch.no_grad():
        some = codes[torch.randint(len(codes), (args.samples,), generator=torch.Generator().manual_seed(1))]
        other = torch.cat([encoder(x) for x in data[-args.samples :].split(256)])  # not among the codes
        sets = {
            "raw prior": moved.images0,
            "AE-OT": moved.images,
            "codes drawn at random": pair.generate(some),
            "reconstructions of other images": pair.generate(other),
        }
    judge = load_judge("fashion32-judge")
    look = lambda x: judge.see(to_planes(x))  # noqa: E731
    reals = look(held)
    print(f"transport of {len(codes)} codes: largest error of a cell {fitted.error:.2f} of its share")
    print("| images | FD by the judge | KID x 1000 |\n|---|---|---|")
    told = {}
    for name, x in sets.items():
        f = look(x)
        k = kid(f, reals, subsets=20, subset_size=min(500, args.samples))
        told[name] = {"frechet": float(frechet(f, reals)), "kid": float(k.value)}
        print(f"| {name} | {told[name]['frechet']:.3f} | {1000 * told[name]['kid']:.2f} |")
    figures = {"squared_error": error, "cell_error": fitted.error, "sets": told}
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2))
    before, after = (to_bytes(np.asarray(x)[:16], (-1, 1)) for x in (moved.images0, moved.images))
    save_png(args.out / "grid.png", grid(before, after, moved.names()[:16], [0.0] * 16, columns=8))


if __name__ == "__main__":
    main()
