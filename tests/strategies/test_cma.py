"""Tarsier's diagonal CMA: pycma as referee, its start and its walls."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from latentshift.errors import UsageError
from latentshift.landscape import landscape_of
from latentshift.noise import Draw
from latentshift.space import Flat, Normal, Uniform
from latentshift.strategies.cma import Tarsier, constants
from latentshift.strategies.wrappers import KeepBest
from latentshift.testing.oracles import V, column, function_pair, linear_pair, refined


def sphere(x):
    return -x.square().sum(-1)


def rosenbrock(x):
    return -(100 * (x[..., 1:] - x[..., :-1].square()).square() + (1 - x[..., :-1]).square()).sum(-1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the referee's own
@pytest.mark.parametrize("f", [sphere, rosenbrock], ids=lambda f: f.__name__)
def test_agrees_with_pycma_in_distribution(f):
    cma = pytest.importorskip("cma")
    runs, size, population, generations = 200, 8, 10, 40
    theirs = []
    for seed in range(runs):
        options = {
            "CMA_diagonal": True,
            "CMA_active": False,
            "popsize": population,
            "seed": seed + 1,
            "verbose": -9,
            "tolfun": 0,
            "tolx": 0,
        }
        es = cma.CMAEvolutionStrategy(size * [2.0], 0.5, options)
        best = -float(f(torch.full((size,), 2.0)))
        for _ in range(generations):
            points = es.ask()
            losses = (-f(torch.as_tensor(np.array(points)))).tolist()
            es.tell(points, losses)
            best = min(best, *losses)
        theirs.append(math.log(best))
    pair = function_pair(f, size, Flat())
    strategy = Tarsier(steps=generations, population=population, sigma=0.5)
    _, run = refined(strategy, pair, runs, z0=torch.full((runs, size), 2.0))
    ours = torch.log(-column(run, "score").double())
    assert stats.ks_2samp(ours.numpy(), theirs).pvalue > 0.01
    _, run = refined(replace(strategy, steps=generations - 8), pair, runs, z0=torch.full((runs, size), 2.0))
    fewer = torch.log(-column(run, "score").double())
    assert stats.ks_2samp(fewer.numpy(), theirs).pvalue < 0.01  # the test can tell


def test_error_22_rows_start_at_their_own_latent():
    pair = linear_pair()
    points, run = refined(Tarsier(steps=3), pair, 500)
    start = torch.from_numpy(run.chunks[0].z0)
    assert (points - start).norm(dim=1).max() < 2.0
    assert torch.corrcoef(torch.stack([points[:, 0], start[:, 0]]))[0, 1] > 0.9


def test_it_learns_the_scale_of_each_coordinate():
    """A wide and a narrow valley: the learned variances must differ by about as much after some generations."""
    scales = torch.tensor([1.0, 100.0, 1.0, 100.0])
    pair = function_pair(lambda x: -(scales * x.square()).sum(1), 4, Flat())
    strategy = Tarsier(steps=60, population=12, sigma=1.0)
    z = torch.ones(64, 4)
    land, draw = landscape_of(pair, z), Draw(torch.arange(64))
    state = strategy.init(z, land, draw)
    for t in range(60):
        state, _ = strategy.step(state, t, land, draw)
    ratio = (state.variance[:, 0] / state.variance[:, 1]).log().mean().exp()
    assert 30 < ratio < 300
    assert (state.value > -1e-4).float().mean() > 0.9


def test_walls_fold_candidates_back_and_the_start_competes():
    points, run = refined(Tarsier(steps=20), linear_pair(prior=Uniform()), 256)
    assert points.abs().max() <= 1
    gain = column(run, "score") - column(run, "score0")
    assert (gain >= 0).all()
    assert (points * torch.tensor(V).sign()).mean() > 0.9  # at the right corner
    top = function_pair(lambda x: -x.abs().sum(1), 3, Normal())
    stayed, _ = refined(Tarsier(steps=5), top, 16, z0=torch.zeros(16, 3))
    assert torch.equal(stayed, torch.zeros(16, 3))


def test_population_follows_the_dimension_and_the_cost_is_exact_once_it_is_known():
    strategy = Tarsier(steps=4)
    assert not strategy.cost().exact
    for size, population in ((2, 6), (128, 18), (512, 22)):
        pair = function_pair(lambda x: x.sum(1), size, Normal(), differentiable=False)
        _, run = refined(strategy, pair, 8)
        assert run.strategy.cost() == (4 * population + 1, 4 * population + 1, 0, 0, True)
        assert run.ledger.d_forward == 8 * (4 * population + 1)
        assert run.ledger.d_backward == run.fit_ledger.d_forward == 0


def test_constants():
    k = constants(8, 10)
    assert sum(k.weights) == pytest.approx(1)
    assert k.weights == sorted(k.weights, reverse=True)
    assert k.mu_eff == pytest.approx(3.1672992814)
    assert (k.c_sigma, k.damping, k.c_path) == pytest.approx((0.3196142529, 1.3196142529, 0.3436501415))
    # pycma 4.5 prints these as c1_sep and cmu_sep
    assert (k.c_one / math.log(2), k.c_mu / math.log(2)) == pytest.approx((0.0711603647, 0.0829303722))
    for size in (1, 2, 3, 512):
        k = constants(size, 6)
        assert 0 < k.c_one + k.c_mu <= 1


def test_wrappers_and_refusals():
    points, _ = refined(KeepBest(inner=Tarsier(steps=3)), linear_pair(), 8)
    plain, _ = refined(Tarsier(steps=3), linear_pair(), 8)
    assert torch.equal(points, plain)  # it keeps the best already
    for options in ({"population": 3}, {"sigma": 0.0}, {"steps": -1}):
        with pytest.raises(UsageError):
            Tarsier(**options)
