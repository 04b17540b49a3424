"""The folder of a run: what `refine` writes, so that a kill at any moment loses at most the chunk at work.

While a run is on, finished chunks lie in `parts/`; at the end they are merged into `latents.npz` and `samples.jsonl`. Every
file appears whole or not at all. `run.json` is written first (status "running") and last.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedFileError, FileError, OutputError, RequestError
from ..strategies.base import REASONS
from .pictures import picture, save_png
from .write import output_errors, plain, write_json, write_whole

SCHEMA = 1
Array = np.ndarray[Any, Any]


def npz_bytes(arrays: Mapping[str, Array], *, compress: bool = False) -> bytes:
    """Return an `.npz` file whose bytes depend on the arrays alone (numpy stamps the time of day into it)."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, np.asarray(array, order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, inner.getvalue(), compress_type=method)
    return stream.getvalue()


def read_npz(path: Path) -> dict[str, Array]:
    """Return the arrays of an `.npz`, never unpickling; raises DamagedFileError for anything else."""
    if not path.is_file():
        raise FileError("no such file", where=str(path))
    try:
        with path.open("rb") as stream:
            data = np.load(stream, allow_pickle=False)
            if not hasattr(data, "files"):
                raise DamagedFileError("a single array, not an .npz", where=str(path))
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise DamagedFileError(f"not a readable .npz: {error}", where=str(path)) from None


def next_folder(base: Path, name: str) -> Path:
    """Return `base/NNNNN-name` with the next free number."""
    taken = [int(m[1]) for p in base.glob("*-*") if (m := re.match(r"(\d{5})-", p.name))] if base.is_dir() else []
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    return base / f"{max(taken, default=-1) + 1:05d}-{safe}"


class RunFolder:
    """A run's folder, written by one process.

    `digits` is the width of seed names; `names` gives each row's file name stem (`seed0000`).
    """

    def __init__(self, path: Path, *, span: tuple[float, float], text: Mapping[str, str] | None, before: bool) -> None:
        self.path = Path(path)
        self.parts = self.path / "parts"
        self.span, self.text, self.before = span, text, before

    @staticmethod
    def prepare(path: Path, *, overwrite: bool = False) -> None:
        """Make an empty folder for a run; raises OutputError where it holds another run or cannot be written."""
        path = Path(path)
        with output_errors(path):
            if path.exists() and not path.is_dir():
                raise OutputError("the output folder is a file", where=str(path), way_out="Give another --outdir.")
            if path.is_dir() and (path / "run.json").exists():
                if not overwrite:
                    raise OutputError(
                        "this folder holds another run",
                        where=str(path),
                        way_out=f"Use --resume {path}, --overwrite, or another --outdir.",
                    )
                for name in (
                    "run.json",
                    "latents.npz",
                    "samples.jsonl",
                    "grid.png",
                    "report.html",
                    "thumbs.npz",
                    "fit.npz",
                    "projected_w.npz",
                ):
                    (path / name).unlink(missing_ok=True)
                for old in [*path.glob("seed*.png"), *path.glob("row*.png"), *path.glob("metric-*.jsonl")]:
                    old.unlink()
                for folder in ("parts", "before", "path"):
                    shutil.rmtree(path / folder, ignore_errors=True)
            elif path.is_dir() and any(path.iterdir()) and not overwrite:
                raise OutputError(
                    "the output folder is not empty and holds no run",
                    where=str(path),
                    way_out="Give another --outdir, or --overwrite.",
                )
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".probe"
            probe.write_bytes(b"x")
            probe.unlink()

    def start(self, record: Mapping[str, Any]) -> None:
        """Write the record of a run that begins."""
        write_json(self.path / "run.json", {"schema": SCHEMA, **record})
        with output_errors(self.parts):
            self.parts.mkdir(exist_ok=True)
            if self.before:
                (self.path / "before").mkdir(exist_ok=True)

    def put(
        self, rows: Array, arrays: Mapping[str, Array], names: Sequence[str | None], after: Any, before: Any | None
    ) -> None:
        """Write a finished chunk: its pictures, then the part file that says they are there.

        `after`, `before`: uint8 images (rows, H, W, C), or None for points. A row without a name has no pictures.
        """
        for i, name in enumerate(names):
            if name is None:
                continue
            text = None if self.text is None else {**self.text, "seed": name}
            if after is not None:
                save_png(self.path / f"{name}.png", picture(after[i]), text)
            if self.before and before is not None:
                save_png(self.path / "before" / f"{name}.png", picture(before[i]), text)
        data = npz_bytes({"rows": rows, **arrays})
        write_whole(self.parts / f"{int(rows[0]):09d}.npz", lambda stream: stream.write(data))

    def finished(self) -> dict[str, Array]:
        """Return the arrays of all finished chunks, in row order; a damaged part is dropped (its rows are done again)."""
        found: list[dict[str, Array]] = []
        for path in sorted(self.parts.glob("*.npz")):
            with contextlib.suppress(FileError):
                found.append(read_npz(path))
        if not found:
            return {}
        shared = [k for k in found[0] if all(k in f for f in found)]
        merged = {k: np.concatenate([f[k] for f in found]) for k in shared if not k.startswith(("tile_", "thumb_"))}
        order = np.argsort(merged["rows"], kind="stable")
        return {k: v[order] for k, v in merged.items()}

    def rows_done(self) -> list[int]:
        """Return the numbers of the rows that are finished."""
        return [int(r) for r in self.finished().get("rows", ())]

    def tiles(self) -> dict[str, Array]:
        """Return the pictures that the first parts carry for the grid, in row order."""
        found: dict[str, list[Array]] = {}
        for path in sorted(self.parts.glob("*.npz")):
            with contextlib.suppress(FileError):
                part = read_npz(path)
                if "tile_after" not in part:
                    break
                for key in ("tile_before", "tile_after"):
                    if key in part:
                        found.setdefault(key, []).append(part[key])
        return {k: np.concatenate(v) for k, v in found.items()}

    def thumbs(self) -> dict[str, Array]:
        """Return the thumbnails that the parts carry, in row order; parts without one of the kinds count for none of it."""
        found: dict[str, list[Array]] = {}
        for path in sorted(self.parts.glob("*.npz")):
            with contextlib.suppress(FileError):
                part = read_npz(path)
                for key in ("thumb_rows", "thumb_before", "thumb_after"):
                    if key in part and len(part["thumb_rows"]):
                        found.setdefault(key, []).append(part[key])
        merged = {k: np.concatenate(v) for k, v in found.items() if len(v) == len(found["thumb_rows"])}
        if not merged:
            return {}
        order = np.argsort(merged["thumb_rows"], kind="stable")
        return {k: v[order] for k, v in merged.items()}

    def merge(self, head: Mapping[str, Array], rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array]) -> None:
        """Write `latents.npz` and `samples.jsonl`."""
        data = npz_bytes({**head, **arrays})
        write_whole(self.path / "latents.npz", lambda stream: stream.write(data))
        lines = "".join(json.dumps(plain(r), ensure_ascii=False, allow_nan=False) + "\n" for r in rows).encode()
        write_whole(self.path / "samples.jsonl", lambda stream: stream.write(lines))

    def end(self, record: Mapping[str, Any]) -> None:
        """Write the last record; a complete run's parts are taken away."""
        write_json(self.path / "run.json", {"schema": SCHEMA, **record})
        if record.get("status") == "complete":
            shutil.rmtree(self.parts, ignore_errors=True)


def read_run(path: str | Path) -> dict[str, Any]:
    """Return the record of a run's folder; raises FileError where there is none or it is of another version."""
    path = Path(path)
    file = path / "run.json"
    if not file.is_file():
        raise FileError("not a run: it has no run.json", where=str(path))
    try:
        record = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DamagedFileError(f"the record is no JSON: {error}", where=str(file)) from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise FileError(f"a run of schema {found!r}; this version reads schema {SCHEMA}", where=str(file))
    return record


def refuse_changes(theirs: Mapping[str, Any], mine: Mapping[str, Any], path: Path) -> None:
    """Raise RequestError where a resume asks for something else than the run that was cut, naming what changed."""
    for key, value in mine.items():
        if key in theirs and plain(value) != theirs[key]:
            files = {"model_sha256": "the model's files changed", "reals_sha256": "the real images changed"}
            what = files.get(key) or f"{key} changed from {theirs[key]!r} to {plain(value)!r}"
            raise RequestError(
                f"cannot go on with this run: {what}", where=str(path), way_out="Start a new run in another --outdir."
            )


def reason(code: int) -> str:
    """Return the word of a stop code."""
    return REASONS[int(code)]


def lock(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a run's folder for this process; raises OutputError where another process holds it."""
    return _Lock(path / ".lock")


class _Lock(contextlib.AbstractContextManager[None]):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: Any = None

    def __enter__(self) -> None:
        with output_errors(self.path):
            self.held = self.path.open("a+b")
        try:
            import fcntl

            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no advisory locks on this system
            return
        except OSError:
            self.held.close()
            raise OutputError(
                "another process is writing this folder",
                where=str(self.path.parent),
                way_out="Wait for it, or give another --outdir.",
            ) from None

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.held.close()
