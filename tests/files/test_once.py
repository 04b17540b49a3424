"""Work that a cut should not lose: `once`."""

from pathlib import Path

import pytest

from latentshift.files.write import once


def test_work_is_done_once_and_kept_whole(tmp_path: Path) -> None:
    path, calls = tmp_path / "cells" / "a.json", []

    def work() -> list[float]:
        calls.append(1)
        return [1.5, float("inf")]

    assert once(path, work) == once(path, work) == [1.5, float("inf")]
    assert len(calls) == 1
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert once(None, work) == [1.5, float("inf")]
    assert len(calls) == 2


def test_work_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        once(tmp_path / "b.json", lambda: 1 / 0)
    with pytest.raises(TypeError):
        once(tmp_path / "b.json", lambda: object())
    assert not list(tmp_path.iterdir())
