"""The smallest form of each script of the papers' experiments on post-training sampling, as a user would type it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PAPERS = Path(__file__).parents[2] / "examples" / "papers"


def script(name: str, *words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(PAPERS / name), *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout


def cells(line: str) -> list[str]:
    return [c.strip() for c in line.strip().strip("|").split("|")]


def test_pair_ratio(tmp_path):
    rows = [
        cells(x) for x in script("pair_ratio.py", "--steps", "20", "--rows", "16", cwd=tmp_path).splitlines() if x[:2] == "| "
    ]
    mean = {r[0]: float(r[1]) for r in rows[2:]}
    assert mean["Eq. 8"] < mean["another sample"] < mean["inverse"], "the order that the paper prints"
    assert mean["inverse"] > 4 * mean["Eq. 8"]
    with Image.open(tmp_path / "pair-ratio.png") as picture:
        assert picture.size[0] > 200


def test_post_training(tmp_path):
    text = script("post_training.py", "--rows", "64", "--only", "raw,ifgsm", cwd=tmp_path)
    rows = [cells(x) for x in text.splitlines() if x.startswith(("| raw", "| ifgsm"))]
    assert [r[0] for r in rows] == ["raw", "ifgsm"]
    assert all(1 <= float(r[1]) <= 10 and float(r[2]) > 0 for r in rows)
    assert rows[1][7] == "6.09 / 45.8"


@pytest.mark.parametrize("loss", ["bce", "wgan-gp"])
def test_latent_plane_trains_its_own_pair(loss, tmp_path, reference):
    data = reference("data", "fashion-mnist")
    words = ["--train", str(data), "--loss", loss, "--steps", "10", "--rows", "64"]
    text = script("latent_plane.py", *words, cwd=tmp_path)
    raw, moved = (float(cells(x)[1]) for x in text.splitlines() if x.startswith(("| raw", "| 30 sign")))
    assert moved > raw, "30 sign steps did not raise the score"
    with Image.open(tmp_path / "latent-plane.png") as picture:
        assert picture.size == (1012, 708)
