"""The commands for machines that have the data: each is read by the real command line, and names what exists."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from latentshift.commands import group
from latentshift.recipe import get_recipe
from latentshift.registry import everything

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/papers.md").read_text("utf-8")
LINES = [
    line
    for block in re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith(("latentshift ", "python "))
]


def parsed(line: str) -> dict[str, object]:
    """Return the options that the real command reads off a line."""
    _, name, *words = shlex.split(line)
    command = group.get_command(click.Context(group), name)
    assert command is not None, name
    return command.make_context(name, words, resilient_parsing=False).params


@pytest.mark.parametrize("line", [x for x in LINES if x.startswith("latentshift")])
def test_a_command_is_one_that_exists(line: str) -> None:
    options = parsed(line)
    recipe = options.get("recipe")
    if line.startswith("latentshift refine") and options.get("strategy") is None:
        assert get_recipe(str(recipe)).name == recipe
    elif line.startswith("latentshift refine"):
        assert options["strategy"] in everything("strategies")[0]
    elif line.startswith("latentshift train"):
        from latentshift.train.recipes import get_training_recipe

        assert get_training_recipe(str(recipe)).name == recipe


@pytest.mark.parametrize("line", [x for x in LINES if x.startswith("python")])
def test_a_script_knows_its_options(line: str) -> None:
    _, path, *words = shlex.split(line)
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    known = {
        a.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for a in node.args
        if isinstance(a, ast.Constant)
    }
    assert {w for w in words if w.startswith("--")} <= known


def test_every_script_stands_on_a_page() -> None:
    pages = PAGE + (ROOT / "docs/training-tables.md").read_text("utf-8")
    for path in (ROOT / "examples/papers").glob("*.py"):
        assert path.name in pages, path.name
