"""What every search and chain promises: same seed same bits, alone or in any batch; work counted; nothing asked in vain."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from latentshift import Pair
from latentshift.errors import MissingCapabilityError
from latentshift.landscape import landscape_of
from latentshift.model import Capability
from latentshift.noise import Draw
from latentshift.registry import make_strategy
from latentshift.space import Normal, Sphere, TruncatedNormal, Uniform
from latentshift.strategies.base import over_rows
from latentshift.strategies.cma import Tarsier
from latentshift.strategies.evolution import BestOfN, EvolGAN
from latentshift.strategies.flow import DGflow
from latentshift.strategies.langevin import DDLS, MALA, REPGAN, Ex2MCMC
from latentshift.strategies.wrappers import KeepBest, StopAt
from latentshift.testing.oracles import refined

STRATEGIES = {
    "evolgan": EvolGAN(steps=12),
    "evolgan-portfolio-3": EvolGAN(steps=12, offspring=3, mutation="portfolio"),
    "evolgan-gaussian-4": EvolGAN(steps=12, offspring=4, mutation="gaussian"),
    "evolgan-random": EvolGAN(steps=12, mutation="random"),
    "best-of-n": BestOfN(steps=13),
    "tarsier": Tarsier(steps=5, population=6),
    "ddls": DDLS(steps=12, step_size=0.05),
    "ddls-decay": DDLS(steps=12, step_size=0.05, noise=0.1, decay=True),
    "mala": MALA(steps=12, step_size=0.3),
    "mala-burn-in": MALA(steps=12, step_size=0.3, burn_in=8),
    "repgan": REPGAN(steps=12),
    "ex2mcmc": Ex2MCMC(steps=4, step_size=0.3, burn_in=2),
    "dgflow-kl": DGflow(steps=12),
    "dgflow-js": DGflow(steps=12, divergence="js"),
}
PRIORS = {"normal": Normal(), "uniform": Uniform(), "truncated": TruncatedNormal(1.5), "sphere": Sphere()}
SIZE = 16  # below 16 columns a matrix product gives a row other bits at another place in the batch


class Net(torch.nn.Module):
    """A small network that may take a label."""

    def __init__(self, inputs, outputs, seed, labels=False):
        super().__init__()
        torch.manual_seed(seed)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(inputs, 32), torch.nn.LeakyReLU(0.2), torch.nn.Linear(32, 32), torch.nn.Tanh()
        )
        self.label = torch.nn.Embedding(3, 32) if labels else None
        self.head = torch.nn.Linear(32, outputs)

    def forward(self, x, label=None):
        h = self.body(x)
        return self.head(h if self.label is None else h * self.label(label))


def pair_of(prior, classes=None, differentiable=True):
    with torch.random.fork_rng():
        G, D = Net(SIZE, 16, 0, bool(classes)).eval(), Net(16, 1, 1, bool(classes)).eval()
        D.head.weight.data *= 4
    return Pair.wrap(G, D, z_size=SIZE, prior=prior, classes=classes, differentiable=differentiable)


def sensible(strategy, prior):
    return prior.product or getattr(strategy, "mutation", "gaussian") in ("gaussian", "random")


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_a_row_has_the_same_bits_alone_in_batches_and_in_chunks(strategy, prior):
    if not sensible(strategy, prior):
        return
    pair = pair_of(prior)
    whole, run = refined(strategy, pair, 40)
    again, _ = refined(strategy, pair, 40)
    assert torch.equal(whole, again)
    assert not torch.equal(whole, torch.from_numpy(run.chunks[0].z0))
    for chunk in (8, 24):
        parts, _ = refined(strategy, pair, 40, chunk=chunk)
        assert torch.equal(parts, whole)
    for row in (0, 7, 39):
        alone, _ = refined(strategy, pair, 1, first=row)
        assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_labels_and_compaction_change_nothing(strategy):
    pair = pair_of(Normal(), classes=3)
    _, run = refined(strategy, pair, 40, trace=True)
    target = float(torch.from_numpy(run.chunks[0].trace[strategy.rounds // 2]).median())
    stopping = StopAt(inner=strategy, target=target)
    compact, with_ = refined(stopping, pair, 40)
    full, without = refined(stopping, pair, 40, compact=False)
    small, _ = refined(stopping, pair, 40, chunk=8)
    assert torch.equal(compact, full)
    assert torch.equal(compact, small)
    assert with_.ledger == without.ledger
    assert 0 < int((with_.chunks[0].stopped == 1).sum()) < 40


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_the_ledger_is_the_cost_and_steps_are_pure(strategy):
    pair, rows = pair_of(Uniform()), 16
    z, draw = Uniform().sample(Draw(torch.arange(rows)), 99, "z", (SIZE,)), Draw(torch.arange(rows))
    land = landscape_of(pair, z)
    kept = z.clone()
    state = strategy.init(z, land, draw)
    for t in range(strategy.rounds):
        before = over_rows(torch.clone, state)
        after, info = strategy.step(state, t, land, draw)
        over_rows(lambda a, b: pytest.fail("a step wrote on its input") if not torch.equal(a, b) else a, state, before)
        assert info.value.shape == (rows,)
        state = after
    outcome = strategy.finish(state, land)
    assert land.ledger.as_tuple() == tuple(rows * n for n in strategy.cost()[:4])
    assert strategy.cost().exact
    assert torch.equal(z, kept)
    if outcome.value is not None:
        torch.testing.assert_close(outcome.value, land.score(outcome.point))


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_t_may_be_a_tensor(strategy):
    pair, rows = pair_of(Normal()), 8
    z, draw = torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(0)), Draw(torch.arange(rows))
    land = landscape_of(pair, z)
    a = b = strategy.init(z, land, draw)
    for t in range(min(strategy.rounds, 4)):
        a, b = strategy.step(a, t, land, draw)[0], strategy.step(b, torch.tensor(t), land, draw)[0]
    torch.testing.assert_close(a.point, b.point)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_zero_steps_give_back_the_start(strategy):
    nothing = replace(strategy, steps=0, **({"burn_in": 0} if hasattr(strategy, "burn_in") else {}))
    points, run = refined(nothing, pair_of(Normal()), 9)
    assert torch.equal(points, torch.from_numpy(run.chunks[0].z0))
    assert nothing.cost()[:4] == (0, 0, 0, 0)
    assert (run.ledger.g_backward, run.ledger.d_backward) == (0, 0)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_gradients_are_asked_for_only_where_needed(strategy):
    blind = pair_of(Normal(), differentiable=False)
    if strategy.needs & Capability.GRADIENT:
        with pytest.raises(MissingCapabilityError, match="gradient"):
            refined(strategy, blind, 8)
    else:
        _, run = refined(strategy, blind, 8)
        assert (run.ledger.g_backward, run.ledger.d_backward) == (0, 0)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_support_and_best_seen(strategy):
    for prior in (Uniform(), TruncatedNormal(1.0)):
        points, _ = refined(strategy, pair_of(prior), 64)
        assert prior.inside(points, 1).all()
        best, run = refined(KeepBest(inner=strategy), pair_of(prior), 64)
        assert (torch.from_numpy(run.chunks[0].score - run.chunks[0].score0) >= -1e-6).all()
        assert prior.inside(best, 1).all()


@pytest.mark.parametrize(
    "name",
    ["evolgan", "random-search", "best-of-n", "tarsier", "ddls", "mala", "repgan", "ex2mcmc", "dgflow"],
)
def test_names_are_registered(name):
    strategy = make_strategy(name, steps=3)
    assert strategy.name in (name, "best-of-n")
    assert strategy.source


def test_listing_imports_no_torch():
    modules = "cma, density, evolution, flow, langevin"
    code = f"import sys; from latentshift.strategies import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
