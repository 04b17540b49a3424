"""Chains of strategies: refine and then accept to a budget, pick and then refine."""

import pytest
import torch

from latentshift.engine.run import Engine
from latentshift.errors import RequestError, UsageError
from latentshift.strategies.base import REASONS, options
from latentshift.strategies.chain import Chain
from latentshift.strategies.dot import DOT
from latentshift.strategies.evolution import BestOfN
from latentshift.strategies.gradient import IFGSM, PGD
from latentshift.strategies.langevin import DDLS
from latentshift.strategies.selection import DRS, MH, OBRS
from latentshift.strategies.wrappers import KeepBest, StopAt
from latentshift.testing.oracles import column, linear_pair, refined


def test_two_stages_are_one_after_the_other():
    pair = linear_pair()
    first, second = IFGSM(steps=4, eps=0.1), IFGSM(steps=3, eps=0.5, norm="2")
    both, run = refined(Chain(stages=[first, second]), pair, 24)
    middle, _ = refined(first, pair, 24)
    want, _ = refined(second, pair, 24, z0=middle)
    assert torch.equal(both, want)  # the second ball is around the first stage's end
    assert run.ledger.as_tuple() == (7 * 24 + 24, 7 * 24 + 24, 7 * 24, 7 * 24)


def test_stages_do_not_share_noise():
    pair = linear_pair(w=(0.0, 0.0))
    langevin = DDLS(steps=5, step_size=1e-4)
    twice, _ = refined(Chain(stages=(langevin, langevin)), pair, 4000)
    long, _ = refined(DDLS(steps=10, step_size=1e-4), pair, 4000)
    assert torch.equal(twice, long)  # steps 0 to 9 either way; shared noise would double the move
    start, _ = refined(DDLS(steps=0), pair, 4000)
    assert float((twice - start).var()) == pytest.approx(10 * 1e-4, rel=0.1)


def test_best_of_n_then_refine():
    pair = linear_pair()
    chain = Chain(stages=[BestOfN(steps=8), IFGSM(steps=2, eps=0.1)])
    both, _ = refined(chain, pair, 32)
    best, _ = refined(BestOfN(steps=8), pair, 32)
    want, _ = refined(IFGSM(steps=2, eps=0.1), pair, 32, z0=best)
    assert torch.equal(both, want)


def test_refine_then_accept_marks_what_it_rejects():
    pair = linear_pair()
    refine = IFGSM(steps=3, eps=0.2)
    chain = Chain(stages=[refine, OBRS(steps=1, budget=3.0, pilot_rows=4000)])
    points, run = refined(chain, pair, 4000)
    moved, _ = refined(refine, pair, 4000)
    taken = column(run, "accepted").bool()
    assert torch.equal(points, moved)
    assert abs(float(taken.float().mean()) - 1 / 3) < 0.03
    assert (column(run, "stopped")[~taken] == REASONS.index("rejected")).all()
    assert (column(run, "stopped")[taken] == REASONS.index("steps")).all()
    # the budget is that of refined samples: their scores are higher, so the constant is not the raw one
    raw = refined(OBRS(steps=1, budget=3.0, pilot_rows=4000), pair, 8)[1].strategy
    assert run.strategy.stages[1].log_c < raw.log_c - 0.03


def test_refine_then_accept_draws_again_and_refines_again():
    pair = linear_pair()
    refine = IFGSM(steps=3, eps=0.2)
    chain = Chain(stages=[refine, OBRS(steps=1, budget=3.0, pilot_rows=4000)], tries=30)
    points, run = refined(chain, pair, 2000)
    assert column(run, "accepted").all()
    tries = (column(run, "evaluations") - 1) / 4
    assert abs(float(tries.float().mean()) - 3) < 0.25
    once = refined(Chain(stages=chain.stages, tries=1), pair, 2000)
    first = column(once[1], "accepted").bool()
    assert torch.equal(points[first], once[0][first])
    assert not (points[~first] == once[0][~first]).any()
    # what is accepted was refined: |v|_1 * 0.2 higher in the mean than the same law unrefined
    v = torch.tensor((0.3, -0.25))
    plain, _ = refined(OBRS(budget=3.0, pilot_rows=4000, steps=60), pair, 2000)
    assert float(((points - plain) @ v).mean()) == pytest.approx(0.2 * 0.55, abs=0.04)


@pytest.mark.parametrize(
    "chain",
    [
        Chain(stages=[IFGSM(steps=2, eps=0.1), MH(steps=4)]),
        Chain(stages=[PGD(steps=2, eps=0.1), DOT(steps=2, k=0.1), DRS(steps=1, log_max=2.0, gamma=0.0)], tries=4),
        Chain(stages=[BestOfN(steps=3), KeepBest(inner=IFGSM(steps=3, eps=0.2))]),
        KeepBest(inner=Chain(stages=[IFGSM(steps=2, eps=0.1), IFGSM(steps=2, eps=0.1)])),
        Chain(stages=[StopAt(inner=IFGSM(steps=4, eps=0.4), target=0.1), OBRS(steps=1, log_c=-0.5)], tries=3),
        Chain(stages=[IFGSM(steps=0), IFGSM(steps=2, eps=0.1)]),
        Chain(stages=[Chain(stages=[IFGSM(steps=2, eps=0.1), OBRS(steps=1, log_c=-0.2)]), PGD(steps=2, eps=0.1)]),
    ],
    ids=["mh", "three", "best", "kept", "stop", "empty-stage", "nested"],
)
def test_rows_are_independent_of_batch_chunk_and_compaction(chain):
    pair = linear_pair()
    whole, run = refined(chain, pair, 64)
    for settings in ({"chunk": 16}, {"compact": False}, {"check_every": 5}):
        other, _ = refined(chain, pair, 64, **settings)
        assert torch.equal(whole, other)
    assert torch.equal(whole[5:6], refined(chain, pair, 1, first=5)[0])
    cost, looks = chain.cost(), 2 * 64
    ledger = run.ledger.as_tuple()
    for counted, per_row in zip(ledger, cost[:4]):
        assert counted <= 64 * per_row + looks
    if cost.exact:
        assert ledger[2:] == (64 * cost.g_backward, 64 * cost.d_backward)
        assert 0 <= ledger[1] - 64 * cost.d_forward <= looks


def test_a_stage_that_ends_early_waits_for_the_next():
    pair = linear_pair()
    stop = StopAt(inner=IFGSM(steps=20, eps=2.0), target=0.5)
    chain = Chain(stages=[stop, IFGSM(steps=2, eps=0.1)])
    both, run = refined(chain, pair, 64)
    middle, early = refined(stop, pair, 64)
    assert int((column(early, "stopped") == REASONS.index("target")).sum()) > 30
    want, _ = refined(IFGSM(steps=2, eps=0.1), pair, 64, z0=middle)
    assert torch.equal(both, want)
    assert column(run, "accepted").all()


def test_zero_steps_give_back_the_start():
    pair = linear_pair()
    start, _ = refined(IFGSM(steps=0), pair, 16)
    points, run = refined(Chain(stages=[IFGSM(steps=0), MH(steps=0)]), pair, 16)
    assert torch.equal(points, start)
    assert run.ledger.d_forward == 16  # nothing moves: the start is looked at once


def test_senseless_chains_are_refused():
    with pytest.raises(UsageError, match=r"skip the earlier stages. Give it steps=1, and the chain tries=50"):
        Chain(stages=[IFGSM(), OBRS(steps=50)])
    with pytest.raises(UsageError, match="needs its stages"):
        Chain(stages=[])
    with pytest.raises(UsageError, match="made of strategies"):
        Chain(stages=[IFGSM(), "obrs"])
    with pytest.raises(UsageError, match="tries"):
        Chain(stages=[IFGSM()], tries=0)
    pair = linear_pair()
    with pytest.raises(RequestError, match=r"image.* has no prior"):
        Engine(Chain(stages=[IFGSM()], tries=2), pair, space=pair.spaces["image"])


def test_options_are_plain_values():
    told = options(Chain(stages=[IFGSM(steps=2), OBRS(steps=1)], tries=2))
    assert [s["strategy"] for s in told["stages"]] == ["ifgsm", "obrs"]
    assert told["steps"] == 6
