"""Digests of large files: remembered until the file is touched, and never wrong where the cache is."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from latentshift.files import cache
from latentshift.files.cache import LARGE, file_sha256, known_sha256


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(LARGE))
    time.sleep(0.08)
    return path


def test_a_digest_is_computed_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = hashlib.sha256(large.read_bytes()).hexdigest()
    assert known_sha256(large) == want
    with monkeypatch.context() as patch:
        patch.setattr(cache, "file_sha256", lambda path: pytest.fail("hashed again"))
        assert known_sha256(large) == want


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_touched_file_is_hashed_again(large: Path, keep_times: bool) -> None:
    before, times = known_sha256(large), large.stat()
    with large.open("r+b") as stream:
        stream.write(b"other bytes, same size")
    if keep_times:  # what `cp -p` and archives do: the time of the last change still tells
        os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))
    time.sleep(0.08)
    assert known_sha256(large) == file_sha256(large) != before


def test_a_file_that_was_just_written_is_not_remembered(large: Path) -> None:
    large.write_bytes(os.urandom(LARGE))
    known_sha256(large)
    assert not (large.parent / "cache").exists()


def test_a_cache_that_is_no_cache_costs_time_only(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_sha256(large)
    (note,) = (large.parent / "cache/digests").iterdir()
    for text in ("", "nonsense", note.read_text()[:-9]):
        note.write_text(text)
        assert known_sha256(large) == file_sha256(large)
    blocked = large.parent / "a file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(blocked))
    assert known_sha256(large) == file_sha256(large)
