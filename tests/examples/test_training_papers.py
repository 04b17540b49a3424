"""The papers' training tables: the smallest form of each script runs, and the recorded cell comes out again."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "docs" / "training-tables.json").read_text())


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / "papers" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: Any) -> ModuleType:
    module, threads = script(name), torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)
    return module


def test_the_smallest_cell_comes_out_again() -> None:
    """50 iterations of two methods with seed 0, as recorded; float rounding differs between machines, and grows."""
    toy = script("toy_training")
    for cell in RECORD["smallest"]:
        again = toy.one(cell["data"], cell["method"], cell["seed"], cell["iterations"], cell["rows"])
        for name, slack in (("w1", 0.02), ("jsd", 0.01), ("median", 0.02), ("near", 0.5)):
            assert again[name] == pytest.approx(cell[name], abs=slack), (cell["method"], name)


def test_ring_and_grid_are_resumable_and_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--only", "ring", "--method", "BCE + div", "--seeds", 1, "--iterations", 2, "--rows", 100, "--cache", tmp_path]
    run("toy_training", monkeypatch, *words)
    first = capsys.readouterr().out
    assert "BCE + div" in first
    (cell,) = tmp_path.glob("*.json")
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"w1": 7.25}))
    run("toy_training", monkeypatch, *words)
    assert "7.25 ± 0" in capsys.readouterr().out, "a finished cell is taken from the cache"


def test_what_counts_as_agreement() -> None:
    toy = script("toy_training")
    assert toy.inside((1.0, 0.3), (1.7, 0.3), 3, 0.0)  # 3 pooled standard errors: 0.735
    assert not toy.inside((1.0, 0.3), (1.75, 0.3), 3, 0.0)
    assert toy.inside((0.0012, 0.0), (0.001, 0.0), 3, 0.0005), "within the rounding of what was printed"


def test_signs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What falls, rises or stays is read from the means and their spread, and the page says what the record says."""
    module = script("toy_signs")
    assert [module.judged("", (1.0, 0.3), (0.8, 0.4), s).held for s in ("falls", "rises", "stays")] == [True, False, True]
    assert module.judged("", (1.0, 0.1), (0.8, 0.1), "falls").beyond
    assert not module.judged("", (1.0, 0.1), (0.8, 0.1), "does not fall").held
    seen = list(module.signs(RECORD["toy"]["rows"]))
    assert len(seen) == len(module.SIGNS)
    page = (ROOT / "docs" / "training-tables.md").read_text()
    assert f"{sum(v.held for v in seen)} of {len(seen)} signs held" in page
    assert all(v.line() in page for v in seen)


def test_advas_on_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reference: Callable[..., Path]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "papers"))
    judge = reference("data", "nets", "cnn_mnist_fp16.safetensors")
    words = ["--data", reference("data", "mnist"), "--judge", judge, "--steps", 1, "--stops", 1, "--seeds", 1, "--rows", 70]
    run("advas_mnist", monkeypatch, *words, "--batch", 4, "--width", 0.0625, "--cache", tmp_path, "--out", tmp_path / "a.json")
    told = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [r["arm"] for r in told] == ["WGAN-GP", "WGAN-GP + AdvAs", "AdvAs alone"]
    assert all(np.isfinite(r["curves"][0][0]["fd"]) for r in told)


def test_overhead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("training_overhead")
    base = module.trainer("toy", module.methods(module.BCE, None)["vanilla"])
    qua = module.trainer("toy", module.methods(module.BCE, None)["+ qua"])
    a, b = module.counts(base), module.counts(qua)
    assert {k: b[k] - a[k] for k in a} == {"F_G": 1, "F_D": 1}
    ratio, _ = module.ratios({"vanilla": base, "+ qua": qua}, 3, 10)
    assert ratio["vanilla"] == 1.0
    assert 1.0 < ratio["+ qua"] < 3.0


def test_dat_in_the_plane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = run("dat_nine_gaussians", monkeypatch, "--steps", 2, "--seeds", 1, "--rates", "0.001", "--attack", 5)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert {line.split(" | ")[1] for line in table[2:]} == {"vanilla", "DAT"}
    points = module.sample("uneven", 4000, torch.Generator().manual_seed(0))
    share = [float(((points[:, 0] - c).abs() < 0.5).float().mean()) for c in (-1.0, 0.0, 1.0)]
    assert share[2] > 0.6 > 0.25 > share[0]


def idx(path: Path, x: np.ndarray) -> None:
    head = bytes([0, 0, 8, x.ndim]) + b"".join(n.to_bytes(4, "big") for n in x.shape)
    path.write_bytes(head + x.astype(np.uint8).tobytes())


@pytest.fixture
def garments(tmp_path: Path) -> Path:
    draw, folder = np.random.default_rng(0), tmp_path / "fashion"
    folder.mkdir()
    for part, n in (("train", 80), ("t10k", 40)):
        idx(folder / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
        idx(folder / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    return folder


def test_at_gan_end_to_end(
    garments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", garments, "--out", tmp_path / "o", "--short", "--width", 0.0625, "--steps", 1, 1, 2, "--rows", 20]
    run("at_gan", monkeypatch, *words)
    told = json.loads((tmp_path / "o" / "result.json").read_text())
    assert [r["target"] for r in told["success"]] == [
        f"{n}{a}" for n in ("table-5", "own-mlp", "own-stride") for a in ("", " adv")
    ]
    assert set(told["transfer"]) == {"table-5", "own-mlp", "own-stride"}
    assert told["targeted"]["label"] == 3
    assert all(0 <= r[k] <= 100 for r in told["success"] for k in ("FGSM", "R+FGSM", "PGD", "AT-GAN"))


def test_fashion_grid(
    garments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", garments, "--steps", 1, "--batch", 4, "--rows", 40, "--seeds", 1, "--backbones", "T"]
    run("fashion_grid", monkeypatch, *words, "--out", tmp_path / "t.json", "--pictures", tmp_path / "p")
    table = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [r["method"] for r in table] == ["vanilla", "qua", "dat", "advas", "div"]
    assert all(np.isfinite(r["rows"][0][when]["fd"]) for r in table for when in ("raw", "5", "20"))
    assert "T, qua minus vanilla, seed by seed" in capsys.readouterr().out
    assert len(list((tmp_path / "p").glob("*.png"))) == 5


def test_fine_tuning_beside_refining(
    garments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fashion32", "--reals", garments / "train-images-idx3-ubyte", "--steps", 1, "--batch", 2, "--rows", 16]
    run("finetune", monkeypatch, *words, "--out", tmp_path / "f.json")
    told = json.loads((tmp_path / "f.json").read_text())
    assert all(np.isfinite(told[k]) for k in ("as it came", "refined", "fine-tuned", "fine-tuned, refined"))
    assert told["as it came"] != told["fine-tuned"]
