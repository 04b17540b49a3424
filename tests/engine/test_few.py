"""Calls of fewer than 8 rows: a row keeps its bits, the networks see no padding, and other orders of a sum are noticed."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from latentshift.bench import pairs
from latentshift.engine import few, ops, packed
from latentshift.engine.plan import Plan
from latentshift.engine.precision import networks
from latentshift.engine.run import Engine, Settings
from latentshift.landscape import Ledger
from latentshift.model import Pair
from latentshift.noise import latents
from latentshift.objective import Displacement, Realness
from latentshift.strategies.evolution import EvolGAN
from latentshift.strategies.gradient import IFGSM, MIFGSM
from latentshift.strategies.wrappers import StopAt

needs_packing = pytest.mark.skipif(bool(packed.can_pack()), reason="this torch has no packed convolutions")
CLIMB = MIFGSM(steps=3, step_size=0.05, eps=None)


def small(name="A"):
    nets = pairs.networks(name, shrink=8)
    return Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=name)


def refined(pair, rows, strategy=CLIMB, **settings):
    z = torch.from_numpy(latents(rows, pair.space.shape, pair.space.prior))
    engine = Engine(strategy, pair, settings=Settings(**settings))
    run = engine.run(z, list(rows))
    keys = ("point", "score", "images", "evaluations")
    return {k: np.concatenate([getattr(c, k) for c in run.chunks]) for k in keys}, run.ledger, engine


def sizes_seen(net):
    """Gather the numbers of rows that a plan, or another module, is called with."""
    seen = []
    if isinstance(net, Plan):
        usual = net.called
        net.called = lambda rows: seen.append(rows) or usual(rows)
    else:
        net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return seen


@needs_packing
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["A", "B"])
def test_a_row_alone_or_with_few_has_the_bits_that_it_has_among_many(name, precision):
    pair = small(name)
    whole, _, _ = refined(pair, range(16), precision=precision)
    for rows in (range(1), range(5, 7), range(9, 12), range(3, 8), range(16)):
        mine, _, _ = refined(pair, rows, precision=precision, chunk=8)
        for key, value in mine.items():
            assert np.array_equal(value, whole[key][list(rows)]), (key, rows)


@needs_packing
def test_networks_are_asked_for_the_rows_that_differ_and_work_is_counted_by_them():
    z = torch.randn(3, 100)
    for rows, called in ((1, 1), (2, 2), (3, 4)):
        engine = Engine(CLIMB, small())
        seen = sizes_seen(engine.pair.G), sizes_seen(engine.pair.D)
        run = engine.run(z[:rows], list(range(rows)))
        assert {n for part in seen for n in part} == {called}
        assert run.ledger.g_forward == rows * 4
    padded = Engine(CLIMB, small(), settings=Settings(plan=False))
    seen = sizes_seen(padded.pair.G)
    padded.run(z[:1], [0])
    assert set(seen) == {8}, "nothing is known of other forms"


@needs_packing
def test_what_reduces_images_in_its_own_way_gets_eight_rows():
    engine = Engine(CLIMB, small(), objective=Realness() - 0.01 * Displacement(where="image"))
    seen = sizes_seen(engine.pair.G)
    engine.run(torch.randn(1, 100), [0])
    assert 8 in seen


@needs_packing
def test_candidates_of_one_row_are_not_made_eight_times():
    pair, strategy = small(), EvolGAN(steps=8, offspring=4)
    whole, ledger, _ = refined(pair, range(8), strategy)
    mine, own, engine = refined(pair, range(3, 4), strategy)
    assert np.array_equal(mine["point"], whole["point"][3:4])
    assert own.d_forward == 9
    assert ledger == Ledger(*(8 * n for n in own.as_tuple()))
    seen = sizes_seen(engine.pair.G)
    engine.run(torch.randn(1, 100), [0])
    assert max(seen) <= 8


@needs_packing
def test_finished_rows_leave_calls_of_fewer_than_eight():
    pair = small()
    start, _, _ = refined(pair, range(8), IFGSM(steps=0))
    strategy = StopAt(inner=MIFGSM(steps=8, step_size=0.05, eps=None), target=float(np.median(start["score"])) + 0.05)
    loose, spent, _ = refined(pair, range(8), strategy, compact=False)
    mine, own, engine = refined(pair, range(8), strategy)
    assert len(set(loose["evaluations"].tolist())) > 2, "rows end at different steps"
    for key, value in loose.items():
        assert np.array_equal(value, mine[key]), key
    assert own == spent
    seen = sizes_seen(engine.pair.G)
    z = torch.from_numpy(latents(range(8), pair.space.shape, pair.space.prior))
    engine.run(z, list(range(8)))
    assert set(seen) & {1, 2, 4}


class Sums(ops.Op):
    """A product whose order of summation is another for less than 4 rows."""

    def __init__(self, weight, bias, *, act, more, shape, rows):
        self.weight = weight

    def _product(self, x, weight):
        order = torch.arange(weight.shape[1]) if len(x) >= 4 else torch.arange(weight.shape[1]).flip(0)
        total = torch.zeros(len(x), weight.shape[0])
        for i in order:
            total += x[:, i, None].float() * weight[:, i].float()
        return total.to(x.dtype)

    def forward(self, x, label=None):
        return self._product(x, self.weight), None

    def backward(self, grad, kept):
        return self._product(grad, self.weight.t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_order_of_a_sum_is_noticed(dtype):
    op = Sums(None, None, act=None, more=0, shape=None, rows=16)
    made = {"weight": torch.Size([5, 64]), "dtype": dtype, "act": None, "more": 0, "shape": None, "rows": 16}
    op.made = made
    assert few.fitted(op, 4) is op
    for rows in (1, 2):
        filled = few.fitted(op, rows)
        assert isinstance(filled, ops.Filled)
        assert filled.rows == 4
    unknown = few.fitted(ops.Eager(nn.Linear(3, 2), torch.float32), 1)
    assert isinstance(unknown, ops.Filled)
    assert unknown.rows == 8


@needs_packing
def test_sums_of_a_twin_cancel():
    conv = packed.Conv(torch.randn(6, 4, 3, 3), None, padding=(1, 1), act=("leaky_relu", 0.2), size=(4, 8, 8))
    key = tuple((k, tuple(v) if isinstance(v, list | torch.Size) else v) for k, v in conv.made.items())
    op, x, grad = few._twin(packed.Conv, key)
    y, kept = op.forward(x)
    assert float(y.abs().max()) < 1e-5 * float(x.abs().max())
    assert float(op.backward(grad, kept).abs().max()) < 1e-5 * float(grad.abs().max())


_ALONE = """
import numpy as np, torch
from latentshift import Sampler, load
for precision in ("fp32", "bf16"):
    for name in ("ring", "fashion32"):
        def points(seeds):
            run = Sampler(load(name), strategy="ifgsm", steps=2, precision=precision).refine(seeds=seeds)
            return np.asarray(run.z), np.asarray(run.score)
        whole = points(range(8))
        for seeds in ([0], [3, 4], [1, 2, 5]):
            for mine, all_rows in zip(points(seeds), whole, strict=True):
                assert np.array_equal(mine, all_rows[seeds]), (precision, name, seeds, torch.get_num_threads())
"""


@pytest.mark.parametrize("threads", [2, 4])
def test_rows_alone_have_the_same_bits_on_many_threads(threads):
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE"}
    done = subprocess.run([sys.executable, "-c", _ALONE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_packing
def test_what_a_plan_was_made_of_makes_it_again():
    """Each operation with large weights of the two pairs can be tried; the thin ones are filled up."""
    for name in ("A", "B"):
        ready = networks(small(name), Settings()).pair
        for net in (ready.G, ready.D):
            for op, fit in zip(net.ops, net.called(1), strict=True):
                assert fit is op or isinstance(fit, ops.Filled)
                assert op.rowwise or op.made is not None or fit.rows == 8
