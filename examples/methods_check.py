"""Independent figures for `methods_table.py`, in plain numpy: the laws that samplers promise, and Tarsier in both its forms.

    python examples/methods_check.py --pair reference/dot_25gaussians              # laws, by weights on 200,000 scored draws
    python examples/methods_check.py --pair reference/dot_25gaussians --tarsier 3  # so many seeds of 2,000 samples a form
    python examples/methods_check.py --pair reference/dot_25gaussians --pools 5    # polarity from one pool of 20,000

Nothing of the package's strategies runs here: the networks are multiplied out from the file, a law is a weight per draw, and
Tarsier is written twice: with the learning rates of the sep-CMA paper ("full": those of the full CMA, times
(d + 2) / 3) and with pycma's for its diagonal form ("diagonal"). "expected" adds what 2,000 samples add to a KL.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from methods_table import w1_to_data

from latentshift.metrics.toy import DOT25, mode_metrics

Array = np.ndarray


def layers(folder: Path, which: str) -> list[tuple[Array, Array]]:
    """Return the matrices (in, out) and biases of G or D, from the arrays of `pair.npz`."""
    with np.load(folder / "pair.npz", allow_pickle=False) as data:
        arrays = {k: data[k] for k in data.files}

    def weight(name: str) -> Array:
        if f"{name}.weight" in arrays:
            return arrays[f"{name}.weight"].astype(np.float32)
        whole = arrays[f"{name}.hi"].astype(np.int64) * 2 ** int(arrays[f"{name}.shift"]) + arrays[f"{name}.lo"]
        return (whole * arrays[f"{name}.scale"][:, None].astype(np.float64)).astype(np.float32)

    return [(weight(f"{which}.{i}").T, arrays[f"{which}.{i}.bias"].astype(np.float32)) for i in (0, 2, 4, 6)]


def multiply(parts: list[tuple[Array, Array]], x: Array) -> Array:
    """Return the network's output of x (n, in), leaky ReLU of 0.2 between its layers, in float32."""
    x = x.astype(np.float32)
    for i, (w, b) in enumerate(parts):
        x = x @ w + b
        x = x if i == len(parts) - 1 else np.maximum(x, np.float32(0.2) * x)
    return x


def networks(folder: Path) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return G (n, 2) to (n, 2) and D (n, 2) to (n,)."""
    g, d = layers(folder, "G"), layers(folder, "D")
    return lambda z: multiply(g, z), lambda x: multiply(d, x)[:, 0]


def volume(parts: list[tuple[Array, Array]], z: Array) -> Array:
    """Return |det dG/dz| (n,) of a network from the plane to the plane, its tangents carried along in float64."""
    x = z.astype(np.float64)
    tangents = np.broadcast_to(np.eye(2), (len(z), 2, 2))  # (n, direction, out)
    for i, (w, b) in enumerate(parts):
        x, tangents = x @ w + b, tangents @ w.astype(np.float64)
        if i < len(parts) - 1:
            slope = np.where(x > 0, 1.0, 0.2)
            x, tangents = x * slope, tangents * slope[:, None]
    return np.abs(np.linalg.det(tangents))


def laws(folder: Path, count: int) -> None:
    """Print HQ, KL, spread inside a mode and acceptance of the exact laws, as Markdown."""
    rng = np.random.default_rng(7)
    generate, score = networks(folder)
    parts = [generate(rng.uniform(-1, 1, (10_000, 2))) for _ in range(count // 10_000)]
    s = np.concatenate([score(x) for x in parts]).astype(np.float64)
    x = np.concatenate(parts)
    far = np.stack([((x - m) ** 2).sum(1) for m in np.asarray(DOT25.means)], 1)
    near, least = far.argmin(1), far.min(1)
    good = np.sqrt(least) < 4 * DOT25.sd

    def told(name: str, weights: Array, accepted: float | None = None) -> None:
        w = weights / weights.sum() * good
        hq = float(w.sum())
        share = np.bincount(near, weights=w, minlength=25) / hq
        kl = float((share[share > 0] * np.log(25 * share[share > 0])).sum())
        spread = math.sqrt(float((w * least).sum()) / hq / 2)
        cells = [f"{100 * hq:.1f}", f"{kl:.4f}", f"{kl + 24 / (4000 * hq):.4f}", f"{1e3 * spread:.2f}"]
        print(f"| {name} | {' | '.join(cells)} | {'' if accepted is None else f'{accepted:.3f}'} |", flush=True)

    print("| law | HQ % | KL | expected KL | spread x 1e3 | accepted |\n|" + " --- |" * 6)
    told("raw", np.ones(count))
    for slope, name in ((1.0, "raw"), (2.99, "cal"), (10.0, "T=.1")):
        weights = np.exp(slope * (s - s.max()))
        now, new = rng.choice(count, 200_000, p=weights / weights.sum()), rng.integers(0, count, 200_000)
        told(f"prior times D's odds, {name}", weights, float(np.exp(np.minimum(0, slope * (s[new] - s[now]))).mean()))
    rank = s.argsort().argsort()
    for n in (20, 100):
        told(f"best of {n}", ((rank + 1) / count) ** n - (rank / count) ** n)
    logit, shares = 2.99 * s - 1.733, []
    for _ in range(40):  # M and gamma from a pilot of 10,000, as the method does
        pilot = rng.choice(count, 10_000, replace=False)
        top = np.maximum(logit[pilot].max(), logit)
        f = logit - top - np.log1p(-np.exp(np.minimum(logit - top - 1e-6, -1e-12)))
        shares.append(1 / (1 + np.exp(-(f - np.percentile(f[pilot], 80)))))
    told("DRS p80 cal", np.mean(shares, 0), float(np.mean(shares)))
    for slope, budget, name in ((2.99, 2, "K=2 cal"), (2.99, 5, "K=5 cal"), (10.0, 5, "K=5 T=.1")):
        low, high, lift = -60.0, 60.0, slope * (s - s.max())
        for _ in range(80):
            middle = (low + high) / 2
            rare = np.exp(np.minimum(0, lift + middle)).mean() < 1 / budget
            low, high = (middle, high) if rare else (low, middle)
        accept = np.exp(np.minimum(0, lift + low))
        told(f"OBRS {name}", accept, float(accept.mean()))


def tarsier(score: Callable[[Array], Array], z0: Array, form: str, rng: np.random.Generator) -> Array:
    """Return the best points of 13 generations of 6 around z0 (n, d) in the cube, first deviation 0.1."""
    (n, d), count, half = z0.shape, 6, 3
    w = math.log((count + 1) / 2) - np.log(np.arange(1, half + 1))
    w /= w.sum()
    many = 1 / (w * w).sum()
    c_s, c_c = (many + 2) / (d + many + 5), (4 + many / d) / (d + 4 + 2 * many / d)
    damping = 1 + c_s + 2 * max(0.0, math.sqrt((many - 1) / (d + 1)) - 1)
    chi = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))
    if form == "full":
        one = 2 / ((d + 1.3) ** 2 + many)
        mu = min(1 - one, 2 * (many - 2 + 1 / many) / ((d + 2) ** 2 + many))
        one, mu = one * (d + 2) / 3, mu * (d + 2) / 3
        one, mu = one / max(1.0, one + mu), mu / max(1.0, one + mu)
    else:
        one = 1 / (d + 2 * math.sqrt(d) + many / d)
        mu = min(1 - one, (many + 1 / many - 1.75) / (d + 4 * math.sqrt(d) + many / 2))
        one, mu = math.log(2) * one, math.log(2) * mu
    mean, sigma, c = z0.copy(), np.full((n, 1), 0.1), np.ones((n, d))
    path_s, path, best, top = np.zeros((n, d)), np.zeros((n, d)), z0.copy(), score(z0)
    for t in range(13):
        z = mean[:, None] + sigma[:, :, None] * np.sqrt(c)[:, None] * rng.standard_normal((n, count, d))
        z = 1 - np.abs(np.mod(z + 1, 4) - 2)  # folded back at the walls of [-1, 1]
        values = score(z.reshape(-1, d)).reshape(n, count)
        order = np.argsort(-values, axis=1, kind="stable")
        first, up = values.max(1), values.max(1) > top
        best[up], top = z[np.arange(n), order[:, 0]][up], np.maximum(top, first)
        y = np.take_along_axis((z - mean[:, None]) / sigma[:, :, None], order[:, :half, None], 1)
        shift = (w[:, None] * y).sum(1)
        mean = mean + sigma * shift
        path_s = (1 - c_s) * path_s + math.sqrt(c_s * (2 - c_s) * many) * shift / np.sqrt(c)
        length = np.linalg.norm(path_s, axis=1, keepdims=True)
        calm = length / math.sqrt(1 - (1 - c_s) ** (2 * (t + 1))) < (1.4 + 2 / (d + 1)) * chi
        path = (1 - c_c) * path + calm * math.sqrt(c_c * (2 - c_c) * many) * shift
        square = (w[:, None] * y**2).sum(1)
        lost = np.where(calm, 0.0, c_c * (2 - c_c))
        if form == "full":
            c = (1 - one - mu) * c + one * (path**2 + lost * c) + mu * square
        else:
            c = c * np.exp(np.minimum(2, one * (1 - lost) * (path**2 / c - 1) + mu * (square / c - 1)))
        sigma = sigma * np.exp(np.minimum(1, c_s / damping * (length / chi - 1)))
    return best


def both_forms(folder: Path, seeds: int) -> None:
    """Print what the two forms of Tarsier's learning rates give."""
    generate, score = networks(folder)
    print("| Tarsier 13x6, plain numpy | HQ % | modes20 | KL | in-std x 1e3 | W1 x 1e3 | dz |\n|" + " --- |" * 7)
    for form in ("full", "diagonal"):
        rows = []
        for seed in range(seeds):
            rng = np.random.default_rng(100 + seed)
            z0 = rng.uniform(-1, 1, (2000, 2))
            z = tarsier(lambda p: score(generate(p)), z0, form, rng)
            x = generate(z)
            m, moved = mode_metrics(x, DOT25), np.linalg.norm(z - z0, axis=1).mean()
            rows.append([m.hq, m.modes20, m.kl, 1e3 * m.in_std, 1e3 * w1_to_data(x, DOT25, 5000 + seed), moved])
        cells = [f"{a:.4g} +- {b:.2g}" for a, b in zip(np.mean(rows, 0), np.std(rows, 0, ddof=1), strict=True)]
        print(f"| {form} | {' | '.join(cells)} |", flush=True)


def pools(folder: Path, count: int) -> None:
    """Print polarity as it was stated: 2,000 samples of one pool of 20,000, weighted by |det dG/dz| to the power rho."""
    parts = layers(folder, "G")
    print("| polarity, one pool | HQ % | modes1 | modes20 | KL | in-std x 1e3 | W1 x 1e3 |\n|" + " --- |" * 7)
    for rho in (-0.5, -1.0, 0.5):
        rows = []
        for seed in range(count):
            rng = np.random.default_rng(500 + seed)
            z = rng.uniform(-1, 1, (20_000, 2))
            weights = np.concatenate([volume(parts, part) for part in np.split(z, 20)]) ** rho
            x = multiply(parts, z)[rng.choice(len(z), 2000, p=weights / weights.sum())]
            m = mode_metrics(x, DOT25)
            rows.append([m.hq, m.modes1, m.modes20, m.kl, 1e3 * m.in_std, 1e3 * w1_to_data(x, DOT25, 900 + seed, 1)])
        cells = [f"{p:.4g} +- {q:.2g}" for p, q in zip(np.mean(rows, 0), np.std(rows, 0, ddof=1), strict=True)]
        print(f"| rho {rho:g} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, required=True, help="folder of the reference pair (pair.npz)")
    parser.add_argument("--draws", type=int, default=200_000, help="scored draws of the prior (tens of thousands)")
    parser.add_argument("--tarsier", type=int, default=0, metavar="SEEDS", help="run both forms of Tarsier instead")
    parser.add_argument("--pools", type=int, default=0, metavar="POOLS", help="draw polarity from so many pools instead")
    args = parser.parse_args()
    if args.pools:
        pools(args.pair, args.pools)
    elif args.tarsier:
        both_forms(args.pair, args.tarsier)
    else:
        laws(args.pair, args.draws)


if __name__ == "__main__":
    main()
