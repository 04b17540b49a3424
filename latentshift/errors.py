"""One tree of exceptions. Each knows its exit status; its text says what happened, where, and what to do next.

LatentshiftError                1  a fault of ours
+-- UsageError                  2  what was typed is wrong, whatever the model is
+-- RequestError                3  the request makes no sense for this pair or installation
|   +-- UnknownNameError           no such model, strategy, recipe, critic
|   +-- MissingCapabilityError     the pair lacks what the method needs
|   +-- ShapeError                 tensors or networks that do not fit each other
+-- FileError                   4  a file cannot be used
|   +-- UnsafeFileError            it would run code, or exhaust the machine
|   +-- DamagedFileError           cut, flipped, inconsistent
+-- DownloadError               5  a download failed or was not what was promised
+-- OutputError                 6  output cannot be written
+-- DeviceError                 7  the device cannot do it
+-- NumericError                8  numbers broke in all rows
+-- Interrupted               130  cut short by the user; finished work is kept
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LatentshiftError(Exception):
    """Base of all errors that latentshift raises on purpose.

    `what` happened, `where` (a file, an option, a value; may be empty) and the `way_out`.

    >>> str(UsageError("bad seed range '5-'", where="--seeds", way_out="Write 0-63,85."))
    "bad seed range '5-': --seeds. Write 0-63,85."
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", way_out: str = "") -> None:
        self.what = what.rstrip(".")
        self.where = where
        self.way_out = way_out
        text = self.what + (f": {where}" if where else "") + "."
        super().__init__(f"{text} {way_out}" if way_out else text)

    def line(self) -> str:
        """Return the one line that the command line prints first."""
        return f"latentshift: error: {self}"


class UsageError(LatentshiftError):
    """What was typed is wrong whatever the model is (exit status 2)."""

    exit_status = 2


class RequestError(LatentshiftError):
    """The request makes no sense for this pair or installation (exit status 3)."""

    exit_status = 3


class UnknownNameError(RequestError):
    """A name that nothing carries; the nearest names are offered."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", way_out: str = "") -> None:
        names = list(known)
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
        listing = way_out or f"'latentshift {kind if kind.endswith('s') else kind + 's'}' lists all."
        self.near = near
        super().__init__(f"unknown {kind} {name!r}", where=where, way_out=hint + listing)


class MissingCapabilityError(RequestError):
    """The pair lacks something that the method needs."""


class ShapeError(RequestError):
    """Tensors or networks that do not fit each other."""


class FileError(LatentshiftError):
    """A file cannot be used: unsafe, damaged, not what it claims (exit status 4)."""

    exit_status = 4


class UnsafeFileError(FileError):
    """Reading the file on would run code from it or exhaust the machine."""


class DamagedFileError(FileError):
    """The file is cut, flipped, or contradicts itself."""


class DownloadError(LatentshiftError):
    """A download failed or was not what was promised (exit status 5)."""

    exit_status = 5


class OutputError(LatentshiftError):
    """Output cannot be written (exit status 6)."""

    exit_status = 6


class DeviceError(LatentshiftError):
    """The device cannot do it (exit status 7)."""

    exit_status = 7


class NumericError(LatentshiftError):
    """NaN or infinite numbers in all rows (exit status 8)."""

    exit_status = 8


class Interrupted(LatentshiftError):
    """Cut short by the user; finished work is kept (exit status 130)."""

    exit_status = 130


class LatentshiftWarning(UserWarning):
    """A warning that names its consequence."""
