"""The animations: they begin at the start, end at the result, and pass through the strategy's own points."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentshift import load
from latentshift.commands import run
from latentshift.engine.run import Engine
from latentshift.noise import latents
from latentshift.report.path import gif, paths
from latentshift.strategies.gradient import IFGSM, PGD
from latentshift.strategies.wrappers import KeepBest


@pytest.mark.parametrize("strategy", [IFGSM(steps=5, eps=0.2), KeepBest(inner=PGD(steps=5, eps=0.2)), IFGSM(steps=0)])
def test_a_path_begins_and_ends_where_the_run_does(strategy: IFGSM) -> None:
    pair = load("fashion32")
    seeds = list(range(11))
    z0 = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    engine = Engine(strategy, pair)
    run_ = engine.run(z0, seeds, None, images0=True)
    from latentshift.files.pictures import to_bytes

    before = to_bytes(np.concatenate([c.images0 for c in run_.chunks if c.images0 is not None]))
    after = to_bytes(np.concatenate([c.images for c in run_.chunks]))
    walked = list(paths(engine, z0, seeds, None))
    assert [row for row, _ in walked] == seeds
    for row, frames in walked:
        assert len(frames) == strategy.steps + 1 + (strategy.steps == 0)
        assert np.abs(frames[0].astype(int) - before[row]).max() <= 1
        assert np.abs(frames[-1].astype(int) - after[row]).max() <= 1
    longest = next(iter(paths(engine, z0[:1], seeds[:1], None, frames=3)))[1]
    assert len(longest) == min(3, strategy.steps + 1) + (strategy.steps == 0)


def test_gif_of_every_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        run(
            [
                "refine",
                "--seeds",
                "1,2",
                "--recipe",
                "advlatgan-z/ball",
                "--steps",
                "4",
                "--gif",
                "--json",
                "--outdir",
                str(out),
            ]
        )
        == 0
    )
    assert "path/*.gif" in json.loads(capsys.readouterr().out)["files"]
    with Image.open(out / "path" / "seed0001.gif") as picture:
        assert picture.size == (128, 128)
        assert picture.n_frames == 5  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(gif(np.zeros((1, 300, 200, 3), np.uint8)))) as still:
        assert still.size == (200, 300)


def test_points_have_no_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flat.py"
    file.write_text(
        "import torch\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)\n"
    )
    words = ["refine", "--factory", f"{file}:make", "--num", "2", "--gif", "--outdir", str(tmp_path / "run")]
    assert run(words) == 2
    assert "--gif" in capsys.readouterr().err
