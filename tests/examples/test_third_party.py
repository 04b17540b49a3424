"""The example of a stranger's package: installed somewhere, found, used by every command, and its own tests pass."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/third_party"


@pytest.mark.slow
def test_a_stranger_s_family_is_installed_and_used(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run([*pip, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def command(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    command("-m", "tilegan", "tiles.safetensors")
    assert "latentshift-tilegan" in command("-m", "latentshift", "plugins")
    told = json.loads(command("-m", "latentshift", "inspect", "tiles.safetensors", "--json"))
    assert (told["family"], told["discriminator"], told["image"]) == ("tilegan", True, "3x16x16")
    words = ("--num", "3", "--steps", "2", "--quiet", "--no-report", "--outdir", "out", "--model-option", "repeats=3")
    command("-m", "latentshift", "refine", "--model", "tiles.safetensors", *words)
    assert (tmp_path / "out/seed0002.png").is_file()
    command("-m", "latentshift", "convert", "tiles.safetensors", "folder", "--quiet")
    assert json.loads(command("-m", "latentshift", "inspect", "folder", "--json"))["family"] == "tilegan"
    assert "4 passed" in command("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(source / "tests"))


def test_listing_it_needs_no_torch() -> None:
    code = f"import sys; sys.path.insert(0, {str(EXAMPLE / 'src')!r}); import tilegan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
