"""What a file is by its first bytes, before anything is decoded; what is no checkpoint is named for what it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import DamagedFileError, FileError, UnsafeFileError
from .storages import MAGIC_BYTES
from .values import MAX_FILE_BYTES

_AGAIN = "The download went wrong: fetch the file again, by hand if a page with a button stands before it."
_UNPACK = "Unpack it first."
#: (first bytes, what it is, way out)
_KNOWN: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a git-LFS pointer, not the file itself",
        "Run 'git lfs pull', or download the file from its page.",
    ),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\x93NUMPY", "a single numpy array", "A checkpoint in numpy's form is an .npz file."),
    (b"\x89HDF", "an HDF5 file (Keras)", "Export the weights to safetensors or .npz."),
    (b"\x89PNG", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
    (b"GIF8", "a picture", ""),
    (b"\x7fELF", "a program", ""),
    (b"MZ", "a program", ""),
    (b"%PDF", "a PDF document", ""),
)


def open_regular(path: str | Path) -> tuple[int, int]:
    """Return a descriptor of `path` and its size in bytes; refuse what is no regular file without waiting for it."""
    where = str(path)
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise FileError("no such file", where=where) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "a bad name"
        raise FileError(f"the file cannot be opened ({reason})", where=where) from None
    status = os.fstat(fd)
    kind = stat.S_IFMT(status.st_mode)
    names = {
        stat.S_IFDIR: "a folder where a file should be", stat.S_IFIFO: "a FIFO, not a file",
        stat.S_IFCHR: "a device, not a file", stat.S_IFBLK: "a device, not a file", stat.S_IFSOCK: "a socket, not a file",
    }  # fmt: skip
    problem = names.get(kind, "" if kind == stat.S_IFREG else "no regular file")
    if not problem and not status.st_size:
        problem = "an empty file"
    if problem or status.st_size > MAX_FILE_BYTES:
        os.close(fd)
        if problem:
            raise DamagedFileError(problem, where=where, way_out=_AGAIN if "empty" in problem else "")
        raise UnsafeFileError(f"a file of {status.st_size:,} bytes; at most {MAX_FILE_BYTES >> 30} GiB are read", where=where)
    return fd, status.st_size


def recognise(head: bytes, size: int, where: str) -> str:
    """Return 'zip', 'torch-legacy', 'safetensors' or 'pickle' for the first bytes of a file (512, or all of a short one).

    Raises DamagedFileError that names what it is instead.
    """
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:8] == MAGIC_BYTES[:8]:
        return "torch-legacy"
    if head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= 5:
        return "pickle"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < 1 << 48:
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    what, way_out = "no checkpoint of a kind that we know", "Known: torch files, safetensors, .npz, StyleGAN .pkl."
    for magic, name, hint in _KNOWN:
        if head.startswith(magic) or (text.startswith(magic) and magic[:1].isalpha()):
            what, way_out = name, hint
            break
    else:
        if text[:1] == b"<":
            what, way_out = "a web page (HTML) under the name of a model", _AGAIN
        elif text[:1] in (b"{", b"["):
            what, way_out = "a JSON document, often the error text of a server", _AGAIN
        elif head[257:262] == b"ustar":
            what, way_out = (
                "a tar archive",
                _UNPACK + " Files of torch before 0.4 are tar archives: save them again with a newer torch.",
            )
        elif head[:1] in (b"(", b"c", b"}", b"]") and b"\n" in head[:200] and size > 2:
            what, way_out = "a pickle of protocol 0 or 1", "Save it again with torch.save."
        elif not head.strip(b"\x00"):
            what, way_out = "a file of zeros", _AGAIN
        elif all(32 <= b < 127 or b in b"\t\r\n" for b in head):
            what, way_out = "a text, not a checkpoint", _AGAIN
    raise DamagedFileError(what, where=f"{where}, byte 0", way_out=way_out)
