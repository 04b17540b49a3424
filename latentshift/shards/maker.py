"""One shard: seeds to latents, through the engine in blocks, into its files. The unit that every way of running shares."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import noise
from ..engine.run import Chunk, Engine
from ..errors import LatentshiftWarning, NumericError
from ..files.pictures import to_bytes
from ..files.run import npz_bytes, reason
from ..files.write import output_errors
from ..landscape import Ledger
from .formats import Rows, writer
from .manifest import Entry, Piece
from .plan import ShardPlan
from .store import Store, digest

Array = np.ndarray[Any, Any]
_BLOCK = 2048  # rows whose latents are drawn at a time
Tell = Callable[[int], None]  # called with the rows of the shard that are finished


@dataclass
class Maker:
    """Makes shards of a plan with an engine whose fit is done. `before`: keep the unrefined images too."""

    plan: ShardPlan
    engine: Engine
    store: Store
    before: bool = False
    text: dict[str, str] | None = None

    def __post_init__(self) -> None:
        pair = self.engine.pair
        self.pictures = len(pair.image_shape or (1, 1, 1)) == 3
        self.span = pair.image_range
        self.asked = self.engine.run_.chunk

    def make(self, index: int, tell: Tell | None = None) -> Entry:
        """Make shard `index` and give its files their names; the line of the manifest is the caller's.

        Raises OutputError where the disk or the store refuses, DeviceError where not even the smallest chunk fits.
        """
        began, run = time.perf_counter(), self.engine.run_
        work = run.ledger.copy()
        if self.asked and run.chunk < self.asked:  # the memory was short: see whether it still is
            run.chunk = min(2 * run.chunk, self.asked)
        start, stop = self.plan.rows(index)
        made = self.store.scratch(self.plan.name(index))
        out = writer(self.plan.kind, made)
        parts: list[dict[str, Array]] = []
        try:
            for at in range(start, stop, _BLOCK):
                rows = range(at, min(at + _BLOCK, stop))
                done = at - start
                progress = (lambda n, _, __, done=done: tell(done + n)) if tell else None
                self._block(rows, lambda chunk, seeds, labels: parts.append(self._put(out, chunk, seeds, labels)), progress)
            main = out.close()
        except BaseException:
            out.drop()
            self.store.clear()
            raise
        arrays = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        beside = made.with_name(self.plan.latents_name(index))
        latents = self._latents(beside, arrays)
        self.store.adopt(made)
        self.store.adopt(beside)
        self.store.clear()
        self.asked = self.asked or run.chunk
        spent = run.ledger - work
        return Entry(
            index,
            self.plan.text(index),
            stop - start,
            main,
            latents,
            {**sums(arrays), "work": list(spent.as_tuple()), "seconds": round(time.perf_counter() - began, 3)},
        )

    def _block(self, rows: range, put: Callable[[Chunk, Array, Any], None], progress: Any) -> None:
        engine = self.engine
        pair = engine.pair
        seeds = self.plan.seeds.part(rows.start, rows.stop)
        z0 = torch.from_numpy(noise.latents(seeds, pair.space.shape, pair.space.prior))
        numbers = seeds.tolist()
        cycle = self.plan.classes
        labels = torch.tensor([cycle[i % len(cycle)] for i in rows], dtype=torch.long) if cycle else engine.labels_of(numbers)
        shown = None if labels is None else labels.cpu().numpy()

        def each(chunk: Chunk) -> None:
            place = chunk.rows
            put(chunk, seeds[place], None if shown is None else shown[place])

        run = engine.run_
        run.chunks.clear()
        notes = list(run.notes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LatentshiftWarning)  # rows that broke are counted over the whole run
            # where all rows of a block broke, they are counted; whether all of the run did is seen at its end
            with contextlib.suppress(NumericError):
                engine.run(z0, numbers, labels, images0=self.before, on_chunk=each, progress=progress)
        run.chunks.clear()
        run.notes[:] = [*notes, *(n for n in run.notes[len(notes) :] if "did not fit" in n and n not in notes)]

    def _put(self, out: Any, chunk: Chunk, seeds: Array, labels: Any) -> dict[str, Array]:
        stems = [f"seed{s:0{self.plan.digits}d}" for s in seeds.tolist()]
        moved = (chunk.point - chunk.point0).reshape(len(seeds), -1)
        arrays: dict[str, Array] = {
            "seeds": seeds,
            **self._points(chunk),
            "score0": chunk.score0.astype(np.float32),
            "score": chunk.score.astype(np.float32),
            "stopped": chunk.stopped.astype(np.int8),
        }
        if labels is not None:
            arrays["labels"] = labels.astype(np.int64)
        if chunk.accepted is not None:
            arrays["accepted"] = chunk.accepted
        if self.pictures:
            after = to_bytes(chunk.images, self.span)
            before = None if chunk.images0 is None else to_bytes(chunk.images0, self.span)
        else:
            after = arrays["x"] = chunk.images
            before = chunk.images0
            if before is not None:
                arrays["x0"] = before
        far = np.sqrt((moved.astype(np.float64) ** 2).sum(1)), np.abs(moved).max(1)
        images = [f"{s}.png" if self.pictures else None for s in stems]
        lines = sample_lines(arrays, far, chunk.evaluations, images)
        out.add(Rows(stems, lines, after, before, self.text))
        return arrays

    def _points(self, chunk: Chunk) -> dict[str, Array]:
        z0 = chunk.z0.astype(np.float32)
        if self.engine.space.name == "z":
            return {"z0": z0, "z": chunk.point.astype(np.float32)}
        return {"z0": z0, "point0": chunk.point0.astype(np.float32), "point": chunk.point.astype(np.float32)}

    def _latents(self, place: Path, arrays: dict[str, Array]) -> Piece:
        head = {"space": np.array(self.engine.space.name), "model_sha256": np.array(self.engine.pair.sha256)}
        data = npz_bytes({**head, **arrays})
        with output_errors(place), place.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        return digest(place)


def sample_lines(arrays: dict[str, Array], far: tuple[Array, Array], evaluations: Array, images: Iterable[Any]) -> list[str]:
    """Return the rows' lines of samples.jsonl, in the columns and the text of every other run."""
    gain = arrays["score"] - arrays["score0"]
    count = len(gain)
    labels = arrays["labels"].tolist() if "labels" in arrays else [None] * count
    columns = [arrays["seeds"].tolist(), labels]
    columns += [_numbers(x) for x in (arrays["score0"], arrays["score"], gain, *far)]
    columns += [evaluations.tolist(), [reason(c) for c in arrays["stopped"]], list(images)]
    keys = ["seed", "label", "score_before", "score_after", "gain", "displacement_l2", "displacement_linf"]
    keys += ["evaluations", "stopped", "image"]
    tail = {"judge_before": None, "judge_after": None}
    return [
        json.dumps(dict(zip(keys, row, strict=True)) | tail, ensure_ascii=False) + "\n" for row in zip(*columns, strict=True)
    ]


def _numbers(values: Array) -> list[float | None]:
    finite = np.isfinite(values)
    return values.tolist() if finite.all() else [v if f else None for v, f in zip(values.tolist(), finite, strict=True)]


def sums(arrays: dict[str, Array]) -> dict[str, Any]:
    """Return what totals need of a shard: counts, and sums over rows whose numbers are finite."""
    score0, score = arrays["score0"].astype(np.float64), arrays["score"].astype(np.float64)
    good = np.isfinite(score0) & np.isfinite(score)
    score0, score = score0[good], score[good]
    gain = score - score0
    codes, counts = np.unique(arrays["stopped"], return_counts=True)
    out: dict[str, Any] = {
        "finite": int(good.sum()),
        "score_before": float(score0.sum()),
        "score_after": float(score.sum()),
        "raised": int((gain > 0).sum()),
        "stopped": {reason(c): int(n) for c, n in zip(codes, counts, strict=True)},
    }
    if len(gain):
        out |= {"low": float(min(score0.min(), score.min())), "high": float(max(score0.max(), score.max()))}
        out |= {"gain_low": float(gain.min()), "gain_high": float(gain.max())}
    if "accepted" in arrays:
        out["rejected"] = int((~arrays["accepted"]).sum())
    return out


def ledger_of(entries: Iterable[Entry]) -> Ledger:
    """Return the work of shards."""
    total = [0, 0, 0, 0]
    for entry in entries:
        total = [a + int(b) for a, b in zip(total, entry.stats["work"], strict=True)]
    return Ledger(*total)
