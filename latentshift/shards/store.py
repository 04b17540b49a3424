"""Where a sharded run lies: a folder, or an address that fsspec reads (s3, gs, memory, ... through their own packages).

Everything appears whole under its name: in a folder by renaming what was written beside it, at an address because object stores
show an object when its upload has ended.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import OutputError, RequestError
from ..files.write import output_errors, write_whole
from .manifest import Piece

SCRATCH = ".unfinished"
_PIECE = 1 << 20
_EVERY = 5.0  # seconds between two puts of a manifest


def digest(path: Path) -> Piece:
    """Return name, size and checksum of a file, or of a folder as the lines 'sha256  name' of its files in order."""
    if not path.is_dir():
        total, size = hashlib.sha256(), 0
        with path.open("rb") as stream:
            while block := stream.read(_PIECE):
                total.update(block)
                size += len(block)
        return Piece(path.name, size, total.hexdigest())
    inner = [digest(p) for p in sorted(path.iterdir())]
    return listing(path.name, inner)


def listing(name: str, inner: list[Piece]) -> Piece:
    """Return the piece of a folder from those of its files, sorted by name."""
    text = "".join(f"{p.sha256}  {p.name}\n" for p in sorted(inner, key=lambda p: p.name))
    return Piece(name, sum(p.bytes for p in inner), hashlib.sha256(text.encode()).hexdigest())


def is_address(text: str) -> bool:
    """Whether a place is an fsspec address and not a folder."""
    return "://" in text


def open_store(place: str | Path, who: str = "") -> Folder | Address:
    """Return the store of a place; `who` tells several writers' unfinished files apart."""
    return Address(str(place), who) if is_address(str(place)) else Folder(Path(place), who)


class Folder:
    """A folder of this machine (or one that all machines mount)."""

    local = True

    def __init__(self, path: Path, who: str = "") -> None:
        self.path, self.who = Path(path), who or "main"
        self.name = str(path)

    def scratch(self, name: str) -> Path:
        """Return a fresh place to build `name` in, on the same disk."""
        base = self.path / SCRATCH / self.who
        with output_errors(base):
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir(parents=True, exist_ok=True)
        return base / name

    def adopt(self, made: Path) -> None:
        """Give a finished file or folder its final name."""
        target = self.path / made.name
        with output_errors(target):
            if target.is_dir():  # it was left by a kill between its end and its line in the manifest
                old = made.with_name(made.name + ".old")
                os.replace(target, old)
                shutil.rmtree(old, ignore_errors=True)
            os.replace(made, target)

    def clear(self, everything: bool = False) -> None:
        """Remove what this writer (or any) left unfinished."""
        shutil.rmtree(self.path / SCRATCH if everything else self.path / SCRATCH / self.who, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.path / SCRATCH).rmdir()

    def write(self, name: str, data: bytes) -> None:
        """Write a small file whole or not at all."""
        write_whole(self.path / name, lambda stream: stream.write(data))

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a text file; none where there is none. Bytes that are no UTF-8 are replaced."""
        path = self.path / name
        if path.is_file():
            with path.open("r", encoding="utf-8", errors="replace", newline="\n") as stream:
                yield from stream

    def append(self, name: str, line: str) -> None:
        """Add one line to a file, on the disk when this returns; a line that a kill cut off is ended first."""
        path = self.path / name
        with output_errors(path), path.open("a+b", buffering=0) as stream, _alone(stream):
            end = stream.seek(0, os.SEEK_END)
            torn = False
            if end:
                stream.seek(end - 1)
                torn = stream.read(1) != b"\n"
            data = (b"\n" if torn else b"") + line.encode()
            try:
                if stream.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(stream.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(end)
                raise

    def flush(self) -> None:
        """Put what is held back: nothing is."""

    def size(self, piece: Piece) -> int | None:
        """Return the bytes that a piece has here, or None where it is missing."""
        path = self.path / piece.name
        if path.is_dir():
            return sum(p.stat().st_size for p in path.iterdir())
        return path.stat().st_size if path.is_file() else None

    def digest(self, piece: Piece) -> str:
        """Return the checksum of a piece as it lies here."""
        return digest(self.path / piece.name).sha256

    def open(self, name: str) -> IO[bytes]:
        """Return a stream of a file."""
        return (self.path / name).open("rb")

    def names(self) -> set[str]:
        """Return the names in the folder."""
        return {p.name for p in self.path.iterdir()} if self.path.is_dir() else set()


@contextlib.contextmanager
def _alone(stream: IO[bytes]) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no advisory locks on this system
        yield
        return
    fcntl.flock(stream, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(stream, fcntl.LOCK_UN)


class Address:
    """An fsspec address. One process writes the manifest; it is put again as a whole, as object stores cannot append."""

    local = False

    def __init__(self, url: str, who: str = "") -> None:
        try:
            import fsspec
        except ImportError:
            raise RequestError("an address needs fsspec", where=url, way_out="pip install fsspec, or give a folder.") from None
        self.name = url.rstrip("/")
        self._lines: dict[str, list[str]] = {}
        self._put = 0.0
        with self._refusals():
            try:
                self.fs, root = fsspec.core.url_to_fs(self.name)
            except (ImportError, ValueError) as error:
                raise RequestError(
                    f"no store for this address ({_first(error)})", where=url, way_out="Install the package that it names."
                ) from None
            self.root = str(root).rstrip("/")
            self.fs.makedirs(self.root, exist_ok=True)
        self._scratch: Any = None

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (RequestError, OutputError, KeyboardInterrupt):
            raise
        except Exception as error:  # every store has its own exceptions
            raise OutputError(
                f"the store refuses: {type(error).__name__}: {_first(error)}",
                where=self.name,
                way_out="Check its credentials and permissions, then go on with --resume.",
            ) from error

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def scratch(self, name: str) -> Path:
        """Return a fresh place to build `name` in."""
        self.clear()
        self._scratch = tempfile.TemporaryDirectory(prefix="latentshift-")
        return Path(self._scratch.name) / name

    def adopt(self, made: Path) -> None:
        """Upload a finished file under its final name."""
        with self._refusals():
            self.fs.put_file(str(made), self._at(made.name))

    def clear(self, everything: bool = False) -> None:
        """Remove what is unfinished here."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def write(self, name: str, data: bytes) -> None:
        """Put a small file."""
        with self._refusals():
            self.fs.pipe_file(self._at(name), data)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        with self._refusals():
            if not self.fs.exists(self._at(name)):
                return None
            data: bytes = self.fs.cat_file(self._at(name))
            return data

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a text file; none where there is none."""
        yield from (self.read(name) or b"").decode("utf-8", "replace").splitlines(keepends=True)

    def append(self, name: str, line: str) -> None:
        """Add one line. The file is put again as a whole, every few seconds; what was not put when we die is made again."""
        if name not in self._lines:
            self._lines[name] = [x if x.endswith("\n") else x + "\n" for x in self.lines(name)]
        self._lines[name].append(line)
        if time.monotonic() - self._put >= _EVERY:
            self.flush()

    def flush(self) -> None:
        """Put what is held back."""
        for name, lines in self._lines.items():
            self.write(name, "".join(lines).encode())
        self._put = time.monotonic()

    def size(self, piece: Piece) -> int | None:
        """Return the bytes that a piece has there, or None where it is missing."""
        with self._refusals():
            self.fs.invalidate_cache()
            return int(self.fs.size(self._at(piece.name))) if self.fs.exists(self._at(piece.name)) else None

    def digest(self, piece: Piece) -> str:
        """Return the checksum of a piece as it lies there."""
        total = hashlib.sha256()
        with self._refusals(), self.fs.open(self._at(piece.name), "rb") as stream:
            while block := stream.read(_PIECE):
                total.update(block)
        return total.hexdigest()

    def open(self, name: str) -> IO[bytes]:
        """Return a stream of a file."""
        with self._refusals():
            stream: IO[bytes] = self.fs.open(self._at(name), "rb")
            return stream

    def names(self) -> set[str]:
        """Return the names at the address."""
        with self._refusals():
            self.fs.invalidate_cache()
            return {str(p).rstrip("/").rpartition("/")[2] for p in self.fs.ls(self.root, detail=False)}


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:160]


Store = Folder | Address
