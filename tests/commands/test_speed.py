"""`--precision`, and the estimate of `--dry-run`."""

import json

import numpy as np
import pytest

from latentshift.commands import run


def test_precision_is_printed_and_recorded(tmp_path, capsys):
    assert run(["refine", "--num", "2", "--precision", "bf16", "--no-report", "--outdir", str(tmp_path / "out")]) == 0
    assert "bf16" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["request"]["precision"] == "bf16"
    assert record["precision"] == "bf16"


@pytest.mark.parametrize(("word", "says"), [("fp16", "emulated"), ("int4", "fp32, tf32, bf16, auto")])
def test_what_is_no_precision_is_refused(word, says, tmp_path, capsys):
    assert run(["refine", "--num", "2", "--precision", word, "--outdir", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_dry_run_says_steps_and_seconds(capsys):
    assert run(["refine", "--num", "40", "--strategy", "ifgsm", "--steps", "3", "--chunk", "16", "--dry-run"]) == 0
    assert "2.5 chunks of 3 steps at" in capsys.readouterr().out


def test_a_long_run_says_first_what_it_will_take(tmp_path, capsys, monkeypatch):
    words = ["refine", "--model", "ring", "--num", "16", "--strategy", "ifgsm", "--steps", "6", "--no-report"]
    assert run([*words, "--outdir", str(tmp_path / "short")]) == 0
    assert "time: about" not in capsys.readouterr().err
    monkeypatch.setattr("latentshift.commands.dry.LONG", 0.0)
    assert run([*words, "--outdir", str(tmp_path / "long")]) == 0
    err = capsys.readouterr().err
    assert err.count("time: about") == 1
    assert "1 chunks of 6 steps at" in err
    assert "GiB" in err
    record = json.loads((tmp_path / "long" / "run.json").read_text())
    assert record["seconds"]["write"] > 0


def test_a_single_picture_may_go_without_padding(tmp_path, capsys):
    words = ["refine", "--model", "ring", "--num", "1", "--strategy", "ifgsm", "--steps", "3", "--no-report", "--quiet"]
    points = []
    for pad in ([], ["--pad", "1"]):
        out = tmp_path / str(len(pad))
        assert run([*words, *pad, "--outdir", str(out)]) == 0
        points.append(np.load(out / "latents.npz")["z"])
        assert json.loads((out / "run.json").read_text())["request"]["pad"] == (1 if pad else None)
    np.testing.assert_allclose(points[0], points[1], rtol=1e-5, atol=1e-5)
    assert run([*words, "--pad", "0", "--outdir", str(tmp_path / "no")]) == 2
    assert "--pad" in capsys.readouterr().err


def test_shards_are_made_in_the_precision_that_was_asked_for(tmp_path, capsys):
    words = ["refine", "--model", "ring", "--num", "16", "--steps", "3", "--shard-size", "8", "--quiet"]
    points = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        assert run([*words, "--precision", precision, "--outdir", str(out)]) == 0
        record = json.loads((out / "run.json").read_text())
        assert record["precision"] == precision
        points[precision] = record["gain"]
    assert points["fp32"] != points["bf16"]
    for wrong in (["--precision", "auto"], ["--pad", "1"]):
        assert run([*words, *wrong, "--outdir", str(tmp_path / "no")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
