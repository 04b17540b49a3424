"""`latentshift train`: from data to a pair that every command takes; resume to the bit; every failure is one clear line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentshift.commands import run
from latentshift.files.folder import read_pair
from latentshift.train.loop import Trainer

QUIET = ["--grid-every", "0", "--eval-every", "0", "--quiet"]
TOY = ["train", "ring", "--recipe", "advlatgan-qua/toy-bce"]


def pictures(folder: Path, n: int = 24, size: int = 16) -> Path:
    draw = np.random.default_rng(0)
    folder.mkdir()
    for i in range(n):
        Image.fromarray(draw.integers(0, 256, (size, size), np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def test_a_folder_of_pictures_becomes_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    words = ["train", str(data), "--steps", "2", "--batch", "4", "--recipe", "advlatgan-qua/small", "--outdir", str(out)]
    assert run(words) == 0
    told = capsys.readouterr()
    assert "auc_held_out" in told.err
    assert "latentshift refine --model" in told.out
    pair = read_pair(out / "pair")
    assert (pair.image_shape, pair.card["critic"]["returns"]) == ((1, 16, 16), "critic")
    assert pair.card["training"]["recipe"]["slots"]["latent_shift"][0][1]["step_size"] == 0.04
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2]
    assert {"loss_d", "loss_g", "accuracy_held_out", "accuracy_train"} <= set(rows[-1])
    assert sorted(p.name for p in (out / "grids").iterdir()) == ["step-00000001.png", "step-00000002.png"]
    assert run(["refine", "--model", str(out / "pair"), "--num", "2", "--outdir", str(tmp_path / "r"), "--quiet"]) == 0
    assert run(["train", "--resume", str(out)]) == 0
    assert "already complete" in capsys.readouterr().out


def test_labels_of_a_zip_in_stylegans_layout_make_a_conditional_pair(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", size=32)
    names = sorted(p.name for p in data.iterdir())
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for name in names:
            z.write(data / name, name)
        z.writestr("dataset.json", json.dumps({"labels": [[n, i % 3] for i, n in enumerate(names)]}))
    options = ["--option", "backbone=small", "--option", "pair_in_d=false", "--channels", "1", "--steps", "1", "--batch", "6"]
    words = ["train", str(archive), "--recipe", "advlatgan-div/cifar10", *options, "--outdir", str(tmp_path / "out"), *QUIET]
    assert run(words) == 0
    pair = read_pair(tmp_path / "out" / "pair")
    assert (pair.classes, pair.image_shape) == (3, (1, 32, 32))


@pytest.mark.parametrize("labels", ["heads", "classifier"])
def test_class_outputs_stay_behind(labels: str, tmp_path: Path) -> None:
    """ACGAN's heads and AC-WGAN-GP's classifier train along; the pair has a D of one number."""
    draw = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    np.savez(path, images=draw.integers(0, 256, (30, 8, 8, 1), np.uint8), labels=np.arange(30) % 3)
    recipe = "vanilla/cifar10-acgan" if labels == "heads" else "at-gan/ac-wgan-gp"
    options = ["--option", "backbone=small" if labels == "heads" else "n_d=1", "--steps", "1", "--batch", "6"]
    words = ["train", str(path), "--recipe", recipe, *options, "--size", "8", "--channels", "1"]
    assert run([*words, "--outdir", str(tmp_path / "out"), *QUIET]) == 0
    pair = read_pair(tmp_path / "out" / "pair")
    assert pair.classes == 3
    with torch.no_grad():
        images = pair.generate(torch.randn(2, pair.space.shape[0]), torch.tensor([0, 2]))
        assert pair.logit(images, torch.tensor([0, 2])).shape == (2,)


def test_going_on_from_a_pair(tmp_path: Path) -> None:
    """--init-from starts from its weights: zero steps give them back; --freeze-g moves D alone."""
    draw = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    np.savez(path, images=draw.integers(0, 256, (20, 32, 32, 1), np.uint8))
    base = ["train", str(path), "--init-from", "fashion32", "--recipe", "advlatgan-qua/small", "--batch", "4", *QUIET]
    assert run([*base, "--steps", "0", "--outdir", str(tmp_path / "zero")]) == 0
    assert run([*base, "--steps", "1", "--freeze-g", "--outdir", str(tmp_path / "d")]) == 0
    assert run([*base, "--steps", "1", "--option", "ema=0", "--outdir", str(tmp_path / "both")]) == 0
    start = read_pair(Path(read_pair_folder("fashion32")))
    pairs = {name: read_pair(tmp_path / name / "pair") for name in ("zero", "d", "both")}

    def same(a: Any, b: Any) -> bool:
        return all(
            torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True) if x.is_floating_point()
        )

    assert same(pairs["zero"].G, start.G)
    assert same(pairs["d"].G, start.G)
    assert not same(pairs["d"].D, pairs["zero"].D)
    assert not same(pairs["both"].G, start.G)
    assert pairs["both"].card["source"].endswith("from fashion32")


def read_pair_folder(name: str) -> Path:
    from latentshift.files.names import resolve

    return Path(resolve(name).source)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["train"], 2, "no data"),
        (["train", "nowhere"], 4, "no such file or folder"),
        (["train", "ring"], 3, "does not make samples of (2,)"),
        (["train", "ring", "--recipe", "advlatgan-qua/toy"], 3, "Did you mean"),
        (["train", "ring", "--recipe", "vanilla/toy-bce", "--option", "lr=1"], 3, "unknown option 'lr'"),
        (["train", "ring", "--recipe", "vanilla/toy-bce", "--option", "latent_shift.eps=1"], 2, "has no 'latent_shift'"),
        (["train", "ring", "--recipe", "advlatgan-qua/toy-bce", "--option", "latent_shift.epsilon=1"], 3, "unknown option"),
        (["train", "ring", "--recipe", "vanilla/toy-bce", "--option", "loss=wasserstein"], 2, "without any bound"),
        (["train", "ring", "--recipe", "vanilla/toy-bce", "--judge", "fashion32-judge"], 3, "these are points"),
        (["train", "ring", "--recipe", "at-gan/ac-wgan-gp"], 3, "no labels"),
        (["train", "--resume", "nowhere"], 4, "not a training run"),
    ],
)
def test_what_is_refused(
    words: list[str],
    status: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == status
    told = capsys.readouterr().err.strip()
    assert says in told
    assert told.startswith("latentshift: error: ")
    assert "\n" not in told
    assert not list(tmp_path.rglob("pair"))


def test_broken_images_are_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "data")
    (data / "007.png").write_bytes((data / "007.png").read_bytes()[:60])
    assert run(["train", str(data), "--outdir", str(tmp_path / "out"), "--quiet"]) == 4
    told = capsys.readouterr().err.strip()
    assert "007.png" in told
    assert "\n" not in told
    assert not (tmp_path / "out").exists()


def test_a_nan_ends_with_one_line_and_the_last_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [*TOY, "--steps", "50", "--batch", "8", "--option", "lr_g=1e10", "--checkpoint-every", "1", "--outdir", str(out)]
    assert run([*words, *QUIET]) == 8
    told = capsys.readouterr().err.strip()
    assert "not finite at step" in told
    assert "\n" not in told
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < 50
    assert all(bool(torch.isfinite(v).all()) for part in ("G", "D") for v in state[part].values())
    assert json.loads((out / "train.json").read_text())["status"] == "failed"


def test_a_full_disk_ends_with_one_line_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = [*TOY, "--steps", "4", "--batch", "8", "--checkpoint-every", "2", *QUIET]
    assert run([*words, "--outdir", str(whole)]) == 0
    one_step = Trainer.one_step
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def full(t: Trainer) -> dict[str, float]:
        row = one_step(t)
        if t.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a checkpoint has 2 MB
        return row

    try:
        monkeypatch.setattr(Trainer, "one_step", full)
        status = run([*words, "--outdir", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
        monkeypatch.undo()
    told = capsys.readouterr().err.strip()
    assert status == 6, told
    assert "checkpoint.pt" in told
    assert "\n" not in told
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 2
    assert run(["train", "--resume", str(out), "--quiet"]) == 0
    for name in ("G.safetensors", "D.safetensors", "card.json"):
        assert (out / "pair" / name).read_bytes() == (whole / "pair" / name).read_bytes()


def test_what_json_prints_follows_the_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.chdir(tmp_path)
    schemas = Path(__file__).parents[2] / "docs/schema"
    lines = {
        "list": ["train", "--recipes"],
        "train-recipe": ["train", "--recipes", "--recipe", "advlatgan-qua+/cifar10-sngan"],
        "train-plan": [*TOY, "--dry-run"],
        "train": [*TOY, "--steps", "1", "--batch", "4", "--outdir", "o", *QUIET],
    }
    for name, words in lines.items():
        assert run([*words, "--json"]) == 0
        schema = json.loads((schemas / f"{name}.json").read_text())
        jsonschema.validate(json.loads(capsys.readouterr().out), schema)
    assert [p.name for p in tmp_path.iterdir()] == ["o"], "a dry run writes nothing"


KILLED = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from latentshift.commands import run
base, words = Path(sys.argv[1]), sys.argv[2:]

def to_do(out):
    if (out / "train.json").exists():
        return ["train", "--resume", str(out), "--quiet"]
    return [*words, "--outdir", str(out), "--overwrite"]

def child(line):
    pid = os.fork()
    if pid == 0:
        os._exit(run(line))
    return pid

assert run([*words, "--outdir", str(base / "warm")]) == 0  # what torch loads on first use is loaded before the forks
began = time.perf_counter()
assert run([*words, "--outdir", str(base / "whole")]) == 0
whole, draw = time.perf_counter() - began, random.Random(5)
kills, number, at = 0, 0, []
while kills < 20:
    out = base / f"cut{number}"
    line = to_do(out)
    pid = child(line)
    time.sleep(draw.uniform(0, whole))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        path = out / "checkpoint.pt"
        at.append(torch.load(path, weights_only=True)["step"] if path.exists() else 0)
    else:
        assert status == 0, (line, status)
        number += 1
for i in range(number + 1):
    out = base / f"cut{i}"
    line = to_do(out)
    assert run(line) == 0
    for name in ("G.safetensors", "D.safetensors", "card.json"):
        assert (out / "pair" / name).read_bytes() == (base / "whole" / "pair" / name).read_bytes(), (i, name)
print(kills, number + 1, len(set(at)))
"""


def test_killed_at_twenty_random_moments_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    words = ["--steps", "40", "--batch", "8", "--checkpoint-every", "2", *QUIET]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), *TOY, *words], capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, done.stderr
    kills, runs, places = map(int, done.stdout.split()[-3:])
    assert kills == 20
    assert runs >= 1
    assert places > 3, "the kills came at different steps"
