"""The same work on Ray: an actor holds the model and makes one shard after the other; Ray replaces actors that die.

Every actor has two shards at most (one at work, one waiting), so that nothing piles up; a shard whose actor died is made again
by Ray, `TRIES` times. Results go to the store from where they are made; the driver only lists them.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DeviceError, LatentshiftError, RequestError
from .drive import Job
from .local import TRIES, heard, told
from .maker import Maker
from .manifest import Entry
from .store import is_address

Open = Callable[..., Maker]  # (place, who, device, record, fit)


class Actor:
    """What runs in a Ray worker. Errors cross as values, so that the driver's are those of a single process."""

    def __init__(self, opener: Open, place: str, who: str, device: str, record: dict[str, Any], fit: bytes | None) -> None:
        self.error: dict[str, str] | None = None
        self.heard = 0
        try:
            self.maker = opener(place, f"{who}-{os.getpid()}", device, record, fit)
        except LatentshiftError as error:
            self.error = told(error)

    def pid(self) -> int:
        """Return the process."""
        return os.getpid()

    def make(self, index: int) -> dict[str, Any]:
        """Make a shard; return its line and what there is to say."""
        if self.error is None:
            try:
                line = self.maker.make(index).line()
                notes = self.maker.engine.run_.notes[self.heard :]
                self.heard += len(notes)
                return {"entry": line, "notes": notes}
            except LatentshiftError as error:
                self.error = told(error)
        return {"error": self.error}


def need_ray() -> Any:
    """Return the module; raises RequestError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except Exception:
        raise RequestError(
            "--engine ray needs Ray", way_out="pip install 'latentshift[ray]', or use --workers on this machine."
        ) from None
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at an address, within seconds."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("an address is HOST:PORT")
    socket.create_connection((host, int(port)), timeout=5.0).close()


def absolute(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record whose files are named from the root: an actor works in another folder."""
    request = dict(record["request"])
    for key in ("model", "critic"):
        if request.get(key) and Path(request[key]).exists():
            request[key] = str(Path(request[key]).resolve())
    place, colon, function = str(request.get("factory") or "").rpartition(":")
    if colon and place.endswith(".py"):
        request["factory"] = f"{Path(place).resolve()}:{function}"
    return {**record, "request": request}


def on_ray(
    job: Job,
    opener: Open,
    place: str,
    record: Mapping[str, Any],
    fit: bytes | None,
    devices: Sequence[str],
    todo: Sequence[int],
    address: str | None = None,
) -> None:
    """Make shards on Ray: on the cluster at `address` (or RAY_ADDRESS), else on one of this machine, on loopback alone.

    `opener` gives an actor its maker. Raises RequestError where there is no Ray or no cluster, or where an actor cannot make
    the same shards; DeviceError where actors keep dying.
    """
    ray = need_ray()
    address = address or os.environ.get("RAY_ADDRESS") or None
    mine = not ray.is_initialized()
    if mine:
        ours = signal.getsignal(signal.SIGTERM)
        try:
            if address and address != "auto":
                _knock(address)  # Ray itself tries for minutes
            if address:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            else:
                ray.init(
                    address="local",
                    num_cpus=len(devices),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=80 << 20,
                    _node_ip_address="127.0.0.1",
                )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise RequestError(
                f"no Ray cluster answers ({(str(error).splitlines() or [''])[0][:120]})",
                where=address or "this machine",
                way_out="Start one with 'ray start --head', or leave --address out.",
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, ours)  # Ray puts its own in place, which would lose the last record
    actors: list[Any] = []
    try:
        kind = ray.remote(Actor)
        shared = absolute(record)  # small: handed over whole, so that a restart needs nothing from a store
        where = place if is_address(place) else str(Path(place).resolve())
        for i, device in enumerate(devices[: max(1, len(todo))]):
            cuda = device.startswith("cuda")
            chosen = kind.options(num_cpus=1, num_gpus=int(cuda), max_restarts=-1, max_task_retries=TRIES)
            actors.append(chosen.remote(opener, where, f"actor-{i}", "cuda:0" if cuda else device, shared, fit))
        _loop(ray, job, actors, todo)
        job.store.flush()
    finally:
        for actor in actors:
            ray.kill(actor)
        if mine:
            ray.shutdown()


def _loop(ray: Any, job: Job, actors: list[Any], todo: Sequence[int]) -> None:
    queue = collections.deque(todo)
    waiting: dict[Any, tuple[int, int]] = {}

    def send(place: int) -> None:
        if queue:
            index = queue.popleft()
            waiting[actors[place].make.remote(index)] = (place, index)

    for _ in range(2):
        for place in range(len(actors)):
            send(place)
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=5.0)
        for ref in ready:
            place, index = waiting.pop(ref)
            try:
                said = ray.get(ref)
            except ray.exceptions.RayActorError as error:
                raise DeviceError(
                    f"actors keep dying at {job.plan.name(index)}",
                    where=(str(error).splitlines() or [""])[0][:160],
                    way_out="Fewer --workers need less memory; what is finished is kept.",
                ) from None
            except ray.exceptions.RayError as error:
                cause = (str(error).strip().splitlines() or [""])[-1][:200]
                raise RequestError(
                    f"a Ray worker cannot run latentshift ({cause})", way_out="Install the same versions on all workers."
                ) from None
            if "error" in said:
                raise heard(said["error"])
            entry = Entry.read(said["entry"])
            assert entry is not None
            for note in said["notes"]:
                job.watch.note(f"actor-{place}: {note}")
            job.finished(entry, f"actor-{place}")
            send(place)
        job.watch.tick()
