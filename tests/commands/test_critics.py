"""`--critic` as it is typed: names with options, weighted sums, and a head on D's features for methods that need log odds."""

import json
from pathlib import Path

import pytest
import torch

import latentshift
from latentshift import Sampler, load
from latentshift.commands import run
from latentshift.commands.critics import critic_of
from latentshift.critics import ClassLogit, Sharpness
from latentshift.errors import UsageError
from latentshift.metrics.toy import MIXTURES

JUDGE = Path(latentshift.__file__).parent / "data" / "fashion32-judge"


def images(rows=4):
    return torch.rand(rows, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_class_logit_is_climbed_by_name(tmp_path):
    text = f"class-logit:folder={JUDGE},class_index=7,margin=true"
    out = tmp_path / "out"
    typed = ["--num", "8", "--strategy", "ifgsm", "--steps", "3", "--eps", "0.2", "--critic", text]
    assert run(["refine", *typed, "--quiet", "--no-report", "--outdir", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["gain"] > 0.05
    x = images()
    with torch.no_grad():
        mine = critic_of(text, load("fashion32")).logit(x)
        assert torch.allclose(mine, ClassLogit(folder=str(JUDGE), class_index=7, margin=True).score(x))


def test_a_weighted_sum_and_the_pairs_own():
    pair = load("fashion32")
    x = images()
    with torch.no_grad():
        both = critic_of("0.7*D+-0.3*sharpness:target=-2", pair).logit(x)
        want = 0.7 * pair.logit(x) - 0.3 * Sharpness(target=-2).score(x)
    torch.testing.assert_close(both, want)
    assert critic_of("D", pair) is pair.critic


def test_images_reach_a_critic_in_its_own_range():
    seen = []

    class Look:
        name, resolution, differentiable, higher_is_better = "look", 16, True, False

        def score(self, pictures, labels=None):
            seen.append(pictures)
            return pictures.mean((1, 2, 3))

    pair = load("fashion32").replaced(image_range=(0.0, 1.0))
    Sampler(pair, critic=Look(), recipe="advlatgan-z/ball").score(seeds=range(3))
    assert seen[-1].shape[1:] == (1, 16, 16)
    assert float(seen[-1].min()) < -1.5  # what lay in [-1, 1] is read as [0, 1]


def test_what_cannot_be_made_is_said(capsys):
    pair = load("fashion32")
    with pytest.raises(UsageError, match="folder"):
        critic_of("class-logit", pair)
    with pytest.raises(UsageError, match="latentshift critics sharpness"):
        critic_of("sharpness:tarket=3", pair)
    with pytest.raises(UsageError, match="weight"):
        critic_of("0.5.5*D", pair)
    assert run(["score", "--critic", "shrapness", "--num", "2"]) == 3
    assert "sharpness" in capsys.readouterr().err


def test_a_head_on_ds_features_serves_langevin(tmp_path, capsys):
    typed = ["--model", "ring", "--num", "16", "--strategy", "ddls", "--steps", "4", "--calibration", "head", "--no-report"]
    assert run(["refine", *typed, "--outdir", str(tmp_path / "a")]) == 3
    assert "head calibration without real images" in capsys.readouterr().err
    assert run(["refine", *typed, "--reals", "ring", "--outdir", str(tmp_path / "b")]) == 0
    assert "AUC" in capsys.readouterr().err
    reals = MIXTURES["ring"].sample(400, torch.Generator().manual_seed(0))
    result = Sampler(load("ring")).refine(seeds=range(8), strategy="ddls", steps=3, calibration="head", reals=reals)
    assert "head on features" in result.pair.critic.name
