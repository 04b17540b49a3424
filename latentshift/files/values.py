"""What the readers make of foreign objects: inert records, limits, and the one walk that checks a finished tree.

Nothing here can run anything. A record only says what the file claimed: a name, a place, a piece of bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

#: Longest text or bytes that is decoded on the spot; longer ones stay in the file until a builder asks for them.
INLINE_BYTES = 4096
#: Sum of decoded texts. Names of tensors and options need far less; a text may take four bytes a character in memory.
MAX_TEXT_BYTES = 32 << 20
#: Opcodes that any file may use, and how many bytes of file buy one more. A 1024-pixel pair needs about 50,000.
BASE_OPCODES = 400_000
BYTES_PER_OPCODE = 128
#: Open MARKs at a time; module nesting of 5 needs about 40.
MAX_MARKS = 1000
#: Depth of containers in a finished tree, and its number of nodes with shared parts counted every time they appear.
MAX_DEPTH = 200
MAX_NODES = 5_000_000
#: Bytes an integer may have; torch's own magic number has 10.
MAX_LONG_BYTES = 32
#: Largest file that is read at all.
MAX_FILE_BYTES = 64 << 30


class RefusalError(Exception):
    """A reason to refuse, raised where the file position is not known; the machine adds it.

    `unsafe` tells a file that tries something from one that is only broken.
    """

    def __init__(self, what: str, *, unsafe: bool = False, way_out: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.unsafe = unsafe
        self.way_out = way_out


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name on the allowlist as it stands on the stack: never the real object, only its key."""

    module: str
    name: str
    offset: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """An object of a class that we do not know. It absorbs every operation and can only be named."""

    module: str
    name: str
    offset: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Table(dict[Any, Any]):
    """An OrderedDict of the file as a plain dict; `_metadata` is what torch keeps with a state dict."""

    __slots__ = ("_metadata",)
    _metadata: dict[Any, Any]


class Pending:
    """An object that REDUCE began and BUILD must finish (a numpy dtype or array)."""

    __slots__ = ("args", "kind", "places")

    def __init__(self, kind: str, args: tuple[Any, ...]) -> None:
        self.kind = kind
        self.args = args
        self.places: list[int] = []


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """Bytes that stay in the file: `length` bytes at `offset` of `source`. `text` is True for UTF-8 text."""

    source: Any
    offset: int
    length: int
    text: bool
    latin1: bool = False

    def read(self) -> bytes:
        """Return the content: as stored, or re-encoded from text to the bytes that the text stands for."""
        raw: bytes = self.source.read(self.offset, self.length)
        if not self.latin1:
            return raw
        return latin1_bytes(raw)


def latin1_bytes(raw: bytes) -> bytes:
    """Turn UTF-8 text of characters below 256 into one byte each; raise RefusalError for anything else."""
    try:
        return raw.decode("utf-8").encode("latin-1") if len(raw) <= 1 << 20 else _latin1_in_pieces(raw)
    except UnicodeError:
        raise RefusalError("text that stands for bytes holds characters that are no bytes") from None


def _latin1_in_pieces(raw: bytes) -> bytes:
    # In pieces: one astral character would widen the whole text to four bytes a character.
    out = bytearray()
    view = memoryview(raw)
    at = 0
    while at < len(raw):
        end = min(at + (1 << 20), len(raw))
        while end < len(raw) and (raw[end] & 0xC0) == 0x80:
            end += 1
        out += str(view[at:end], "utf-8").encode("latin-1")
        at = end
    return bytes(out)


@dataclass(frozen=True, slots=True)
class SourceText:
    """The embedded source of a class: measured, never kept, never run."""

    length: int
    sha256: str

    @classmethod
    def of(cls, value: str | Blob) -> SourceText:
        raw = value.read() if isinstance(value, Blob) else value.encode()
        return cls(len(raw), hashlib.sha256(raw).hexdigest())


@dataclass(slots=True, eq=False)
class PersistentObject:
    """A network object of the StyleGAN container: its class name and its instance dictionary, nothing alive."""

    class_name: str
    source: SourceText
    state: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"PersistentObject({self.class_name})"


_LEAVES = (
    torch.Tensor, np.ndarray, np.dtype, torch.dtype, str, bytes, bytearray, int, float, complex, bool, type(None),
    Opaque, Blob, SourceText,
)  # fmt: skip


def _children(node: Any) -> list[Any] | None:
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    if isinstance(node, list | tuple | set | frozenset):
        return list(node)
    if isinstance(node, PersistentObject):
        return [node.state]
    return None


def check_tree(root: Any) -> list[Opaque]:
    """Check a finished tree and return the foreign objects in it, in the order of the file.

    Raises RefusalError for cycles, for depth over MAX_DEPTH, for shared parts that unfold to more than MAX_NODES,
    and for things that were begun and never finished. The walk keeps its own stack and sees every object once.
    """
    foreign: dict[int, Opaque] = {}
    unfolded: dict[int, tuple[int, int]] = {}  # id -> (nodes, depth) when each part is counted wherever it appears
    open_nodes: set[int] = set()
    stack: list[tuple[Any, list[Any] | None]] = [(root, None)]
    while stack:
        node, children = stack.pop()
        key = id(node)
        if children is not None:
            nodes = depth = 0
            for child in children:
                n, d = unfolded.get(id(child), (1, 0))
                nodes += n
                depth = max(depth, d)
            if depth + 1 > MAX_DEPTH:
                raise RefusalError(f"containers nested deeper than {MAX_DEPTH} levels", unsafe=True)
            if nodes > MAX_NODES:
                raise RefusalError(f"shared parts that unfold to more than {MAX_NODES:,} objects", unsafe=True)
            unfolded[key] = (nodes + 1, depth + 1)
            open_nodes.discard(key)
            continue
        if key in unfolded:
            continue
        if key in open_nodes:
            raise RefusalError("an object that contains itself", unsafe=True)
        inner = _children(node)
        if inner is None:
            if isinstance(node, Opaque):
                foreign[key] = node
            elif not isinstance(node, _LEAVES):
                what = str(node) if isinstance(node, Global) else type(node).__name__.lower()
                raise RefusalError(f"{what} stands where a value should be")
            continue
        open_nodes.add(key)
        if len(open_nodes) > MAX_DEPTH:  # the open ones are the ancestors: no need to see the end of it
            raise RefusalError(f"containers nested deeper than {MAX_DEPTH} levels", unsafe=True)
        stack.append((node, inner))
        # Leaves need no visit of their own unless they are foreign or unfinished.
        stack.extend((child, None) for child in reversed(inner) if not isinstance(child, str | int | float | torch.Tensor))
    return sorted(foreign.values(), key=lambda o: o.offset)
