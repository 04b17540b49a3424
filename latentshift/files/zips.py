"""The directory of a zip file, read by ourselves and checked before any member is opened.

Refused: names that are absolute, hold `..`, backslashes or control characters, or appear twice; symlinks and encrypted members;
members that overlap each other or the directory; local headers that contradict the directory; more members than a
checkpoint can have; content that unfolds far beyond the file.
"""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from .sources import Source
from .values import RefusalError

MAX_MEMBERS = 65_536
MAX_DIRECTORY = 32 << 20
#: All members together may unfold to this many times the file, plus a floor.
UNFOLD_TIMES = 3
UNFOLD_FLOOR = 128 << 20

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a zip: its content is `packed` bytes at `offset`, stored (method 0) or deflated (method 8)."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_directory(source: Source) -> dict[str, Member]:
    """Return the members by name, in the order of the file; raise RefusalError for anything listed above."""
    count, size, start = _end(source)
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise RefusalError(f"a zip of {count:,} members", unsafe=True)
    raw = source.read(start, size)
    members: dict[str, Member] = {}
    spans: list[tuple[int, int, str]] = [(start, source.size, "the directory")]
    at = 0
    while at < len(raw):
        if len(members) >= count:
            raise RefusalError("a zip with more members than it counts", unsafe=True)
        member, header, at = _entry(source, raw, at)
        if member.name in members:
            raise RefusalError(f"the zip member {member.name[:80]!r} is there twice", unsafe=True)
        members[member.name] = member
        spans.append((header, member.offset + member.packed, member.name))
    if len(members) != count:
        raise RefusalError(f"a zip that counts {count:,} members and lists {len(members):,}")
    spans.sort()
    for (_, end, first), (begin, _, second) in pairwise(spans):
        if begin < end:
            raise RefusalError(f"the zip members {first[:80]!r} and {second[:80]!r} overlap", unsafe=True)
    total = sum(m.size for m in members.values())
    if total > UNFOLD_TIMES * source.size + UNFOLD_FLOOR:
        raise RefusalError(f"a zip of {source.size:,} bytes that unfolds to {total:,}", unsafe=True)
    return members


def _end(source: Source) -> tuple[int, int, int]:
    tail_at = max(0, source.size - _END.size - 65535)
    tail = source.read(tail_at, source.size - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise RefusalError("a zip that is cut short: its directory is missing", way_out="Download it again.")
    _, disk, disk2, here, count, size, start, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise RefusalError("bytes follow the end of the zip")
    end_at = tail_at + at
    locator_at = end_at - _END64_LOCATOR.size
    if locator_at >= 0 and source.read(locator_at, 4) == b"PK\x06\x07":
        _, _, end64_at, _ = _END64_LOCATOR.unpack(source.read(locator_at, _END64_LOCATOR.size))
        fields = _END64.unpack(source.read(end64_at, _END64.size))
        if fields[0] != b"PK\x06\x06":
            raise RefusalError("a zip with a broken 64-bit directory")
        disk, disk2, here, count, size, start = fields[4], fields[5], fields[6], fields[7], fields[8], fields[9]
        end_at = end64_at
    if disk or disk2 or here != count or start + size > end_at:
        raise RefusalError("a zip whose directory contradicts itself")
    return count, size, start


def _entry(source: Source, raw: bytes, at: int) -> tuple[Member, int, int]:
    if len(raw) - at < _ENTRY.size:
        raise RefusalError("a zip whose directory is cut short")
    fields = _ENTRY.unpack_from(raw, at)
    magic, made, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, _, _, attributes, header = fields
    end = at + _ENTRY.size + n_name + n_extra + n_comment
    if magic != b"PK\x01\x02" or end > len(raw):
        raise RefusalError("a zip whose directory is damaged")
    name = _name(raw[at + _ENTRY.size : at + _ENTRY.size + n_name])
    extra = raw[at + _ENTRY.size + n_name : end - n_comment]
    size, packed, header = _wide(extra, size, packed, header)
    mode = attributes >> 16
    if made >> 8 == 3 and mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise RefusalError(f"the zip member {name[:80]!r} is a link or device", unsafe=True)
    if flags & 1:
        raise RefusalError(f"the zip member {name[:80]!r} is encrypted", way_out="Unpack it first.")
    if method not in (0, 8) or (method == 0 and packed != size):
        raise RefusalError(f"the zip member {name[:80]!r} is packed in a way that is not read (method {method})")
    local = _LOCAL.unpack(source.read(header, _LOCAL.size))
    if local[0] != b"PK\x03\x04" or local[3] != method or local[9] != n_name:
        raise RefusalError(f"the zip member {name[:80]!r} contradicts the directory")
    if source.read(header + _LOCAL.size, n_name) != raw[at + _ENTRY.size : at + _ENTRY.size + n_name]:
        raise RefusalError(f"the zip member {name[:80]!r} has another name than the directory says", unsafe=True)
    offset = header + _LOCAL.size + n_name + local[10]
    if offset + packed > source.size:
        raise RefusalError(f"the zip member {name[:80]!r} reaches beyond the file")
    return Member(name, method, crc, packed, size, offset), header, end


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeError:
        raise RefusalError("a zip member whose name is no UTF-8") from None
    parts = name.split("/")
    drive = len(parts[0]) > 1 and parts[0][1] == ":"
    if not name or len(name) > 1024 or name.startswith("/") or drive or ".." in parts or "\\" in name or not name.isprintable():
        raise RefusalError(f"the zip member {name[:80]!r} would be written outside its folder", unsafe=True)
    return name


def _wide(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Apply the 64-bit extra field where the 32-bit numbers say that they are elsewhere."""
    if 0xFFFFFFFF not in (size, packed, header):
        return size, packed, header
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1 and at + 4 + length <= len(extra):
            numbers = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            out = [numbers.pop(0) if n == 0xFFFFFFFF and numbers else n for n in (size, packed, header)]
            return out[0], out[1], out[2]
        at += 4 + length
    return size, packed, header


def content(source: Source, member: Member) -> bytes:
    """Return a member's content, unfolded in bounded pieces and checked against its size and checksum."""
    raw = source.read(member.offset, member.packed)
    if member.method == 8:
        unpack = zlib.decompressobj(-15)
        try:
            raw = unpack.decompress(raw, member.size + 1)
        except zlib.error as error:
            raise RefusalError(f"the zip member {member.name[:80]!r} is damaged ({error})") from None
        if len(raw) != member.size or not unpack.eof:
            raise RefusalError(f"the zip member {member.name[:80]!r} unfolds to another size than it says", unsafe=True)
    check_crc(member, raw)
    return raw


def check_crc(member: Member, raw: bytes | memoryview) -> None:
    """Raise RefusalError where `raw` is not what the directory's checksum was made of."""
    if zlib.crc32(raw) != member.crc:
        raise RefusalError(f"the zip member {member.name[:80]!r} does not match its checksum", way_out="Download it again.")
