"""Every method side by side on a real 2-D pair (a WGAN-GP on 25 Gaussians), against the figures stated for it.

    python examples/methods_table.py --pair reference/dot_25gaussians                      # five seeds of 2,000 samples
    python examples/methods_table.py --pair reference/dot_25gaussians --short --workers 2  # two seeds, without the long chains
    python examples/methods_table.py --pair ... --only "MALA|ULA" --cache runs/table --plot quality.png

Prints Markdown: share of high-quality samples (HQ, %), modes seen, KL over modes, spread inside a mode, exact W1 to fresh data,
displacement, passes per sample, acceptance, CPU seconds per 1,000 samples on this machine (one thread), what the method does to
the balance of modes, and what lies further from the stated mean than twice its spread and its floor (nothing else is expected
in that column). HQ alone misleads: "loses modes" stands where the shares of the modes, exp(-KL), keep less than three quarters
of the raw samples' evenness, "uneven" below 97 %. With `--cache` every finished run is a small file, and a second call goes on
where the first one was cut off. Needs scipy; with POT installed W1 takes a fraction of the time.
"""

from __future__ import annotations

import argparse
import concurrent.futures as futures
import functools
import hashlib
import json
import multiprocessing
import os
import platform
import re
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from methods_rows import COLUMNS, FLOORS, ROWS, Row, stated

from latentshift import Pair, __version__
from latentshift.engine.run import Engine, Settings
from latentshift.metrics.toy import DOT25, Mixture, mode_metrics, wasserstein1
from latentshift.noise import latents
from latentshift.space import Uniform

SAMPLES = 2000
UNEVEN, LOST = 0.97, 0.75  # of the raw samples' exp(-KL)


def load_pair(folder: str | Path) -> Pair:
    """Return the pair of a folder with `pair.npz`: large matrices are rounded integers in two halves."""
    path = Path(folder)
    with np.load(path / "pair.npz" if path.is_dir() else path, allow_pickle=False) as data:
        arrays = {k: data[k] for k in data.files}

    def weight(key: str) -> np.ndarray:
        if key in arrays:
            return arrays[key]
        half = key.removesuffix(".weight")
        hi, lo = arrays[f"{half}.hi"].astype(np.int32), arrays[f"{half}.lo"].astype(np.int32)
        whole = hi * 2 ** int(arrays[f"{half}.shift"]) + lo
        return (whole * arrays[f"{half}.scale"][:, None].astype(np.float64)).astype(np.float32)

    def network(which: str) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for i in (0, 2, 4, 6):
            w, b = weight(f"{which}.{i}.weight"), arrays[f"{which}.{i}.bias"]
            linear = torch.nn.Linear(w.shape[1], w.shape[0])
            linear.load_state_dict({"weight": torch.from_numpy(w), "bias": torch.from_numpy(b.astype(np.float32))})
            layers += [linear, torch.nn.LeakyReLU(0.2)]
        return torch.nn.Sequential(*layers[:-1]).eval()

    return Pair.wrap(
        network("G"), network("D"), z_size=2, prior=Uniform(), returns="critic", image_range=(-2.0, 2.0), name="25 Gaussians"
    )


def exact_w1(a: np.ndarray, b: np.ndarray) -> float:
    """Return the exact W1 of two point sets of equal size: by POT's network simplex where it is installed, else by scipy."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ot
    except ImportError:
        return wasserstein1(a, b)
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cost = np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))
    weights = np.full(len(x), 1 / len(x))
    return float(ot.emd2(weights, weights, cost, numItermax=10_000_000))


def w1_to_data(points: np.ndarray, mixture: Mixture, seed: int, draws: int = 2) -> float:
    """Return the mean W1 to `draws` fresh data sets of the same size, equal counts in every mode."""
    generator = torch.Generator().manual_seed(seed)
    return float(np.mean([exact_w1(points, mixture.balanced(len(points), generator).numpy()) for _ in range(draws)]))


def measure(row: Row, pair: Pair, seed: int, samples: int = SAMPLES, transport: bool = True) -> dict[str, float]:
    """Return one run of a row: `samples` samples of one seed, by column name, with the CPU seconds per 1,000."""
    out: dict[str, float] = {}
    if row.data:
        generator = torch.Generator().manual_seed(2 * 10**6 + seed)
        draw = DOT25.balanced if row.data == "even" else DOT25.sample
        points = draw(samples, generator).numpy()
    else:
        seeds = range(seed * samples, (seed + 1) * samples)
        z0 = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
        space = pair.spaces[row.space] if row.space else None
        engine = Engine(row.strategy, pair, space=space, settings=Settings(chunk=samples))
        began = time.process_time()
        run = engine.run(z0, seeds)
        out["seconds"] = 1000 * (time.process_time() - began) / samples
        chunk = run.chunks[0]
        points, cost, extra = chunk.images, engine.strategy.cost(), chunk.extra or {}
        out |= {"F": max(cost.g_forward, cost.d_forward), "Bk": max(cost.g_backward, cost.d_backward)}
        if row.space is None:
            out["dz"] = float(np.linalg.norm(chunk.point - chunk.point0, axis=1).mean())
        if "acceptance" in extra:
            out["acc"] = float(extra["acceptance"].mean())
        if chunk.accepted is not None and "tries" in extra:
            out["F"] = float(extra["tries"].sum() / chunk.accepted.sum())
            out["acc"] = 1 / out["F"]
    modes = mode_metrics(points, DOT25)
    names = ("HQ %", "modes1", "modes20", "KL", "in-std x 1e3")
    out |= dict(zip(names, (modes.hq, modes.modes1, modes.modes20, modes.kl, 1e3 * modes.in_std), strict=True))
    if transport:
        out["W1 x 1e3"] = 1e3 * w1_to_data(points, DOT25, seed=10**6 + seed)
    return out


def kept(
    row: Row, pair: Pair, seed: int, samples: int, transport: bool, cache: Path | None, new: bool = True
) -> dict[str, float] | None:
    """Return `measure`'s figures, from the cache where the same run is there; None where it is not and nothing is `new`."""
    key = repr((row.strategy, row.space, row.data, seed, samples, transport))
    name = f"{re.sub('[^a-z0-9]+', '-', row.name.lower())}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
    path = cache / name if cache else None
    if path and path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8"))["figures"])
    if not new:
        return None
    found = measure(row, pair, seed, samples, transport)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"row": row.name, "seed": seed, "run": key, "figures": found}
        path.with_suffix(".part").write_text(json.dumps(told, indent=1), encoding="utf-8")
        path.with_suffix(".part").replace(path)
    return found


@functools.cache
def pair_here(folder: str) -> Pair:
    """Return the pair of a folder, read once per process."""
    torch.set_num_threads(1)
    return load_pair(folder)


def work(folder: str, name: str, seed: int, samples: int, transport: bool, cache: Path | None) -> dict[str, float] | None:
    """Return `kept`'s figures of a row by its name, in any process."""
    return kept(next(r for r in ROWS if r.name == name), pair_here(folder), seed, samples, transport, cache)


def off(name: str, means: Mapping[str, float], want: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the columns in which a mean lies further from the stated one than twice its spread and its floor."""
    floors = FLOORS | ({"HQ %": 1.5} if "*" in name and ("I-FGSM" in name or "published" in name) else {})
    return [
        f"{c} {means[c]:.4g} for {mean:.4g}"
        for c, (mean, spread) in want.items()
        if c in means and not abs(means[c] - mean) <= max(2 * spread, floors.get(c, 0.0)) + 1e-9
    ]


def mark(kl: float, raw: float) -> str:
    """Return what a method does to the balance of modes: "loses modes", "uneven", or nothing. KL of its samples and of raw."""
    kept = float(np.exp(raw - kl))
    return "loses modes" if kept < LOST else "uneven" if kept < UNEVEN else ""


def line(name: str, runs: list[dict[str, float]], want: Mapping[str, tuple[float, float]], raw: float) -> tuple[str, list[str]]:
    """Return a row of the table, as `mean +- spread over the seeds`, and what is off in it."""
    digits = {"KL": 4, "dz": 3, "acc": 3, "in-std x 1e3": 2, "F": 2, "Bk": 0, "seconds": 2}
    means, cells = {}, []
    for column in (*COLUMNS, "seconds"):
        values = [r[column] for r in runs if column in r]
        if not values:
            cells.append("")
            continue
        means[column] = float(np.mean(values))
        spread = f" +- {np.std(values, ddof=1):.{digits.get(column, 1)}f}" if np.ptp(values) > 0 and column != "seconds" else ""
        whole = column in ("F", "Bk") and not means[column] % 1
        cells.append(f"{means[column]:.{0 if whole else digits.get(column, 1)}f}{spread}")
    wrong = off(name, means, want)
    return f"| {name} | {' | '.join(cells)} | {mark(means['KL'], raw)} | {len(runs)} | {'; '.join(wrong)} |", wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", required=True, help="folder of the reference pair (pair.npz)")
    parser.add_argument("--short", action="store_true", help="two seeds, without the rows of 640 and 1,000 steps")
    parser.add_argument("--seeds", type=int, help="number of seeds (5, or 2 with --short)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples per seed (the stated figures are for 2,000)")
    parser.add_argument("--only", default="", help="rows whose name matches this regular expression")
    parser.add_argument("--no-w1", action="store_true", help="leave the transport distance out")
    parser.add_argument("--cache", type=Path, help="folder that keeps every finished run; a second call goes on from there")
    parser.add_argument("--kept", action="store_true", help="measure nothing: show what the cache holds")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--plot", type=Path, help="write quality against cost here (PNG)")
    args = parser.parse_args()
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    began, here = time.time(), time.process_time()
    pair, want, found, count = pair_here(args.pair), stated(), {}, 0
    seeds = args.seeds or (2 if args.short else 5)
    chosen = [r for r in ROWS if re.search(args.only, r.name) and not (args.short and r.long)]
    plain = next(r for r in ROWS if r.name == "raw")
    how = (args.samples, not args.no_w1, args.cache)
    ahead: dict[tuple[str, int], futures.Future[dict[str, float] | None]] = {}
    if args.workers > 1 and not args.kept:
        pool = futures.ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn"))
        names = [plain.name, *(r.name for r in chosen if r is not plain)]
        ahead = {(n, seed): pool.submit(work, args.pair, n, seed, *how) for n in names for seed in range(seeds)}

    def runs(row: Row) -> list[dict[str, float]]:
        got = [ahead[row.name, seed].result() if ahead else kept(row, pair, seed, *how, not args.kept) for seed in range(seeds)]
        return [figures for figures in got if figures]

    even = [r["KL"] for r in runs(plain)]

    def raw(got: list[dict[str, float]]) -> float:  # of the same seeds
        return float(np.mean(even[: len(got)]))

    print(
        f"| row | {' | '.join(COLUMNS)} | CPU s per 1,000 | modes | seeds | off |\n|{' --- |' * (len(COLUMNS) + 5)}", flush=True
    )
    for row in chosen:
        if not (got := runs(row)):
            continue
        found[row.name] = got
        text, wrong = line(row.name, found[row.name], want.get(row.name, {}), raw(found[row.name]))
        count += len(wrong)
        print(text, flush=True)
    print(f"\n{count} cells lie outside of twice the stated spread and the floors.")
    if ahead:
        pool.shutdown()
    ours, theirs = time.process_time() - here, os.times()
    spent = f"{ours + theirs.children_user + theirs.children_system:.0f} s of CPU time, "
    print(
        f"{seeds} seeds of {args.samples} samples, torch {torch.__version__}, latentshift {__version__}, one thread of "
        f"{platform.machine()} each; this call took {spent}{time.time() - began:.0f} s by the clock."
    )
    if args.plot and not args.no_w1:
        from methods_plot import Point, draw

        mean = {n: {c: float(np.mean([r[c] for r in rs if c in r])) for c in rs[0]} for n, rs in found.items()}
        points = [
            Point(n, m["F"] + m["Bk"], m["W1 x 1e3"], m["HQ %"], mark(m["KL"], raw(found[n])))
            for n, m in mean.items()
            if "F" in m
        ]
        draw(points, floor=mean.get("data, modes drawn iid*", {}).get("W1 x 1e3"), raw=mean["raw"]["W1 x 1e3"]).save(args.plot)


if __name__ == "__main__":
    main()
