"""`latentshift critic`: what it prints follows its schema, what it writes is taken by --critic, wrong requests cost nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latentshift.commands import run

from .test_help import save_photos
from .test_schemas import check

QUICK = ["--kind", "pixel", "--updates", "12", "--quiet"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    save_photos(path)
    return path


def test_json_and_the_folder(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "critic"
    assert run(["critic", "--reals", str(photos), "--outdir", str(out), "--json", *QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    check("honest", told)
    assert all((out / name).is_file() for name in told["files"])
    words = ["refine", "--critic", str(out), "--recipe", "auto/reals", "--num", "4", "--quiet"]
    assert run([*words, "--outdir", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"]["options"]["steps"] == 2
    assert record["honest"]["verdict"] == told["verdict"], "the record says what was climbed"
    record["honest"]["may_not_judge"] = ["fashion32-judge"]  # as if it had looked through the judge
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert run(["evaluate", str(tmp_path / "run"), "--reals", "fashion32-judge"]) == 3
    assert "may not judge" in capsys.readouterr().err


def test_refusals(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, images=np.zeros((30, 32, 32, 1), np.uint8))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for words, status, text in (
        (["--reals", str(few)], 4, "30 real images: an honest critic wants 250 or more"),
        (["--reals", str(tmp_path / "nowhere")], 4, "no such file"),
        (["--reals", str(photos), "--updates", "0"], 2, "at least 1"),
        (["--reals", str(photos), "--held-out", "0.9"], 2, "between 0.05 and 0.5"),
        (["--reals", "ring", "--model", "ring"], 3, "makes no images"),
        ([], 2, "fitted to real images"),
        (["--reals", str(photos), "--trunk", "nope"], 3, "nope"),
    ):
        assert run(["critic", *words, "--outdir", str(tmp_path / "new")]) == status, words
        err = capsys.readouterr().err
        assert text in err, err
        assert not (tmp_path / "new").exists()
    assert run(["critic", "--reals", str(photos), "--outdir", str(tmp_path / "full")]) == 2
