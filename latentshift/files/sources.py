"""Random access to bytes that nobody trusts: an open file, a part of one, or bytes in memory.

Reads go through `pread` and never through a memory map: a file that shrinks while it is read is an error, not a crash.
"""

from __future__ import annotations

import os

from .values import RefusalError


class Source:
    """`size` bytes from `base` on of an open file descriptor, or of `data` where there is no file."""

    def __init__(self, fd: int = -1, base: int = 0, size: int = 0, data: bytes = b"", label: str = "") -> None:
        self.fd = fd
        self.base = base
        self.size = len(data) if fd < 0 else size
        self.data = data
        self.label = label

    @property
    def on_disk(self) -> bool:
        return self.fd >= 0

    def part(self, offset: int, size: int, label: str = "") -> Source:
        """Return a source of `size` bytes at `offset`; raise RefusalError where they are not all there."""
        self._check(offset, size)
        if self.fd < 0:
            return Source(data=self.data[offset : offset + size], label=label or self.label)
        return Source(self.fd, self.base + offset, size, label=label or self.label)

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        self._check(offset, size)
        if self.fd < 0:
            return self.data[offset : offset + size]
        if size <= 1 << 16:
            raw = os.pread(self.fd, size, self.base + offset)
            if len(raw) == size:
                return raw
        out = bytearray(size)
        self.readinto(offset, memoryview(out))
        return bytes(out)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`."""
        self._check(offset, len(view))
        if self.fd < 0:
            view[:] = self.data[offset : offset + len(view)]
            return
        done = 0
        while done < len(view):
            n = os.preadv(self.fd, [view[done : done + (1 << 30)]], self.base + offset + done)
            if n <= 0:
                raise RefusalError("the file became shorter while it was read")
            done += n

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            left = max(0, self.size - offset)
            raise RefusalError(f"{size:,} bytes are declared where {left:,} are left")
