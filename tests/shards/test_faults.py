"""Faults on purpose: nothing partial under a final name, nothing lost, nothing doubled, a manifest that verifies."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentshift.errors import DeviceError, NumericError, OutputError
from latentshift.shards.check import verify
from latentshift.shards.drive import Job, alone, hold, read_manifest
from latentshift.shards.maker import Maker
from latentshift.shards.manifest import NAME
from latentshift.shards.store import Folder
from latentshift.shards.watch import Watch

sys.path.insert(0, str(Path(__file__).parent))
faults = importlib.import_module("faults")


def test_two_hundred_cuts() -> None:
    """The short form; `python tests/shards/faults.py --cuts 5000` is the long one."""
    line = [
        sys.executable,
        str(Path(__file__).with_name("faults.py")),
        "--cuts",
        "210",
        "--seed",
        os.environ.get("FAULTS_SEED", "0"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(x) for x in done.stdout.splitlines()]
    assert [r["kind"] for r in rows] == list(faults.SHARE)
    assert sum(r["cut"] for r in rows) >= 200
    for row in rows:
        assert row["lost"] == row["doubled"] == row["partial"] == row["unverified"] == 0, row
        assert {int(k) for k in row["status"]} <= faults.EXPECTED[row["kind"]], row


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = faults.Trouble()
    monkeypatch.setattr(faults, "TROUBLE", made)
    return made


def reference(folder: Path, rows: int = 400, **settings: Any) -> dict[str, bytes]:
    trouble = faults.Trouble()
    for key, value in settings.items():
        setattr(trouble, key, value)
    run = faults.Run(folder, "png", faults.engine_of(trouble), rows)
    run.work()
    return run.files()


def test_memory_that_runs_out_now_and_then_changes_no_byte(tmp_path: Path, trouble: Any) -> None:
    run = faults.Run(tmp_path / "out", "png", faults.engine_of(trouble))
    trouble.memory = 0.05
    for _ in range(30):  # a process that gives up goes on when it is started again
        try:
            run.work()
            break
        except DeviceError as error:
            assert error.exit_status == 7  # noqa: PT017
    trouble.memory = 0.0
    run.work()
    assert run.files() == reference(tmp_path / "plain")
    assert verify(Folder(run.folder), run.plan).as_dict()["complete"]


def test_rows_that_break_are_told_and_spare_the_others(tmp_path: Path, trouble: Any) -> None:
    trouble.nan = True
    run = faults.Run(tmp_path / "out", "png", faults.engine_of(trouble))
    run.work()
    manifest, wrong = read_manifest(Folder(run.folder), run.plan)
    watch = Watch(Folder(run.folder), manifest)
    broken = np.concatenate([np.load(p)["z0"][:, 0] > 1.5 for p in sorted(run.folder.glob("latents-*.npz"))])
    assert not wrong
    assert 0 < watch.totals.rows - watch.totals.finite == broken.sum() < 60
    whole = reference(tmp_path / "plain")
    scores = lambda files: np.concatenate([np.load(p)["score"] for p in sorted(files.glob("latents-*.npz"))])  # noqa: E731
    ends = np.concatenate([np.load(p)["z"][:, 0] for p in sorted((tmp_path / "plain").glob("latents-*.npz"))])
    spared = ~broken & (ends <= 1.5)  # a candidate that breaks never wins, so rows that would have chosen one differ
    assert spared.sum() > 300
    assert np.array_equal(scores(run.folder)[spared], scores(tmp_path / "plain")[spared])
    assert len(whole) == len(run.files())


def test_a_run_in_which_every_row_breaks_fails(tmp_path: Path, trouble: Any) -> None:
    engine = faults.engine_of(trouble)
    store, plan = Folder(tmp_path), faults.Run(tmp_path, "png", engine, 40).plan
    manifest, _ = read_manifest(store, plan)
    job = Job(store, plan, manifest, Watch(store, manifest))
    alone(job, Maker(plan, engine, store), manifest.missing())
    job.check()
    job.watch.totals.stopped = {"nan": 40}
    with pytest.raises(NumericError):
        job.check()


def test_two_processes_in_one_folder(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(OutputError, match="another process"), hold(tmp_path, wait=0.1):
        pass
    with hold(tmp_path, share="rank0"), hold(tmp_path, share="rank1"):
        for name in ("", "rank1"):
            with pytest.raises(OutputError), hold(tmp_path, share=name, wait=0.1):
                pass
    with hold(tmp_path):
        pass


def test_a_small_disk_that_is_full(tmp_path: Path) -> None:
    """A tmpfs of 400 kB where that may be mounted; the rest of the run follows once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a tmpfs may not be mounted here (the harness fills disks by the same error, at random moments)")
    try:
        run = faults.Run(disk / "out", "tar", faults.engine_of(faults.Trouble()), 2000)
        with pytest.raises(OutputError, match="no space") as caught:
            run.work()
        assert caught.value.exit_status == 6
        found = verify(Folder(run.folder), run.plan)
        assert found.sound
        assert 0 < found.missing < len(run.plan)
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        run.work()
        whole = faults.Run(tmp_path / "plain", "tar", faults.engine_of(faults.Trouble()), 2000)
        whole.work()
        assert run.files() == whole.files()
        lines = (run.folder / NAME).read_text().splitlines()
        assert len(lines) == len({json.loads(x)["index"] for x in lines}) == len(run.plan)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
