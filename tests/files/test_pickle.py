"""The own pickle machine: honest files come out right, hostile ones are refused, nothing runs."""

# ruff: noqa: E501  (tables of bytes and of cases read better in one line)

from __future__ import annotations

import importlib
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentshift.errors import DamagedFileError, FileError, UnsafeFileError
from latentshift.files.builders import FileBuilders
from latentshift.files.checkpoint import read_tensors
from latentshift.files.opcodes import Machine
from latentshift.files.sources import Source
from latentshift.files.storages import Allowance
from latentshift.files.values import Opaque, PersistentObject

sys.path.insert(0, str(Path(__file__).parent))
hostile = importlib.import_module("hostile")
op, name_of, text, call, entry, whole, number, container = (
    hostile.op, hostile.name_of, hostile.text, hostile.call, hostile.entry, hostile.whole, hostile.number, hostile.container,
)  # fmt: skip
MARK, TUPLE, REDUCE, EMPTY, DICT, NONE = (op(n) for n in ("MARK", "TUPLE", "REDUCE", "EMPTY_TUPLE", "EMPTY_DICT", "NONE"))


def run(raw: bytes) -> Any:
    """The value of a pickle in memory."""
    return Machine(Source(data=raw, label="test"), FileBuilders(Allowance(len(raw)), container=True)).run()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -1, 255, 256, 65536, -(2**31), 2**40, 2**62, 1.5, True, False, None]},
        {"t": (), "u": (1,), "v": (1, 2), "w": (1, 2, 3), "x": (1, 2, 3, 4), "long": "ä" * 500, "": []},
        {"s": {"a", "b"}, "b": b"abc", "e": b"", "n": [[[[]]]], "many": list(range(3000))},
    ],
    ids=["numbers", "tuples", "others"],
)
def test_plain_values_come_out_as_pickle_writes_them(value: Any, protocol: int) -> None:
    assert run(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_values_come_out(protocol: int) -> None:
    value = {"f": np.float64(0.1), "b": np.bool_(True), "i": np.arange(6).reshape(2, 3), "c": np.asfortranarray(np.eye(3)[:2])}
    value["same"] = value["i"]
    got = run(pickle.dumps(value, protocol))
    assert got["f"] == 0.1
    assert got["b"] is True
    for key in ("i", "c"):
        assert np.array_equal(got[key], value[key])
    assert got["same"] is got["i"]  # one object, also after it was finished by BUILD


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_with_strides_and_shared_storages_come_out(protocol: int, dtype: torch.dtype) -> None:
    base = (torch.randn(4, 6) * 10).to(dtype)
    value = {
        "whole": base,
        "part": base[1:3, 2:4],
        "turned": base.t(),
        "parameter": torch.nn.Parameter(base.float()),
        "one": base[0, 0],
    }
    got = run(pickle.dumps(value, protocol))
    for key, want in value.items():
        assert got[key].dtype == want.dtype
        assert torch.equal(got[key], want.detach()), key
        assert got[key].stride() == want.stride()
        assert not got[key].requires_grad


def test_a_network_with_a_foreign_neighbour_still_loads(tmp_path: Path) -> None:
    foreign = name_of("pg_modules.discriminator", "ProjectedDiscriminator") + EMPTY + op("NEWOBJ") + DICT + op("BUILD")
    (tmp_path / "f.pkl").write_bytes(container(foreign, 2))
    contents = read_tensors(tmp_path / "f.pkl")
    assert isinstance(contents.tree["G_ema"], PersistentObject)
    assert isinstance(contents.tree["x"], Opaque)
    assert any("pg_modules.discriminator.ProjectedDiscriminator" in n and n.startswith("x holds") for n in contents.notes)
    assert any("was not run" in n for n in contents.notes)


PWN = text("touch CANARY")
FOREIGN = {
    f"{m}.{n}": call(name_of(m, n), PWN)
    for m, n in [
        ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("builtins", "exec"),
        ("__builtin__", "eval"), ("builtins", "__import__"), ("builtins", "getattr"), ("builtins", "open"), ("functools", "partial"),
        ("operator", "attrgetter"), ("operator", "methodcaller"), ("importlib", "import_module"), ("runpy", "run_path"), ("pty", "spawn"),
        ("pickle", "loads"), ("_pickle", "loads"), ("shutil", "rmtree"), ("socket", "create_connection"), ("ctypes", "CDLL"),
        ("torch.hub", "load"), ("torch", "load"), ("torch.serialization", "load"), ("torch.jit", "load"), ("torch._C", "_jit_init"),
        ("numpy", "load"), ("numpy.f2py.crackfortran", "crackfortran"), ("numpy.core.multiarray", "fromfile"),
        ("code", "interact"), ("builtins", "dict"), ("copyreg", "_reconstructor"), ("types", "FunctionType"), ("marshal", "loads"),
        ("torch_utils.persistence2", "_reconstruct_persistent_obj"), ("torch.serialization", "_load_from_bytes"),
        ("numpy.multiarray", "scalar"), ("codecs", "encode"), ("typing", "OrderedDict"), ("torch._utils2", "_rebuild_tensor_v2"),
    ]
}  # fmt: skip
dtype_f8 = call(name_of("numpy", "dtype"), text("f8"), op("NEWFALSE"), op("NEWTRUE"))
state_f8 = op("MARK") + number(3) + text("<") + NONE * 3 + number(-1) * 2 + number(0) + TUPLE
OBJECT_DTYPE = call(name_of("numpy", "dtype"), text("O8"), op("NEWFALSE"), op("NEWTRUE"))
CODE = {
    "dotted by GLOBAL": name_of("torch._utils", "os.system"),
    "dotted by STACK_GLOBAL": hostile.stack_name("torch._utils", "os.system"),
    "STACK_GLOBAL of os.system": hostile.stack_name("os", "system"),
    "computed name": call(name_of("_codecs", "encode"), text("os"), text("latin1")) + text("system") + op("STACK_GLOBAL"),
    "partial chain": call(call(name_of("functools", "partial"), name_of("os", "system")), PWN),
    "inst": MARK + PWN + op("INST") + b"os\nsystem\n",
    "obj": MARK + name_of("os", "system") + PWN + op("OBJ"),
    "ext1": op("EXT1") + b"\x01",
    "ext2": op("EXT2") + b"\x01\x00",
    "ext4": op("EXT4") + b"\x01\x00\x00\x00",
    "persid": op("PERSID") + b"x\n",
    "binpersid": text("x") + op("BINPERSID"),
    "newobj_ex": name_of("os", "system") + EMPTY + DICT + op("NEWOBJ_EX"),
    "newobj of a function": name_of("torch._utils", "_rebuild_tensor_v2") + EMPTY + op("NEWOBJ"),
    "out-of-band buffer": op("NEXT_BUFFER"),
    "text opcode": op("STRING") + b"'a'\n",
    "reduce of a value": text("os.system") + MARK + PWN + TUPLE + REDUCE,
    "reduce without a tuple": name_of("collections", "OrderedDict") + text("a") + REDUCE,
    "build with __setstate__": DICT + entry("__setstate__", name_of("collections", "OrderedDict")) + op("BUILD"),
    "build with __dict__": call(name_of("collections", "OrderedDict")) + entry("__dict__", DICT) + op("BUILD"),
    "build with __class__": call(name_of("collections", "OrderedDict")) + entry("__class__", name_of("torch", "Size")) + op("BUILD"),
    "build on a function": name_of("_codecs", "encode") + DICT + op("BUILD"),
    "rot13": call(name_of("_codecs", "encode"), text("abc"), text("rot13")),
    "OrderedDict with arguments": call(name_of("collections", "OrderedDict"), op("EMPTY_LIST")),
    "set of numbers": call(name_of("builtins", "set"), op("EMPTY_LIST") + number(1) + op("APPEND")),
    "object dtype": OBJECT_DTYPE,
    "object scalar": call(name_of("numpy._core.multiarray", "scalar"), OBJECT_DTYPE, hostile.binary(b"12345678")),
    "big-endian dtype": dtype_f8 + state_f8.replace(text("<"), text(">")) + op("BUILD"),
    "tensor hooks": hostile.tensor((2,), (1,), hooks=entry("1", name_of("collections", "OrderedDict"))),
    "nested os.system": call(name_of("torch.storage", "_load_from_bytes"), hostile.binary(
        hostile.nested_storage(4).replace(name_of("torch", "FloatStorage"), name_of("os", "system")))),
    "nested reduce": call(name_of("torch.storage", "_load_from_bytes"), hostile.binary(
        hostile.nested_storage(4).replace(name_of("torch", "FloatStorage"), name_of("torch", "FloatStorage") + EMPTY + REDUCE))),
    "foreign persistent class": hostile.network(type=text("function")),
    "function as a value": name_of("torch._utils", "_rebuild_tensor_v2"),
    "list key": DICT + op("EMPTY_LIST") + NONE + op("SETITEM"),
    **FOREIGN,
}  # fmt: skip

doubling = op("EMPTY_LIST") + op("MEMOIZE")
for depth in range(60):
    doubling += (
        op("EMPTY_LIST")
        + op("MEMOIZE")
        + MARK
        + op("BINGET")
        + bytes([depth]) * 1
        + op("BINGET")
        + bytes([depth])
        + op("APPENDS")
    )
BOMBS = {
    "doubling lists": MARK + doubling + TUPLE,
    "self-containing list": op("EMPTY_LIST") + op("MEMOIZE") + op("BINGET") + b"\x00" + op("APPEND"),
    "memo index 2^26": NONE + op("LONG_BINPUT") + struct.pack("<I", 1 << 26),
    "huge LONG4": op("LONG4") + struct.pack("<I", 1 << 30),
    "huge LONG1": op("LONG1") + b"\xff" + bytes(255),
    "BINBYTES8 of 2^40": op("BINBYTES8") + struct.pack("<Q", 1 << 40),
    "BYTEARRAY8 of 2^40": op("BYTEARRAY8") + struct.pack("<Q", 1 << 40),
    "BINUNICODE8 of 2^62": op("BINUNICODE8") + struct.pack("<Q", 1 << 62),
    "frame beyond the file": op("FRAME") + struct.pack("<Q", 1 << 40),
    "a million marks": MARK * 1_000_000,
    "deep tuples": NONE + op("TUPLE1") * 500_000,
    "a million sets": op("EMPTY_SET") * 1_000_000,
    "a million empty lists": op("EMPTY_LIST") * 2_000_000,
    "endless pops": (NONE + op("POP")) * 10,
    "expanded view": hostile.tensor((1000, 1000), (0, 0)),
    "huge stride": hostile.tensor((2,), (1 << 40,)),
    "negative stride": hostile.tensor((2,), (-1,)),
    "negative offset": hostile.tensor((2,), (1,), -1),
    "offset past the end": hostile.tensor((2,), (1,), 3),
    "size overflow": hostile.tensor((1 << 32, 1 << 32), (1, 1)),
    "negative size": hostile.tensor((-2, -2), (1, 1)),
    "declared storage beyond the file": hostile.tensor((2,), (1,), storage=hostile.nested_storage(4, declared=1 << 40)),
    "same storage many times": text("")[:0] + MARK + hostile.binary(hostile.nested_storage(1 << 16)) + op("MEMOIZE") + (
        name_of("torch.storage", "_load_from_bytes") + op("BINGET") + b"\x00" + op("TUPLE1") + REDUCE) * 400 + TUPLE,
}  # fmt: skip

DAMAGE = {
    "nested storage too short": hostile.tensor((2,), (1,), storage=hostile.nested_storage(4, raw=bytes(15))),
    "nested storage too long": hostile.tensor((2,), (1,), storage=hostile.nested_storage(4, raw=bytes(17))),
    "nested storage big-endian": hostile.tensor((2,), (1,), storage=hostile.nested_storage(4, big_endian=True)),
    "nested magic": hostile.tensor((2,), (1,), storage=b"\x80\x02\x8a\x0a" + bytes(40)),
    "nested zip": hostile.tensor((2,), (1,), storage=b"PK\x03\x04" + bytes(40)),
    "numel lies": hostile.tensor((2,), (1,), storage=hostile.nested_storage(4, declared=5)),
    "wrong version": hostile.network(version=number(7)),
    "key twice": DICT + MARK + text("a") + NONE + text("a") + NONE + op("SETITEMS"),
    "key without value": DICT + MARK + text("a") + op("SETITEMS"),
    "memo not made": op("BINGET") + b"\x63",
    "no mark": TUPLE,
    "unknown byte": b"\xfe",
    "bad UTF-8": op("BINUNICODE") + struct.pack("<I", 2) + b"\xff\xfe",
    "sizes without strides": hostile.tensor((2, 2), (1,)),
    "array of other length": call(name_of("numpy._core.numeric", "_frombuffer"), hostile.binary(bytes(15)),
                                  dtype_f8 + state_f8 + op("BUILD"), number(2) + op("TUPLE1"), text("C")),
}  # fmt: skip

GROUPS = {"code": CODE, "bomb": BOMBS, "damage": DAMAGE}
CASES = [(group, name, body) for group, table in GROUPS.items() for name, body in table.items()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """All hostile pickles read in one child process under an audit hook, in a folder that a canary would appear in."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = []
    for i, (_, _, body) in enumerate(CASES):
        path = folder / f"{i}.pkl"
        path.write_bytes(container(body))
        paths.append(("reader", path))
    here = os.getcwd()
    os.chdir(folder)
    try:
        out = hostile.watched(paths)
    finally:
        os.chdir(here)
    assert not (folder / "CANARY").exists()
    sizes = [p.stat().st_size for _, p in paths]
    return {(g, n): {**r, "size": s} for (g, n, _), r, s in zip(CASES, out, sizes, strict=True)}


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, n, _ in CASES])
def test_hostile_pickles_are_refused_in_one_line_and_run_nothing(
    results: dict[tuple[str, str], dict[str, Any]], group: str, name: str
) -> None:
    got = results[group, name]
    assert got["status"] == 4, got
    assert got["error"] in ("UnsafeFileError", "DamagedFileError")
    if group == "code":
        broken = ("list key", "function as a value", "reduce without a tuple")  # refused, but nothing that could run
        assert got["error"] == "UnsafeFileError" or name in broken, got["line"]
    assert "\n" not in got["line"]
    assert got["line"].startswith("latentshift: error: ")
    assert got["events"] == []
    assert got["seconds"] < 2 + 2 * got["size"] / 1e8
    assert got["peak"] < 3 * got["size"] + (256 << 20)


def test_the_line_names_the_reason_and_the_offset(tmp_path: Path) -> None:
    raw = container(call(name_of("os", "system"), PWN))
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(UnsafeFileError) as caught:
        read_tensors(tmp_path / "a.pkl")
    assert "os.system" in str(caught.value)
    assert f"byte {raw.index(b'cos')}" in str(caught.value)


def test_the_same_attacks_do_run_under_the_ordinary_unpickler(tmp_path: Path) -> None:
    """The canary means something: the standard library's loader obeys this file."""
    raw = whole(call(name_of("os", "system"), text(f"touch {tmp_path}/CANARY")))
    subprocess.run([sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"], input=raw, check=True)
    assert (tmp_path / "CANARY").exists()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    raw = container(hostile.tensor((2, 2), (2, 1)))
    path = tmp_path / "cut.pkl"
    for length in range(1, len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(FileError):
            read_tensors(path)
    path.write_bytes(raw + b"x")
    with pytest.raises(DamagedFileError, match="1 bytes follow"):
        read_tensors(path)
    path.write_bytes(raw)
    assert torch.equal(read_tensors(path).tree["x"], torch.zeros(2, 2))


def test_long_bytes_as_text_are_decoded_exactly() -> None:
    rows = torch.arange(1 << 20, dtype=torch.int32)
    got = run(pickle.dumps({"a": rows}, 2))  # protocol 2 stores bytes as text
    assert torch.equal(got["a"], rows)


def test_memory_while_reading_a_big_pickle_stays_near_its_size(tmp_path: Path) -> None:
    """One process reads 96 MB of tensors and grows by less than 1.5 times that."""
    out = io.BytesIO()
    pickle.dump({f"t{i}": torch.zeros(1 << 20) for i in range(24)}, out, 4)
    body = out.getvalue()
    path = tmp_path / "big.pkl"
    path.write_bytes(body)
    (result,) = hostile.watched([("reader", path)])
    assert "without a network" in result["line"]  # it was read to its end first
    assert result["peak"] < 1.5 * len(body)
    assert result["seconds"] < 4
