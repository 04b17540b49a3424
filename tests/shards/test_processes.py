"""The same bytes however many processes make them, and whichever of them die on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from latentshift.commands import run

WORDS = ["refine", "--model", "ring", "--strategy", "ifgsm", "--steps", "2", "--chunk", "128", "--quiet"]
SIZE = ["--num", "4000", "--shard-size", "250", "--shards-as", "tar", "--no-report"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in [*folder.glob("shard-*"), *folder.glob("latents-*")]}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    assert run([*WORDS, *SIZE, "--outdir", str(out)]) == 0
    return out


def complete(folder: Path, alone: Path) -> None:
    """Raise where a folder is not the whole run, every shard once."""
    assert content(folder) == content(alone)
    indices = [json.loads(x)["index"] for x in (folder / "manifest.jsonl").read_text().splitlines()]
    assert sorted(indices) == list(range(16))
    record, theirs = (json.loads((p / "run.json").read_text()) for p in (folder, alone))
    assert record["status"] == "complete"
    for key in ("ledger", "score_before", "score_after", "gain", "stopped", "rows"):
        assert record[key] == pytest.approx(theirs[key]), key


def started(folder: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "latentshift", *WORDS, *SIZE, "--outdir", str(folder), *more]
    return subprocess.Popen(words, env={**ENV, **env}, stderr=subprocess.PIPE, text=True)


def wait_for_lines(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    path = folder / "manifest.jsonl"
    while (not path.exists() or path.read_bytes().count(b"\n") < count) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for an init that does not reap is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path, alone: Path) -> None:
    process = started(tmp_path / "out", "--workers", "2")
    wait_for_lines(tmp_path / "out", 3, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    complete(tmp_path / "out", alone)
    assert "it is replaced" in (tmp_path / "out/run.log").read_text()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_workers_end_with_their_run_and_another_run_waits_for_them(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "out"
    process = started(out, "--workers", "2")
    wait_for_lines(out, 2, process)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert run(["refine", "--resume", str(out), "--quiet"]) == 0  # holds the folder: the workers have let go of it
    assert not [pid for pid in workers if alive(pid)]
    complete(out, alone)


def test_ranks_of_torchrun_without_a_flag(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "out"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "TORCHELASTIC_RUN_ID": "here"}
    ranks = [started(out, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in (1, 0)]
    errs = [p.communicate(timeout=300)[1] for p in ranks]
    assert [p.returncode for p in ranks] == [0, 0], errs
    complete(out, alone)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "out"
    process = started(out)
    wait_for_lines(out, 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert f"latentshift refine --resume {out}" in err
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert run(["refine", "--resume", str(out), "--quiet"]) == 0
    complete(out, alone)


def test_an_error_of_a_worker_is_the_errors_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from latentshift.errors import RequestError
    from latentshift.seeds import SeedRanges
    from latentshift.shards.drive import Job
    from latentshift.shards.local import Pool, command
    from latentshift.shards.manifest import Manifest
    from latentshift.shards.plan import ShardPlan
    from latentshift.shards.store import Folder
    from latentshift.shards.watch import Watch

    out = tmp_path / "out"
    assert run([*WORDS, "--num", "20", "--shard-size", "10", "--outdir", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"model_sha256": "0" * 64}))
    plan, store = ShardPlan(SeedRanges.parse("0-19"), 10), Folder(out)
    manifest = Manifest(plan)
    with pytest.raises(RequestError, match="the model's files changed"):
        Pool(Job(store, plan, manifest, Watch(store, manifest)), [*command(), str(out)], ["cpu"]).run([0, 1])


def ray_actors(ray: Any) -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and b"ray::Actor" in _line(p)]


def _line(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.filterwarnings("ignore")
def test_ray_with_an_actor_killed_half_way(tmp_path: Path, alone: Path) -> None:
    ray = pytest.importorskip("ray")
    out, killed = tmp_path / "out", []

    def kill() -> None:
        until = time.monotonic() + 300
        path = out / "manifest.jsonl"
        while (not path.exists() or path.read_bytes().count(b"\n") < 6) and time.monotonic() < until:
            time.sleep(0.005)
        pids = ray_actors(ray)
        killed.append(pids[0])
        os.kill(pids[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert run([*WORDS, *SIZE, "--outdir", str(out), "--engine", "ray", "--workers", "3"]) == 0
    thread.join()
    assert killed
    complete(out, alone)


@pytest.mark.filterwarnings("ignore")
def test_no_cluster_at_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    words = [*WORDS, *SIZE, "--outdir", str(tmp_path / "out"), "--engine", "ray", "--address", "127.0.0.1:9"]
    assert run(words) == 3
    assert "no Ray cluster answers" in capsys.readouterr().err
