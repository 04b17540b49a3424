"""What a terminal, a pipe and a signal see."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from latentshift.commands import run

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
CALL = [sys.executable, "-c", "from latentshift.commands import main; main()"]


def on_a_terminal(words: list[str], **env: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its status and all that it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen([*CALL, *words], stdin=theirs, stdout=theirs, stderr=theirs, env={**ENV, **env}) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            seen += part
    os.close(ours)
    return process.returncode, seen.decode()


def test_a_bar_with_rate_rest_and_gain(tmp_path: Path) -> None:
    status, seen = on_a_terminal(["refine", "--num", "64", "--outdir", str(tmp_path / "a")], TERM="xterm")
    assert status == 0
    assert "mean gain +" in seen
    assert re.search(r"64/64 \[.*sample/s", seen)


@pytest.mark.parametrize("words", [["--help"], ["recipes"], ["nope"]])
def test_no_colour_means_none(words: list[str]) -> None:
    _, seen = on_a_terminal(words, NO_COLOR="1", TERM="xterm-256color")
    assert seen
    assert "\x1b[" not in seen


def test_the_closing_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a"
    assert run(["refine", "--num", "4", "--outdir", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 10
    heads = [line.split()[0] for line in lines if line[0] != " "]
    assert heads == ["score", "samples", "judge", "cost", "written", "next"]
    assert "unverified" in lines[2]
    assert [line for line in lines if len(line) > 80 and str(out) not in line] == []
    assert run(["refine", "--num", "4", "--quiet", "--outdir", str(tmp_path / "b")]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_closed_pipe_is_quiet() -> None:
    with subprocess.Popen([*CALL, "recipes", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_plain_kill_keeps_what_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["refine", "--num", "64", "--steps", "30", "--chunk", "8", "--outdir", str(out)]
    with subprocess.Popen([*CALL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV, text=True) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and not list(out.glob("parts/*.npz")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("latentshift: error: interrupted: ")
    assert f"latentshift refine --resume {out}" in last
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert run(["report", str(out), "--quiet"]) == 0  # the page of what is there
    assert "not complete" in (out / "report.html").read_text()
    assert run(["refine", "--resume", str(out), "--quiet"]) == 0
    assert "not complete" not in (out / "report.html").read_text()
    assert json.loads((out / "run.json").read_text())["rows"] == 64


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "_LATENTSHIFT_COMPLETE" in text
    assert text.startswith("# ")
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("latentshift insp", "inspect"), ("latentshift refine --recipe au", "auto"), ("latentshift refine --mod", "--model")],
)
def test_completion_completes(typed: str, expected: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_LATENTSHIFT_COMPLETE": "bash_complete"}
    done = subprocess.run(CALL, env={**ENV, **words}, capture_output=True, text=True)
    assert expected in [line.partition(",")[2] for line in done.stdout.splitlines()], done.stdout + done.stderr


def test_a_recipe_goes_round_as_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("auto", "advlatgan-z/pgd"):
        assert run(["recipes", name, "--toml"]) == 0
        file = tmp_path / "mine.toml"
        file.write_text(capsys.readouterr().out)
        outs = [tmp_path / name.replace("/", "-") / kind for kind in ("name", "file")]
        for out, recipe in zip(outs, (name, str(file)), strict=True):
            assert run(["refine", "--num", "4", "--recipe", recipe, "--quiet", "--outdir", str(out)]) == 0
        assert (outs[0] / "latents.npz").read_bytes() == (outs[1] / "latents.npz").read_bytes()
        a, b = (json.loads((out / "run.json").read_text())["recipe"] for out in outs)
        assert a == b
