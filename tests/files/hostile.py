"""Hostile files for the tests: pickles opcode by opcode, and real attacks through the ordinary writers."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def op(name: str) -> bytes:
    """The byte of a pickle operation."""
    byte: bytes = getattr(pickle, name)
    return byte


def name_of(module: str, name: str) -> bytes:
    """GLOBAL."""
    return op("GLOBAL") + f"{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode()
    return op("BINUNICODE") + struct.pack("<I", len(raw)) + raw


def stack_name(module: str, name: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(name) + op("STACK_GLOBAL")


def call(function: bytes, *args: bytes) -> bytes:
    """REDUCE with these arguments."""
    return function + op("MARK") + b"".join(args) + op("TUPLE") + op("REDUCE")


def entry(key: str, value: bytes) -> bytes:
    """A dict with one entry."""
    return op("EMPTY_DICT") + text(key) + value + op("SETITEM")


def whole(body: bytes, protocol: int = 4) -> bytes:
    """A complete pickle."""
    return op("PROTO") + bytes([protocol]) + body + op("STOP")


def number(value: int) -> bytes:
    """BININT, or LONG1 where it does not fit."""
    if -(2**31) <= value < 2**31:
        return op("BININT") + struct.pack("<i", value)
    raw = pickle.encode_long(value)
    return op("LONG1") + bytes([len(raw)]) + raw


def binary(raw: bytes) -> bytes:
    """BINBYTES."""
    return op("BINBYTES") + struct.pack("<I", len(raw)) + raw


def nested_storage(numel: int, *, declared: int | None = None, raw: bytes | None = None, big_endian: bool = False) -> bytes:
    """The legacy bytes of one float storage."""
    pid = op("MARK") + text("storage") + name_of("torch", "FloatStorage") + text("7") + text("cpu")
    pid += number(numel if declared is None else declared) + op("NONE") + op("TUPLE")
    head = [
        whole(op("LONG1") + b"\x0a" + b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"protocol_version": 1001, "little_endian": not big_endian, "type_sizes": {"int": 4}}, 2),
        whole(pid + op("BINPERSID"), 2),
        pickle.dumps(["7"], 2),
    ]
    return b"".join(head) + struct.pack("<q", numel) + (bytes(4 * numel) if raw is None else raw)


def tensor(
    size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, storage: bytes | None = None, hooks: bytes = b""
) -> bytes:
    """A tensor as a view of a storage of four floats (or the one given)."""
    data = call(name_of("torch.storage", "_load_from_bytes"), binary(storage if storage is not None else nested_storage(4)))
    sizes = op("MARK") + b"".join(map(number, size)) + op("TUPLE")
    strides = op("MARK") + b"".join(map(number, stride)) + op("TUPLE")
    empty = hooks or call(name_of("collections", "OrderedDict"))
    return call(name_of("torch._utils", "_rebuild_tensor_v2"), data, number(offset), sizes, strides, op("NEWFALSE"), empty)


def network(parameters: bytes = b"", **changes: bytes) -> bytes:
    """A network object with one parameter `w` (or the table given)."""
    table = parameters or entry("w", tensor((2, 2), (2, 1)))
    parts = {
        "_parameters": table, "_buffers": op("EMPTY_DICT"), "_modules": op("EMPTY_DICT"), "_init_args": op("EMPTY_TUPLE"),
        "_init_kwargs": op("EMPTY_DICT"), **{k: v for k, v in changes.items() if k.startswith("_")},
    }  # fmt: skip
    state = op("EMPTY_DICT") + op("MARK") + b"".join(text(k) + v for k, v in parts.items()) + op("SETITEMS")
    meta = {
        "type": text("class"), "version": number(6), "module_src": text("raise RuntimeError"), "class_name": text("Generator"),
        "state": state, **{k: v for k, v in changes.items() if not k.startswith("_")},
    }  # fmt: skip
    fields = op("EMPTY_DICT") + op("MARK") + b"".join(text(k) + v for k, v in meta.items()) + op("SETITEMS")
    return call(name_of("torch_utils.persistence", "_reconstruct_persistent_obj"), fields)


def container(extra: bytes, protocol: int = 4) -> bytes:
    """A network pickle with a sound G_ema and `extra` beside it under the key `x`."""
    body = op("EMPTY_DICT") + op("MARK") + text("G_ema") + network() + text("x") + extra + op("SETITEMS")
    return whole(body, protocol)


class Attack:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def torch_file(value: Any, *, legacy: bool = False) -> bytes:
    """What torch.save writes."""
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def watched(cases: list[tuple[str, Path]], warm: list[Path] | None = None) -> list[dict[str, Any]]:
    """Read the files in a child process under an audit hook."""
    import json

    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "watch.py"), *map(str, warm or [])],
        input="".join(f"{kind} {path}\n" for kind, path in cases), text=True, capture_output=True, env=env, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(lines) == len(cases), done.stderr[-2000:]
    return lines
