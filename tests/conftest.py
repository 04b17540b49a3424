"""Shared fixtures: the reference files beside the checkout (tests that want them skip where they are absent)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("LATENTSHIFT_SHARED") or Path(__file__).resolve().parents[2] / "shared")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device for the tests marked gpu: cpu (skips them) or cuda")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") == "cpu":
        skip = pytest.mark.skip(reason="needs a CUDA device: run with --device cuda")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


def shared(*parts: str) -> Path:
    """Return a path among the reference files, or skip the test."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the reference files are not beside this checkout ({'/'.join(parts)})")
    return path


@pytest.fixture
def reference():
    """A function from path parts to a reference file's path; it skips the test where the file is absent."""
    return shared


def reference_pairs() -> list[str]:
    """The names of the reference pairs, or one that skips."""
    folder = SHARED / "reference" / "pairs"
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else ["absent"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair_name" in metafunc.fixturenames:
        metafunc.parametrize("pair_name", reference_pairs())
