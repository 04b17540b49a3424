"""The bytes that a pickle machine reads: one after the other, in windows, every length checked against what is left."""

from __future__ import annotations

from ..errors import DamagedFileError, FileError, UnsafeFileError
from .sources import Source
from .values import INLINE_BYTES, MAX_TEXT_BYTES, Blob, RefusalError

_WINDOW = 1 << 16


class Tape:
    """Reads `source` from `start` on. `_op_at` is where the operation at work began: errors name it."""

    def __init__(self, source: Source, start: int) -> None:
        self.source = source
        self.start = start
        self._at = start  # offset of the next byte to read
        self._window = b""
        self._base = start
        self._op_at = start
        self._text = 0

    def _error(self, what: str, *, unsafe: bool = False, way_out: str = "") -> FileError:
        kind = UnsafeFileError if unsafe else DamagedFileError
        way_out = way_out or ("" if unsafe else "It is damaged, or was cut on its way: fetch it again.")
        return kind(what, where=f"{self.source.label}, byte {self.source.base + self._op_at}", way_out=way_out)

    def _take(self, n: int) -> bytes:
        low = self._at - self._base
        piece = self._window[low : low + n]
        if len(piece) < n:
            left = self.source.size - self._at
            if n > left:
                raise RefusalError(f"cut short: {n:,} bytes are declared where {left:,} are left")
            self._base = self._at
            self._window = self.source.read(self._at, min(left, max(n, _WINDOW)))
            piece = self._window[:n]
        self._at += n
        return piece

    def _line(self) -> str:
        out = bytearray()
        while (byte := self._take(1)) != b"\n":
            out += byte
            if len(out) > 512:
                raise RefusalError("a name longer than 512 bytes", unsafe=True)
        return out.decode("utf-8")

    def _span(self, n: int, *, text: bool) -> str | bytes | Blob:
        left = self.source.size - self._at
        if n > left:
            raise RefusalError(f"{n:,} bytes are declared where {left:,} are left")
        if n > INLINE_BYTES:
            blob = Blob(self.source, self._at, n, text)
            self._at += n
            return blob
        raw = self._take(n)
        if not text:
            return raw
        self._text += n
        if self._text > MAX_TEXT_BYTES:
            raise RefusalError(f"more than {MAX_TEXT_BYTES >> 20} MiB of short texts", unsafe=True)
        return raw.decode("utf-8", "surrogatepass")
