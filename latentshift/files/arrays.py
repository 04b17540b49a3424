"""safetensors and .npz files: headers are checked by ourselves, then the libraries' own readers or plain views take over."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .sources import Source
from .values import RefusalError
from .zips import Member, content

#: Longest header that is parsed; 100 bytes a tensor are usual.
MAX_HEADER = 24 << 20
_ITEM = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise RefusalError("a safetensors header with a name given twice", unsafe=True)
    return table


def read_safetensors(source: Source, path: str | Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors of a safetensors file after checking its header against the file.

    Raises RefusalError for a header that is too long or no JSON, or whose tensors overlap, leave gaps, leave the file, or are
    of an unknown dtype.
    """
    from safetensors.torch import load_file

    length = int.from_bytes(source.read(0, 8), "little")
    if length > 100_000_000 or length > source.size - 8:
        raise RefusalError(f"a safetensors header of {length:,} bytes in a file of {source.size:,}")
    if length > MAX_HEADER:
        raise RefusalError(f"a safetensors header of {length:,} bytes", unsafe=True)
    try:
        header = json.loads(source.read(8, length).decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise RefusalError("a safetensors header that is no JSON") from None
    if not isinstance(header, dict):
        raise RefusalError("a safetensors header that is no table")
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
                raise RefusalError("safetensors metadata that is not texts only")
            continue
        spans.append((*_span(name, entry), name))
    spans.sort()
    at = 0
    for begin, end, name in spans:
        if begin != at:
            raise RefusalError(f"the tensor {name[:80]!r} overlaps another one or leaves a gap before it")
        at = end
    if 8 + length + at != source.size:
        raise RefusalError(f"the tensors take {at:,} bytes where the file has {source.size - 8 - length:,}")
    try:
        return load_file(str(path)), []
    except Exception as error:
        raise RefusalError(f"the safetensors library refuses it ({str(error)[:120]})") from None


def _span(name: str, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise RefusalError(f"the tensor {name[:80]!r} is described in a foreign way")
    item = _ITEM.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if item is None:
        raise RefusalError(f"the tensor {name[:80]!r} has the unknown dtype {str(entry['dtype'])[:40]!r}")
    numbers = [*entry["shape"], *entry["data_offsets"]] if isinstance(entry["shape"], list) else [None]
    if len(entry["data_offsets"]) != 2 or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise RefusalError(f"the tensor {name[:80]!r} has sizes that are no whole numbers from 0 on")
    begin, end = entry["data_offsets"]
    if end - begin != math.prod(entry["shape"]) * item:
        raise RefusalError(f"the tensor {name[:80]!r} of {tuple(entry['shape'])} {entry['dtype']} takes {end - begin:,} bytes")
    return begin, end


def read_npz(source: Source, members: dict[str, Member]) -> tuple[dict[str, Any], list[str]]:
    """Return the arrays of an .npz file as tensors (texts as python values); arrays of objects are refused."""
    return {name[: -len(".npy")]: _array(name, content(source, member)) for name, member in members.items()}, []


#: The header that numpy writes. It is matched and not evaluated: an evaluator would compile what a file says.
_HEADER = re.compile(
    r"\{'descr': '([<>|=][a-zA-Z][0-9]{1,9})', 'fortran_order': (False|True), "
    r"'shape': \(((?:[0-9]{1,19}, ?)*(?:[0-9]{1,19})?)\), ?\}[ ]*\n?"
)


def _array(name: str, raw: bytes) -> Any:
    wide = 4 if raw[6:7] in (b"\x02", b"\x03") else 2
    at = 8 + wide + int.from_bytes(raw[8 : 8 + wide], "little")
    if raw[:6] != b"\x93NUMPY" or raw[6:7] not in (b"\x01", b"\x02", b"\x03") or not 10 < at <= min(len(raw), 10_000):
        raise RefusalError(f"the array {name[:80]!r} has a damaged header")
    header = raw[8 + wide : at].decode("latin-1")
    if "O" in header.partition("fortran_order")[0]:
        raise RefusalError(f"the array {name[:80]!r} is of python objects, not of plain numbers", unsafe=True)
    match = _HEADER.fullmatch(header)
    if match is None:
        raise RefusalError(f"the array {name[:80]!r} is not of plain numbers, or has a damaged header")
    try:
        dtype = np.dtype(match[1])
    except TypeError:
        raise RefusalError(f"the array {name[:80]!r} is of the unknown dtype {match[1]!r}") from None
    shape = tuple(int(n) for n in match[3].split(",") if n.strip())
    if dtype.hasobject or dtype.kind not in "biufU" or len(shape) > 16:
        raise RefusalError(f"the array {name[:80]!r} is of {str(dtype)[:40]}, not of plain numbers", unsafe=dtype.hasobject)
    if not all(n < 1 << 62 for n in shape) or math.prod(shape) * dtype.itemsize != len(raw) - at:
        raise RefusalError(f"the array {name[:80]!r} of {shape} {dtype} holds {len(raw) - at:,} bytes")
    if dtype.itemsize == 0:
        return [""] * math.prod(shape) if math.prod(shape) < 1 << 16 else []
    values = np.frombuffer(raw, dtype, offset=at).reshape(shape, order="F" if match[2] == "True" else "C")
    if dtype.kind == "U":
        codes = np.frombuffer(raw, np.dtype("u4").newbyteorder(dtype.byteorder), offset=at)
        if len(raw) > 1 << 20 or (codes.size and int(codes.max()) > 0x10FFFF):
            raise RefusalError(f"the array {name[:80]!r} holds no texts, or too many")
        return values.tolist()
    if dtype.kind == "b" and values.size and int(values.view(np.uint8).max()) > 1:
        raise RefusalError(f"the array {name[:80]!r} of truth values holds other bytes than 0 and 1")
    try:
        return torch.from_numpy(np.array(values, dtype.newbyteorder("="), copy=True))
    except TypeError:
        raise RefusalError(f"the array {name[:80]!r} is of {dtype}, which torch does not have") from None
