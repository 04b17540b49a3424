"""`latentshift evaluate` and `stats`: runs, sets and models against real images; caches, resume, and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentshift.commands import run
from latentshift.files.images import read_images
from latentshift.metrics import features
from latentshift.metrics.distance import frechet

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = Path(__file__).parents[2] / "docs/schema"
GREY = ["--features", "pixels:16x1"]
QUICK = ["--draws", "20", "--metrics", "fd,prdc"]


def check(name: str, value: Any) -> None:
    """Raise where a value does not follow a schema."""
    jsonschema.validate(value, json.loads((SCHEMAS / f"{name}.json").read_text()))


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "out"
    assert run(["refine", "--num", "40", "--quiet", "--no-report", "--save-before", "--outdir", str(folder)]) == 0
    return folder


def pictures(folder: Path, count: int, *, side: int = 16, mean: int = 100, mode: str = "L", name: str = "img") -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count + mean)
    for i in range(count):
        shape = (side, side) if mode == "L" else (side, side, 3)
        Image.fromarray(rng.integers(mean - 60, mean + 60, shape, dtype=np.uint8)).save(folder / f"{name}{i:04d}.png")
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert run([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_run_is_compared_by_its_seeds(out: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(out, folder)
    words = ["evaluate", str(folder), "--reals", "fashion32-judge", "--draws", "20"]
    found = told(capsys, *words)
    check("evaluate", found)
    assert (found["a"], found["b"], found["network"]) == ("raw", "refined", "fashion32-judge")
    first = found["metrics"][0]
    assert first["metric"] == "fd40-fashion32-judge"
    assert first["change"]["paired"] is True
    assert {m["name"] for m in found["moves"]} >= {"displacement-z", "displacement-features", "drift-fd", "class-shift"}
    for file in found["files"]:
        check("metric", json.loads(Path(file).read_text()))
    # without the unrefined pictures they are made again by the model, and are the same
    shutil.rmtree(folder / "before")
    again = told(capsys, *words, "--outdir", str(tmp_path / "lines"))
    assert [m["a"] for m in again["metrics"]] == [m["a"] for m in found["metrics"]]
    assert len(list((tmp_path / "lines").glob("metric-*.jsonl"))) == len(found["metrics"])


def test_any_two_sets_and_seeds_in_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = pictures(tmp_path / "a", 30, name="seed"), pictures(tmp_path / "b", 40, mean=110, name="seed")
    found = told(capsys, "evaluate", str(a), str(b), *GREY, *QUICK)
    x, y = (np.stack([np.asarray(Image.open(p)).ravel() for p in sorted(f.iterdir())]) / 255.0 for f in (a, b))
    assert found["b"] is None
    assert found["reals"] == "b"
    assert found["metrics"][0]["a"]["value"] == pytest.approx(frechet(x, y), rel=1e-4)
    np.savez(tmp_path / "reals.npz", images=np.random.default_rng(0).integers(0, 255, (50, 16, 16, 1), dtype=np.uint8))
    found = told(capsys, "evaluate", str(a), str(b), "--reals", str(tmp_path / "reals.npz"), *GREY, *QUICK)
    assert found["metrics"][0]["change"]["paired"] is True
    assert found["notes"] == ["compared on the 30 seeds that both have (of 30 and 40)"]
    assert found["metrics"][0]["a"]["count"] == 30


def test_the_table_is_the_answer_without_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["evaluate", "fashion32", "--num", "30", "--reals", "fashion32-judge", *QUICK]) == 0
    text = capsys.readouterr().out
    assert text.startswith("fashion32: 30 images; 6978 real (fashion32-judge)")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "fewer images than features (64)" in text


def test_a_model_with_classes_has_rows_for_each(reference: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pair = reference("reference", "pairs", "mnist28-cond-wgangp")
    whole = read_images(reference("data", "mnist", "t10k-images-idx3-ubyte.gz"))
    np.savez(tmp_path / "reals.npz", images=whole.images[:600], labels=whole.labels[:600])
    net = reference("data", "nets", "cnn_mnist_fp16.safetensors")
    words = ["--reals", str(tmp_path / "reals.npz"), "--features", str(net), "--draws", "10", "--metrics", "fd"]
    found = told(capsys, "evaluate", str(pair), "--num", "60", "--class", "3", "--class", "7", *words)
    assert [r["label"] for r in found["classes"]] == [3, 7]
    assert found["metrics"][0]["metric"] == "fd60-cnn-mnist"
    error = told(capsys, "evaluate", str(pair), "--num", "4", "--class", "12", *words, status=3)
    assert "class 12 is out of range" in error["error"]


def test_statistics_are_made_once(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(tmp_path / "data", 30)
    first = told(capsys, "stats", str(data), *GREY)
    check("stats", first)
    assert first["cached"] is False
    shutil.make_archive(str(tmp_path / "same"), "zip", data)
    monkeypatch.setattr("latentshift.metrics.store.extract", lambda *_, **__: pytest.fail("the features were there"))
    again = told(capsys, "stats", str(tmp_path / "same.zip"), *GREY, "--out", str(tmp_path / "s.npz"))
    assert again["cached"] is True
    assert again["sha256"] == first["sha256"]
    monkeypatch.undo()
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    made = pictures(tmp_path / "made", 20, mean=120)
    by_file = told(capsys, "evaluate", str(made), "--reals", str(tmp_path / "s.npz"), *GREY, *QUICK)
    by_data = told(capsys, "evaluate", str(made), "--reals", str(data), *GREY, *QUICK)
    assert [m["a"] for m in by_file["metrics"]] == [m["a"] for m in by_data["metrics"]]
    error = told(capsys, "evaluate", str(made), "--reals", str(tmp_path / "s.npz"), "--features", "pixels:8x1", status=3)
    assert "statistics of pixels16, not of pixels8" in error["error"]


def test_statistics_of_another_tool_need_their_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mu=np.full(256, 0.4), sigma=0.02 * np.eye(256))
    made = pictures(tmp_path / "made", 20)
    words = ["evaluate", str(made), "--reals", str(tmp_path / "other.npz"), *GREY]
    assert "do not say of how many images" in told(capsys, *words, status=4)["error"]
    found = told(capsys, *words, "--reals-count", "5000")
    assert [m["family"] for m in found["metrics"]] == ["fd"]
    assert "statistics without features" in found["notes"][0]


def test_work_that_was_cut_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after three pieces of four, the second run extracts the last one only, and the numbers are those of an uncut run."""
    monkeypatch.setattr("latentshift.metrics.inputs.PIECE", 8)
    data, made = pictures(tmp_path / "data", 16), pictures(tmp_path / "made", 16, mean=120)
    words = ["evaluate", str(made), "--reals", str(data), *GREY, *QUICK]
    whole = told(capsys, *words, "--no-cache")
    calls = []

    def counted(network: Any, images: Any, device: str) -> Any:
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return features.extract(network, images)

    monkeypatch.setattr("latentshift.metrics.store.extract", counted)
    assert "goes on where it was" in told(capsys, *words, status=130)["error"]
    calls.append(0)  # the fifth is not cut
    found = told(capsys, *words)
    assert calls == [8, 8, 8, 8, 0, 8]
    assert [m["a"] for m in found["metrics"]] == [m["a"] for m in whole["metrics"]]
    assert list((tmp_path / "cache" / "features").rglob("*.npz")) == []


def test_conversions_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Real images of another size and colour are brought to G's, and the reader is told."""
    made, reals = pictures(tmp_path / "made", 12), pictures(tmp_path / "reals", 12, side=24, mode="RGB")
    Image.new("RGBA", (20, 30), (200, 10, 10, 90)).save(reals / "alpha.png")
    assert run(["evaluate", str(made), "--reals", str(reals), *GREY, *QUICK]) == 0
    notes = capsys.readouterr().err
    assert "13 of 13 pictures: colour turned to grey" in notes
    assert "reduced (Lanczos)" in notes
    assert "1 of 13 pictures: transparent pixels laid over white" in notes
    assert "1 of 13 pictures: cropped to the centred square" in notes


def test_what_cannot_be_evaluated_has_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = pictures(tmp_path / "good", 12)
    one = pictures(tmp_path / "one", 1)
    odd = pictures(tmp_path / "odd", 3)
    Image.new("L", (17, 9)).save(odd / "other.png")
    broken = pictures(tmp_path / "broken", 3)
    (broken / "img0001.png").write_bytes(b"\x89PNG no more")
    tiny = pictures(tmp_path / "tiny", 3, side=2)
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK\x03\x04")
    colour = pictures(tmp_path / "colour", 12, mode="RGB")
    cases = [
        ([str(good)], 2, "nothing to measure against"),
        ([str(one), str(good)], 4, "1 image where 2 are needed"),
        ([str(good), str(one)], 4, "1 image where 2 are needed"),
        ([str(odd), str(good)], 4, "pictures of 2 sizes"),
        ([str(broken), str(good)], 4, "img0001.png"),
        ([str(good), str(tiny)], 4, "a picture of 2x2 is too small for 16x16"),
        ([str(good), str(tmp_path / "nested.zip")], 4, "a zip that holds another archive (inner.zip)"),
        ([str(colour), str(good)], 3, "takes 1 channels, the images have 3"),
        ([str(good), str(tmp_path / "nowhere/x")], 4, "no such file or folder"),
        ([str(good), "fashion23"], 3, "fashion32"),
        (["ring", str(good)], 3, "makes points, not pictures"),
        ([str(good), str(good), "--reals", "fashion32-judge"], 3, "its own network"),
    ]
    for words, status, text in cases:
        error = told(capsys, "evaluate", *words, *GREY, status=status)["error"]
        assert text in error, error
        assert "\n" not in error
    for words, text in [
        (["evaluate", str(good), str(good)], "which features?"),
        (["evaluate", str(good), str(good), *GREY, "--metrics", "fdi"], "unknown metric 'fdi'"),
        (["evaluate", str(good), str(good), *GREY, "--k", "0"], "--k is at least 1"),
        (["stats", str(good), *GREY, "--no-cache"], "would keep nothing"),
        (["stats", str(good), *GREY, "--out", "x.txt"], "statistics are an npz"),
    ]:
        assert text in told(capsys, *words, status=2)["error"]
    assert (
        "unknown feature extractor 'inceptoin'"
        in told(capsys, "stats", str(good), "--features", "inceptoin", status=3)["error"]
    )
    assert "no such network file" in told(capsys, "stats", str(good), "--features", "no.safetensors", status=4)["error"]


def test_real_images_of_another_kind_are_warned_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made, reals = pictures(tmp_path / "made", 30, mean=190), pictures(tmp_path / "reals", 30, mean=62)
    found = told(capsys, "evaluate", str(made), "--reals", str(reals), *GREY, *QUICK)
    assert "another kind" in found["warnings"][0]


def test_a_run_that_lost_pictures_is_refused(out: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(out, folder)
    (folder / "seed0007.png").unlink()
    error = told(capsys, "evaluate", str(folder), "--reals", "fashion32-judge", status=4)["error"]
    assert "1 of 40 pictures of this run are gone, the first is seed0007.png" in error


def test_a_run_without_pictures_of_its_own_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    error = told(capsys, "evaluate", "run", "--reals", "fashion32-judge", status=3)["error"]
    assert "it was cut, or is in shards" in error


def test_a_run_that_takes_the_place_of_another_has_none_of_its_metrics(tmp_path: Path) -> None:
    words = ["refine", "--num", "2", "--quiet", "--no-report", "--outdir", "run"]
    assert run(words) == 0
    (tmp_path / "run" / "metric-fd2-pixels16.jsonl").write_text("{}\n")
    assert run([*words, "--overwrite"]) == 0
    assert list((tmp_path / "run").glob("metric-*")) == []
