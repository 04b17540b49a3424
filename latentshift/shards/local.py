"""Several worker processes on this machine. A worker that dies is replaced and its shard made again; one that cannot go on says
why, and the run ends with its error.

Coordinator to worker, a line each: the number of a shard. Worker to coordinator, JSON lines: `ready`, `rows` (of the shard at
work), `entry` (a line of the manifest), `error`. A worker whose coordinator is gone ends at once.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from .. import errors
from ..errors import DeviceError, LatentshiftError
from .drive import Job
from .manifest import Entry

TRIES = 3  # deaths of workers on one shard before the run gives up
#: what keeps libraries from starting a thread for every core in every worker
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def told(error: LatentshiftError) -> dict[str, str]:
    """Return an error as plain values, so that it can cross to another process."""
    return {"kind": type(error).__name__, "what": error.what, "where": error.where, "way_out": error.way_out}


def heard(row: dict[str, str]) -> LatentshiftError:
    """Return the error that `told` wrote (a name of ours; others become faults of ours)."""
    kind: Any = getattr(errors, row.get("kind", ""), LatentshiftError)
    if kind is errors.UnknownNameError or not (isinstance(kind, type) and issubclass(kind, LatentshiftError)):
        kind = errors.RequestError if kind is errors.UnknownNameError else LatentshiftError
    made: LatentshiftError = kind(
        row.get("what", "a worker failed"), where=row.get("where", ""), way_out=row.get("way_out", "")
    )
    return made


@dataclass(eq=False)
class Worker:
    """A worker process and the shard that it makes."""

    name: str
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    at: int | None = None
    ready: bool = False
    rest: bytes = b""
    words: str = ""

    def send(self, index: int) -> None:
        """Hand over a shard."""
        self.at = index
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it died: the end of its output says so
            self.process.stdin.write(f"{index}\n".encode())
            self.process.stdin.flush()

    def last_words(self) -> str:
        """Return the last line that it wrote to stderr."""
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - 4000))
        lines = self.stderr.read().decode("utf-8", "replace").split("\n")
        return next((x.strip() for x in reversed(lines) if x.strip()), "no message")[:300]


@dataclass
class Pool:
    """Workers, one per device of `devices`; `command` starts one: its arguments get `--who` and `--device`."""

    job: Job
    command: Sequence[str]
    devices: Sequence[str]
    lock: Any = None
    threads: int = 1
    on_start: Callable[[Worker], None] | None = None

    def run(self, todo: Sequence[int]) -> None:
        """Make shards; raises what a worker could not go on with."""
        self.queue = collections.deque(todo)
        self.deaths: collections.Counter[int] = collections.Counter()
        self.replaced = 0
        self.selector = selectors.DefaultSelector()
        self.workers: list[Worker] = []
        self.devices_of: dict[str, str] = {}
        try:
            for i, device in enumerate(self.devices[: max(1, len(todo))]):
                self._start(f"worker-{i}", device)
            while any(w.at is not None or not w.ready for w in self.workers) or self.queue:
                for key, _ in self.selector.select(timeout=1.0):
                    self._hear(key.data)
            self.job.store.flush()
        finally:
            for worker in self.workers:
                self._end(worker)
            self.selector.close()

    def _start(self, name: str, device: str) -> None:
        env = {**os.environ, **({n: str(self.threads) for n in THREADS} if not device.startswith("cuda") else {})}
        for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            env.pop(key, None)
        stderr = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            [*self.command, "--who", name, "--device", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            pass_fds=() if self.lock is None else (self.lock.fileno(),),
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        worker = Worker(name, process, stderr)
        self.workers.append(worker)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        self.devices_of[name] = device
        if self.on_start:
            self.on_start(worker)

    def _hear(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        data = worker.process.stdout.read()
        if data == b"":
            return self._died(worker)
        *lines, worker.rest = (worker.rest + (data or b"")).split(b"\n")
        for line in lines:
            self._take(worker, json.loads(line))

    def _take(self, worker: Worker, said: dict[str, Any]) -> None:
        if "error" in said:
            raise heard(said["error"])
        if "rows" in said:
            return self.job.watch.progress(worker.name, said["rows"])
        if "entry" in said:
            entry = Entry.read(said["entry"])
            assert entry is not None
            self.job.finished(entry, worker.name)
            worker.at = None
        worker.ready = True
        for note in said.get("notes", ()):
            self.job.watch.note(f"{worker.name}: {note}")
        if self.queue:
            worker.send(self.queue.popleft())

    def _died(self, worker: Worker) -> None:
        status, index = self._end(worker), worker.at
        self.workers.remove(worker)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self.job.watch.lost(worker.name)
        if index is None:  # between shards, or before its first one
            self.deaths[-1] += 1
            if self.deaths[-1] >= TRIES or not any(w.ready for w in self.workers):
                raise DeviceError(
                    f"{worker.name} {how} before its first shard",
                    where=worker.words,
                    way_out="Fewer --workers need less memory.",
                )
            self.job.watch.note(f"{worker.name} {how} without a shard: it is replaced")
            self._start(worker.name, self.devices_of[worker.name])
            return
        self.deaths[index] += 1
        name = self.job.plan.name(index)
        if self.deaths[index] >= TRIES:
            raise DeviceError(
                f"{self.deaths[index]} workers died on {name}",
                where=f"the last {how}: {worker.words}",
                way_out="Fewer --workers need less memory; what is finished is kept.",
            )
        self.replaced += 1
        self.job.watch.note(f"{worker.name} {how} at {name}: it is replaced, and the shard made again")
        self.queue.appendleft(index)
        self._start(worker.name, self.devices_of[worker.name])

    def _end(self, worker: Worker) -> int:
        process = worker.process
        with_output = process.stdout
        if with_output is not None and not with_output.closed:
            self.selector.unregister(with_output)
            with_output.close()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            status = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if not worker.stderr.closed:
            worker.words = worker.last_words()
            worker.stderr.close()
        return status


def command() -> list[str]:
    """Return how a worker of this installation is started."""
    return [sys.executable, "-m", "latentshift.commands.shardwork"]
