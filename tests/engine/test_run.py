"""The engine: rows that do not see each other, counted work, failures survived, the caller's things left alone."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from latentshift.engine.run import Engine, Settings
from latentshift.errors import DeviceError, LatentshiftWarning, NumericError
from latentshift.files.folder import read_pair
from latentshift.model import Pair
from latentshift.noise import latents
from latentshift.strategies.gradient import IFGSM, MIFGSM, PGD
from latentshift.strategies.wrappers import KeepBest, LowerShare, StopAt
from latentshift.testing import counted, linear_pair

STRATEGY = KeepBest(inner=IFGSM(steps=4, step_size=0.05, eps=None, support="auto"))


def rows_of(run):
    keys = ("point", "score0", "score", "stopped", "evaluations", "images")
    return {k: np.concatenate([getattr(c, k) for c in run.chunks]) for k in keys}


def start(pair, rows=64):
    seeds = list(range(rows))
    return torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior)), seeds


def assert_same(a, b, rows=slice(None)):
    for key in ("point", "score", "images"):
        assert np.array_equal(a[key][rows], b[key], equal_nan=True), key


def test_rows_of_every_reference_pair_have_the_same_bits_in_any_batch(pair_name, reference):
    pair = read_pair(reference("reference", "pairs", pair_name))
    z, seeds = start(pair)
    whole = rows_of(Engine(STRATEGY, pair).run(z, seeds))
    for chunk in (8, 24, 64):
        assert_same(whole, rows_of(Engine(STRATEGY, pair, settings=Settings(chunk=chunk)).run(z, seeds)))
    order = np.random.default_rng(0).permutation(64)
    mixed = rows_of(Engine(STRATEGY, pair).run(z[order], [seeds[i] for i in order]))
    assert_same(whole, {k: v[np.argsort(order)] for k, v in mixed.items()})
    for i in (0, 37):
        assert_same(whole, rows_of(Engine(STRATEGY, pair).run(z[i : i + 1], [i])), slice(i, i + 1))
    unprepared = Engine(STRATEGY, pair, settings=Settings(prepare=False)).run(z[:8], seeds[:8])
    score0 = rows_of(unprepared)["score0"]
    np.testing.assert_allclose(score0, whole["score0"][:8], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fashion32", "ring", "grid"])
def test_bundled_pairs_keep_their_bits_with_compaction(name):
    from latentshift.sampler import load

    pair = load(name)
    z, seeds = start(pair)
    threshold = float(np.median(rows_of(Engine(IFGSM(steps=0), pair).run(z, seeds))["score"]))
    strategy = StopAt(inner=MIFGSM(steps=8, step_size=0.05, eps=None), target=threshold)
    whole = rows_of(Engine(strategy, pair).run(z, seeds))
    assert len(set(whole["evaluations"].tolist())) > 2, "rows end at different steps"
    for settings in (Settings(compact=False), Settings(chunk=16), Settings(chunk=64, compact=True), Settings(check_every=3)):
        got = rows_of(Engine(strategy, pair, settings=settings).run(z, seeds))
        assert_same(whole, got)
        assert np.array_equal(whole["stopped"], got["stopped"])


def failing_pair(limit, error):
    pair = linear_pair()
    seen = []

    def G(z):
        seen.append(len(z))
        if len(z) > limit:
            raise error
        return pair.G(z)

    return pair.replaced(G=G), seen


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_out_of_memory_halves_the_chunk_and_changes_nothing(error):
    pair, seen = failing_pair(16, error)
    z, seeds = start(pair, 70)
    # the score is that of the linear pair's own G, run in one piece
    whole = rows_of(Engine(STRATEGY, linear_pair(), settings=Settings(chunk=64, prepare=False)).run(z, seeds))
    run = Engine(STRATEGY, pair, settings=Settings(chunk=64, prepare=False)).run(z, seeds)
    assert_same(whole, rows_of(run))
    assert max(seen) == 64
    assert run.chunk == 16
    assert [n.split(";")[0] for n in run.notes] == [
        "64 rows did not fit on cpu, going on with 32",
        "32 rows did not fit on cpu, going on with 16",
    ]
    clean = Engine(STRATEGY, linear_pair(), settings=Settings(chunk=16, prepare=False)).run(z, seeds)
    assert run.ledger == clean.ledger, "work that failed is not counted"


def test_not_even_one_batch_fits():
    pair, _ = failing_pair(4, MemoryError())
    z, seeds = start(pair, 20)
    with pytest.raises(DeviceError, match="not even 8 rows"):
        Engine(STRATEGY, pair, settings=Settings(prepare=False)).run(z, seeds)


def test_another_runtime_error_is_not_swallowed():
    pair, _ = failing_pair(4, RuntimeError("something else"))
    z, seeds = start(pair, 20)
    with pytest.raises(RuntimeError, match="something else"):
        Engine(STRATEGY, pair, settings=Settings(prepare=False)).run(z, seeds)


def test_the_ledger_counts_what_is_called():
    torch.manual_seed(0)
    G = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8)).eval()
    D = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).eval()
    for strategy, cost in (
        (IFGSM(steps=5), (6, 6, 5, 5)),  # T steps, one final G, its score
        (KeepBest(inner=IFGSM(steps=5)), (7, 6, 5, 5)),  # one score of the last point, one G for the images
        (PGD(steps=5), (7, 7, 5, 5)),  # the start's score is not told by a random start
        (IFGSM(steps=0), (1, 1, 0, 0)),
    ):
        count = counted(Pair.wrap(G, D, z_size=4))
        z, seeds = start(count.pair, 24)
        count.g_rows = count.d_rows = count.g_backward = 0
        run = Engine(strategy, count.pair, settings=Settings(prepare=False)).run(z, seeds)
        assert run.ledger.as_tuple() == tuple(24 * c for c in cost)
        assert (count.g_rows, count.d_rows, count.g_backward, count.weight_gradients) == (
            24 * cost[0],
            24 * cost[1],
            24 * cost[2],
            0,
        )
        assert (run.chunks[0].evaluations == cost[0]).all()


def test_finished_rows_cost_nothing():
    count = counted(linear_pair())
    z, seeds = start(count.pair, 64)
    score0 = rows_of(Engine(IFGSM(steps=0), linear_pair()).run(z, seeds))["score"]
    target = float(np.quantile(score0, 0.25))
    count.g_rows = 0
    run = Engine(
        StopAt(inner=IFGSM(steps=40, step_size=1e-4, eps=None), target=target),
        count.pair,
        settings=Settings(chunk=64, prepare=False),
    ).run(z, seeds)
    c = run.chunks[0]
    ended = c.stopped == 1
    assert 40 <= int(ended.sum()) <= 50
    assert (c.evaluations[ended] == 2).all()  # the first look, and the final image
    assert (c.score[ended] == c.score0[ended]).all(), "a row that was there already is not moved"
    assert count.g_rows < 64 * 2 + 24 * 40 + 64, "finished rows were carried along"


def test_lower_share_moves_the_lower_part_only():
    pair = linear_pair()
    z, seeds = start(pair, 400)
    engine = Engine(LowerShare(inner=IFGSM(steps=3, step_size=0.01, eps=None), share=0.5), pair)
    assert engine.run_.pilot_seeds == (2**32 - 64, 2**32 - 1)
    assert engine.run_.fit_ledger.as_tuple() == (64, 64, 0, 0)
    run = rows_of(engine.run(z, seeds))
    above = run["score0"] >= engine.strategy.target
    assert 0.35 < above.mean() < 0.65
    assert (run["stopped"][above] == 6).all()
    assert (run["score"][~above] > run["score0"][~above]).all()
    assert np.array_equal(run["point"][above], z.numpy()[above])


def test_keep_best_never_ends_below_the_start():
    torch.manual_seed(0)
    G = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 8)).eval()
    D = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).eval()
    pair = Pair.wrap(G, D, z_size=4)
    z, seeds = start(pair, 64)
    wild = IFGSM(steps=6, step_size=1.5, eps=None, support="free")
    last, best = (rows_of(Engine(s, pair).run(z, seeds)) for s in (wild, KeepBest(inner=wild)))
    assert (last["score"] < last["score0"]).any(), "the climb must overshoot for this test to say anything"
    assert (best["score"] >= best["score0"]).all()
    score = pair.logit(pair.generate(torch.from_numpy(best["point"]))).detach().numpy()
    np.testing.assert_allclose(best["score"], score, atol=1e-5)


def broken_pair(rows):
    """A pair whose score is NaN for latents whose first coordinate is above 100."""
    pair = linear_pair()

    def D(x):
        d = pair.need_critic().call(x)[:, 0]
        return torch.where(x[:, 0] > 50, torch.nan, d)

    z, seeds = start(pair, 16)
    z[rows, 0] = 1000.0
    return Pair.wrap(pair.G, D, z_size=2), z, seeds


def test_rows_that_break_stay_at_their_last_finite_point():
    pair, z, seeds = broken_pair([3, 8])
    with pytest.warns(LatentshiftWarning, match="2 of 16 rows met a NaN"):
        run = Engine(IFGSM(steps=4), pair, settings=Settings(prepare=False)).run(z, seeds)
    got = rows_of(run)
    assert (got["stopped"] == 3).nonzero()[0].tolist() == [3, 8]
    assert np.array_equal(got["point"][[3, 8]], z[[3, 8]].numpy())
    good = [i for i in range(16) if i not in (3, 8)]
    assert (got["score"][good] > got["score0"][good]).all()


def test_all_rows_broken():
    pair, z, seeds = broken_pair(list(range(16)))
    with pytest.raises(NumericError, match="all 16 rows"):
        Engine(IFGSM(steps=4), pair, settings=Settings(prepare=False)).run(z, seeds)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite(value):
    z, seeds = start(linear_pair(), 9)
    z[4, 1] = value
    with pytest.raises(NumericError, match="first in row 4"):
        Engine(IFGSM(), linear_pair()).run(z, seeds)


def test_the_caller_keeps_modes_gradients_and_random_state():
    torch.manual_seed(0)
    G = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh())
    D = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
    D[0].weight.grad = torch.ones(8, 8)
    with pytest.warns(LatentshiftWarning, match="training mode"):
        pair = Pair.wrap(G, D, z_size=4)
    before = {k: v.clone() for k, v in {**G.state_dict(), **{f"D{k}": v for k, v in D.state_dict().items()}}.items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    z, seeds = start(pair, 20)
    kept = z.clone()
    Engine(IFGSM(steps=3), pair).run(z, seeds)
    after = {**G.state_dict(), **{f"D{k}": v for k, v in D.state_dict().items()}}
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert G.training
    assert D.training
    assert all(p.requires_grad for p in (*G.parameters(), *D.parameters()))
    assert torch.equal(D[0].weight.grad, torch.ones(8, 8))
    assert G[0].weight.grad is None
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert torch.equal(z, kept)


@pytest.mark.gpu
def test_on_a_card_rows_agree_within_what_is_promised(reference):
    pair = read_pair(reference("reference", "pairs", "mnist28-dcgan-bce"))
    z, seeds = start(pair)
    cpu = rows_of(Engine(IFGSM(steps=1, step_size=0.01, eps=None), pair).run(z, seeds))
    card = rows_of(Engine(IFGSM(steps=1, step_size=0.01, eps=None), pair.to("cuda")).run(z, seeds))
    np.testing.assert_allclose(card["score0"], cpu["score0"], rtol=1e-3)
    signs = np.sign(card["point"] - z.numpy()) == np.sign(cpu["point"] - z.numpy())
    assert signs.mean() > 0.999


@pytest.mark.parametrize("threads", [3, 6, 12])
def test_the_threads_of_the_caller_do_not_mix_rows(threads, monkeypatch):
    """Whatever the caller's number, rows are dealt out evenly, and the number is put back, after an error too."""
    before = torch.get_num_threads()
    pair, seen = linear_pair(), []
    z, seeds = start(pair, 8)
    real = Engine._chunk
    monkeypatch.setattr(Engine, "_chunk", lambda *a, **k: (seen.append(torch.get_num_threads()), real(*a, **k))[1])
    try:
        torch.set_num_threads(threads)
        possible = torch.get_num_threads()  # a machine of few cores may give fewer
        Engine(STRATEGY, pair).run(z, seeds)
        assert torch.get_num_threads() == possible
        assert 8 % seen[0] == 0
        assert seen[0] <= possible < 2 * seen[0] or seen[0] == 8
    finally:
        torch.set_num_threads(before)


_ALIKE = """
import numpy as np, torch
from latentshift import Sampler, load
for name, rows in (("ring", 256), ("fashion32", 24)):
    runs = [Sampler(load(name), strategy="ifgsm", steps=2, chunk=c).refine(seeds=range(rows)) for c in (8, rows)]
    for key in ("z", "score"):
        assert np.array_equal(*(np.asarray(getattr(r, key)) for r in runs)), (name, key, torch.get_num_threads())
"""


@pytest.mark.parametrize("threads", [4, 6])
def test_rows_have_the_same_bits_on_many_threads(threads):
    """More threads than this machine may have cores: MKL is told to take them all the same."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE"}
    done = subprocess.run([sys.executable, "-c", _ALIKE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
