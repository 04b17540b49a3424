"""What README says works: its Python snippets run, its console examples run, its commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from latentshift.commands import COMMANDS, run

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CONSOLE = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_snippets_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_console_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(CONSOLE) >= 3
    for line in CONSOLE:
        words = shlex.split(line)
        assert words[0] == "latentshift"
        assert run(words[1:]) == 0, capsys.readouterr().err


def test_the_first_two_commands_are_the_set_up():
    lines = [line.strip() for line in TEXT.splitlines() if line.startswith("    python3 -m venv")]
    assert len(lines) == 2
    assert lines[0].endswith("latentshift refine")
    assert "pytest" in lines[1]
    assert all("-c constraints.txt" in line for line in lines)


def test_the_table_of_commands_is_complete():
    listed = set(re.findall(r"\| `latentshift (\w+)", TEXT))
    assert listed == set(COMMANDS)


def test_pictures_exist():
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / name).is_file(), name
