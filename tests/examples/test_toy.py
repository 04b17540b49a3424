"""The bundled 2-D pairs say of themselves what is so, and the scripts that made them run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import latentshift
from latentshift.engine.run import Engine, Settings
from latentshift.files.folder import read_pair
from latentshift.metrics.toy import MIXTURES, coverage
from latentshift.noise import latents
from latentshift.strategies.gradient import IFGSM

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_a_bundled_pair_holds_what_its_card_says(name: str) -> None:
    pair = read_pair(Path(latentshift.__file__).parent / "data" / name)
    told = pair.card["metrics"]
    assert pair.card["licence"] == "Apache-2.0"
    assert torch.allclose(torch.tensor(pair.card["modes"]), torch.tensor(MIXTURES[name].means))
    seeds = list(range(1000))
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    climb = IFGSM(steps=100, step_size=0.003, eps=None, support="free")
    (chunk,) = Engine(climb, pair, settings=Settings(chunk=1000)).run(z, seeds, images0=True).chunks
    for when, points, score in (("before", chunk.images0, chunk.score0), ("after", chunk.images, chunk.score)):
        found = coverage(points, pair.card["modes"])
        assert told[when]["modes"] == len(pair.card["modes"])
        assert found["modes"] >= told[when]["modes"] - (when == "before")  # the rarest raw mode may miss 1,000 rows
        assert found["near"] == pytest.approx(told[when]["near"], abs=0.05)  # 1,000 of the card's 10,000 rows
        assert score.mean() == pytest.approx(told[when]["mean_critic"], abs=0.05)
    assert (chunk.score > chunk.score0).mean() > 0.95
    assert told["after"]["near"] > told["before"]["near"] + 0.2
    assert told["after"]["w1"] < told["before"]["w1"]


def test_the_training_script_writes_a_pair_folder(tmp_path: Path) -> None:
    command = [sys.executable, "examples/train_toy.py", "ring", "--steps", "16", "--rows", "64", "--out", str(tmp_path / "p")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    names = ["D.safetensors", "G.safetensors", "card.json", "grid.png"]
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == names
    pair = read_pair(tmp_path / "p")
    assert pair.image_shape == (2,)
    card = json.loads((tmp_path / "p" / "card.json").read_text())
    assert card["training"]["settings"]["steps"] == 16
    assert "--steps 16" in card["metrics"]["command"]
    assert [e["kw"] for e in card["layers"]["D"] if e["op"] == "Linear"] == [
        {"in_features": a, "out_features": b} for a, b in ((2, 100), (100, 200), (200, 100), (100, 1))
    ]


def test_the_figure_of_the_paper_in_its_short_form(tmp_path: Path) -> None:
    out = tmp_path / "ring.png"
    command = [sys.executable, "examples/papers/ring_grid.py", "ring", "--steps", "4,20", "--rows", "200", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    rows = {line[:12].strip(): line[12:].split() for line in done.stdout.splitlines()[1:-1]}
    assert list(rows) == ["real data", "raw", "4 steps", "20 steps"]
    share = {k: float(v[0].rstrip("%")) for k, v in rows.items()}
    assert share["raw"] < share["4 steps"] < share["20 steps"] < share["real data"] == 100.0
    assert float(rows["raw"][-1]) < float(rows["20 steps"][-1])
    with Image.open(out) as image:
        assert image.size[0] > 3 * image.size[1], "four panels side by side"
