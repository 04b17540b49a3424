"""Accepting a share, drawing the rejected again or dropping them, and chains by name: from Python and from the command line."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from latentshift import Sampler, load, registry
from latentshift.commands import run
from latentshift.engine.run import Engine
from latentshift.errors import RequestError, UsageError
from latentshift.recipe import Recipe, stage_of
from latentshift.strategies.chain import Chain
from latentshift.strategies.evolution import BestOfN
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.keep import TopShare, compose, tries_for
from latentshift.strategies.selection import DRS, MH, OBRS
from latentshift.testing import check_strategy
from latentshift.testing.oracles import linear_pair, refined


def test_the_contract():
    check_strategy(TopShare(steps=5, pilot_rows=64))
    check_strategy(TopShare(steps=0))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_share_is_met_and_what_is_kept_is_the_best(share):
    """For G and D linear the score of raw samples is Gaussian: its quantile is the threshold."""
    pair = linear_pair()
    strategy = TopShare(steps=1, share=share, pilot_rows=8000)
    points, result = refined(strategy, pair, 8000)
    accepted = np.concatenate([c.accepted for c in result.chunks])
    error = math.sqrt(share * (1 - share) * 2 / 8000)
    assert accepted.mean() == pytest.approx(share, abs=3 * error)
    scores = np.concatenate([c.score for c in result.chunks])
    assert scores[accepted].min() >= result.strategy.threshold > scores[~accepted].max()
    v = np.array([0.3, -0.25])  # A^T w of the oracle pair
    normal = torch.distributions.Normal(0.0, 1.0)
    spread = float(np.linalg.norm(v))
    centre = float(pair.logit(pair.generate(torch.zeros(1, 2))).detach())
    exact = centre + spread * float(normal.icdf(torch.tensor(1 - share)))
    slope = float(normal.log_prob(normal.icdf(torch.tensor(1 - share))).exp()) / spread
    assert result.strategy.threshold == pytest.approx(exact, abs=3 * error / slope)
    assert len(points) == 8000


def test_rejected_rows_are_drawn_again_and_refined_again():
    pair = linear_pair()
    strategy = compose(IFGSM(steps=2, eps=0.2), share=0.3)
    assert isinstance(strategy, Chain)
    assert strategy.tries == tries_for(0.3) == 20
    points, result = refined(strategy, pair, 600)
    accepted = np.concatenate([c.accepted for c in result.chunks])
    tries = np.concatenate([c.extra["tries"] for c in result.chunks])
    threshold = result.strategy.stages[1].threshold
    scores = np.concatenate([c.score for c in result.chunks])
    assert accepted.mean() > 0.99
    assert (scores[accepted] >= threshold - 1e-6).all()
    assert tries[accepted].mean() == pytest.approx(1 / 0.3, abs=0.4)
    start = np.concatenate([c.point0 for c in result.chunks])
    moved = np.abs(np.concatenate([c.point for c in result.chunks]) - start).max(1)
    assert (moved[tries == 1] <= 0.2 + 1e-6).all()  # the first try stays in its ball
    assert (moved[tries > 1] > 0.2).mean() > 0.9  # another draw
    assert len(points) == 600


def test_a_row_is_the_same_alone_and_in_any_batch():
    pair = linear_pair()
    whole = Sampler(pair, strategy=IFGSM(steps=2, eps=0.2)).refine(seeds=range(40), keep=0.3)
    again = Sampler(pair, strategy=IFGSM(steps=2, eps=0.2), chunk=8, compact=False).refine(seeds=range(40), keep=0.3)
    some = Sampler(pair, strategy=IFGSM(steps=2, eps=0.2)).refine(seeds=[31, 7, 2], keep=0.3)
    assert torch.equal(whole.z, again.z)
    assert torch.equal(whole.z[[31, 7, 2]], some.z)
    assert (whole.accepted[[31, 7, 2]] == some.accepted).all()


def test_dropping_marks_and_draws_nothing_again():
    pair = linear_pair()
    sampler = Sampler(pair, strategy=IFGSM(steps=2, eps=0.2))
    dropped = sampler.refine(seeds=range(200), keep=0.3, drop=True)
    assert dropped.accepted.mean() == pytest.approx(0.3, abs=0.12)
    plain = sampler.refine(seeds=range(200))
    assert torch.equal(dropped.z, plain.z)  # every row is the first try
    rows = sum(len(z) for z, _ in sampler.stream(seeds=range(200), keep=0.3, drop=True))
    assert rows == int(dropped.accepted.sum())


def test_obrs_takes_the_share_as_its_budget_and_rejections_can_be_dropped():
    assert compose(OBRS(), share=0.25) == OBRS(budget=4)
    assert compose(OBRS(), share=0.25, drop=True) == OBRS(budget=4, steps=1)
    assert compose(DRS(), drop=True) == DRS(steps=1)
    assert compose(MH(), drop=True) == MH()
    chain = compose(BestOfN(steps=4), [IFGSM(steps=2), OBRS(budget=5)])
    assert [type(s) for s in chain.stages] == [BestOfN, IFGSM, OBRS]
    assert chain.stages[2].steps == 1
    assert chain.tries == tries_for(0.2)
    with pytest.raises(UsageError, match="rejects nothing"):
        compose(IFGSM(), drop=True)
    with pytest.raises(UsageError, match="share"):
        compose(IFGSM(), share=0.0)


def test_a_chain_as_it_is_typed():
    recipe = Recipe(name="mine", options={"steps": 3, "eps": 0.1}, then=("obrs:budget=4",), keep=0.5)
    chain = recipe.build()
    assert [type(s) for s in chain.stages] == [IFGSM, OBRS]
    assert chain.stages[1].budget == 2  # --keep speaks to the stage that accepts
    again = Recipe.from_toml(recipe.toml())
    assert again.build() == chain
    assert stage_of("ifgsm:steps=5,eps=0.1") == IFGSM(steps=5, eps=0.1)


def test_a_space_without_a_prior_is_refused_unless_dropped():
    pair = linear_pair().replaced(image_shape=(2,))
    with pytest.raises(RequestError, match="--drop"):
        Engine(compose(IFGSM(steps=1, eps=0.1), share=0.5), pair, space=pair.spaces["image"])
    Engine(compose(IFGSM(steps=1, eps=0.1), share=0.5, drop=True), pair, space=pair.spaces["image"])


def cli(*words):
    return run(["refine", "--quiet", "--no-report", *words])


def test_the_record_says_which(tmp_path):
    typed = ["--seeds", "0-15", "--steps", "2", "--option", "eps=0.1", "--then", "top-share:share=0.5,pilot_rows=64"]
    assert cli(*typed, "--drop", "--outdir", str(tmp_path / "a")) == 0
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "a" / "samples.jsonl").read_text().splitlines()]
    kept = [r for r in lines if r["accepted"]]
    assert 0 < len(kept) < 16
    assert record["acceptance"] == {"accepted": len(kept), "dropped": 16 - len(kept), "tries": 16}
    assert record["recipe"]["drop"] is True
    assert sorted(p.name for p in (tmp_path / "a").glob("seed*.png")) == [r["image"] for r in kept]
    assert {r["stopped"] for r in lines if not r["accepted"]} == {"rejected"}
    with np.load(tmp_path / "a" / "latents.npz") as data:
        assert data["accepted"].tolist() == [r["accepted"] for r in lines]
        assert data["tries"].tolist() == [1] * 16


def test_a_cut_run_goes_on_to_the_same_bytes(tmp_path):
    typed = ["--model", "ring", "--num", "24", "--steps", "1", "--chunk", "8"]
    typed += ["--strategy", "ifgsm", "--eps", "0.1", "--then", "top-share:share=0.6,pilot_rows=64"]
    assert cli(*typed, "--outdir", str(tmp_path / "whole")) == 0
    pair = load("ring")
    assert pair.image_shape == (2,)
    from latentshift.engine.run import Engine as Whole

    begun = Whole.run

    def cut(self, *args, on_chunk=None, **named):
        seen = []

        def once(chunk):
            on_chunk(chunk)
            seen.append(chunk)
            if len(seen) == 2:
                raise KeyboardInterrupt

        return begun(self, *args, on_chunk=once, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Whole, "run", cut)
        assert cli(*typed, "--outdir", str(tmp_path / "cut")) == 130
    assert run(["refine", "--quiet", "--resume", str(tmp_path / "cut")]) == 0
    for name in ("latents.npz", "samples.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    record = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert record["acceptance"]["tries"] > 24


def test_no_option_of_a_method_has_the_name_of_a_recipes_own_field():
    """`keep=`, `drop=`, `then=` and their like mean one thing whatever the method is."""
    fields = {f.name for f in dataclasses.fields(Recipe)} - {"target"}
    for name, kind in registry.everything("strategies")[0].items():
        assert not fields & set(registry.option_docs(kind)), name
