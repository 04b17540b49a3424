"""`auto` with real images: one fit, kept by content; climbed where it sees something, left alone where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentshift import Sampler
from latentshift.commands import run
from latentshift.errors import LatentshiftWarning, UsageError
from latentshift.recipe import AUTO, AUTO_REALS
from latentshift.train import auto, honest
from latentshift.train.auto import guided
from latentshift.train.kinds import UPDATES

from ..commands.test_help import save_photos
from .test_honest import Blobs, pair, real_blobs


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A cache of its own, and few updates: what is tested here is what happens around a fit."""
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    for kind, count in (("pixel", 36), ("features", 2)):
        monkeypatch.setitem(UPDATES, kind, count)


def known(p):
    """A pair with a hash, as pairs from files have one."""
    return p.replaced(sha256="0" * 64)


def test_a_fit_is_kept_by_content(monkeypatch):
    count = []
    fit = honest.fit_critic
    monkeypatch.setattr(auto, "fit_critic", lambda *a, **k: count.append(1) or fit(*a, **k))
    first = guided(known(pair()), real_blobs(), kind="pixel")
    again = guided(known(pair()), real_blobs().copy(), kind="pixel")
    assert len(count) == 1
    x = torch.rand(4, 1, 16, 16)
    assert torch.equal(first.pair.logit(x), again.pair.logit(x))
    assert again.honest["verdict"] == "climb"
    card = again.honest
    assert again.recipe == first.recipe
    assert again.recipe.name == AUTO_REALS.name
    assert (again.recipe.options["steps"], again.recipe.options["step_size"]) == (card["steps"], card["step_size"])
    assert len(card["tried"]) >= 2
    assert f"climbed {card['steps']} step" in again.told
    guided(known(pair()), real_blobs(seed=3), kind="pixel")
    assert len(count) == 2, "other images are another fit"


def test_what_sees_nothing_leaves_the_samples_alone():
    with torch.no_grad():
        x = Blobs()(torch.randn(300, 19, generator=torch.Generator().manual_seed(5)))
    found = guided(pair(), ((x + 1) * 127.5).round().byte().numpy(), kind="pixel", updates=12)
    assert found.honest["verdict"] == "neither"
    assert found.recipe.options["steps"] == 0
    assert "left as they are" in found.told
    result = Sampler(found.pair, recipe=found.recipe).refine(seeds=range(8))
    assert torch.equal(result.z, result.z0)


def test_too_few_say_what_is_done_instead():
    with pytest.warns(LatentshiftWarning, match=r"40 real images are too few .*250 or more.* refining as without"):
        found = guided(pair(), real_blobs(40))
    assert found.recipe is AUTO
    assert found.honest is None


def test_from_python(monkeypatch, tmp_path):
    monkeypatch.setattr(auto, "fit_critic", lambda *a, **k: honest.fit_critic(*a, **{**k, "kind": "pixel"}))
    sampler = Sampler(pair())
    reals = real_blobs()
    result = sampler.refine(seeds=range(16), reals=reals)
    assert result.honest["verdict"] == "climb"
    assert result.recipe["name"] == "auto/reals"
    assert (result.z - result.z0)[:, 2].mean() < 0
    again = sampler.refine(result.z0, reals=reals)
    assert torch.allclose(again.z, result.z)
    record = json.loads((result.save(tmp_path / "run") / "run.json").read_text())
    assert record["honest"]["verdict"] == "climb"
    assert sampler._fit[2] is reals
    plain = sampler.refine(seeds=range(16), reals=reals, honest=False)
    assert plain.honest is None
    assert plain.recipe["name"] == "auto"
    other = sampler.refine(seeds=range(16), reals=reals, honest=True, strategy="mifgsm", steps=2, step_size=0.05, eps=0.1)
    assert other.honest["verdict"] in ("climb", "neither", "pick")
    assert other.recipe["strategy"] == "mifgsm"


def test_floats_are_in_the_pairs_range():
    x = torch.from_numpy(real_blobs()).float() / 127.5 - 1
    assert torch.allclose(honest.real_images(x, pair()).images, honest.real_images(real_blobs(), pair()).images, atol=1e-6)
    labelled = honest.real_images((x, torch.zeros(len(x))), pair())
    assert len(labelled) == len(x)
    assert labelled.sha256 == honest.real_images(x.numpy(), pair()).sha256


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "fit_critic", lambda *a, **k: honest.fit_critic(*a, **{**k, "kind": "pixel", "updates": 12}))
    save_photos(tmp_path / "photos.npz")
    out = tmp_path / "out"
    words = ["refine", "--reals", str(tmp_path / "photos.npz"), "--num", "4", "--outdir", str(out)]
    assert run(words) == 0
    text = capsys.readouterr()
    assert "critic    honest (" in text.out
    assert "honest critic: " in text.err
    record = json.loads((out / "run.json").read_text())
    assert record["honest"]["verdict"] in ("climb", "pick", "neither")
    assert record["honest"]["may_not_judge"] == []
    assert record["reals_sha256"] == record["honest"]["reals_sha256"]
    monkeypatch.setattr(auto, "fit_critic", None)  # the second run finds the first one's critic
    assert run([*words, "--overwrite"]) == 0
    assert json.loads((out / "run.json").read_text())["honest"] == record["honest"]


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["refine", "--honest", "--num", "2", "--outdir", str(tmp_path / "a")]) == 2
    assert "Give --reals" in capsys.readouterr().err
    np.savez(tmp_path / "x.npz", images=np.zeros((300, 32, 32, 1), np.uint8))
    words = ["--reals", str(tmp_path / "x.npz"), "--honest", "--critic", "sharpness"]
    assert run(["refine", *words, "--num", "2", "--outdir", str(tmp_path / "a")]) == 2
    assert run(["refine", "--model", "ring", "--reals", "ring", "--honest", "--num", "2", "--outdir", str(tmp_path / "a")]) == 3
    from latentshift.strategies.gradient import IFGSM

    with pytest.raises(UsageError, match="by name"):
        Sampler(pair(), strategy=IFGSM(steps=1)).refine(seeds=range(2), reals=real_blobs(), honest=True)
