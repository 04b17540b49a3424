"""Where downloads lie, and digests of large files: hashed once, remembered as long as the file is not touched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path

LARGE = 4 << 20  # bytes from which on a digest is worth remembering
SETTLED = 50_000_000  # nanoseconds: the clock of a file system is coarse, so a file touched a moment ago is not remembered


def cache_folder() -> Path:
    """Return where downloads lie: LATENTSHIFT_CACHE, else XDG_CACHE_HOME/latentshift, else the platform's cache folder."""
    if own := os.environ.get("LATENTSHIFT_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "latentshift"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/latentshift"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "latentshift/Cache"
    return Path.home() / ".cache/latentshift"


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits, computed now."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """Return the sha256 of a file; that of a large one is remembered in the cache until the file is touched.

    What is remembered holds for one place, inode, size, and time of the last change of content or name (which nothing but
    the system sets). A cache that cannot be read or written costs time and nothing else.
    """
    try:
        stamp = _stamp(path)
    except OSError:
        return file_sha256(path)
    size, changed = stamp[0], max(stamp[1:3])
    if size < LARGE:
        return file_sha256(path)
    note = cache_folder() / "digests" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    mark = " ".join(map(str, stamp))
    with contextlib.suppress(OSError, ValueError):
        kept, _, digest = note.read_text("ascii").rpartition(" ")
        if kept == mark and len(digest) == 64:
            return digest
    began = time.time_ns()
    digest = file_sha256(path)
    with contextlib.suppress(OSError):
        if began - changed > SETTLED and _stamp(path) == stamp:
            note.parent.mkdir(parents=True, exist_ok=True)
            part = note.with_name(f"{note.name}.{os.getpid()}.part")
            part.write_text(f"{mark} {digest}", "ascii")
            os.replace(part, note)
    return digest


def _stamp(path: Path) -> tuple[int, ...]:
    s = path.stat()
    return s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_dev, s.st_ino
