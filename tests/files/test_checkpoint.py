"""`read_tensors`: every kind of honest file comes out as it was written, everything else is named and refused."""

# ruff: noqa: E501  (tables of bytes and of cases read better in one line)

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import os
import random
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from latentshift.errors import DamagedFileError, FileError, UnsafeFileError
from latentshift.files.checkpoint import read_tensors
from latentshift.files.values import Opaque

sys.path.insert(0, str(Path(__file__).parent))
hostile = importlib.import_module("hostile")


def same(a: Any, b: Any) -> bool:
    """Deep equality with tensors."""
    if isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b.detach())
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def checkpoint() -> dict[str, Any]:
    """A checkpoint with all that people keep in one."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters())
    half = {"h": torch.randn(5).half(), "b": torch.randn(5).bfloat16(), "i": torch.arange(7), "t": torch.tensor([True, False])}
    return {
        "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 12, "loss": 0.25, "names": ["a", None, True],
        "size": torch.Size([2, 3]), "half": half, "last": net[0].weight, "channels": net[0].weight.detach().to(memory_format=torch.channels_last),
    }  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_torch_files_come_out_as_they_were_written(tmp_path: Path, legacy: bool) -> None:
    value = checkpoint()
    path = tmp_path / "model.whatever"
    path.write_bytes(hostile.torch_file(value, legacy=legacy))
    contents = read_tensors(path)
    assert contents.kind == ("torch-legacy" if legacy else "torch-zip")
    assert same(contents.tree, value)
    assert contents.tree["state_dict"]._metadata == dict(value["state_dict"]._metadata)
    assert contents.size == path.stat().st_size
    assert contents.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert contents.notes == ()
    shared = (
        contents.tree["last"].untyped_storage().data_ptr(),
        contents.tree["state_dict"]["0.weight"].untyped_storage().data_ptr(),
    )
    assert shared[0] == shared[1]  # tied tensors stay tied


def test_safetensors_and_npz_come_out_as_they_were_written(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(5), "c": torch.randn(3).bfloat16(), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "x", metadata={"format": "pt"})
    contents = read_tensors(tmp_path / "x")
    assert contents.kind == "safetensors"
    assert same({k: contents.tree[k] for k in tensors}, tensors)
    arrays = {
        "f": np.random.rand(2, 3),
        "i": np.arange(4),
        "F": np.asfortranarray(np.eye(3)[:2]),
        "s": np.array(["ab", "c"]),
        "b": np.float32(3),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "y.npz", **arrays)
        contents = read_tensors(tmp_path / "y.npz")
        assert contents.kind == "npz"
        for key, want in arrays.items():
            got = contents.tree[key]
            assert np.array_equal(got if isinstance(got, list) else got.numpy(), want), key


def test_bystanders_are_kept_apart_and_named(tmp_path: Path) -> None:
    import argparse

    value = {"g_ema": {"w": torch.ones(2)}, "args": argparse.Namespace(size=256)}
    (tmp_path / "a.pt").write_bytes(hostile.torch_file(value))
    contents = read_tensors(tmp_path / "a.pt")
    assert isinstance(contents.tree["args"], Opaque)
    assert same(contents.tree["g_ema"], value["g_ema"])
    assert any("args holds argparse.Namespace" in n for n in contents.notes)


def test_not_finite_weights_are_counted_by_name(tmp_path: Path) -> None:
    w = torch.ones(3, 4)
    w[0, :2] = float("nan")
    w[1, 1] = float("inf")
    (tmp_path / "a.pt").write_bytes(hostile.torch_file({"net": {"w": w, "ok": torch.ones(2)}}))
    assert read_tensors(tmp_path / "a.pt").notes == ("net.w: 3 of 12 values are NaN or infinite",)


def rezip(
    raw: bytes,
    change: dict[str, tuple[str, bytes] | None] | None = None,
    extra: Sequence[tuple[Any, bytes]] = (),
    method: int = 0,
) -> bytes:
    """A torch zip written again, with members changed, left out (None), or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w", method) as new:
        for info in old.infolist():
            name, body = info.filename, old.read(info)
            told = (change or {}).get(name.partition("/")[2], (name, body))
            if told is not None:
                new.writestr(told[0] or name, told[1])
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name given twice
            for info, body in extra:
                new.writestr(info, body)
    return out.getvalue()


def overlapping(raw: bytes) -> bytes:
    """Two members of the directory that point at one place."""
    with zipfile.ZipFile(io.BytesIO(raw)) as z:
        a, b = (z.getinfo(n) for n in z.namelist() if "/data/" in n)
    entry_b = raw.rfind(b.filename.encode()) - 46
    return raw[: entry_b + 42] + struct.pack("<I", a.header_offset) + raw[entry_b + 46 :]


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("archive/link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def safetensors_file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=pickled)
    return out.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, body in members.items():
            z.writestr(name, body)
    return out.getvalue()


GOOD = hostile.torch_file({"a": torch.arange(6.0), "b": torch.ones(6)})
LEGACY = hostile.torch_file({"a": torch.arange(6.0), "b": torch.ones(6)}, legacy=True)
ATTACK = hostile.Attack(os.system, "touch CANARY")
BIG = npy(np.zeros(1 << 10))
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

#: name -> (bytes, a word of the message)
REFUSED: dict[str, tuple[bytes, str]] = {
    "os.system in a torch zip": (hostile.torch_file({"w": torch.ones(2), "x": ATTACK}), "system"),
    "os.system in a legacy file": (hostile.torch_file({"w": torch.ones(2), "x": ATTACK}, legacy=True), "system"),
    "eval in a torch zip": (hostile.torch_file({"x": hostile.Attack(eval, "1")}), "eval"),
    "whole module": (hostile.torch_file(torch.nn.Sequential(torch.nn.Linear(2, 2))), "--trust-code"),
    "whole module, legacy": (hostile.torch_file(torch.nn.Linear(2, 2), legacy=True), "--trust-code"),
    "module in a dict": (hostile.torch_file({"net": torch.nn.ReLU()}), "program"),
    "TorchScript": (rezip(GOOD, extra=[("archive/constants.pkl", b""), ("archive/code/a.py", b"")]), "TorchScript"),
    "torch.export": (zipped({"m/archive_format": b"pt2", "m/models/model.json": b"{}"}), "torch.export"),
    "zip of something else": (zipped({"readme.txt": b"hello"}), "neither"),
    "empty zip": (zipped({}), "neither"),
    "member with ..": (rezip(GOOD, extra=[("archive/../../evil", b"x")]), "outside"),
    "absolute member": (rezip(GOOD, extra=[("/etc/evil", b"x")]), "outside"),
    "drive member": (rezip(GOOD, extra=[("C:/evil", b"x")]), "outside"),
    "backslash member": (rezip(GOOD).replace(b"archive/version", b"archive\\version"), "outside"),
    "symlink member": (rezip(GOOD, extra=[(link(), b"/etc/passwd")]), "link"),
    "duplicate member": (rezip(GOOD, extra=[("archive/data/0", bytes(24))]), "twice"),
    "overlapping members": (overlapping(GOOD), ""),
    "compressed torch file": (rezip(GOOD, method=zipfile.ZIP_DEFLATED), "compressed"),
    "missing storage": (rezip(GOOD, {"data/1": None}), "not in the file"),
    "short storage": (rezip(GOOD, {"data/1": ("", bytes(20))}), "20 bytes"),
    "big-endian": (rezip(GOOD, {"byteorder": ("", b"big")}), "little-endian"),
    "two data.pkl": (rezip(GOOD, extra=[("other/data.pkl", b"")]), "neither"),
    "flipped weight in a zip": (GOOD.replace(struct.pack("<f", 5.0), struct.pack("<f", 9.0)), "checksum"),
    "zip cut short": (GOOD[:-30], "cut short"),
    "bytes after a zip": (GOOD + b"more", "follow"),
    "trailing pickle in data.pkl": (rezip(GOOD, {"data.pkl": ("", zipfile.ZipFile(io.BytesIO(GOOD)).read("archive/data.pkl") + b"N.")}), "follow"),
    "zip bomb": (zipped({f"a{i}.npy": npy(np.zeros(1 << 22)) for i in range(8)}, zipfile.ZIP_DEFLATED), "unfolds"),
    "npz of objects": (zipped({"a.npy": npy(np.array([ATTACK, 1], object), True)}), "plain numbers"),
    "npz with a lying header": (zipped({"a.npy": BIG.replace(b"(1024,)", b"(9999,)")}), "9999"),
    "npz cut inside": (zipped({"a.npy": BIG[:-8]}), "bytes"),
    "legacy with bytes after it": (LEGACY + b"x", "follow"),
    "legacy cut short": (LEGACY[:-4], "left"),
    "legacy of another magic": (LEGACY[:9] + b"\x00" + LEGACY[10:], "magic"),
    "legacy that lies about a length": (LEGACY.replace(struct.pack("<q", 6), struct.pack("<q", 7), 1), "elements"),
    "safetensors header too long": (safetensors_file({"a": ENTRY}, bytes(8)).replace(b"\x3f", b"\xff", 1)[:4] + b"\x7f" + bytes(3) + b"{}", "header"),
    "safetensors over 100 MB": (struct.pack("<Q", 100_000_001) + b"{", "header"),
    "safetensors no JSON": (safetensors_file(b"{nothing"), "JSON"),
    "safetensors deep JSON": (safetensors_file(b'{"a":' + b"[" * 100_000), "JSON"),
    "safetensors overlap": (safetensors_file({"a": ENTRY, "b": ENTRY}, bytes(8)), "overlaps"),
    "safetensors gap": (safetensors_file({"a": {**ENTRY, "data_offsets": [8, 16]}}, bytes(16)), "gap"),
    "safetensors past the end": (safetensors_file({"a": ENTRY}, bytes(4)), "take"),
    "safetensors unknown dtype": (safetensors_file({"a": {**ENTRY, "dtype": "F33"}}, bytes(8)), "dtype"),
    "safetensors wrong size": (safetensors_file({"a": {**ENTRY, "shape": [3]}}, bytes(8)), "takes"),
    "safetensors negative": (safetensors_file({"a": {**ENTRY, "shape": [-2]}}, bytes(8)), "whole"),
    "safetensors name twice": (safetensors_file(b'{"a":' + json.dumps(ENTRY).encode() + b',"a":' + json.dumps(ENTRY).encode() + b"}", bytes(8)), "twice"),
    "login page": (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
    "page after blank lines": (b"\n\n<html>", "web page"),
    "git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "git-LFS"),
    "JSON error": (b'{"error": "Not Found", "status": 404, "more": "text"}', "JSON"),
    "gzip": (gzip.compress(GOOD), "gzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7z"),
    "tar": (bytes(257) + b"ustar\x00" + bytes(250), "tar"),
    "text": (b"Too many requests, try again later.", "text"),
    "npy": (BIG, "numpy array"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(30), "picture"),
    "protocol 0 pickle": (b"(dp0\nS'a'\np1\nI1\ns.", "protocol 0"),
    "zeros": (bytes(1000), "zeros"),
    "empty": (b"", "empty"),
    "plain pickle of numbers": (hostile.whole(hostile.number(3)), "without a network"),
    "pickle of another project": (hostile.whole(hostile.call(hostile.name_of("networks.generator", "Generator"))), "StyleGAN-T"),
    "TensorFlow StyleGAN": (hostile.whole(hostile.name_of("dnnlib.tflib.network", "Network") + hostile.op("EMPTY_TUPLE") + hostile.op("NEWOBJ")), "legacy.py"),
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All refused files read in one child process under an audit hook."""
    folder = tmp_path_factory.mktemp("refused")
    paths = []
    for i, (body, _) in enumerate(REFUSED.values()):
        (folder / str(i)).write_bytes(body)
        paths.append(("reader", folder / str(i)))
    here = os.getcwd()
    os.chdir(folder)
    try:
        out = hostile.watched(paths)
    finally:
        os.chdir(here)
    assert not (folder / "CANARY").exists()
    return {n: {**r, "size": p.stat().st_size} for n, r, (_, p) in zip(REFUSED, out, paths, strict=True)}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_named_in_one_line_and_runs_nothing(results: dict[str, dict[str, Any]], name: str) -> None:
    got = results[name]
    assert got["status"] == 4, got
    assert got["error"] in ("UnsafeFileError", "DamagedFileError"), got
    assert REFUSED[name][1] in got["line"]
    assert "\n" not in got["line"]
    assert got["events"] == []
    assert got["seconds"] < 2 + 2 * got["size"] / 1e8
    assert got["peak"] < 3 * got["size"] + (256 << 20)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, word in [
        (tmp_path, "folder"),
        (tmp_path / "pipe", "FIFO"),
        (Path("/dev/zero"), "device"),
        (tmp_path / "no", "no such file"),
    ]:
        with pytest.raises(FileError, match=word) as caught:
            read_tensors(path)
        assert caught.value.exit_status == 4


def test_code_in_a_real_torch_file_is_unsafe_and_names_its_offset(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(REFUSED["os.system in a torch zip"][0])
    with pytest.raises(UnsafeFileError, match=r"posix\.system|nt\.system") as caught:
        read_tensors(tmp_path / "a.pt")
    offset = int(str(caught.value).split("byte ")[1].split(".")[0])
    assert (tmp_path / "a.pt").read_bytes()[offset:].startswith(b"cposix\nsystem")


@pytest.mark.parametrize("raw", [GOOD, LEGACY], ids=["zip", "legacy"])
def test_every_truncation_of_a_torch_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "cut.pt"
    for length in [*range(0, len(raw), 7), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises((DamagedFileError, UnsafeFileError)):
            read_tensors(path)


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """One to four small damages: bytes flipped, cut, doubled, moved, or set to numbers that lengths fear."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out))
        what = rng.randrange(6)
        if what == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[at] = rng.choice((0, 1, 0x2E, 0x52, 0x62, 0x63, 0x80, 0xFF))
        elif what == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(raw))))
        elif what == 3:
            del out[at : at + rng.choice((1, 4, 100))]
        elif what == 4:
            out[at:at] = out[at : at + rng.choice((1, 8, 64))]
        else:
            other = rng.randrange(len(out))
            out[at : at + 8], out[other : other + 8] = out[other : other + 8], out[at : at + 8]
        if not out:
            return b"\x80"
    return bytes(out)


def header_of(raw: bytes) -> list[int]:
    """Places of a StyleGAN pickle that are opcodes rather than weights: mutations there matter most."""
    import pickletools

    return [pos for _, _, pos in pickletools.genops(raw) if pos is not None]


def verdict(got: dict[str, Any], sound: dict[str, list[str]]) -> str:
    """What came of a damaged file, against the tensors of the sound one."""
    if got["status"]:
        return "refused"
    tensors = got["tensors"]
    if not any(name.startswith("D.") for name in tensors) and any(name.startswith("D.") for name in sound):
        return "without D"
    if {k: v[0] for k, v in tensors.items()} != {k: v[0] for k, v in sound.items()}:
        return "other names or shapes"
    return "unchanged" if tensors == sound else "other values"


@pytest.mark.slow
def test_mutated_files_are_refused_or_read_and_run_nothing(tmp_path: Path) -> None:
    """LATENTSHIFT_FUZZ_CASES mutations (default 300) of every kind of file, LATENTSHIFT_FUZZ_SEED their seed.

    What is read is compared with the file before its damage. Members of a zip have a checksum: no changed tensor may come out.
    Pickles, legacy torch files and safetensors have none: changed weights cannot be seen, but a style network must have
    the tensors that its arguments ask for, every one.
    """
    count, seed = int(os.environ.get("LATENTSHIFT_FUZZ_CASES", "300")), int(os.environ.get("LATENTSHIFT_FUZZ_SEED", "0"))
    rng = random.Random(seed)
    save_file({"a": torch.randn(3, 4), "b": torch.arange(9)}, tmp_path / "s.safetensors")
    np.savez(tmp_path / "n.npz", a=np.random.rand(3, 4), b=np.arange(9))
    seeds = [
        hostile.container(hostile.tensor((2, 2), (2, 1))), hostile.torch_file(checkpoint()),
        hostile.torch_file(checkpoint(), legacy=True), (tmp_path / "s.safetensors").read_bytes(), (tmp_path / "n.npz").read_bytes(),
    ]  # fmt: skip
    kinds = ["reader"] * len(seeds)
    shared = Path(os.environ.get("LATENTSHIFT_SHARED") or Path(__file__).resolve().parents[2].parent / "shared") / "reference"
    for path in (
        sorted(shared.glob("stylegan/*.pkl"))
        + sorted(shared.glob("biggan/bgp-32-plain/*.pth"))
        + sorted(shared.glob("classic/**/*.pt"))
    ):
        seeds.append(path.read_bytes())
        kinds.append("stylegan" if path.suffix == ".pkl" else "reader")
    warm = sorted(shared.glob("stylegan/sg[23]*.pkl"))
    places = {i: header_of(raw) for i, raw in enumerate(seeds) if kinds[i] == "stylegan"}
    whole = []
    for i, raw in enumerate(seeds):
        (tmp_path / f"whole{i}").write_bytes(raw)
        whole.append((kinds[i], tmp_path / f"whole{i}"))
    read = hostile.watched(whole, warm)
    assert [got["status"] for got in read] == [0] * len(seeds)
    sound = [got["tensors"] for got in read]
    tally = dict.fromkeys(("refused", "unchanged", "other values", "other names or shapes", "without D"), 0)
    for start in range(0, count, 100):
        cases = []
        for case in range(start, min(start + 100, count)):
            i = case % len(seeds)
            raw = mutated(seeds[i], rng)
            if i in places and rng.random() < 0.7:  # aim at the opcodes: weights are most of the bytes
                at = rng.choice(places[i])
                raw = seeds[i][:at] + mutated(seeds[i][at : at + 24], rng) + seeds[i][at + 24 :]
            path = tmp_path / f"case{case}"
            path.write_bytes(raw)
            cases.append((kinds[i], path))
        for n, ((kind, path), got) in enumerate(zip(cases, hostile.watched(cases, warm), strict=True), start):
            assert got["status"] in (0, 4), (kind, path.name, got)
            assert got["events"] == [], (kind, path.name, got)
            assert got["seconds"] < 4, (kind, path.name, got)
            assert got["peak"] < 3 * path.stat().st_size + (256 << 20), (kind, path.name, got)
            what, i = verdict(got, sound[n % len(seeds)]), n % len(seeds)
            assert what in ("refused", "unchanged") or not seeds[i].startswith(b"PK"), (kind, path.name, what)
            assert what != "other names or shapes" or kind == "reader", (kind, path.name)
            tally[what] += 1
            path.unlink()
    print(f"fuzz: seed {seed}, {count} cases, {tally}")
    assert tally["refused"] > count / 4
