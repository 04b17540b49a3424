"""What runs in shards cost on this machine. Run it when nothing else does.

    python examples/scale.py workers     # one worker against two, paired rounds: 1.7 or more is wanted on two cores
    python examples/scale.py ray         # two plain workers against two Ray actors: 0.9 or more
    python examples/scale.py books       # CPU time of shards beside the same chunks without files: under 2 % of a real pair
    python examples/scale.py memory      # peak memory of a million latents of the 2-D pair over that of ten thousand: up to 1.2
    python examples/scale.py free        # a generator that costs nothing: bookkeeping of ten million seeds (or --rows)
    python examples/scale.py resume      # seconds to read the manifest of a billion samples (10^5 shards)

What was measured on two shared cores lies in docs/howto-scale.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def refine(folder: Path, *words: str) -> dict[str, Any]:
    """Run `latentshift refine` and return its record."""
    line = [sys.executable, "-m", "latentshift", "refine", "--quiet", "--no-report", "--outdir", str(folder), *words]
    subprocess.run(line, check=True, env=ENV)
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def pairs(rounds: int, a: list[str], b: list[str], rows: int) -> None:
    """Run two settings by turns and print the ratio of their rates; the first eighth of the shards warms up."""
    ratios = []
    for i in range(rounds):
        took = []
        for words in (a, b) if i % 2 == 0 else (b, a):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                base = ["--model", "fashion32", "--strategy", "ifgsm", "--steps", "4", "--num", str(rows), "--shards-as", "tar"]
                refine(out, *base, "--shard-size", str(rows // 64), *words)
                stamps = sorted((out / f"latents-{k:06d}.npz").stat().st_mtime for k in range(64))
                took.append(stamps[-1] - stamps[7])
        first, second = took if i % 2 == 0 else took[::-1]
        ratios.append(first / second)
        print(f"round {i + 1}: {first:.2f} s, {second:.2f} s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} of {rounds} rounds, load {os.getloadavg()[0]:.1f}")


def books(rounds: int) -> None:
    """Print the CPU time of making shards over that of the same rows through the engine alone."""
    import torch

    from latentshift import load, noise
    from latentshift.engine.run import Engine, Settings
    from latentshift.registry import make_strategy
    from latentshift.seeds import SeedRanges
    from latentshift.shards.drive import Job, alone
    from latentshift.shards.maker import Maker
    from latentshift.shards.manifest import Manifest
    from latentshift.shards.plan import ShardPlan
    from latentshift.shards.store import Folder
    from latentshift.shards.watch import Watch

    torch.set_num_threads(1)
    rows = 512
    pair = load("fashion32")
    engine = Engine(make_strategy("ifgsm", steps=20), pair, settings=Settings(images=False))
    z0 = torch.from_numpy(noise.latents(range(rows), pair.space.shape, pair.space.prior))
    engine.run(z0[:64], list(range(64)))
    spent: dict[str, list[float]] = {"engine": [], "pictures": [], "rest": []}
    for _ in range(rounds):
        engine.run_.chunks.clear()
        began = time.process_time()
        engine.run(z0, list(range(rows)))
        plain = time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            store, plan = Folder(Path(folder)), ShardPlan(SeedRanges.parse(f"0-{rows - 1}"), 128, "tar")
            job = Job(store, plan, Manifest(plan), Watch(store, Manifest(plan)))
            maker = Maker(plan, engine, store)
            from latentshift.shards import formats

            encode, inside = formats.png, 0.0

            def timed(*args: Any, encode: Any = encode) -> bytes:
                nonlocal inside
                at = time.process_time()
                out: bytes = encode(*args)
                inside += time.process_time() - at
                return out

            formats.png = timed
            began = time.process_time()
            alone(job, maker, range(4))
            whole = time.process_time() - began
            formats.png = encode
        spent["engine"].append(plain)
        spent["pictures"].append(inside)
        spent["rest"].append(whole - inside - plain)
        share = (whole - inside - plain) / whole
        print(
            f"engine {plain:.3f} s, PNG {inside:.3f} s, everything else {whole - inside - plain:+.3f} s ({share:.2%})",
            flush=True,
        )
    total = [sum(v) for v in zip(*spent.values())]
    print(f"bookkeeping: {statistics.median(r / t for r, t in zip(spent['rest'], total)):.2%} of the CPU time in the median")


def memory() -> None:
    """Print the peak memory of a long run over that of a short one."""
    peaks = []
    for rows in (10_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            words = ["--model", "ring", "--strategy", "ifgsm", "--steps", "1", "--chunk", "2048", "--shard-size", "10000"]
            record = refine(Path(folder) / "out", *words, "--num", str(rows))
            peaks.append(record["peak_memory_mb"])
            print(f"{rows:,} latents: peak {peaks[-1]:.0f} MB, {record['seconds']['wall']:.0f} s", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def free(rows: int) -> None:
    """Make shards of a generator that costs nothing and print where the time goes."""
    import torch

    from latentshift.engine.run import Engine, Settings
    from latentshift.model import Pair
    from latentshift.seeds import SeedRanges
    from latentshift.shards.check import verify
    from latentshift.shards.drive import Job, alone, read_manifest
    from latentshift.shards.maker import Maker
    from latentshift.shards.plan import ShardPlan
    from latentshift.shards.store import Folder
    from latentshift.shards.watch import Watch
    from latentshift.strategies.base import Stay

    torch.set_num_threads(1)
    pair = Pair.wrap(lambda z: z, lambda x: -x.square().sum(1), z_size=2, name="free")
    engine = Engine(Stay(), pair, settings=Settings(images=False, chunk=2048, prepare=False))
    with tempfile.TemporaryDirectory() as folder:
        store, plan = Folder(Path(folder)), ShardPlan(SeedRanges.parse(f"0-{rows - 1}"), 10_000)
        manifest, _ = read_manifest(store, plan)
        job = Job(store, plan, manifest, Watch(store, manifest, print))
        began = time.process_time()
        alone(job, Maker(plan, engine, store), manifest.missing())
        made = time.process_time() - began
        began = time.process_time()
        found = verify(store, plan, sums=False)
        looked = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{rows:,} rows in {len(plan):,} shards: {made:.0f} s of CPU ({made / rows * 1e6:.1f} us a row), peak {peak:.0f} MB"
        )
        print(f"a look at all shards: {looked:.2f} s; {found.as_dict()['rows_sound']:,} rows are there")


def resume(shards: int) -> None:
    """Print what reading the manifest of so many shards costs."""
    from dataclasses import replace

    from latentshift.seeds import SeedRanges
    from latentshift.shards.manifest import NAME, Entry, Manifest, Piece
    from latentshift.shards.plan import ShardPlan
    from latentshift.shards.store import Folder
    from latentshift.shards.totals import Totals

    plan = ShardPlan(SeedRanges.parse(f"0-{shards * 10_000 - 1}"), 10_000, "tar")
    stats = {"finite": 10_000, "score_before": -11234.123456789, "score_after": -9234.123456789, "raised": 7000}
    stats |= {"stopped": {"steps": 10_000}, "work": [40000, 40000, 30000, 30000], "seconds": 12.345}
    sha = "0" * 64
    with tempfile.TemporaryDirectory() as folder:
        store = Folder(Path(folder))
        with (store.path / NAME).open("w") as stream:
            for k in range(shards):
                main = Piece(plan.name(k), 12345678, sha)
                entry = Entry(k, plan.text(k), 10_000, main, replace(main, name=plan.latents_name(k)), stats)
                stream.write(entry.line())
        size = (store.path / NAME).stat().st_size
        began = time.process_time()
        manifest = Manifest.read(plan, store.lines(NAME))
        totals = Totals.of(manifest.entries.values())
        took = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        weight = f"{size / 1e6:.1f} MB of manifest"
        print(f"{totals.rows:,} samples, {shards:,} shards: {weight}, read in {took:.1f} s, peak {peak:.0f} MB")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["workers", "ray", "books", "memory", "free", "resume"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=0)
    asked = parser.parse_args()
    if asked.what == "workers":
        pairs(asked.rounds, ["--workers", "1"], ["--workers", "2"], asked.rows or 4096)
    elif asked.what == "ray":
        pairs(asked.rounds, ["--workers", "2"], ["--workers", "2", "--engine", "ray"], asked.rows or 4096)
    elif asked.what == "books":
        books(asked.rounds)
    elif asked.what == "memory":
        memory()
    elif asked.what == "free":
        free(asked.rows or 10**7)
    else:
        resume(asked.rows or 10**5)


if __name__ == "__main__":
    main()
