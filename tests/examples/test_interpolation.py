"""The interpolation between two seeds, run as its docstring says, and its path compared with closed forms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_it_runs_and_says_what_the_docstring_promises(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "examples/interpolation.py"), "--out", str(tmp_path / "p.png")]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    score, before, after, _ = done.stdout.splitlines()
    assert float(score.split()[3]) > float(score.split()[1])
    assert float(after.split()[-1]) > float(before.split()[-1])  # the largest jump grows
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 10 * 96


def test_the_path_keeps_length_and_angle() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("interpolation", ROOT / "examples/interpolation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    a, b = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    path = module.between(a, b, 5, True)
    assert np.allclose(np.linalg.norm(path, axis=1), 3)
    assert np.allclose(np.degrees(np.arctan2(path[:, 1], path[:, 0])), [0, 22.5, 45, 67.5, 90])
    assert np.allclose(module.between(a, b, 3, False), [a, (a + b) / 2, b])
    assert np.allclose(module.between(a, a, 3, True), a)
