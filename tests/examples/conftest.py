"""What the tests of the scripts share."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function from the name of a script in examples/ to its module."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module
