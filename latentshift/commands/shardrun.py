"""A sharded run from its plan to its record: made ready once, then worked on by this process, by workers, ranks, or Ray."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from ..engine.run import Engine
from ..errors import OutputError, RequestError, UsageError
from ..files.record import _found, _peak_memory
from ..files.run import SCHEMA, RunFolder, next_folder, refuse_changes
from ..files.write import plain
from ..shards import fitted
from ..shards.drive import Job, alone, hold, read_manifest, share
from ..shards.formats import need_pyarrow
from ..shards.local import Pool, command
from ..shards.manifest import NAME, Manifest
from ..shards.store import Folder, Store, is_address, open_store
from ..shards.watch import Watch
from .common import Talk
from .shardclose import close_shards
from .sharddry import dry_shards
from .sharded import closing, place_of, refuse_other
from .shardjob import Parts, found_of, open_maker, plan_of, read_record

_PATIENCE = 600.0  # seconds that a rank waits for the first one to make the run ready


_FIRST = "For an honest critic fit it first (latentshift critic), then give --critic FOLDER --recipe auto/reals."


def run_shards(
    typed: dict[str, Any], talk: Talk, kept: tuple[str, ...], resume: Path | None, devices: list[str], rank: int, world: int
) -> None:
    """Do what `refine` does in shards. `kept` are the options that the record keeps."""
    plan = plan_of(typed)  # before anything slow
    if plan.kind == "parquet":
        need_pyarrow()
    chosen = resume or typed["outdir"]
    if chosen is not None and is_address(place_of(chosen)) and plan.kind == "png":
        raise UsageError(
            "a folder of pictures cannot appear whole at an address", where=place_of(chosen), way_out="Use --shards-as tar."
        )
    if typed["dry_run"]:
        return dry_shards(Parts.of(typed), talk, devices)
    if chosen is None:
        if world > 1:
            raise UsageError("ranks need one folder", way_out="Give --outdir.")
        chosen = next_folder(Path("latentshift-out"), f"{typed['model']}-shards")
    place = place_of(chosen)
    if rank > 0:
        return _follow(place, devices[0], rank, world, talk)
    if resume is None:
        _prepare(place, typed["overwrite"])
    with contextlib.ExitStack() as stack:
        lock = None
        if not is_address(place):
            lock = stack.enter_context(hold(Path(place), share="rank0" if world > 1 else "", wait=5.0 if resume else 1.0))
        store = open_store(place, "main" if world == 1 else "rank0")
        if world == 1:
            store.clear(everything=True)
        parts = Parts.of(typed)
        record, engine = _begin(parts, store, typed, talk, kept, resume is not None, place, world)
        manifest, wrong = read_manifest(store, parts.plan)
        watch = Watch(store, manifest, None if talk.quiet else talk.note, f"rank {rank}: " if world > 1 else "")
        job = Job(store, parts.plan, manifest, watch)
        for line in wrong:
            watch.note(f"{line}: it is made again")
        if resume is not None:
            watch.note(f"going on with {place}: {manifest.rows:,} of {len(parts.plan.seeds):,} samples are there")
        todo = manifest.missing()
        watch.note(_first_line(parts, engine, len(todo), devices, typed))
        end = _Ending(job, record, engine, store)
        with closing(job, end, place):
            if typed["engine"] == "ray":
                from ..shards.cluster import on_ray

                fit = store.read(fitted.NAME) if record["shards"]["learned"] else None
                on_ray(job, open_maker, place, record, fit, devices, todo, typed["address"])
            elif len(devices) > 1:
                Pool(job, [*command(), place], devices, lock).run(todo)
            else:
                alone(job, parts.maker(engine, store), share(todo, rank, world))
            if world > 1:
                _last(job, end, place)
            else:
                job.check()
                end("complete")
        if end.record["status"] == "complete" and not typed["no_report"]:
            _page(end, place)
        close_shards(talk, place, end.record, store)


def _first_line(parts: Parts, engine: Engine, shards: int, devices: list[str], typed: dict[str, Any]) -> str:
    r = parts.recipe
    who = f"{len(devices)} workers on {', '.join(sorted(set(devices)))}" if len(devices) > 1 else devices[0]
    who = f"Ray, {who}" if typed["engine"] == "ray" else who
    steps = engine.strategy.steps
    return f"{parts.pair.name}: {shards:,} shards to make, {r.name} ({r.strategy}, {steps} steps), {who}, {engine.run_.plan}"


def _prepare(place: str, overwrite: bool) -> None:
    if is_address(place):
        return refuse_other(open_store(place), place, overwrite)
    folder = Path(place)
    if overwrite and (folder / "run.json").is_file():
        with hold(folder):
            import shutil

            for path in [*folder.glob("shard-*"), *folder.glob("latents-*.npz"), *folder.glob(".lock*")]:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            for name in (NAME, "status.json", "run.log", "page.npz"):
                (folder / name).unlink(missing_ok=True)
    RunFolder.prepare(folder, overwrite=overwrite)


def _begin(
    parts: Parts, store: Store, typed: dict[str, Any], talk: Talk, kept: tuple[str, ...], again: bool, place: str, world: int
) -> tuple[dict[str, Any], Engine]:
    """Write the record of a run that begins, with what its fit learned; of one that goes on, check that it is the same."""
    if again:
        record = read_record(store)
        refuse_changes(record, parts.identity(), Path(place))
        engine = parts.engine(record["chunk_asked"], found=found_of(record, store))
        if record.get("device", "cpu").partition(":")[0] != str(parts.pair.device).partition(":")[0]:
            talk.note(f"note: this run began on {record['device']}; on {parts.pair.device} its samples differ in the last bits")
        if record.get("torch") != torch.__version__:
            talk.note(f"note: this run began with torch {record.get('torch')}; bits may differ with {torch.__version__}")
        record |= {"status": "running", "job": job_key(world)}
    else:
        reals = None
        if typed["reals"] is not None:
            from .reals import reals_of

            if not parts.built().reads_reals:
                what = f"{parts.recipe.strategy!r} has no use for real images"
                raise RequestError(what, where="--reals", way_out=_FIRST)
            reals = reals_of(typed["reals"], parts.pair, talk)
        engine = parts.engine(typed["chunk"], reals=None if reals is None else reals.for_critic(parts.pair))
        kinds, data = fitted.pack(fitted.learned(parts.built(), engine.strategy))
        if kinds:
            store.write(fitted.NAME, data)
        if not store.local:  # an address that refuses is told before the work
            store.write("status.json", b"{}\n")
        run = engine.run_
        record = {
            "schema": SCHEMA,
            **parts.identity(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "model": parts.pair.name,
            "source": parts.pair.source,
            "seeds": len(parts.plan.seeds),
            "request": {k: str(typed[k]) if isinstance(typed[k], Path) else typed[k] for k in kept},
            "status": "running",
            "job": job_key(world),
            "chunk_asked": engine.settings.chunk,
            "device": str(parts.pair.device),
            "plan": run.plan,
            "fit": {"ledger": run.fit_ledger.as_dict(), "pilot_seeds": run.pilot_seeds, "found": _found(run)},
            "reals_sha256": reals and reals.sha256,
            "shards": {
                "size": parts.plan.size,
                "count": len(parts.plan),
                "as": parts.plan.kind,
                "manifest": NAME,
                "learned": kinds,
            },
        }
    _write(store, record)
    return json.loads(json.dumps(plain(record))), engine


def _write(store: Store, record: dict[str, Any]) -> None:
    store.write("run.json", (json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


class _Ending:
    """Writes the last record of a run, with the totals of all shards that are there."""

    def __init__(self, job: Job, record: dict[str, Any], engine: Engine, store: Store) -> None:
        self.job, self.record, self.engine, self.store = job, record, engine, store
        self.began = time.perf_counter()

    def __call__(self, status: str) -> None:
        totals = self.job.watch.totals
        before = float(self.record.get("seconds", {}).get("wall", 0.0))
        notes = list(dict.fromkeys(self.engine.run_.notes))
        broken = totals.stopped.get("nan", 0)
        if broken:
            what = "met a NaN or infinite score or gradient and kept their last finite point"
            notes.append(f"{broken} of {totals.rows} rows {what}")
        with contextlib.suppress(OutputError):
            self.job.store.flush()
        self.record |= {
            **totals.record(),
            "status": status,
            "seconds": {"refine": totals.seconds, "wall": before + time.perf_counter() - self.began},
            "chunk": self.engine.run_.chunk,
            "precision": self.engine.precision,
            "peak_memory_mb": _peak_memory(),
            "warnings": notes,
        }
        self.record["shards"] = {**self.record["shards"], "done": totals.shards, "bytes": totals.bytes}
        _write(self.store, self.record)
        self.job.watch.note(f"{status}: {self.job.watch.line()}", aloud=False)
        self.job.watch.close(status)


def _page(end: _Ending, place: str) -> None:
    """Write what the page shows, and in a folder the page."""
    from ..report.page import write_report
    from ..shards.sample import gather

    gather(end.engine, end.store, end.job.manifest)
    if not is_address(place):
        write_report(place)


def job_key(world: int) -> str:
    """Return what the ranks of one torchrun job have in common."""
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
    return " ".join(os.environ.get(n, "-") for n in names) if world > 1 else ""


def _follow(place: str, device: str, rank: int, world: int, talk: Talk) -> None:
    """Work on a run that rank 0 makes ready."""
    if is_address(place):
        raise UsageError("ranks append to one manifest", where=place, way_out="Give a folder that all ranks mount, or use Ray.")
    folder, until = Path(place), time.monotonic() + _PATIENCE
    store = Folder(folder, f"rank{rank}")
    record: dict[str, Any] = {}
    while True:
        with contextlib.suppress(Exception):
            record = read_record(store)
        if record.get("job") == job_key(world) and record.get("status") == "running":
            break
        if time.monotonic() > until:
            raise OutputError("rank 0 did not begin this run", where=place, way_out="Look at its messages.")
        time.sleep(0.1)
    with hold(folder, share=f"rank{rank}"):
        maker = open_maker(place, f"rank{rank}", device, record)
        manifest = Manifest.read(maker.plan, store.lines(NAME))
        watch = Watch(store, manifest, None, f"rank {rank}: ")
        watch.write = lambda status="running": None  # type: ignore[method-assign]  # status.json is rank 0's
        job = Job(store, maker.plan, manifest, watch)
        alone(job, maker, share(manifest.missing(), rank, world))
        record = read_record(store)
        end = _Ending(job, record, maker.engine, store)
        _last(job, end, place)
        if end.record["status"] == "complete" and not record["request"]["no_report"]:
            _page(end, place)


def _last(job: Job, end: _Ending, place: str) -> None:
    """Write the last record where this rank is the one that finishes the run."""
    with hold(Path(place), share="finish", wait=60.0):
        end.record = read_record(job.store)
        manifest = Manifest.read(job.plan, job.store.lines(NAME))
        end.job = Job(job.store, job.plan, manifest, Watch(job.store, manifest))
        if end.record["status"] == "complete" or manifest.missing():
            return
        end.job.check()
        end("complete")
