"""Reading `.npz` and `.npy` of strangers: plain arrays only, no more memory than the file can account for."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import DamagedFileError, UnsafeFileError

FLOOR = 2**30  # bytes that an archive may unpack to whatever its own size
RATIO = 20  # above that, times its size: pictures compress five- to tenfold, a bomb a thousandfold


def check_archive(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse a zip that unpacks to far more than it is, or whose members leave its folder, repeat or overlap.

    Raises UnsafeFileError for the first two, DamagedFileError for the others.
    """
    size = sum(len(i.filename) + i.compress_size for i in archive.infolist())
    total = sum(i.file_size for i in archive.infolist())
    if total > max(FLOOR, RATIO * size):
        raise UnsafeFileError(f"{size} bytes claim to unpack to {total}", where=where)
    seen: set[str] = set()
    end = 0
    for info in sorted(archive.infolist(), key=lambda i: i.header_offset):
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or (len(name) > 1 and name[1] == ":"):
            raise UnsafeFileError(f"the member {info.filename!r} lies outside of the archive", where=where)
        if name in seen:
            raise DamagedFileError(f"the member {info.filename!r} is there twice", where=where)
        seen.add(name)
        if info.header_offset < end:
            raise DamagedFileError(f"the member {info.filename!r} overlaps another one", where=where)
        end = info.header_offset + 30 + info.compress_size
        if info.flag_bits & 1:
            raise DamagedFileError(f"the member {info.filename!r} is encrypted", where=where)


def _array(stream: IO[bytes], limit: int, where: str) -> npt.NDArray[Any]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (OSError, zipfile.BadZipFile, zlib.error):
        raise
    except Exception as error:  # the header is Python text: its parser raises tokenizer and syntax errors too
        raise DamagedFileError(f"not a readable array header: {error}", where=where) from None
    if dtype.hasobject:
        raise UnsafeFileError("the array holds Python objects, which are programs", where=where)
    size = math.prod(shape) * dtype.itemsize
    if size > limit or any(s < 0 for s in shape):
        raise DamagedFileError(f"an array of {shape} {dtype} needs {size} bytes, there are {limit}", where=where)
    raw = stream.read(size)
    if len(raw) != size:
        raise DamagedFileError(f"an array of {shape} {dtype} needs {size} bytes, there are {len(raw)}", where=where)
    flat = np.frombuffer(bytearray(raw), dtype)  # a writable copy
    return flat.reshape(shape, order="F" if fortran else "C")


class Npz(Mapping[str, npt.NDArray[Any]]):
    """The arrays of an npz by name, each read when it is asked for. Use as a context manager.

    Raises DamagedFileError for what is no npz or is cut, UnsafeFileError for objects and bombs.
    """

    def __init__(self, path: str | Path) -> None:
        self.where = str(path)
        try:
            self.archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DamagedFileError(f"not a readable npz: {error}", where=self.where) from None
        check_archive(self.archive, self.where)
        self.members = {n.removesuffix(".npy"): n for n in self.archive.namelist() if n.endswith(".npy")}

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, name: object) -> bool:  # the inherited one would read the array
        return name in self.members

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self.members:
            have = ", ".join(sorted(self.members)[:8]) or "none"
            raise DamagedFileError(f"the npz holds no array {name!r} (it holds: {have})", where=self.where)
        where = f"{self.where}[{name}]"
        try:
            with self.archive.open(self.members[name]) as stream:
                return _array(stream, self.archive.getinfo(self.members[name]).file_size, where)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise DamagedFileError(f"not a readable array: {error}", where=where) from None


def read_npy(path: str | Path) -> npt.NDArray[Any]:
    """Return the array of an `.npy` file; refusals as for `Npz`."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _array(stream, path.stat().st_size, str(path))
    except (ValueError, OSError, EOFError) as error:
        raise DamagedFileError(f"not a readable npy: {error}", where=str(path)) from None
