"""The forms of a shard: a folder of PNG, a WebDataset tar, a Parquet file. Bytes depend on the rows alone, not on the chunks
that they came in.

A writer is given finished rows in order: their stems, their lines of JSON, and their content: pictures (uint8, rows first), or
points (float32). `close` returns the piece.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import RequestError
from ..files.pictures import picture, png
from ..files.write import output_errors
from .manifest import Piece
from .store import digest, listing

Array = np.ndarray[Any, Any]
_GROUP = 1024  # rows of a Parquet row group


@dataclass(frozen=True)
class Rows:
    """Some rows of a shard. `after`, `before`: pictures (rows, H, W, C) uint8 or points (rows, ...) float32."""

    stems: Sequence[str]
    lines: Sequence[str]
    after: Array
    before: Array | None
    text: Mapping[str, str] | None  # goes into the PNG files

    @property
    def pictures(self) -> bool:
        return bool(self.after.dtype == np.uint8)

    def png(self, i: int, before: bool = False) -> bytes:
        """Return one picture as a PNG file."""
        source = self.before if before else self.after
        assert source is not None
        text = None if self.text is None else {**self.text, "seed": self.stems[i]}
        return png(picture(source[i]), text)


class Writer(Protocol):
    """Builds one shard."""

    def add(self, rows: Rows) -> None:
        """Take rows."""

    def close(self) -> Piece:
        """Finish the shard and return what it is."""

    def drop(self) -> None:
        """Let go of what is open; the shard is not wanted."""


class PngFolder:
    """`shard-000000/`: a PNG a row (and `before/` beside them as `seed0000.before.png`), `samples.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pieces: list[Piece] = []
        self.lines: list[str] = []
        with output_errors(path):
            path.mkdir()

    def _put(self, name: str, data: bytes) -> None:
        with output_errors(self.path):
            (self.path / name).write_bytes(data)
        self.pieces.append(Piece(name, len(data), hashlib.sha256(data).hexdigest()))

    def add(self, rows: Rows) -> None:
        self.lines += rows.lines
        for i, stem in enumerate(rows.stems if rows.pictures else ()):
            self._put(f"{stem}.png", rows.png(i))
            if rows.before is not None:
                self._put(f"{stem}.before.png", rows.png(i, before=True))

    def close(self) -> Piece:
        self._put("samples.jsonl", "".join(self.lines).encode())
        return listing(self.path.name, self.pieces)

    def drop(self) -> None:
        self.pieces.clear()


class Tar:
    """`shard-000000.tar` for WebDataset: per row `seed0000.png` (points: `.x.npy`), `.json`, `.before.png` where kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with output_errors(path):
            self.stream = path.open("wb")
            self.tar = tarfile.TarFile(fileobj=self.stream, mode="w", format=tarfile.USTAR_FORMAT)

    def _put(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        with output_errors(self.path):
            self.tar.addfile(info, io.BytesIO(data))
        self.tar.members.clear()  # type: ignore[attr-defined]  # the library keeps every header for a reader

    def add(self, rows: Rows) -> None:
        for i, (stem, line) in enumerate(zip(rows.stems, rows.lines, strict=True)):
            if rows.pictures:
                self._put(f"{stem}.png", rows.png(i))
                if rows.before is not None:
                    self._put(f"{stem}.before.png", rows.png(i, before=True))
            else:
                self._put(f"{stem}.x.npy", _npy(rows.after[i]))
                if rows.before is not None:
                    self._put(f"{stem}.x0.npy", _npy(rows.before[i]))
            self._put(f"{stem}.json", line.rstrip("\n").encode())

    def close(self) -> Piece:
        with output_errors(self.path):
            self.tar.close()
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self.stream.close()
        return digest(self.path)

    def drop(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.close()


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


class Parquet:
    """`shard-000000.parquet`: the columns of samples.jsonl, and `image` (bytes, path) or the points `x`."""

    def __init__(self, path: Path) -> None:
        self.pa, self.pq = need_pyarrow()
        self.path = path
        self.writer: Any = None
        self.held: list[dict[str, Any]] = []

    def add(self, rows: Rows) -> None:
        for i, (stem, line) in enumerate(zip(rows.stems, rows.lines, strict=True)):
            row = json.loads(line)
            if rows.pictures:
                row["image"] = {"bytes": rows.png(i), "path": f"{stem}.png"}
                if rows.before is not None:
                    row["image_before"] = {"bytes": rows.png(i, before=True), "path": f"{stem}.before.png"}
            else:
                row.pop("image")
                row["x"] = rows.after[i].ravel()
                if rows.before is not None:
                    row["x0"] = rows.before[i].ravel()
            self.held.append(row)
            if len(self.held) == _GROUP:
                self._flush()

    def _flush(self) -> None:
        if not self.held:
            return
        with output_errors(self.path):
            if self.writer is None:
                self.schema = self.pa.schema([self._field(k) for k in self.held[0]])
                self.writer = self.pq.ParquetWriter(str(self.path), self.schema)
            self.writer.write_table(self.pa.Table.from_pylist(self.held, schema=self.schema))
        self.held = []

    def _field(self, name: str) -> Any:
        pa = self.pa
        if name.startswith("image"):
            return pa.field(name, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        if name in ("x", "x0"):
            return pa.field(name, pa.list_(pa.float32()))
        kinds = {"seed": pa.int64(), "label": pa.int64(), "evaluations": pa.int64(), "stopped": pa.string()}
        return pa.field(name, kinds.get(name, pa.float64()))

    def close(self) -> Piece:
        self._flush()
        with output_errors(self.path):
            self.writer.close()
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())
        return digest(self.path)

    def drop(self) -> None:
        if self.writer is not None:
            with contextlib.suppress(Exception):
                self.writer.close()


def need_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module; raises RequestError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except Exception:
        raise RequestError(
            "Parquet shards need pyarrow", way_out="pip install 'latentshift[parquet]', or use --shards-as tar."
        ) from None
    return pyarrow, pyarrow.parquet


def writer(kind: str, path: Path) -> Writer:
    """Return the writer of a form."""
    kinds: dict[str, Callable[[Path], Writer]] = {"png": PngFolder, "tar": Tar, "parquet": Parquet}
    return kinds[kind](path)
