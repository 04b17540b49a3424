"""`refine` in shards: the options, and the run from its plan to its record."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Interrupted, LatentshiftError, OutputError, UsageError
from .common import Talk, options

if TYPE_CHECKING:
    from ..shards.drive import Job
    from ..shards.store import Store

shard_options = options(
    click.option("--shard-size", type=int, metavar="N", help="Write shards of N samples, for runs of any length."),
    click.option(
        "--shards-as",
        "--format",
        "shards_as",
        type=click.Choice(["png", "tar", "parquet"]),
        default="png",
        show_default=True,
        help="The form of a shard: a folder of PNG, a WebDataset tar, a Parquet file.",
    ),
    click.option("--workers", type=int, metavar="N", help="So many processes make shards, on a CPU with one thread each."),
    click.option("--devices", metavar="LIST", help="Make shards on these devices: cuda:0,cuda:1 or all."),
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who runs the workers."
    ),
    click.option("--address", metavar="ADDR", help="A running Ray cluster for --engine ray.  [default: one on this machine]"),
)

#: what the record keeps beside the options of every run
KEPT = ("shard_size", "shards_as")


def ranks() -> tuple[int, int]:
    """Return (rank, number of ranks) as torchrun sets them; (0, 1) where it did not."""
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    if not 0 <= rank < world:
        raise UsageError(f"RANK is {rank} of {world}", where="the environment", way_out="Let torchrun set them.")
    return rank, world


def wanted(typed: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether a run is one in shards; sets the shard size that was left out."""
    if record:
        return "shards" in record
    many = any(typed[k] is not None for k in ("workers", "devices", "address")) or typed["engine"] == "ray" or ranks()[1] > 1
    if typed["shard_size"] is None and (many or is_address(typed["outdir"])):
        from ..shards.plan import DEFAULT_SIZE

        typed["shard_size"] = DEFAULT_SIZE
    return typed["shard_size"] is not None


def is_address(path: Path | None) -> bool:
    """Whether --outdir is an address of a store."""
    return path is not None and re.match(r"[a-z][a-z0-9+.]+:/[^/]", str(path)) is not None


def place_of(path: Path) -> str:
    """Return a folder, or the address that a path was made of (it loses a slash on the way)."""
    return re.sub(r"^([a-z][a-z0-9+.]+):/(?=[^/])", r"\1://", str(path)) if is_address(path) else str(path)


def record_at(path: Path) -> dict[str, Any]:
    """Return the record of a run at an address; empty where `path` is a folder."""
    if not is_address(path):
        return {}
    from ..shards.store import open_store
    from .shardjob import read_record

    return read_record(open_store(place_of(path)))


def devices_of(typed: dict[str, Any]) -> list[str]:
    """Return a device for every worker."""
    workers, listed = typed["workers"], typed["devices"]
    if workers is not None and workers < 1:
        raise UsageError(f"--workers is at least 1, not {workers}")
    names = [d.strip() for d in listed.split(",")] if listed else [typed["device"]]
    if "" in names:
        raise UsageError(f"cannot read the devices {listed!r}", where="--devices", way_out="Write cuda:0,cuda:1 or all.")
    if names == ["all"]:
        import torch

        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    from .common import device_of

    names = [str(device_of(name)) for name in names]
    return [names[i % len(names)] for i in range(workers or len(names))]


def refine_sharded(typed: dict[str, Any], talk: Talk, kept: tuple[str, ...], resume: Path | None) -> None:
    """Do what `latentshift refine --shard-size` does."""

    if typed["gif"]:
        raise UsageError("--gif is for runs without shards", way_out="Leave --gif or --shard-size out.")
    if typed["pad"] is not None:
        raise UsageError("--pad is for runs without shards: their bytes depend on no batch", way_out="Leave --pad out.")
    if typed["precision"] == "auto":
        raise UsageError("every worker would choose for itself", where="--precision auto", way_out="Name fp32, tf32 or bf16.")
    if typed["chunk"] is not None and typed["chunk"] < 1:
        raise UsageError(f"--chunk is at least 1, not {typed['chunk']}")
    rank, world = ranks()
    devices = devices_of(typed)
    if world > 1:
        if len(devices) > 1 or typed["engine"] == "ray":
            raise UsageError("torchrun starts the processes already", way_out="Leave --workers, --devices and --engine out.")
        if devices == ["cuda"]:
            devices = [f"cuda:{os.environ.get('LOCAL_RANK', '0')}"]
    typed["device"] = devices[0]
    if typed["address"] and typed["engine"] != "ray":
        raise UsageError("--address is that of a Ray cluster", way_out="Add --engine ray.")
    from ..engine.threads import threads
    from .shardrun import run_shards

    # one thread: shards of machines with different numbers of cores are to be the same
    alone = contextlib.nullcontext() if devices[0].startswith("cuda") else threads(1)
    with alone:
        run_shards(typed, talk, kept, resume, devices, rank, world)


@contextlib.contextmanager
def closing(job: Job, end: Any, place: str) -> Iterator[None]:
    """Write the record however the work ends; what is finished is kept."""
    again = f"latentshift refine --resume {place}"
    try:
        yield
    except KeyboardInterrupt:
        end("interrupted")
        done = job.watch.totals
        raise Interrupted(
            f"interrupted: {done.rows} of {job.watch.rows} samples ({done.shards} shards) are finished",
            where=place,
            way_out=f"Go on with: {again}",
        ) from None
    except LatentshiftError as error:
        with contextlib.suppress(LatentshiftError, OSError):
            end("failed")
        if isinstance(error, OutputError):
            raise OutputError(
                error.what, where=error.where, way_out=f"What is finished is kept; then go on with: {again}"
            ) from error
        raise


def refuse_other(store: Store, place: str, overwrite: bool) -> None:
    """Raise OutputError where an address holds something else; a folder is looked at by `RunFolder.prepare`."""
    if store.names() and not overwrite:
        raise OutputError(
            "this place is not empty", where=place, way_out=f"Use --resume {place}, --overwrite, or another --outdir."
        )
