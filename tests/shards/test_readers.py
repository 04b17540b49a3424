"""Other tools read our shards, as docs/howto-scale.md shows it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentshift.commands import run

PAGE = Path(__file__).parents[2] / "docs/howto-scale.md"


def shown(tool: str) -> str:
    """Return the page's lines for a tool."""
    found: str = re.search(rf"```text\n(import {tool}\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]  # type: ignore[index]
    return found


def made(folder: Path, kind: str, model: str = "ring", rows: int = 30, **more: Any) -> Path:
    words = ["refine", "--model", model, "--strategy", "ifgsm", "--steps", "1", "--num", str(rows), "--shard-size", "10"]
    assert run([*words, "--shards-as", kind, "--quiet", "--outdir", str(folder)]) == 0
    return folder


def test_webdataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    webdataset = pytest.importorskip("webdataset")
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "many", "tar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scope: dict[str, Any] = {}
        exec(shown("webdataset"), scope)
        assert scope["sample"]["__key__"].endswith("seed0029")
        assert scope["sample"]["x.npy"].shape == (2,)
        folder = made(tmp_path / "pictures", "tar", "fashion32", 12)
        got = list(webdataset.WebDataset(str(folder / "shard-{000000..000001}.tar"), shardshuffle=False).decode("pil"))
    assert [s["json"]["seed"] for s in got] == list(range(12))
    assert got[0]["png"].size == (32, 32)


def test_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    made(tmp_path / "parquet", "parquet", "fashion32", 12)
    scope: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(shown("datasets"), scope)
        assert scope["data"]["seed"] == list(range(12))
        assert scope["data"][3]["image"].size == (32, 32)


def test_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "many", "parquet")
    (tmp_path / "parquet").mkdir()
    for path in (tmp_path / "many").glob("*.parquet"):
        path.rename(tmp_path / "parquet" / path.name)
    made(tmp_path / "png", "png")
    scope: dict[str, Any] = {}
    exec(shown("pandas"), scope)
    assert scope["rows"]["seed"].tolist() == list(range(30))
    score = np.concatenate([np.load(p)["score"] for p in sorted((tmp_path / "png").glob("latents-*.npz"))])
    assert np.allclose(scope["rows"]["score_after"], score)
    assert scope["lines"]["seed"].tolist() == list(range(10))
