"""What is installed: a stranger's package is listed, a broken one is named, and neither stops anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALL = [sys.executable, "-c", "from latentshift.commands import main; main()"]


@pytest.fixture
def strangers(tmp_path: Path) -> dict[str, str]:
    """An environment with a package that works and one that does not."""
    (tmp_path / "good_one.py").write_text(
        "from latentshift.strategies.gradient import IFGSM\nclass Mine(IFGSM):\n    '''A method of ours.'''\n"
    )
    (tmp_path / "bad_one.py").write_text("raise RuntimeError('operator does not exist')\n")
    for name, group, point in (("good", "strategies", "mine = good_one:Mine"), ("bad", "critics", "worse = bad_one:Critic")):
        info = tmp_path / f"{name}-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        (info / "entry_points.txt").write_text(f"[latentshift.{group}]\n{point}\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def test_both_are_told(strangers: dict[str, str]) -> None:
    done = subprocess.run([*CALL, "plugins"], env=strangers, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "good 2.0\n  strategies: mine\n" in done.stdout
    assert "broken: worse (critics) of bad 2.0: RuntimeError: operator does not exist" in " ".join(done.stdout.split())
    told = json.loads(subprocess.run([*CALL, "plugins", "--json"], env=strangers, capture_output=True, text=True).stdout)
    assert [b["name"] for b in told["broken"]] == ["worse"]
    assert any(p["package"] == "good 2.0" and p["strategies"] == ["mine"] for p in told["packages"])


def test_a_broken_one_stops_nothing(strangers: dict[str, str]) -> None:
    for words in (["--help"], ["critics"], ["strategies", "mine"], ["refine", "--help"]):
        done = subprocess.run([*CALL, *words], env=strangers, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([*CALL, "critics"], env=strangers, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert "'worse' of bad 2.0 cannot be loaded" in done.stderr
