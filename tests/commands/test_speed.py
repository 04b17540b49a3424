"""`--precision`, and the estimate of `--dry-run`."""

import json

import pytest

from latentshift.commands import run


def test_precision_is_printed_and_recorded(tmp_path, capsys):
    assert run(["refine", "--num", "2", "--precision", "bf16", "--no-report", "--outdir", str(tmp_path / "out")]) == 0
    assert "bf16" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["request"]["precision"] == "bf16"
    assert "bf16" in json.dumps(record)


@pytest.mark.parametrize(("word", "says"), [("fp16", "emulated"), ("int4", "fp32, tf32, bf16, auto")])
def test_what_is_no_precision_is_refused(word, says, tmp_path, capsys):
    assert run(["refine", "--num", "2", "--precision", word, "--outdir", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_dry_run_says_steps_and_seconds(capsys):
    assert run(["refine", "--num", "40", "--strategy", "ifgsm", "--steps", "3", "--chunk", "16", "--dry-run"]) == 0
    assert "2.5 chunks of 3 steps at" in capsys.readouterr().out
