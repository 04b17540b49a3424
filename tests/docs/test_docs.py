"""Every snippet of the docs is run, in the order of its page; the reference is compared with the code."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latentshift.commands import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(p.name for p in DOCS.glob("*.md") if p.name != "reference.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def matches(expected: str, got: str) -> bool:
    """Whether a text is as expected, `...` standing for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, got.strip(), re.DOTALL) is not None


def console(block: str, folder: Path) -> None:
    """Run the lines behind `$` and compare what follows each."""
    names = {
        **os.environ,
        "PYTHONPATH": str(DOCS.parent),
        "LATENTSHIFT_CACHE": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=names, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        assert not expected.strip() or matches(expected, done.stdout), f"{line}\n{done.stdout}\nis not\n{expected}"


@pytest.mark.parametrize("name", PAGES)
def test_snippets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    scope: dict[str, Any] = {"__name__": "snippet"}
    before = set(sys.modules)
    blocks = BLOCK.findall((DOCS / name).read_text("utf-8"))
    assert blocks, f"{name} has no snippet"
    try:
        for kind, text in blocks:
            if kind == "python" and (file := re.match(r"# file: (\S+)\n", text)):
                (tmp_path / file[1]).write_text(text)
            elif kind == "python":
                exec(compile(text, f"{name}", "exec", dont_inherit=True), scope)
            elif kind == "console":
                console(text, tmp_path)
            else:
                assert kind in ("toml", "text"), f"a block of {kind!r} is not run by anything"
    finally:
        for module in set(sys.modules) - before:
            if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(sys.modules[module].__file__):
                del sys.modules[module]


def test_links_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert (DOCS / link).exists(), f"{page.name}: {link}"


def test_the_reference_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.reference()
    assert (DOCS / "reference.md").read_text("utf-8") == made, "run python docs/make_reference.py"
    assert all(f"### latentshift {name}\n" in made for name in COMMANDS)


@pytest.mark.parametrize(("expected", "got", "same"), [("a ... c", "a b c", True), ("a", "b", False), ("x\n...", "x\ny", True)])
def test_the_comparison_can_fail(expected: str, got: str, same: bool) -> None:
    assert matches(expected, got) is same
