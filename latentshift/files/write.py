"""Writing files whole or not at all: beside the target, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import OutputError

RESUME = "Free some and run again with --resume."


@contextlib.contextmanager
def output_errors(path: Path, *, full: str = RESUME, denied: str = "Give another --outdir.") -> Iterator[None]:
    """Turn the operating system's refusals into OutputError with the way out of a full disk or of denied permission."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError("no space left on the disk", where=str(path), way_out=full) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError("no permission to write", where=str(path), way_out=denied) from error
        raise OutputError(f"cannot write: {error.strerror or error}", where=str(path)) from error


def write_whole(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file by `fill(stream)`, under its own name only when it is complete and on the disk."""
    part = path.with_name(path.name + ".part")
    with output_errors(path):
        try:
            with part.open("wb") as stream:
                fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, ending in a newline; NaN and infinity become null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda stream: stream.write(text.encode()))


def once(path: Path | None, make: Callable[[], Any]) -> Any:
    """Return the JSON value that lies at `path`; where none does, what `make()` gives, written there whole.

    For work that a cut should not lose: the folder is made, and without a path nothing is kept.
    """
    if path is not None and path.exists():
        return json.loads(path.read_text("utf-8"))
    value = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda stream: stream.write(json.dumps(value).encode()))
    return value


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types: numpy scalars as numbers, non-finite numbers as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    elif hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
