"""The same shards, byte for byte: one process, four workers, Ray with three actors of which one is killed, a run cut 50 times.

    python examples/same_bytes.py                                       # 10,000 seeds of the 2-D pair `ring`
    python examples/same_bytes.py --model fashion32 --rows 640 --size 40 --skip ray

It prints one line a way of running, and ends with status 1 where one differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from latentshift.commands import run

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def digest(folder: Path) -> str:
    """Return one checksum of all shards and latents."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if name.parts[0].startswith(("shard-", "latents-")):
            total.update(f"{name}\n".encode() + path.read_bytes())
    return total.hexdigest()


def lines(folder: Path) -> int:
    """Return how many shards are listed."""
    path = folder / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def cut(folder: Path, words: list[str], times: int, shards: int) -> tuple[int, int]:
    """Run in processes of which so many are killed; return kills and starts. This process never takes a gradient itself."""
    import torch

    torch.set_num_threads(1)
    dice, kills, starts = random.Random(0), 0, 0
    while True:
        starts += 1
        begun = (folder / "run.json").exists()
        pid = os.fork()
        if pid == 0:
            os._exit(run(["refine", "--resume", str(folder), "--quiet"] if begun else [*words, "--outdir", str(folder)]))
        goal = lines(folder) + (dice.randint(0, 1) if (shards - lines(folder)) < 2 * (times - kills) else dice.randint(0, 3))
        while kills < times and os.waitpid(pid, os.WNOHANG)[0] == 0:
            time.sleep(0.002)
            if lines(folder) >= min(goal, shards - 1) and (folder / "run.json").exists():
                time.sleep(dice.uniform(0, 0.05))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                kills += 1
                os.waitpid(pid, 0)
                break
        else:
            if kills >= times:
                os.waitpid(pid, 0)
            return kills, starts


def kill_an_actor(folder: Path, at: int) -> int:
    """Kill a Ray actor of ours once so many shards are listed; return its process."""
    while lines(folder) < at:
        time.sleep(0.01)
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and b"ray::Actor" in (path / "cmdline").read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
                return int(path.name)
    return 0


def main() -> int:
    """Run all ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ring")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--steps", default="5")
    parser.add_argument("--form", default="tar")
    parser.add_argument("--skip", default="")
    asked = parser.parse_args()
    shards = -(-asked.rows // asked.size)
    words = ["refine", "--model", asked.model, "--strategy", "ifgsm", "--steps", asked.steps, "--num", str(asked.rows)]
    words += ["--shard-size", str(asked.size), "--shards-as", asked.form, "--no-report", "--quiet"]
    found = {}
    with tempfile.TemporaryDirectory() as base:
        place = {name: Path(base) / name for name in ("one", "workers", "ray", "cut")}
        kills, starts = cut(place["cut"], words, asked.cuts, shards)
        found[f"cut {kills} times, {starts} starts"] = place["cut"]
        subprocess.run([sys.executable, "-m", "latentshift", *words, "--outdir", str(place["one"])], env=ENV, check=True)
        found["one process"] = place["one"]
        if "workers" not in asked.skip:
            more = ["--workers", "4", "--outdir", str(place["workers"])]
            subprocess.run([sys.executable, "-m", "latentshift", *words, *more], env=ENV, check=True)
            found["four workers"] = place["workers"]
        if "ray" not in asked.skip:
            more = ["--engine", "ray", "--workers", "3", "--outdir", str(place["ray"])]
            process = subprocess.Popen([sys.executable, "-m", "latentshift", *words, *more], env=ENV)
            pid = kill_an_actor(place["ray"], shards // 2)
            assert process.wait() == 0
            found[f"Ray, three actors, process {pid} killed half-way"] = place["ray"]
        sums = {}
        for name, folder in found.items():
            indices = [json.loads(x)["index"] for x in (folder / "manifest.jsonl").read_text().splitlines() if x.endswith("}")]
            sums[name] = digest(folder)
            missing, doubled = shards - len(set(indices)), len(indices) - len(set(indices))
            print(f"{sums[name][:16]}  {name}: {shards} shards, {missing} missing, {doubled} doubled", flush=True)
    return int(len(set(sums.values())) != 1)


if __name__ == "__main__":
    sys.exit(main())
