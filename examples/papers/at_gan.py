"""AT-GAN (paper 004) end to end, at the size of a small machine: a conditional G, targets, the transfer, attacks beside it.

    python examples/papers/at_gan.py --data DIR --out at-gan                  # DIR: Fashion-MNIST's idx files; about 40 minutes
    # MNIST as recorded, four minutes:
    python examples/papers/at_gan.py --data DIR --out at-gan --width 0.125 --rate 1e-3 --steps 1000 2 80 --rows 300
    python examples/papers/at_gan.py --data DIR --out at-gan --short          # the short form: a minute or two, weak G

1. AC-WGAN-GP (paper 004 appendix B) trains a conditional G with a separate classifier. 2. Targets: table 5's f, and two of
our own, "own-mlp" and "own-stride" (so named; the paper's models B to D are others), each trained normally and with FGSM
images. 3. A copy of G is moved so that the target is fooled while the picture stays (alpha 2, beta 1, |rho|_0 = 200,
|rho|_inf = 0.5 of [0, 1]). 4. Attack success beside FGSM, PGD and R+FGSM on the same target, transfer between targets, the
ablation of rho, a targeted form. The networks have --width of table 5's channels (default a quarter). Of MNIST only 10,000
test images may be at hand: where no train* file lies in DIR, the t10k files are split, 8,000 to train and 2,000 to test, and
the output says so. Trained networks are kept in --out, so that a cut run goes on. Paper, MNIST, model A: AT-GAN 98.7 %;
|rho|_0 of 0, 100, 200, 300, 400: 98.9, 98.8, 98.7, 96.7, 95.8 %; |rho|_inf from 0 to 0.5: 98.7 to 99.2 %; CIFAR-10, WRN: 93.5 %
normal, 73.0 % adversarially trained (PGD 54.6 %); transfer MNIST A to C 65.3 % (PGD 97.5 %), to defended models 17 to 28 % (PGD
4 to 7 %). Expected on Fashion-MNIST, small: 88 to 97 % against 65 to 71 % of PGD, transfer 79 to 95 %
(docs/training-tables.md).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentshift.files.idx import read_idx
from latentshift.layers import LayerNet
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import atgan_classifier, atgan_critic, atgan_generator, conv, linear
from latentshift.train.penalties import ClassLoss
from latentshift.train.pieces import GradientPenalty
from latentshift.train.terms import ClassTerm, Fool, StayNear

SHAPE, Z = (1, 28, 28), 100
#: attack radius, step and steps in [0, 1] units (paper 004)
PGD_OF = {"fashion": (0.1, 0.01, 20), "mnist": (0.3, 0.075, 20)}
#: success on model A, MNIST, by the number of pixels that rho may change (paper 004)
PAPER_RHO = {0: 98.9, 100: 98.8, 200: 98.7, 300: 96.7, 400: 95.8}


def load(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
    """Return train and test images in [-1, 1] with labels, and where they come from."""

    def one(part: str) -> tuple[Tensor, Tensor] | None:
        found = [sorted(folder.glob(f"{part}*-{kind}-ubyte*")) for kind in ("images-idx3", "labels-idx1")]
        if not all(found):
            return None
        x, y = (torch.from_numpy(read_idx(f[0]).copy()) for f in found)
        return x.float()[:, None] / 127.5 - 1, y.long()

    train, test = one("train"), one("t10k")
    if test is None:
        raise SystemExit(f"no t10k*-images-idx3-ubyte* in {folder}")
    if train is not None:
        return *train, *test, f"{len(train[0])} train and {len(test[0])} test images"
    x, y = test
    return x[:8000], y[:8000], x[8000:], y[8000:], "the test file split: 8,000 images to train, the rest to test"


def targets(width: float) -> dict[str, list[dict[str, Any]]]:
    mlp = [{"op": "Flatten"}, linear("a", 784, int(512 * width)), {"op": "ReLU"}, linear("b", int(512 * width), 10)]
    n = int(64 * width)
    stride: list[dict[str, Any]] = []
    for i, (a, b) in enumerate(itertools.pairwise((1, n, 2 * n))):
        stride += [conv(f"c{i}", a, b, 4, 2, 1), {"op": "ReLU"}]
    stride += [{"op": "Flatten"}, linear("head", 2 * n * 49, 10)]
    return {"table-5": atgan_classifier(SHAPE, 10, int(1024 * width)), "own-mlp": mlp, "own-stride": stride}


def fgsm(f: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
    x = x.detach().requires_grad_(True)
    (g,) = torch.autograd.grad(F.cross_entropy(f(x), y), x)
    return (x + eps * g.sign()).clamp(-1, 1).detach()


def r_fgsm(f: Any, x: Tensor, y: Tensor, eps: float, g: torch.Generator) -> Tensor:
    half = eps / 2
    start = (x + half * torch.randn(x.shape, generator=g).sign()).clamp(-1, 1)
    return fgsm(f, start, y, eps - half)


def pgd(f: Any, x: Tensor, y: Tensor, eps: float, step: float, steps: int) -> Tensor:
    moved = x
    for _ in range(steps):
        moved = torch.minimum(torch.maximum(fgsm(f, moved, y, step), x - eps), x + eps).clamp(-1, 1)
    return moved


def fit(layers: list[dict[str, Any]], x: Tensor, y: Tensor, passes: int, seed: int, adversarial: float = 0.0) -> LayerNet:
    """Train a target; with `adversarial`, half of every batch are FGSM images of that size."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = LayerNet(layers)
        opt, draw = torch.optim.Adam(net.parameters(), 1e-3), torch.Generator().manual_seed(seed)
        for _ in range(passes):
            for rows in torch.randperm(len(x), generator=draw).split(64):
                a, b = x[rows], y[rows]
                if adversarial:
                    net.eval()
                    half = len(a) // 2
                    a = torch.cat([a[:half], fgsm(net, a[half:], b[half:], adversarial)])
                net.train()
                loss = F.cross_entropy(net(a), b)
                opt.zero_grad()
                loss.backward()
                opt.step()
    return net.eval().requires_grad_(False)


@torch.no_grad()
def wrong(f: Any, x: Tensor, y: Tensor) -> float:
    return 100 * float((f(x).argmax(1) != y).float().mean())


def stage_one(x: Tensor, y: Tensor, steps: int, width: float, rate: float = 2e-4, seed: int = 0) -> LayerNet:
    """AC-WGAN-GP; returns the conditional G."""
    widths = [int(w * width) for w in (1024, 128, 64)]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        G = LayerNet(atgan_generator(Z, SHAPE, 10, widths))
        D = LayerNet(atgan_critic(SHAPE, None, 1, [int(w * width) for w in (64, 128, 1024)]))
        judge = LayerNet(targets(width)["own-stride"])

    def data(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(0, len(x), (n,), generator=g)
        return x[rows], y[rows]

    settings = Settings(
        steps=steps, loss="wasserstein", batch=64, n_d=2, lr_g=rate, lr_d=rate, betas=(0.5, 0.9), ema=0.99, decay_share=0.5
    )
    t = Trainer(
        G,
        D,
        data,
        lambda n, g: torch.randn(n, Z, generator=g),
        settings,
        penalties=[GradientPenalty(), ClassLoss()],
        terms=[ClassTerm()],
        classifier=judge,
    )
    t.run(every=max(1, steps))
    net = t.average.net
    assert isinstance(net, LayerNet)
    return net.eval()


def stage_two(G: LayerNet, f: Any, steps: int, rho: tuple[int, float], target: int | None = None, seed: int = 1) -> LayerNet:
    """The transfer: a copy of G that fools f and stays near G's pictures. The same loop, with two terms and no D."""
    G0, live = copy.deepcopy(G).eval(), copy.deepcopy(G).requires_grad_(True)
    D = LayerNet([{"op": "Flatten"}, linear("unused", 784, 1)])
    settings = Settings(
        steps=steps, loss="none", n_d=0, batch=64, lr_g=2e-4, betas=(0.5, 0.9), ema=0.0, decay_share=0.25, seed=seed
    )
    empty = torch.zeros(1)
    t = Trainer(
        live,
        D,
        lambda n, g: (empty, torch.randint(0, 10, (n,), generator=g)),
        lambda n, g: torch.randn(n, Z, generator=g),
        settings,
        terms=[Fool(f, 2.0, target), StayNear(G0, 1.0, pixels=rho[0], size=2 * rho[1])],
    )
    t.run(every=max(1, steps))
    return live.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder for result.json and pictures")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument(
        "--steps", type=int, nargs=3, metavar="N", help="steps of stage one, passes of targets, steps of stage two"
    )
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of stage one")
    parser.add_argument("--rows", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    one, passes, two = args.steps or ((60, 1, 20) if args.short else (6000, 5, 500))
    rows = min(args.rows, 200) if args.short else args.rows
    x, y, x_test, y_test, where = load(args.data)
    if args.short:
        x, y = x[:1500], y[:1500]
    x_test, y_test = x_test[:rows], y_test[:rows]
    kind = "mnist" if "fashion" not in str(args.data.resolve()) else "fashion"
    eps, step, steps = PGD_OF[kind]
    began = time.process_time()
    print(
        f"{kind}: {where}; width {args.width:g}, {one} steps of stage one, {passes} passes, {two} steps of stage two",
        flush=True,
    )

    def kept(name: str, layers: list[dict[str, Any]], make: Callable[[], LayerNet]) -> LayerNet:
        """A network that an earlier, cut run of the same settings trained, or a new one."""
        path = args.out / f"{name.replace(' ', '-')}-{args.width:g}-{one}-{passes}-{two}-{args.rate:g}-{len(x)}.pt"
        if path.exists():
            return LayerNet(layers).load(torch.load(path, weights_only=True)).eval().requires_grad_(False)
        net = make()
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(net.tensors(), path)
        return net

    made_of = atgan_generator(Z, SHAPE, 10, [int(w * args.width) for w in (1024, 128, 64)])

    def transferred(name: str, f: Any, rho: tuple[int, float], target: int | None = None) -> LayerNet:
        return kept(name, made_of, lambda: stage_two(G, f, two, rho, target))

    G = kept("G", made_of, lambda: stage_one(x, y, one, args.width, args.rate))
    print(f"stage one: {time.process_time() - began:.0f} CPU s", flush=True)
    fits = {}
    for name, layers in targets(args.width).items():
        for hard in (False, True):
            title = f"{name}{' adv' if hard else ''}"
            fits[title] = kept(title, layers, partial(fit, layers, x, y, passes, 0, 2 * eps if hard else 0.0))
    print(f"targets: {time.process_time() - began:.0f} CPU s", flush=True)
    g = torch.Generator().manual_seed(3)
    z, label = torch.randn(rows, Z, generator=g), torch.arange(rows) % 10
    with torch.no_grad():
        plain = G(z, label)
    attacks: dict[str, LayerNet] = {}
    result: dict[str, Any] = {"data": where, "kind": kind, "width": args.width, "rate": args.rate}
    result |= {"steps": [one, passes, two], "rows": rows}
    result["success"] = []
    print("| target | error (%) | FGSM | R+FGSM | PGD | G as it is | AT-GAN | of those read right |\n|" + " --- |" * 8)
    for name, f in fits.items():
        attacks[name] = transferred(f"attack {name}", f, (200, 0.5))
        with torch.no_grad():
            made = attacks[name](z, label)
            right = f(plain).argmax(1) == label
        row = {
            "target": name,
            "error": wrong(f, x_test, y_test),
            "FGSM": wrong(f, fgsm(f, x_test, y_test, 2 * eps), y_test),
            "R+FGSM": wrong(f, r_fgsm(f, x_test, y_test, 2 * eps, g), y_test),
            "PGD": wrong(f, pgd(f, x_test, y_test, 2 * eps, 2 * step, steps), y_test),
            "G": wrong(f, plain, label),
            "AT-GAN": wrong(f, made, label),
            "of those read right": wrong(f, made[right], label[right]),
        }
        result["success"].append(row)
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.1f}" for v in row.values()) + " |", flush=True)
    names = [n for n in fits if not n.endswith("adv")]
    print("\ntransfer (%): attack made on the row's target, shown to the column's\n| | " + " | ".join(fits) + " |")
    print("|" + " --- |" * (len(fits) + 1))
    result["transfer"] = {}
    for name in names:
        with torch.no_grad():
            made = attacks[name](z, label)
        seen = {other: wrong(f, made, label) for other, f in fits.items()}
        result["transfer"][name] = seen
        print(f"| {name} | " + " | ".join(f"{v:.1f}" for v in seen.values()) + " |", flush=True)
    f = fits["table-5"]
    result["rho"] = []
    cases = [(0, 0.5), (100, 0.5), (200, 0.5), (300, 0.5), (400, 0.5), (200, 0.1), (200, 0.3)]
    cases = [cases[0], cases[2]] if args.short else cases
    print("\nablation of rho\n| pixels | size | success (%) | paper, MNIST | mean change |\n| --- | --- | --- | --- | --- |")
    for pixels, size in cases:
        moved = attacks["table-5"] if (pixels, size) == (200, 0.5) else transferred(f"rho {pixels} {size:g}", f, (pixels, size))
        with torch.no_grad():
            made = moved(z, label)
        row = {"pixels": pixels, "size": size, "success": wrong(f, made, label), "moved": float((made - plain).abs().mean())}
        result["rho"].append(row)
        paper = PAPER_RHO.get(pixels, "") if kind == "mnist" and size == 0.5 else ""
        print(f"| {pixels} | {size:g} | {row['success']:.1f} | {paper} | {row['moved']:.3f} |", flush=True)
    aimed = transferred("targeted", f, (200, 0.5), target=3)
    with torch.no_grad():
        hit = 100 * float((f(aimed(z, label)).argmax(1) == 3).float().mean())
        before = 100 * float((f(plain).argmax(1) == 3).float().mean())
    result["targeted"] = {"label": 3, "before": before, "after": hit}
    result["cpu_seconds"] = round(time.process_time() - began)
    print(f"\ntargeted at label 3: {before:.1f} % before, {hit:.1f} % after; {result['cpu_seconds']} CPU s")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    from PIL import Image

    with torch.no_grad():
        tiles = torch.cat([plain[:20], attacks["table-5"](z[:20], label[:20])])
    grid = ((tiles.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()[:, 0]
    rows_of = [np.concatenate(list(grid[i : i + 10]), 1) for i in (0, 20, 10, 30)]
    Image.fromarray(np.concatenate(rows_of, 0)).resize((1120, 448), Image.Resampling.NEAREST).save(
        args.out / "plain-above-attack.png"
    )


if __name__ == "__main__":
    main()
