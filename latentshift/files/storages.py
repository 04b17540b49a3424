"""Tensors out of declared storages: item sizes, exact lengths, bounds-checked views, and the legacy torch stream.

A storage's memory is taken when the file declares it, after the declared size was checked against what the file can hold, and
filled when its bytes come up; views of it are made at once, since they share that memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .opcodes import Machine
from .sources import Source
from .values import Blob, Global, RefusalError

#: storage class of torch -> dtype
STORAGES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_BYTES = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
MAX_DIMS = 16
#: All views together may cover the file this many times (tied weights appear twice), plus a floor.
VIEWS_PER_FILE = 2
VIEWS_FLOOR = 64 << 20


class Storage:
    """A one-dimensional run of `numel` elements; `flat` is its memory, `filled` once its bytes were read."""

    __slots__ = ("filled", "flat", "key", "numel")

    def __init__(self, dtype: torch.dtype, numel: int, key: str) -> None:
        self.key = key
        self.numel = numel
        self.flat = torch.empty(numel, dtype=dtype)
        self.filled = False

    @property
    def nbytes(self) -> int:
        return self.numel * self.flat.element_size()

    def bytes_view(self) -> memoryview:
        """Return the memory as bytes."""
        raw: Any = self.flat.view(torch.uint8).numpy()
        return memoryview(raw) if self.numel else memoryview(b"")

    def fill(self, source: Source, offset: int) -> None:
        """Read the storage's bytes, little-endian, from `offset`."""
        if self.numel:
            source.readinto(offset, self.bytes_view())
        if self.flat.dtype is torch.bool and self.numel and int(self.flat.view(torch.uint8).max()) > 1:
            raise RefusalError(f"storage {self.key!r} of truth values holds other bytes than 0 and 1")
        self.filled = True


class Allowance:
    """Counts declared bytes against what the file can justify."""

    def __init__(self, file_bytes: int) -> None:
        self.storage_left = file_bytes
        self.view_left = VIEWS_PER_FILE * file_bytes + VIEWS_FLOOR

    def storage(self, key: str, nbytes: int) -> None:
        if nbytes > self.storage_left:
            raise RefusalError(f"storage {key[:40]!r} declares {nbytes:,} bytes, more than the file holds", unsafe=True)
        self.storage_left -= nbytes

    def view(self, nbytes: int) -> None:
        if nbytes > self.view_left:
            raise RefusalError("tensors cover the same storages many times over", unsafe=True)
        self.view_left -= nbytes


def whole(value: Any, what: str) -> int:
    """Return `value` if it is a whole number from 0 to 2^62, else raise RefusalError."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise RefusalError(f"{what} is {str(value)[:40]}, not a whole number from 0 on", unsafe=type(value) is int)
    return value


def view(storage: Storage, offset: Any, size: Any, stride: Any, allowance: Allowance) -> Tensor:
    """Return the tensor that a file describes as a view of `storage`; raise RefusalError where it leaves the storage.

    Strides may be in any order (channels-last weights) but not negative, and no more elements may be claimed than there are.
    """
    offset = whole(offset, "the offset of a tensor")
    if not isinstance(size, tuple | list) or not isinstance(stride, tuple | list) or len(size) != len(stride):
        raise RefusalError("a tensor whose sizes and strides do not match")
    if len(size) > MAX_DIMS:
        raise RefusalError(f"a tensor of {len(size)} dimensions", unsafe=True)
    size = [whole(n, "the size of a tensor") for n in size]
    stride = [whole(n, "the stride of a tensor") for n in stride]
    numel = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if numel else offset
    if numel > storage.numel or (numel and last >= storage.numel) or offset > storage.numel:
        raise RefusalError(
            f"a tensor of {tuple(size)} at {offset}, strides {tuple(stride)}, claims more than its storage of {storage.numel}",
            unsafe=True,
        )
    allowance.view(numel * storage.flat.element_size())
    return torch.as_strided(storage.flat, size, stride, offset)


class StorageIds:
    """The persistent ids of torch files: ('storage', class, key, location, number of elements[, view])."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.storages: dict[str, Storage] = {}

    def persistent(self, pid: Any) -> Any:
        """Return the storage that `pid` names, made when it is first named."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusalError("a persistent id of foreign form", unsafe=True)
        cls, key, location, numel = pid[1:5]
        if type(key) is int:
            key = str(key)
        if not isinstance(cls, Global) or cls.name not in STORAGES or type(key) is not str or type(location) is not str:
            raise RefusalError("a persistent id of foreign form", unsafe=True)
        if len(pid) == 6 and pid[5] is not None:
            raise RefusalError("a storage that is a view of another one, as torch wrote before 0.4")
        dtype = STORAGES[cls.name]
        numel = whole(numel, "the length of a storage")
        known = self.storages.get(key)
        if known is not None:
            if known.flat.dtype is not dtype or known.numel != numel:
                raise RefusalError(f"storage {key[:40]!r} is declared twice in different ways")
            return known
        self.allowance.storage(key, numel * dtype.itemsize)
        storage = Storage(dtype, numel, key)
        self.loaded(storage)
        self.storages[key] = storage
        return storage

    def loaded(self, storage: Storage) -> None:
        """Called for each new storage; a zip reader fills it here, a stream later."""


class NestedBuilders(StorageIds):
    """All that the pickles inside a nested storage may do: plain values, storage classes, one persistent id."""

    def lookup(self, module: str, name: str, offset: int) -> Global:
        if module == "torch" and name in STORAGES:
            return Global(module, name, offset)
        raise RefusalError(f"{module}.{name} inside a storage", unsafe=True)

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        raise RefusalError("REDUCE inside a storage", unsafe=True)

    def new(self, cls: Any, args: tuple[Any, ...]) -> Any:
        raise RefusalError("NEWOBJ inside a storage", unsafe=True)

    def build(self, target: Any, state: Any) -> Any:
        raise RefusalError("BUILD inside a storage", unsafe=True)


def read_legacy(source: Source, builders: Any, allowance: Allowance) -> Any:
    """Read the legacy form of torch.save (before 1.6) from offset 0 to the exact end of `source`; return its value.

    Five pickles (magic, version, platform, value, keys), then per key the number of elements (int64) and the elements. The
    first three and the key list may hold plain values only.
    """
    plain = NestedBuilders(allowance)
    if source.read(0, len(MAGIC_BYTES)) != MAGIC_BYTES:
        raise RefusalError("wrong magic number of a torch file")
    machine = Machine(source, plain, start=len(MAGIC_BYTES))
    if machine.run() != 1001:
        raise RefusalError("a torch file of another version than 1001")
    machine = Machine(source, plain, start=machine.end)
    platform = machine.run()
    if not isinstance(platform, dict) or platform.get("little_endian") is not True:
        raise RefusalError("a torch file that is not little-endian")
    machine = Machine(source, builders, start=machine.end)
    value = machine.run()
    machine = Machine(source, plain, start=machine.end)
    keys = machine.run()
    if plain.storages and plain is not builders:
        raise RefusalError("a storage in the wrong place of a torch file", unsafe=True)
    storages: dict[str, Storage] = builders.storages
    if not isinstance(keys, list) or not all(type(k) is str for k in keys):
        raise RefusalError("a torch file without a list of its storages")
    if sorted(keys) != sorted(storages):
        raise RefusalError("the list of storages does not name the storages that are used")
    at = machine.end
    for key in keys:
        storage = storages[key]
        numel = int.from_bytes(source.read(at, 8), "little", signed=True)
        if numel != storage.numel:
            raise RefusalError(f"storage {key[:40]!r} has {numel:,} elements where {storage.numel:,} were declared")
        storage.fill(source, at + 8)
        at += 8 + storage.nbytes
    if at != source.size:
        raise RefusalError(f"{source.size - at:,} bytes follow the last storage")
    return value


def read_nested(value: Any, allowance: Allowance) -> Storage:
    """Return the storage that the bytes given to `_load_from_bytes` describe."""
    if isinstance(value, Blob) and not value.text:
        source = value.source.part(value.offset, value.length)
    elif isinstance(value, Blob) and value.latin1:
        source = Source(data=value.read(), label=value.source.label)
    elif isinstance(value, bytes):
        source = Source(data=value, label="nested storage")
    else:
        raise RefusalError("a nested storage that is not given as bytes", unsafe=True)
    if source.size >= 2 and source.read(0, 2) == b"PK":
        raise RefusalError("a nested storage in zip form, which no StyleGAN file has")
    builders = NestedBuilders(allowance)
    storage = read_legacy(source, builders, allowance)
    if not isinstance(storage, Storage) or len(builders.storages) != 1:
        raise RefusalError("nested bytes that are not exactly one storage")
    return storage
