"""What is refused: one line, the status, the way out."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from latentshift.commands import run

from .test_runs import refused

RING = ["refine", "--model", "ring", "--strategy", "ifgsm", "--steps", "1", "--quiet"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("many") / "out"
    assert run([*RING, "--num", "40", "--shard-size", "10", "--outdir", str(out)]) == 0
    return out


@pytest.fixture
def cut(many: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(many, tmp_path / "cut"))
    (copy / "manifest.jsonl").write_text("".join((copy / "manifest.jsonl").read_text().splitlines(keepends=True)[:2]))
    return copy


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (2, "1 row or more", ["--shard-size", "0"]),
        (2, "1 row or more", ["--shard-size", "-5"]),
        (2, "named twice", ["--shard-size", "10", "--seeds", "0-9,5"]),
        (2, "named twice", ["--shard-size", "10", "--seeds", "3,3"]),
        (2, "both choose", ["--shard-size", "10", "--seeds", "3", "--num", "4"]),
        (2, "at least 1", ["--shard-size", "10", "--num", "0"]),
        (2, "at least 1", ["--shard-size", "10", "--workers", "0"]),
        (2, "cannot read the devices", ["--shard-size", "10", "--devices", "cpu,"]),
        (2, "--engine ray", ["--shard-size", "10", "--address", "127.0.0.1:1"]),
        (2, "made from seeds", ["--shard-size", "10", "--latents", "x.npz"]),
        (2, "--gif", ["--shard-size", "10", "--gif"]),
        (2, "cannot appear whole", ["--shard-size", "10", "--outdir", "memory://x/y"]),
        (3, "no store for this address", ["--shards-as", "tar", "--outdir", "nosuchstore://x/y"]),
        (3, "no classes", ["--shard-size", "10", "--class", "3"]),
        (7, "no device", ["--shard-size", "10", "--devices", "cuda:97"]),
    ],
)
def test_options(
    status: int,
    said: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, status, *RING, *words)


def test_no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused(capsys, 3, *RING, "--engine", "ray", "--outdir", tmp_path / "out")
    assert "latentshift[ray]" in line


def test_no_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "latentshift[parquet]" in refused(capsys, 3, *RING, "--shard-size", "9", "--shards-as", "parquet")
    assert not list(tmp_path.iterdir())


def test_folders_of_others(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in refused(capsys, 6, *RING, "--shard-size", "10", "--outdir", many)
    (tmp_path / "x").write_text("mine")
    refused(capsys, 6, *RING, "--shard-size", "10", "--outdir", tmp_path)
    for words in (["verify"], ["status"], ["top"], ["refine", "--resume"]):
        refused(capsys, 4, *words, tmp_path)
    refused(capsys, 2, "top", many, "-k", "0")


def test_a_record_that_lacks_something(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((cut / "run.json").read_text())
    del record["request"]["num"]
    (cut / "run.json").write_text(json.dumps(record))
    for command in ("verify", "status", "top"):
        assert "the record lacks 'num'" in refused(capsys, 4, command, cut)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_sha256": "0" * 64}, "the model's files changed"),
        ({"recipe": {"name": "other"}}, "recipe changed from"),
        ({"latentshift": "0.0.1"}, "latentshift changed from '0.0.1'"),
        ({"versions": {"latentshift": "0.1.0", "a-plugin": "2"}}, "versions changed from"),
    ],
)
def test_what_changed_between_a_cut_and_its_resume(
    change: dict[str, Any], said: str, cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((cut / "run.json").read_text())
    (cut / "run.json").write_text(json.dumps(record | change))
    before = {p.name for p in cut.iterdir()}
    assert said in refused(capsys, 3, "refine", "--resume", cut, "--quiet")
    assert {p.name for p in cut.iterdir()} == before


def test_options_that_change_the_shards(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--shard-size", "20"], ["--shards-as", "tar"], ["--num", "50"], ["--steps", "2"]):
        assert "changed from" in refused(capsys, 3, "refine", "--resume", cut, *words)


def test_a_worker_of_another_version(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentshift.commands.shardjob import open_maker
    from latentshift.errors import RequestError

    real = importlib.metadata.version
    monkeypatch.setattr("latentshift.commands.shardjob.version", lambda name: real(name) + ".1")
    with pytest.raises(RequestError, match="worker-3 cannot work on this run: versions changed"):
        open_maker(str(cut), "worker-3", "cpu")


def test_a_worker_without_the_plug_in(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentshift.commands.shardjob import open_maker
    from latentshift.errors import LatentshiftError
    from latentshift.shards.local import heard, told

    record = json.loads((cut / "run.json").read_text())
    record["request"]["model"] = "their-network"
    with pytest.raises(LatentshiftError) as caught:
        open_maker(str(cut), "worker-3", "cpu", record)
    assert caught.value.exit_status == heard(told(caught.value)).exit_status == 3


def test_a_store_that_refuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = pytest.importorskip("fsspec.implementations.memory")

    class Closed(memory.MemoryFileSystem):  # type: ignore[misc,name-defined]
        protocol = "closedstore"

        def pipe_file(self, *args: Any, **more: Any) -> None:
            raise PermissionError("403 Forbidden")

    fsspec.register_implementation("closedstore", Closed, clobber=True)
    line = refused(capsys, 6, *RING, "--shards-as", "tar", "--num", "9", "--outdir", "closedstore://bucket/run")
    assert "403" in line


def test_an_address(capsys: pytest.CaptureFixture[str], many: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    place = "memory://bucket/run"
    assert run([*RING, "--num", "40", "--shard-size", "10", "--shards-as", "tar", "--outdir", place]) == 0
    assert run(["verify", place, "--quiet"]) == 0
    assert run(["refine", "--resume", place, "--quiet"]) == 0
    plain = tmp_path / "plain"
    assert run([*RING, "--num", "40", "--shard-size", "10", "--shards-as", "tar", "--outdir", str(plain)]) == 0
    import fsspec

    store = fsspec.filesystem("memory")
    for path in [*plain.glob("shard-*"), *plain.glob("latents-*")]:
        assert store.cat_file(f"/bucket/run/{path.name}") == path.read_bytes()
    refused(capsys, 6, *RING, "--shards-as", "tar", "--outdir", place)
