"""Faults on purpose, at random moments, on a fake pair that costs nothing. Prints one JSON line a kind.

    python tests/shards/faults.py --cuts 200 --seed 0          # what the tests run
    python tests/shards/faults.py --cuts 5000                  # the long form

Each case is a process that makes shards in a folder and is ended in one way; then the folder is looked at: every file under a
final name must be, byte for byte, that of a run that nobody disturbed. The next case goes on in the same folder until the run
is complete; then nothing may be missing or doubled, and the manifest must verify.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentshift.engine.run import Engine, Settings
from latentshift.errors import LatentshiftError
from latentshift.model import Pair
from latentshift.registry import make_strategy
from latentshift.seeds import SeedRanges
from latentshift.shards.check import verify
from latentshift.shards.drive import Job, alone, hold, read_manifest
from latentshift.shards.maker import Maker
from latentshift.shards.manifest import NAME, Manifest
from latentshift.shards.plan import ShardPlan
from latentshift.shards.store import Folder
from latentshift.shards.watch import Watch

ROWS, SIZE = 400, 20


class Trouble:
    """What the fake generator does beside its work."""

    def __init__(self) -> None:
        self.memory = 0.0  # the share of calls that run out of memory
        self.nan = False  # whether points far to the right are broken
        self.random = random.Random(0)

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        if self.random.random() < self.memory:
            raise torch.OutOfMemoryError("out of memory, on purpose")
        x = torch.stack([z[:, 0] - 0.25 * z[:, 1], z[:, 1]], 1)
        return torch.where((z[:, :1] > 1.5) & torch.tensor(self.nan), torch.nan, x)


def engine_of(trouble: Trouble) -> Engine:
    """Return an engine of a pair that costs nothing, with a method that needs no gradient (a child may not take one)."""
    pair = Pair.wrap(trouble.generate, lambda x: -x.square().sum(1), z_size=2, name="fake")
    strategy = make_strategy("best-of-n", steps=2)
    return Engine(strategy, pair, settings=Settings(images=False, chunk=16, prepare=False))


class Run:
    """One run of `kind` shards in a folder, done in as many processes as it takes."""

    def __init__(self, folder: Path, kind: str, engine: Engine, rows: int = ROWS) -> None:
        self.folder, self.engine = folder, engine
        self.plan = ShardPlan(SeedRanges.parse(f"0-{rows - 1}"), SIZE, kind)
        folder.mkdir(parents=True, exist_ok=True)

    def work(self) -> None:
        """Do what a process does that is started, or started again."""
        with hold(self.folder, wait=10.0):
            store = Folder(self.folder)
            store.clear(everything=True)
            manifest, _ = read_manifest(store, self.plan)
            job = Job(store, self.plan, manifest, Watch(store, manifest))
            alone(job, Maker(self.plan, self.engine, store), manifest.missing())
            job.watch.close("complete")

    def missing(self) -> int:
        """Return how many shards are not listed."""
        return len(Manifest.read(self.plan, Folder(self.folder).lines(NAME)).missing())

    def files(self) -> dict[str, bytes]:
        """Return all files under their final names."""
        names = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        mine = lambda p: p.relative_to(self.folder).parts[0].startswith(("shard-", "latents-"))  # noqa: E731
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in names if mine(p)}


def child(work: Callable[[], None], until: Callable[[], bool] | None = None, delay: float = 0.0) -> int:
    """Run `work` in a process of its own, killed `delay` seconds after `until`; return how it ended (negative: the signal)."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            work()
            status = 0
        except LatentshiftError as error:
            status = error.exit_status
        finally:
            os._exit(status)
    if until is not None:
        while not until():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_event(number: int, act: Callable[[], None]) -> None:
    """Arrange that `act` is called at the so many-th time that this process is about to change the file system."""
    left = number

    def hook(event: str, args: Any) -> None:
        nonlocal left
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
            left -= 1
            if left == 0:
                act()

    sys.addaudithook(hook)


def die() -> None:
    """End this process as a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def torn(run: Run, share: float, number: int) -> None:
    """Work until the so many-th line of the manifest is half written, then die."""
    append, left = Folder.append, number

    def half(self: Folder, name: str, line: str) -> None:
        nonlocal left
        append(self, name, line)
        left -= 1
        if left:
            return
        path = self.path / name
        os.truncate(path, path.stat().st_size - max(1, round(share * len(line))))
        die()

    Folder.append = half  # type: ignore[method-assign]
    run.work()


def cases(kind: str, run: Run, dice: random.Random) -> int:
    """Disturb a run once; return how the process ended."""
    if kind == "kill at a random moment":
        left = run.missing() - dice.randint(0, 5)
        return child(run.work, lambda: run.missing() <= left, dice.uniform(0.0, 0.02))
    if kind == "kill at a random change of a file":
        return child(lambda: (at_event(dice.randint(1, 80), die), run.work())[1])
    if kind == "line of the manifest cut":
        share, number = dice.random(), dice.randint(1, 5)
        return child(lambda: torn(run, share, number))
    if kind == "disk full at a random change of a file":
        return child(lambda: (at_event(dice.randint(8, 80), full), run.work())[1])
    if kind == "out of memory at random chunks":
        trouble = run.engine.pair.G.trouble if hasattr(run.engine.pair.G, "trouble") else TROUBLE

        def work() -> None:
            trouble.memory, trouble.random = dice.uniform(0.0, 0.1), dice
            run.work()

        return child(work)
    raise ValueError(kind)


TROUBLE = Trouble()
EXPECTED = {
    "kill at a random moment": {0, -9},
    "kill at a random change of a file": {0, -9},
    "line of the manifest cut": {0, -9},
    "disk full at a random change of a file": {0, 6},
    "out of memory at random chunks": {0, 7},
}
SHARE = {
    "kill at a random moment": 0.5,
    "kill at a random change of a file": 0.2,
    "line of the manifest cut": 0.1,
    "disk full at a random change of a file": 0.1,
    "out of memory at random chunks": 0.1,
}


def examine(run: Run, reference: dict[str, bytes], partial: list[str]) -> None:
    """Add every file under a final name that is not that of an undisturbed run."""
    partial += [name for name, data in run.files().items() if reference.get(name) != data]


def disturb(kind: str, cuts: int, dice: random.Random, base: Path, references: dict[str, dict[str, bytes]]) -> dict[str, Any]:
    """Return the tally of one kind of fault over so many cases."""
    tally: dict[str, Any] = {"kind": kind, "cases": 0, "cut": 0, "runs": 0, "lost": 0, "doubled": 0, "partial": 0}
    tally |= {"unverified": 0, "status": {}}
    engine = engine_of(TROUBLE)
    while tally["cut"] < cuts:
        form = dice.choice(list(references))
        run = Run(base / f"{len(os.listdir(base))}", form, engine)
        partial: list[str] = []
        while tally["cut"] < cuts and run.missing():
            ended = cases(kind, run, dice)
            tally["cases"] += 1
            tally["cut"] += ended != 0
            tally["status"][str(ended)] = tally["status"].get(str(ended), 0) + 1
            examine(run, references[form], partial)
        assert child(run.work) == 0
        examine(run, references[form], partial)
        found = verify(Folder(run.folder), run.plan)
        order = found.manifest.order
        tally["runs"] += 1
        tally["lost"] += sum(1 for name in references[form] if name not in run.files())
        tally["doubled"] += len(order) - len(set(order))
        tally["partial"] += len(partial)
        tally["unverified"] += len(found.wrong) + found.missing + len(found.loose)
        shutil.rmtree(run.folder)
    return tally


def main() -> None:
    """Run all kinds and print their tallies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", default="png,tar")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dice = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        base = Path(folder)
        references = {}
        for form in asked.forms.split(","):
            run = Run(base / "reference", form, engine_of(TROUBLE))
            assert child(run.work) == 0
            references[form] = run.files()
            shutil.rmtree(run.folder)
        for kind, share in SHARE.items():
            print(json.dumps(disturb(kind, max(1, round(share * asked.cuts)), dice, base, references)), flush=True)


if __name__ == "__main__":
    main()
