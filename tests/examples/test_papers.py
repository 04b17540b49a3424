"""The smallest form of each script of the papers' experiments on post-training sampling, as a user would type it."""

from __future__ import annotations

import os
import re
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


def test_walks_across_manifolds(tmp_path):
    text = script("across_manifolds.py", "ring", "--walks", "20", "--steps", "20", cwd=tmp_path)
    raw, moved = (cells(x) for x in text.splitlines() if x.startswith(("| raw", "| 20 steps")))
    assert raw[1] == raw[-3] == "100%", "the ends lie on modes"
    share = [float(r[-2].rstrip("%")) for r in (raw, moved)]
    assert share[0] < 85 < 95 < share[1]
    with Image.open(tmp_path / "ring-walks.png") as picture:
        assert picture.size[0] > picture.size[1]


def test_walks_between_images(tmp_path):
    text = script("across_manifolds.py", "fashion32", "--walks", "5", "--frames", "3", "--steps", "1", cwd=tmp_path)
    rows = [cells(x) for x in text.splitlines() if x.startswith(("| raw", "| 1 steps"))]
    assert all(len(r) == 6 and 0 <= float(r[1].rstrip("%")) <= 100 for r in rows)
    assert float(rows[1][-1]) > float(rows[0][-1]), "a step raises the score"
    with Image.open(tmp_path / "fashion32-walks.png") as picture:
        assert picture.size[1] > 5 * 64


@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.py")), ids=lambda p: p.stem)
def test_each_script_says_how_long_it_takes(path):
    words = path.read_text("utf-8").split('"""')[1]
    commands = [line for line in words.splitlines() if line.startswith(f"    python examples/papers/{path.name}")]
    assert commands, "no command"
    assert any(w in words for w in ("second", "minute", "at once")), "no run time"
    assert re.search(r"[Ee]xpected|docs/", words), "no word of what to expect"
