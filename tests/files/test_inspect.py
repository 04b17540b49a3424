"""What `inspect` tells, and what it refuses; never torch, never a byte of a tensor."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentshift.commands import run
from latentshift.errors import DamagedFileError, FileError
from latentshift.files.inspect import inspect_path
from latentshift.files.names import FASHION32


def header(rows: Any, data: int = 8, length: int | None = None) -> bytes:
    text = json.dumps(rows).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


GOOD = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def test_a_pair_folder_as_its_card_and_tensors_say() -> None:
    told = inspect_path(FASHION32.folder)
    assert told["kind"] == "pair folder"
    assert (told["image"], told["z_size"], told["classes"], told["discriminator"]) == ("1x32x32", 64, None, True)
    from safetensors import safe_open

    for part in ("G", "D"):
        with safe_open(str(FASHION32.folder / f"{part}.safetensors"), "np") as file:
            count = sum(int(np.prod(file.get_slice(k).get_shape())) for k in file.keys())  # noqa: SIM118
        assert told["parts"][part]["parameters"] == count


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    assert inspect_path(tmp_path / "a.npz")["kind"] == "statistics"
    assert inspect_path(tmp_path / "a.npz")["arrays"] == {"mu": "3 float64", "sigma": "3x3 float64"}
    np.save(tmp_path / "z.npy", np.zeros((4, 2), np.float32))
    assert inspect_path(tmp_path / "z.npy")["arrays"] == {"z": "4x2 float32"}
    (tmp_path / "t.safetensors").write_bytes(header(GOOD))
    assert inspect_path(tmp_path / "t.safetensors")["shapes"] == {"w": "2 F32"}


def _zip(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pkl", b"", "empty"),
        ("a.pkl", b"<!DOCTYPE html>", "web page"),
        ("a.pkl", b"version https://git-lfs.github.com/spec/v1", "LFS"),
        ("a.pkl", b"\x1f\x8b\x08", "gzip"),
        ("a.pkl", b"\x80\x04cos\nsystem\n", "no installed reader|could run code"),
        ("a.safetensors", b"\x01", "claims"),
        ("a.safetensors", header(GOOD, length=10**15), "claims"),
        ("a.safetensors", header(GOOD, data=3), "promises 8 bytes"),
        ("a.safetensors", header([1]), "cannot be read"),
        ("a.safetensors", header({"w": {"shape": "x"}}), "cannot be read"),
        ("a.npz", b"PK\x03\x04 cut", "damaged zip"),
        ("a.npz", _zip(**{"a.npy": b"no array"}), "a.npy cannot be read"),
        ("a.npy", b"\x93NUMPY\x01\x00", "not a readable"),
        ("a.pt", _zip(archive__code__x=b"", **{"archive/data.pkl": b""}), "program|TorchScript|torch"),
        ("a.zip", _zip(readme=b""), "no kind that|neither a torch file"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: bytes, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=said):
        inspect_path(tmp_path / name)
    assert run(["inspect", str(tmp_path / name)]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_objects_in_arrays_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DamagedFileError, match="objects"):
        inspect_path(tmp_path / "o.npy")


def test_folders_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="neither a pair folder"):
        inspect_path(tmp_path)
    with pytest.raises(FileError, match="no such"):
        inspect_path(tmp_path / "nowhere")
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(DamagedFileError, match="no JSON"):
        inspect_path(tmp_path)


def test_torch_is_not_needed() -> None:
    code = (
        "import sys; from pathlib import Path; from latentshift.files.inspect import inspect_path;"
        f"inspect_path(Path({str(FASHION32.folder)!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
