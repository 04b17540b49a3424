"""What is left of a run, done in this process; what is finished is checked before anything is added."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NumericError, OutputError
from ..files.write import output_errors
from .maker import Maker
from .manifest import NAME, Entry, Manifest
from .plan import ShardPlan
from .store import Store
from .watch import Watch

#: of a run up to so many bytes, all checksums are read again on resume; of a larger one those of the last shards
_ALL = 2 << 30
_LAST = 64


@dataclass
class Job:
    """A run under way: `finished` is the one place where a shard comes into being."""

    store: Store
    plan: ShardPlan
    manifest: Manifest
    watch: Watch

    def finished(self, entry: Entry, who: str = "main") -> None:
        """List a shard whose files are in place."""
        self.store.append(NAME, entry.line())
        self.manifest.take(entry)
        self.watch.add(entry, who)

    def check(self) -> None:
        """Raise NumericError where every row of the run broke."""
        rows = self.watch.totals.rows
        if rows and self.watch.totals.stopped.get("nan", 0) == rows:
            raise NumericError(
                f"all {rows} rows met a NaN or infinite score or gradient", way_out="Check G and D on raw latents."
            )


def alone(job: Job, maker: Maker, todo: Sequence[int], who: str = "main") -> None:
    """Make shards one after the other in this process."""
    for place, index in enumerate(todo):
        job.finished(maker.make(index, lambda rows: job.watch.progress(who, rows)), who)
        if place == 0 and job.watch.totals.rows >= 1000:
            job.check()  # a broken pair is told early
    job.store.flush()


def share(todo: Sequence[int], rank: int, world: int) -> list[int]:
    """Return the shards of one rank of `world`, by their numbers: ranks that start at other moments agree.

    >>> share([0, 1, 4, 7, 9], 1, 2)
    [1, 7, 9]
    """
    return [k for k in todo if k % world == rank]


def read_manifest(store: Store, plan: ShardPlan, *, sums: bool | None = None) -> tuple[Manifest, list[str]]:
    """Return what the manifest lists and the store really holds, and what was found wrong, one line each.

    A line that counts for nothing is wrong only where a shard is missing: of two lines of a shard the last counts.
    Sizes are compared for all shards; checksums for all (`sums`), none, or as many as is quick (None).
    """
    manifest = Manifest.read(plan, store.lines(NAME))
    wrong = []
    last = set(manifest.order[-_LAST:])
    every = sums if sums is not None else manifest.bytes <= _ALL and store.local
    for index in sorted(manifest.entries):
        entry = manifest.entries[index]
        for piece in (entry.main, entry.latents):
            size = store.size(piece)
            if size is None:
                why = "is missing"
            elif size != piece.bytes:
                why = f"has {size:,} bytes, the manifest says {piece.bytes:,}"
            elif (every or (sums is None and index in last)) and store.digest(piece) != piece.sha256:
                why = "does not match its checksum"
            else:
                continue
            wrong.append(f"{piece.name} {why}")
            manifest.entries.pop(index, None)
    if len(manifest.entries) < len(plan):
        wrong = [f"line {number} of {NAME} {why}" for number, why in manifest.bad] + wrong
    return manifest, wrong


@contextlib.contextmanager
def hold(folder: Path, *, share: str = "", wait: float = 1.0) -> Iterator[Any]:
    """Hold a run's folder for this process and its workers; ranks of one job (`share`: their name) hold it together.

    Yields the open lock file: a child that inherits it holds the folder too. Raises OutputError where another process holds
    it longer than `wait` seconds.
    """
    try:
        import fcntl
    except ImportError:  # no advisory locks on this system
        yield None
        return
    until = time.monotonic() + wait
    held: list[Any] = []
    try:
        mine = [(".lock", fcntl.LOCK_SH), (f".lock-{share}", fcntl.LOCK_EX)] if share else [(".lock", fcntl.LOCK_EX)]
        for name, kind in mine:
            with output_errors(folder):
                stream = (folder / name).open("a+b")
            held.append(stream)
            while True:
                try:
                    fcntl.flock(stream, kind | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() >= until:
                        raise OutputError(
                            "another process is writing this folder",
                            where=str(folder),
                            way_out="Wait for it, or give another --outdir.",
                        ) from None
                    time.sleep(0.05)
        yield held[0]
    finally:
        for stream in reversed(held):
            stream.close()


def is_held(folder: Path) -> bool | None:
    """Whether a process is writing a folder; None where this cannot be known."""
    try:
        import fcntl
    except ImportError:
        return None
    path = folder / ".lock"
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
