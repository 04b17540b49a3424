"""`--precision`, and the estimate of `--dry-run`."""

import json

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
