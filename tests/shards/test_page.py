"""The page of a run in shards: totals of all rows, a bounded number of pictures, nothing of the record is trusted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latentshift.commands import run
from latentshift.report.page import write_report
from latentshift.shards import sample

WORDS = ["refine", "--strategy", "ifgsm", "--steps", "1", "--quiet"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("many") / "out"
    assert run([*WORDS, "--num", "130", "--shard-size", "40", "--outdir", str(out)]) == 0
    return out


def test_numbers_of_all_rows(many: Path) -> None:
    with np.load(many / "page.npz") as data:
        found = {k: data[k] for k in data.files}
    scores = {k: np.concatenate([np.load(p)[k] for p in sorted(many.glob("latents-*.npz"))]) for k in ("score0", "score")}
    assert found["count_before"].sum() == found["count_after"].sum() == found["count_gain"].sum() == 130
    assert np.array_equal(found["count_after"], np.histogram(scores["score"].astype(float), found["edges"])[0])
    gain = scores["score"] - scores["score0"]
    spread, tail = sample.SHOWN["pictures"]
    best = np.argsort(-gain, kind="stable")
    assert set(found["rows"][found["kind"] == 1]) == set(best[:tail])
    assert set(found["rows"][found["kind"] == 2]) == set(best[-tail:])
    assert (found["kind"] == 0).sum() <= spread
    assert found["after"].shape[1:] == (32, 32, 1)
    from PIL import Image

    for i in (0, 20, len(found["rows"]) - 1):  # the pictures that were made again are those of the shards
        row = int(found["rows"][i])
        with Image.open(many / f"shard-{row // 40:06d}/seed{row:04d}.png") as picture:
            assert np.array_equal(np.asarray(picture), found["after"][i, :, :, 0])


def test_the_page_is_made_again_from_the_folder_and_stays_small(many: Path, tmp_path: Path) -> None:
    page = (many / "report.html").read_bytes()
    assert len(page) < 2_000_000
    path, problems = write_report(many, tmp_path / "page.html")
    assert problems == []
    assert path.read_bytes() == page
    assert "130 samples in 4 shards" in page.decode()
    assert "<script" not in page.decode()


def test_points_and_hostile_records(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run([*WORDS, "--model", "ring", "--num", "50", "--shard-size", "20", "--outdir", str(out)]) == 0
    assert "data:image/png" in (out / "report.html").read_text()
    record = json.loads((out / "run.json").read_text())
    record |= {"model": "<script>alert(1)</script>", "warnings": ["<img src=x onerror=alert(1)>"]}
    (out / "run.json").write_text(json.dumps(record))
    (out / "page.npz").write_bytes(b"damaged")
    text = write_report(out)[0].read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "no samples are shown" in text


def test_as_many_pictures_for_any_length() -> None:
    """The page holds the spread and two tails: 96 pictures twice, of 128 pixels at most, in WebP: below 25 MB at any N."""
    spread, tail = sample.SHOWN["pictures"]
    assert 2 * (spread + 2 * tail) * sample._SIDE**2 * 4 * 4 / 3 < 25e6
