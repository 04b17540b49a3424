"""Style models at the command line: pictures, page and latents; starts in w and w+; the family's own options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentshift.commands import run
from latentshift.files.names import resolve
from latentshift.files.pictures import to_bytes

pytestmark = pytest.mark.shared


@pytest.fixture
def model(reference: Any) -> str:
    return str(reference("reference", "stylegan", "sg2ada-default-32.pkl"))


def refine(model: str, out: Path, *words: str) -> dict[str, np.ndarray]:
    """Run refine for some seeds or the start given by `words`; return the arrays of latents.npz and the styles as `ws`."""
    start = () if {"--projected-w", "--latents"} & set(words) else ("--num", "3")
    assert (
        run(["refine", "--model", model, *start, "--steps", "2", "--outdir", str(out), "--quiet", "--no-report", *words]) == 0
    )
    with np.load(out / "latents.npz") as latents, np.load(out / "projected_w.npz") as styles:
        assert styles.files == ["w"]
        return {**{k: latents[k] for k in latents.files}, "ws": styles["w"]}


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_the_styles_make_the_pictures(space: str, model: str, tmp_path: Path) -> None:
    """What `projected_w.npz` holds gives the refined pictures, as the publisher's generate.py would make them."""
    from PIL import Image

    got = refine(model, tmp_path / "out", "--space", space)
    pair = resolve(model)
    G: Any = pair.G
    assert got["ws"].shape == (3, G.net.num_ws, G.net.w_dim)
    assert got["ws"].dtype == np.float32
    with torch.no_grad():
        images = to_bytes(G.paint(torch.from_numpy(got["ws"])).numpy(), pair.image_range)
    for i in range(3):
        shown = np.asarray(Image.open(tmp_path / f"out/seed{i:04d}.png"))
        assert np.abs(shown.astype(int) - images[i]).max() <= 1
    moved = got["ws"] - resolve_styles(pair, got)
    assert np.abs(moved).max() > 0
    assert (np.abs(moved - moved[:, :1]).max() > 0) == (space == "w+")


def resolve_styles(pair: Any, got: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        ws: np.ndarray = pair.G.styles(torch.from_numpy(got["z0"])).numpy()
    return ws


def test_starts_in_w(model: str, tmp_path: Path) -> None:
    first = refine(model, tmp_path / "z")
    wide = refine(model, tmp_path / "w+", "--projected-w", str(tmp_path / "z/projected_w.npz"))
    assert str(wide["space"]) == "w+"
    assert "z0" not in wide
    assert np.array_equal(wide["point0"], first["ws"])
    assert np.allclose(wide["score0"], first["score"], rtol=1e-5)
    assert (tmp_path / "w+/row0002.png").is_file()
    narrow = refine(model, tmp_path / "w", "--projected-w", str(tmp_path / "z/projected_w.npz"), "--space", "w")
    assert np.array_equal(narrow["point0"], first["ws"][:, 0])
    again = refine(model, tmp_path / "w2", "--latents", str(tmp_path / "w/latents.npz"))  # its space is taken from the file
    assert str(again["space"]) == "w"
    assert np.array_equal(again["point0"], narrow["point"])
    assert np.array_equal(again["score0"], narrow["score"])


def test_score_reads_projected_images(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = refine(model, tmp_path / "z")
    assert run(["score", "--model", model, "--projected-w", str(tmp_path / "z/projected_w.npz"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert np.allclose(sorted(r["score"] for r in rows), np.sort(got["score"]), rtol=1e-5)


def test_wrong_starts(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(status: int, text: str, *words: str, name: str = model) -> None:
        assert run(["refine", "--model", name, "--steps", "1", "--outdir", str(tmp_path / "none"), *words]) == status
        assert text in capsys.readouterr().err
        assert not (tmp_path / "none/run.json").exists()

    got = refine(model, tmp_path / "w+", "--space", "w+")
    file = str(tmp_path / "w+/projected_w.npz")
    fails(3, "another style in each layer", "--projected-w", file, "--space", "w")
    fails(3, "not in 'z'", "--projected-w", file, "--space", "z")
    fails(3, "has no space 'w+'", "--projected-w", file, name="fashion32")
    fails(2, "--seeds and --projected-w both choose", "--projected-w", file, "--seeds", "3")
    fails(3, "of the space 'w+'", "--latents", str(tmp_path / "w+/latents.npz"), "--space", "w")
    np.savez(tmp_path / "short.npz", w=got["ws"][:, :3])
    fails(3, "latents have shape (3, 3,", "--projected-w", str(tmp_path / "short.npz"))
    np.savez(tmp_path / "other.npz", x=got["ws"])
    fails(4, "Name the array 'w'", "--projected-w", str(tmp_path / "other.npz"))
    fails(4, "no such file", "--projected-w", str(tmp_path / "nowhere.npz"))
    fails(2, "shards are made from seeds: --projected-w", "--projected-w", file, "--shard-size", "8")


def test_options_of_the_family(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    psi = refine(model, tmp_path / "psi", "--trunc", "0.5", "--noise-mode", "random", "--model-option", "grouping=alone")
    pair = resolve(model, options={"trunc": 0.5})
    assert np.allclose(psi["ws"], pair.G.styles(torch.from_numpy(psi["z"])).detach().numpy(), atol=1e-5)
    record = json.loads((tmp_path / "psi/run.json").read_text())
    assert record["request"]["trunc"] == 0.5
    assert "differed" not in record["plan"]
    for words, status, text in (
        (["--trunc", "0.5", "--model", "fashion32"], 3, "takes no options"),
        (["--model", model, "--translate", "0.5"], 2, "Write X,Y"),
        (["--model", model, "--rotate", "5"], 3, "only a StyleGAN3"),
        (["--model", model, "--model-option", "groping=alone"], 3, "'grouping'"),
        (["--model", model, "--model-option", "alone"], 2, "KEY=VALUE"),
        (["--model", model, "--model-option", "grouping=twos"], 2, "reference, group, alone"),
    ):
        assert run(["score", *words, "--num", "1"]) == status
        assert text in capsys.readouterr().err


def test_a_cut_run_keeps_its_styles(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed, the styles are those of an uncut run to the byte."""
    from latentshift.files import record

    whole = refine(model, tmp_path / "whole", "--num", "9", "--chunk", "8", "--trunc", "0.7")
    put, count = record.Recorder.put, []

    def once(self: Any, *args: Any) -> None:
        put(self, *args)
        count.append(1)
        if len(count) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(record.Recorder, "put", once)
    words = ["refine", "--model", model, "--seeds", "0-8", "--chunk", "8", "--trunc", "0.7", "--steps", "2", "--quiet"]
    assert run([*words, "--outdir", str(tmp_path / "cut"), "--no-report"]) == 130
    assert run(["refine", "--resume", str(tmp_path / "cut"), "--quiet"]) == 0
    with np.load(tmp_path / "cut/projected_w.npz") as again:
        assert np.array_equal(again["w"], whole["ws"])
    assert (tmp_path / "cut/latents.npz").read_bytes() == (tmp_path / "whole/latents.npz").read_bytes()


def test_a_result_in_w_is_saved_as_what_it_is(model: str, tmp_path: Path) -> None:
    """`Result.save` writes points under their own names, the styles behind them, and the z that they came from."""
    from latentshift import Sampler

    pair = resolve(model)
    result = Sampler(pair, recipe="advlatgan-z/ball", space="w").refine(seeds=range(3), steps=2)
    result.save(tmp_path / "out")
    with np.load(tmp_path / "out/latents.npz") as found:
        got = dict(found)
    assert (str(got["space"]), "z" in got) == ("w", False)
    assert np.array_equal(got["point"], result.z)
    z = torch.from_numpy(got["z0"])
    with torch.no_grad():
        assert np.array_equal(got["point0"], np.asarray(result.z0))
        assert np.allclose(pair.G.styles(z)[:, 0], got["point0"], atol=1e-6)
    with np.load(tmp_path / "out/projected_w.npz") as styles:
        assert np.array_equal(styles["w"], np.repeat(got["point"][:, None], pair.G.net.num_ws, 1))
    again = refine(model, tmp_path / "again", "--latents", str(tmp_path / "out/latents.npz"))
    assert np.array_equal(again["score0"], got["score"])
    before = result._with_before()  # the page shows the pictures that the points were, not those of w taken for z
    with torch.no_grad():
        assert np.abs(before.run.chunks[0].images0 - pair.G(z).numpy()).max() < 1e-4


@pytest.mark.parametrize(("space", "mode"), [("noise", "const"), ("z+noise", "none"), ("z", "random"), ("w", "const")])
def test_saved_noise_makes_the_pictures_again(space: str, mode: str, model: str, tmp_path: Path) -> None:
    words = ("--space", space, "--noise-mode", mode, "--save-noise")
    got = refine(model, tmp_path / "out", *words)
    pair = resolve(model)
    assert got["noise_shapes"].tolist() == [[r, r] for r in (4, 8, 8, 16, 16, 32, 32)]
    assert got["noise"].shape == (3, sum(h * w for h, w in got["noise_shapes"]))
    with torch.no_grad():
        images = to_bytes(pair.G.paint(*map(torch.from_numpy, (got["ws"], got["noise"]))).numpy(), pair.image_range)
        other = to_bytes(pair.G.paint(torch.from_numpy(got["ws"]), torch.zeros(3, got["noise"].shape[1])).numpy(), (-1, 1))
    from PIL import Image

    for i in range(3):
        shown = np.asarray(Image.open(tmp_path / f"out/seed{i:04d}.png")).astype(int)
        assert np.abs(shown - images[i]).max() <= 1
        assert np.abs(shown - other[i]).max() > 1
    assert "noise" not in refine(model, tmp_path / "without", *words[:-1])


def test_noise_that_is_not_there(reference: Any, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smooth = str(reference("reference", "stylegan", "sg3t-32.pkl"))
    for words, status in ((["--model", smooth], 3), (["--model", "ring"], 3), (["--model", model, "--noise-mode", "none"], 3)):
        assert run(["refine", *words, "--num", "2", "--save-noise", "--outdir", str(tmp_path / "out")]) == status
        assert "no noise maps" in capsys.readouterr().err
    assert run(["refine", "--model", model, "--save-noise", "--shard-size", "4", "--outdir", str(tmp_path / "out")]) == 2
    assert "shards hold no noise maps" in capsys.readouterr().err
