"""The help: its examples run as they stand, it is quick, and neither it nor a listing ever loads torch."""

from __future__ import annotations

import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from latentshift.commands import COMMANDS, group, run

ROOT = Path(__file__).parents[2]
#: commands that other branches register bring tests of their own for examples that need files
NEED_FILES = {"report": "a run", "inspect": "a pair", **dict.fromkeys(("status", "verify", "top"), "a run in shards")}
NEED_FILES |= {"evaluate": "a run", "stats": "pictures"}
NEED_FILES |= {"critic": "real images", "convert": "what the line before it wrote"}
QUICK = [["--help"], ["--version"], ["models"], ["strategies"], ["critics"], ["recipes"], ["plugins"], ["completion", "bash"]]


def examples(name: str) -> list[str]:
    """Return the lines under `Examples:` in a command's help."""
    command = group if name == "" else group.get_command(click.Context(group), name)
    assert command is not None
    text = command.help or ""
    block = text.partition("Examples:")[2]
    return [line.strip() for line in block.splitlines() if line.strip().startswith("latentshift ")]


def test_every_command_has_an_example() -> None:
    assert [name for name in ("", *COMMANDS) if not examples(name)] == []


@pytest.mark.parametrize("line", [line for name in ("", *COMMANDS) for line in examples(name) if name not in NEED_FILES])
def test_examples_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if "ring" in line.split():
        from latentshift.files.names import RING

        if not RING.folder.is_dir():
            pytest.skip("the pair 'ring' is not in this checkout")
    monkeypatch.chdir(tmp_path)
    status = run(shlex.split(line)[1:])
    assert status == 0, capsys.readouterr().err


def save_photos(path: Path, rows: int = 260) -> None:
    """Write what stands for real images of the bundled pair: samples of it with a little noise."""
    import numpy as np
    import torch

    from latentshift import load
    from latentshift.files.pictures import to_bytes
    from latentshift.noise import latents

    pair = load("fashion32")
    with torch.no_grad():
        x = pair.generate(torch.from_numpy(latents(range(5000, 5000 + rows), pair.space.shape, pair.space.prior)))
    noise = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    np.savez(path, images=to_bytes(x + noise))


def test_examples_that_need_files_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentshift.files.names import FASHION32

    monkeypatch.chdir(tmp_path)
    assert run(["refine", "--num", "2", "--quiet"]) == 0
    (tmp_path / "my-pair").symlink_to(FASHION32.folder)
    many = ["refine", "--model", "ring", "--num", "20", "--strategy", "ifgsm", "--steps", "1", "--shard-size", "10"]
    assert run([*many, "--quiet", "--outdir", "many"]) == 0
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for picture in (tmp_path / "latentshift-out").rglob("seed*.png"):
        (tmp_path / "photos" / picture.name).symlink_to(picture)
    save_photos(tmp_path / "photos.npz")
    lines = [line for name in NEED_FILES for line in examples(name)]
    assert len(lines) >= 5
    for line in lines:
        assert run(shlex.split(line)[1:]) == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("words", [*QUICK, *[[name, "--help"] for name in COMMANDS]], ids=" ".join)
def test_quick_and_without_torch(words: list[str]) -> None:
    code = f"import sys; from latentshift.commands import run; s = run({words!r}); sys.exit(s or 90 * ('torch' in sys.modules))"
    best = float("inf")
    for _ in range(6):  # the machine may be busy: the quickest of six is the one that counts
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, f"status {done.returncode} (90: torch was imported) {done.stderr}"
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if best < 0.3:
            break
    assert best < 0.3


@pytest.mark.parametrize(
    "words", [*QUICK[2:7], ["models", "fashion32"], ["strategies", "ifgsm"], ["recipes", "auto"]], ids=" ".join
)
def test_tables_fit_80_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_no_message_has_an_unfilled_place(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert run([name, "--help"]) == 0
    assert not re.search(r"\{\w+\}", capsys.readouterr().out)
