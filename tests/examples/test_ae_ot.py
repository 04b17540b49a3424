"""The AE-OT example in its short form: an autoencoder, codes, a pair folder that the command line takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latentshift.commands import run
from latentshift.files.folder import read_pair

ROOT = Path(__file__).parents[2]


@pytest.mark.shared
def test_codes_are_transported_to(reference, tmp_path):
    data, out = reference("data", "fashion-mnist"), tmp_path / "pair"
    command = [sys.executable, "examples/ae_ot.py", "--data", str(data), "--out", str(out)]
    command += ["--steps", "30", "--codes", "40", "--samples", "96", "--iterations", "60"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600, env=env)
    assert "AE-OT" in done.stdout
    pair = read_pair(out)
    codes = np.load(out / "codes.npy")
    assert codes.shape == (40, *pair.space.shape)
    told = json.loads((out / "figures.json").read_text())["sets"]
    assert set(told) == {"raw prior", "AE-OT", "codes drawn at random", "reconstructions of other images"}
    typed = ["--model", str(out), "--recipe", "ae-ot/2d", "--option", f"codes={out / 'codes.npy'}"]
    typed += ["--option", "iterations=20", "--num", "8", "--quiet", "--no-report", "--outdir", str(tmp_path / "run")]
    assert run(["refine", *typed]) == 0
    with np.load(tmp_path / "run" / "latents.npz") as saved:
        z = saved["z"]
    # a new code is one of those given, or lies between two of them
    d = np.linalg.norm(z[:, None] - codes[None], axis=2)
    apart = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    between = (d[:, :, None] + d[:, None, :] - apart[None]).min((1, 2))
    assert between.max() < 1e-3 * apart.max()


@pytest.mark.shared
def test_joint_training(reference, tmp_path):
    data, out = reference("data", "fashion-mnist"), tmp_path / "t.json"
    command = [sys.executable, "examples/ae_ot_gan.py", "--data", str(data), "--out", str(out), "--cache", str(tmp_path / "c")]
    command += ["--steps", "1", "--fit", "5", "--codes", "20", "--rows", "40", "--iterations", "10", "--seeds", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600, env=env)
    told = json.loads(out.read_text())["rows"]
    assert [r["arm"] for r in told] == ["AE-OT", "AE-OT-GAN", "without content", "GAN alone"]
    assert len({r["rows"][0]["fd"] for r in told}) == 4, "every arm is its own network"
