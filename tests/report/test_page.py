"""The page as a text: what it holds, what it says about a damaged folder, and that a stranger's text stays in its place."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentshift import Sampler, load
from latentshift.commands import run
from latentshift.errors import FileError
from latentshift.files.run import read_npz
from latentshift.files.thumbs import FEW, choose, read_thumbs
from latentshift.report.data import read_view
from latentshift.report.page import page, repeat_command, write_report


def data_of(text: str) -> dict[str, Any]:
    """Return the data block of a page."""
    found: dict[str, Any] = json.loads(text.split('id="data">')[1].split("</script>")[0])
    return found


class Parser(html.parser.HTMLParser):
    """Counts tags, and collects addresses and event handlers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_pictures_are_those_of_the_run(image_run: Path) -> None:
    data = data_of((image_run / "report.html").read_text())
    thumbs = read_thumbs(image_run)
    assert thumbs is not None
    assert len(data["samples"]) == 64 == len(thumbs["index"])
    from io import BytesIO

    from PIL import Image

    for place in (0, 5, 63):
        row = data["samples"][place]
        after = np.asarray(Image.open(BytesIO(base64.b64decode(row.get("ia") or row["ib"]))))
        assert np.array_equal(after, np.asarray(Image.open(image_run / f"{row['name']}.png")))
        assert np.array_equal(after, thumbs["after"][place, :, :, 0])
        before = np.asarray(Image.open(BytesIO(base64.b64decode(row["ib"]))))
        assert np.array_equal(before, thumbs["before"][place, :, :, 0])
        assert row.get("same", False) == (not row["moved"])


def test_the_same_page_again_from_the_record_alone(image_run: Path, tmp_path: Path) -> None:
    path, problems = write_report(image_run, tmp_path / "again.html")
    assert problems == []
    assert path.read_bytes() == (image_run / "report.html").read_bytes()


def test_nothing_is_loaded_from_anywhere(image_run: Path) -> None:
    text = (image_run / "report.html").read_text()
    assert [link for link in Parser(text).links if not link.startswith("#")] == []
    assert "http" not in re.sub(r"[A-Za-z0-9+/=]{200,}", "", text).replace('http-equiv="', "")
    assert "default-src 'none'" in text


def test_hostile_texts_are_escaped(hostile: Path, image_run: Path) -> None:
    path, _ = write_report(hostile)
    theirs, clean = Parser(path.read_text()), Parser((image_run / "report.html").read_text())
    assert theirs.handlers == clean.handlers == []
    for tag in ("script", "style", "img", "iframe", "link", "object", "form", "meta"):
        assert theirs.tags.get(tag) == clean.tags.get(tag), tag
    data = data_of(path.read_text())
    assert "onerror" in data["model"]
    assert len(data["samples"]) == 64
    assert "root:" not in path.read_text()  # the picture's name pointed out of the folder


def test_command_repeats_the_run(image_run: Path, tmp_path: Path) -> None:
    words = shlex.split(repeat_command(json.loads((image_run / "run.json").read_text())))
    assert words == ["latentshift", "refine", "--num", "64"]
    typed = [
        "refine",
        "--seeds",
        "3,5-6",
        "--option",
        "support=shell",
        "--steps",
        "2",
        "--eps",
        "0.1",
        "--keep-best",
        "--save-before",
    ]
    assert run([*typed, "--quiet", "--no-report", "--outdir", str(tmp_path / "a")]) == 0
    assert not (tmp_path / "a" / "report.html").exists()
    again = shlex.split(repeat_command(json.loads((tmp_path / "a" / "run.json").read_text())))[1:]
    assert run([*again, "--quiet", "--outdir", str(tmp_path / "b")]) == 0
    for name in ("latents.npz", "samples.jsonl", "seed0005.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_repeat_command_is_quoted() -> None:
    line = repeat_command({"request": {"model": "a b; rm -rf ~", "more": ["x='\n'"], "keep_best": False, "classes": [1, 2]}})
    expected = [
        "latentshift",
        "refine",
        "--model",
        "a b; rm -rf ~",
        "--option",
        "x=' '",
        "--class",
        "1",
        "--class",
        "2",
        "--last",
    ]
    assert shlex.split(line) == expected
    assert "\n" not in line


def test_result_report(tmp_path: Path) -> None:
    result = Sampler(load("fashion32")).refine(seeds=range(5))
    assert result.images0 is None
    path = result.report(tmp_path / "page.html")
    data = data_of(path.read_text())
    assert [r["seed"] for r in data["samples"]] == list(range(5))
    assert all("ib" in r for r in data["samples"])
    assert any("ia" in r for r in data["samples"])


def test_points_have_a_plane(point_run: Path) -> None:
    path, problems = write_report(point_run)
    assert problems == []
    data = data_of(path.read_text())
    held = read_npz(point_run / "latents.npz")
    assert np.allclose(data["points"]["after"], held["x"], atol=1e-4)
    assert np.allclose(data["points"]["before"], held["x0"], atol=1e-4)
    assert '<body class="points">' in path.read_text()


def test_large_runs_show_a_spread_and_both_tails(many_run: Path) -> None:
    view = read_view(many_run)
    gain = view.column("gain")
    assert len(gain) == FEW == 2000
    assert 500 <= len(view.shown) <= 800
    assert (gain[view.shown].min(), gain[view.shown].max()) == (gain.min(), gain.max())
    assert set(range(0, 2000, 4)) <= set(view.shown)
    text = page(view)
    assert "2,000 samples" in text
    assert len(data_of(text)["samples"]) == len(view.shown)
    assert len(choose(np.random.default_rng(0).normal(size=10**6))) <= 800


def test_colour_pictures_stay_below_the_limit(tmp_path: Path) -> None:
    """Noise is the worst case for every codec: 300 samples of 3x256x256."""
    torch.manual_seed(0)
    noise = torch.rand(16, 3 * 256 * 256) * 2 - 1

    def G(z: torch.Tensor) -> torch.Tensor:
        return noise[(z[:, 0].abs() * 8).long() % 16].reshape(-1, 3, 256, 256)

    result = Sampler(G, lambda x: x.flatten(1).mean(1), z_size=2, recipe="advlatgan-z/ball").refine(
        seeds=range(300), strategy="ifgsm", steps=0, before=True
    )
    page_ = result.report(tmp_path / "p.html")
    assert 2e6 < page_.stat().st_size < 25e6
    assert len(data_of(page_.read_text())["samples"]) == 300


# ---- damaged folders


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Make the page by the command and return its lines on stderr; it must have come about."""
    assert run(["report", str(path)]) == 0
    assert (path / "report.html").stat().st_size > 10000
    return [line for line in capsys.readouterr().err.splitlines() if line]


def test_a_cut_samples_file(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copied / "samples.jsonl"
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    lines = told(copied, capsys)
    assert lines[0].startswith("warning: samples.jsonl is cut: 1 of 33 lines")
    assert len(data_of((copied / "report.html").read_text())["samples"]) == 32
    assert "samples.jsonl is cut" in (copied / "report.html").read_text().replace("Samples", "samples")
    file.write_text("".join(text.splitlines(keepends=True)[:40]))
    assert "40 lines, the record promises 64" in told(copied, capsys)[0]


def test_missing_pictures(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "seed0003.png").unlink()
    assert told(copied, capsys) == []  # the thumbnails are enough
    (copied / "thumbs.npz").unlink()
    (copied / "seed0004.png").write_bytes(b"no picture")
    lines = told(copied, capsys)
    assert lines == [
        "warning: 2 of 64 pictures are missing or cannot be read",
        "warning: the pictures before refinement were not kept (no thumbs.npz, no --save-before)",
    ]
    rows = data_of((copied / "report.html").read_text())["samples"]
    assert [r["seed"] for r in rows if "ia" not in r] == [3, 4]


def test_saved_befores_take_the_place_of_thumbnails(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(["refine", "--num", "3", "--save-before", "--recipe", "advlatgan-z/ball", "--quiet", "--outdir", str(out)]) == 0
    whole = data_of((out / "report.html").read_text())["samples"]
    (out / "thumbs.npz").unlink()
    path, problems = write_report(out)
    assert problems == []
    pixels = [[_pixels(row[k]) for k in ("ib", "ia")] for row in data_of(path.read_text())["samples"]]
    assert np.array_equal(pixels, [[_pixels(row[k]) for k in ("ib", "ia")] for row in whole])


def _pixels(text: str) -> Any:
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(base64.b64decode(text))))


def test_a_run_that_was_cut_has_the_page_of_an_uncut_one(tmp_path: Path) -> None:
    words = ["--num", "40", "--chunk", "8", "--quiet"]
    assert run(["refine", *words, "--outdir", str(tmp_path / "whole")]) == 0
    from latentshift.files import record

    put, calls = record.Recorder.put, []

    def cut(self: Any, *rest: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(self, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record.Recorder, "put", cut)
        assert run(["refine", *words, "--outdir", str(tmp_path / "cut")]) == 130
    assert run(["refine", "--resume", str(tmp_path / "cut")]) == 0
    assert (tmp_path / "cut" / "thumbs.npz").read_bytes() == (tmp_path / "whole" / "thumbs.npz").read_bytes()
    pages = [data_of((tmp_path / name / "report.html").read_text()) for name in ("whole", "cut")]
    assert pages[0] == pages[1]


def test_thumbnails_of_another_run(copied: Path, many_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "thumbs.npz").write_bytes((many_run / "thumbs.npz").read_bytes()[:1000])
    assert "not a readable .npz" in told(copied, capsys)[0]
    np.savez(copied / "thumbs.npz", index=np.arange(3), seeds=np.array([7, 8, 9]), after=np.zeros((3, 4, 4, 1), np.uint8))
    assert "belongs to another run" in told(copied, capsys)[0]


def test_another_version(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((copied / "run.json").read_text()) | {"schema": 7, "recipe": "odd", "seconds": None, "fit": 3}
    (copied / "run.json").write_text(json.dumps(record))
    assert told(copied, capsys) == [
        "warning: this run has schema 7, this version reads 1: some things may be missing or wrong here"
    ]


def test_what_is_no_run(tmp_path: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, status in ((tmp_path / "nowhere", 4), (tmp_path, 4)):
        assert run(["report", str(path)]) == status
        assert capsys.readouterr().err.count("\n") == 1
    (copied / "samples.jsonl").write_text("{cut\n")
    with pytest.raises(FileError, match="no readable line"):
        write_report(copied)
    (copied / "samples.jsonl").unlink()
    with pytest.raises(FileError, match="--resume"):
        write_report(copied)
    (copied / "run.json").write_text("[1]")
    with pytest.raises(FileError, match="no JSON object"):
        write_report(copied)


def test_a_judge_and_real_images_are_shown(copied: Path) -> None:
    rows = [json.loads(line) for line in (copied / "samples.jsonl").read_text().splitlines()]
    for k, row in enumerate(rows):
        row |= {"judge_before": 0.1 * k, "judge_after": 0.1 * k + 1}
    (copied / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    record = json.loads((copied / "run.json").read_text()) | {"real_scores": [0.3, 0.4, 0.5]}
    (copied / "run.json").write_text(json.dumps(record))
    text = write_report(copied)[0].read_text()
    assert "A judge that was not climbed scored the same samples: its mean rose (3.15 → 4.15)" in text
    assert 'class="area real"' in text
    assert "Unverified" not in text
    assert '<option value="judge">' in text


HONEST = {"verdict": "climb", "reals": 900, "auc_raw": 0.969, "auc_refined": 0.603}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"honest": HONEST},
            "fitted to 900 real images. On those held out of the fit it tells real from raw samples (AUC 0.97)",
        ),
        ({"honest": HONEST | {"verdict": "neither"}}, "AUC 0.97 against raw samples, and they say not to climb it."),
        ({"honest": {"reals": "<b>"}}, "The critic was fitted to real images."),
        ({"reals_sha256": "0" * 64}, "The real images calibrated the critic; they judge nothing here."),
    ],
)
def test_what_real_images_say_is_said(copied: Path, record: dict[str, Any], said: str) -> None:
    old = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(old | record | {"space": "layer1<script>"}))
    text = write_report(copied)[0].read_text()
    assert said in text
    assert "no real images were given" not in text
    assert "in layer1&lt;script&gt;" in text
    assert "layer1<script>" not in text
    assert "in the latent" not in text
