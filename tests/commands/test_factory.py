"""`--factory`: the user's own code, and the lines that a beginner sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentshift.commands import run

CODE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(6, 48), nn.Dropout(0.5), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
    return G, nn.Sequential(nn.Flatten(), nn.Linear(48, 1))

def conv():
    torch.manual_seed(0)
    return nn.Sequential(nn.ConvTranspose2d(5, 3, 4, bias=False), nn.Tanh()), nn.Sequential(nn.Conv2d(3, 1, 4), nn.Sigmoid())

def bright():
    G, D = make()
    return nn.Sequential(G, nn.Sigmoid()), D

def odd():
    return 3

def hidden():
    return (lambda z: z.reshape(-1, 1, 2, 2)), (lambda x: x.sum((1, 2, 3)))

def clash():
    return nn.Linear(6, 7), nn.Linear(8, 1)

def wrapped():
    from latentshift import Pair
    G, D = make()
    return Pair.wrap(G.eval(), D.eval(), z_size=6, name="mine")
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pairs_of_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return "pairs_of_mine.py"


@pytest.mark.parametrize(("name", "z"), [("make", [6]), ("conv", [5, 1, 1]), ("wrapped", [6])])
def test_a_page_from_two_modules(file: str, name: str, z: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["refine", "--factory", f"{file}:{name}", "--num", "4", "--outdir", "out"]) == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert "look at the pairs: out/report.html" in said.out
    from latentshift.files.run import read_npz

    assert list(read_npz(Path("out/latents.npz"))["z"].shape) == [4, *z]
    record = json.loads(Path("out/run.json").read_text())
    assert len(record["model_sha256"]) == 64
    assert "made from Python" not in Path("out/report.html").read_text()


def test_images_from_0_to_1_are_seen_by_the_last_layer(file: str) -> None:
    from latentshift.commands.factory import pair_of_factory

    assert pair_of_factory(f"{file}:bright").image_range == (0.0, 1.0)
    assert pair_of_factory(f"{file}:make").image_range == (-1.0, 1.0)
    conv = pair_of_factory(f"{file}:conv")  # a closing sigmoid of D is read before it
    assert conv.critic is not None
    assert conv.critic.returns in ("logit", "probability")


def test_a_module_name_works_too(file: str) -> None:
    assert run(["score", "--factory", "pairs_of_mine:make", "--num", "2"]) == 0


def test_the_size_of_z_may_have_to_be_said(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["refine", "--factory", f"{file}:hidden", "--num", "2", "--outdir", "out"]
    assert run(words) == 2
    assert "--z-size" in capsys.readouterr().err
    assert run([*words, "--z-size", "4"]) == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--factory", "pairs_of_mine.py"], 2, "FILE.py:FUNCTION"),
        (["--factory", "nowhere.py:make"], 4, "no such file"),
        (["--factory", "pairs_of_mine.py:mak"], 3, "It has: make, conv"),
        (["--factory", "no_such_module:make"], 3, "cannot be imported"),
        (["--factory", "pairs_of_mine.py:odd"], 3, "Return (G, D)"),
        (["--factory", "pairs_of_mine.py:clash"], 3, "D does not take"),
        (["--factory", "pairs_of_mine.py:make", "--z-size", "x"], 2, "--z-size"),
        (["--factory", "pairs_of_mine.py:make", "--z-size", "7"], 3, "does not fit"),
        (["--model", "pairs_of_mine.py"], 2, "--factory pairs_of_mine.py:FUNCTION"),
        (["--model", "pairs_of_mine.py:make"], 2, "--factory pairs_of_mine.py:make"),
    ],
)
def test_one_line_for_what_goes_wrong(
    file: str, words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["refine", *words, "--num", "2", "--outdir", "out"]) == status
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("out/run.json").exists()


def test_a_changed_model_is_not_gone_on_with(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["refine", "--factory", f"{file}:make", "--num", "4", "--outdir", "out", "--quiet"]) == 0
    record = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    Path(file).write_text(CODE.replace("manual_seed(0)", "manual_seed(1)"))
    assert run(["refine", "--resume", "out"]) == 3
    assert "the model's files changed" in capsys.readouterr().err
