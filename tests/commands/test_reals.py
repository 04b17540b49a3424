"""`--reals` and `--calibration`: real images from the command line, for the methods that read the critic as log odds."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentshift import load
from latentshift.commands import run
from latentshift.errors import FileError, RequestError, ShapeError
from latentshift.files.reals import read_reals
from latentshift.metrics.toy import MIXTURES


def refine(out, *more, model="ring", num=16):
    return run(["refine", "--model", model, "--num", str(num), "--quiet", "--no-report", "--outdir", str(out), *more])


def ring_points(count):
    return MIXTURES["ring"].sample(count, torch.Generator().manual_seed(1)).numpy()


def fit_of(out):
    return json.loads((out / "run.json").read_text())["fit"]["found"]


QUICK = ("--steps", "5", "--option", "pilot_rows=2000")


def test_a_critic_without_a_scale_is_refused_until_it_is_calibrated(tmp_path, capsys):
    assert refine(tmp_path / "a", "--strategy", "mh") == 3
    text = capsys.readouterr().err
    assert "no log odds" in text
    assert "--reals DATA" in text
    assert "--calibration none" in text
    assert refine(tmp_path / "b", "--strategy", "mh", "--calibration", "none", "--steps", "3") == 0
    assert "arbitrary power" in capsys.readouterr().err
    assert "arbitrary power" in str(json.loads((tmp_path / "b" / "run.json").read_text())["warnings"])


@pytest.mark.parametrize("kind", ["logistic", "temperature", "isotonic"])
def test_each_calibration_is_fitted_on_the_reals_that_are_named(kind, tmp_path):
    assert refine(tmp_path / "a", "--strategy", "mh", "--calibration", kind, "--reals", "grid", *QUICK, model="grid") == 0
    found = fit_of(tmp_path / "a")
    assert found["calibration"] == kind
    if kind == "isotonic":
        assert len(found["levels"]) == len(found["level_ratios"]) > 2
        assert np.all(np.diff(found["level_ratios"]) > 0)
    else:
        assert found["slope"] > 1
        assert (found["intercept"] == 0) == (kind == "temperature")
    assert json.loads((tmp_path / "a" / "run.json").read_text())["reals_sha256"]


def test_what_makes_no_sense_is_refused(tmp_path, capsys):
    cases = {
        ("--strategy", "mh", "--calibration", "isotonic"): "without real images",
        ("--strategy", "ddls", "--calibration", "isotonic", "--reals", "ring"): "of an isotonic fit is 0",
        ("--strategy", "ifgsm", "--calibration", "temperature"): "does not read the critic as log odds",
        ("--strategy", "mh", "--reals", "nowhere"): "no such file",
    }
    for typed, words in cases.items():
        assert refine(tmp_path / "a", *typed) in (3, 4), typed
        assert words in capsys.readouterr().err
    assert not list((tmp_path / "a").glob("*"))


def test_other_reals_end_a_resume(tmp_path, capsys):
    points = ring_points(500)
    np.save(tmp_path / "reals.npy", points)
    out = tmp_path / "out"
    assert refine(out, "--strategy", "mh", *QUICK, "--reals", str(tmp_path / "reals.npy")) == 0
    record = json.loads((out / "run.json").read_text())
    record["status"] = "interrupted"
    (out / "run.json").write_text(json.dumps(record))
    np.save(tmp_path / "reals.npy", points + 1)
    assert run(["refine", "--resume", str(out), "--quiet"]) == 3
    assert "the real images changed" in capsys.readouterr().err


def test_images_come_in_the_pairs_size_and_range(tmp_path):
    pair = load("fashion32")
    for i, side in enumerate((32, 48)):
        Image.fromarray(np.full((side, side, 3), 255 * i, np.uint8)).save(tmp_path / f"{i}.png")
    reals = read_reals(tmp_path, pair)
    assert reals.images.shape == (2, 1, 32, 32)
    assert reals.images.amin((1, 2, 3)).tolist() == [-1.0, 1.0]
    assert any("turned to grey" in n for n in reals.notes)
    assert reals.sha256 == read_reals(tmp_path, pair).sha256
    with pytest.raises(FileError, match="2 images where 3"):
        read_reals(tmp_path, pair, least=3)
    with pytest.raises(RequestError, match="squares"):
        read_reals(tmp_path, pair.replaced(image_shape=(1, 32, 16)))


def test_points_are_checked(tmp_path):
    pair = load("ring")
    np.savez(tmp_path / "p.npz", x=np.zeros((5, 2)), other=np.zeros(3))
    assert torch.equal(read_reals(tmp_path / "p.npz", pair).images, torch.zeros(5, 2))
    np.save(tmp_path / "p.npy", np.zeros((5, 3)))
    with pytest.raises(FileError, match=r"\(5, 3\)"):
        read_reals(tmp_path / "p.npy", pair)
    with pytest.raises(FileError, match="no such file"):
        read_reals(tmp_path / "none.npy", pair)


def test_a_conditional_critic_asks_for_labels(tmp_path):
    pair = load("fashion32")
    pair = pair.replaced(classes=3, critic=pair.critic.__class__(lambda x, y: x.sum((1, 2, 3)), labels=True))
    np.savez(tmp_path / "d.npz", images=np.zeros((4, 32, 32), np.uint8), labels=np.array([0, 1, 2, 3]))
    reals = read_reals(tmp_path / "d.npz", pair)
    with pytest.raises(RequestError, match="has 3 classes"):
        reals.for_critic(pair)
    np.savez(tmp_path / "e.npz", images=np.zeros((4, 32, 32), np.uint8))
    with pytest.raises(RequestError, match="conditional"):
        read_reals(tmp_path / "e.npz", pair).for_critic(pair)


def test_python_takes_a_path_too(tmp_path):
    from latentshift import Sampler

    points = ring_points(800)
    np.save(tmp_path / "reals.npy", points)
    pair = load("ring")
    options = {"strategy": "mh", "steps": 3, "pilot_rows": 800, "seeds": range(8)}
    a = Sampler(pair).refine(reals=str(tmp_path / "reals.npy"), **options)
    b = Sampler(pair).refine(reals=points, **options)
    assert torch.equal(a.z, b.z)
    with pytest.raises((RequestError, ShapeError)):
        Sampler(pair).refine(reals=np.zeros((5, 7), np.float32), **options)
