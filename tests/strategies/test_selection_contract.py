"""What every strategy of selection, transport and baseline promises: a row is its seed, and the ledger is the cost."""

from dataclasses import replace

import pytest
import torch

from latentshift import Pair
from latentshift.engine.run import Engine, Settings
from latentshift.landscape import Landscape
from latentshift.model import Capability, Critic
from latentshift.noise import Draw, latents
from latentshift.space import Context, Normal, Space, Uniform
from latentshift.strategies.aeot import AEOT
from latentshift.strategies.chain import Chain
from latentshift.strategies.collaborative import Collaborative
from latentshift.strategies.dot import DOT, DOTTarget
from latentshift.strategies.gradient import IFGSM, PGD
from latentshift.strategies.mining import PairMining
from latentshift.strategies.polarity import Polarity, Truncation
from latentshift.strategies.selection import DRS, MH, OBRS

SIZE, CLASSES = 3, 4

STRATEGIES = {
    "dot": DOT(steps=5, step_size=0.05, pairs=20, repeats=3, class_pairs=5),
    "dot-adam": DOT(steps=5, step_size=0.05, k=0.1, optimizer="adam", offset=1e-3),
    "dot-target": DOTTarget(steps=5, pairs=20, repeats=3, class_pairs=5),
    "mh": MH(steps=6),
    "drs": DRS(steps=6, pilot_rows=64),
    "obrs": OBRS(steps=6, budget=3.0, pilot_rows=64),
    "obrs-drop": OBRS(steps=1, pilot_rows=64),
    "collaborative": Collaborative(steps=5),
    "collaborative-random": Collaborative(steps=5, iterate="random"),
    "polarity": Polarity(steps=4, projection=3),
    "truncation": Truncation(),
    "truncation-redraw": Truncation(psi=0.4, form="redraw"),
    "pair-mining": PairMining(steps=5, eps=0.3),
    "ae-ot": AEOT(codes=torch.randn(7, SIZE, generator=torch.Generator().manual_seed(0)), iterations=20, samples=256),
    "pgd-l2": PGD(steps=3, eps=0.3, norm="2"),
    "chain": Chain(stages=[IFGSM(steps=2, eps=0.1), OBRS(steps=1, pilot_rows=64)], tries=3),
}
SAMPLED = {"mh", "drs", "obrs", "obrs-drop", "truncation", "truncation-redraw", "ae-ot"}  # no gradient is asked


def networks(prior, classes=None, differentiable=True):
    """A crooked pair: z (3) to images 1 x 2 x 2, labels joined by an embedding where there are classes."""
    random = torch.Generator().manual_seed(1)
    wide, narrow = torch.randn(8, SIZE, generator=random), torch.randn(4, 8, generator=random)
    row, shift = torch.randn(8, 4, generator=random), torch.randn(CLASSES, 8, generator=random)
    out = torch.randn(8, generator=random)

    def G(z, y=None):
        h = z @ wide.T + (0 if y is None else shift[y])
        images = (torch.tanh(h) @ narrow.T).tanh().reshape(-1, 1, 2, 2)
        return images if differentiable else images.detach()

    def D(x, y=None):
        return torch.nn.functional.silu(x.flatten(1) @ row.T + (0 if y is None else shift[y])) @ out

    critic = Critic(D, "D", labels=bool(classes), differentiable=differentiable)
    return Pair(G, critic, Space("z", (SIZE,), prior), "crooked", classes=classes, image_shape=(1, 2, 2))


def run(name, pair, rows=40, first=0, strategy=None, **settings):
    """Return the points and the run of a strategy of `STRATEGIES`."""
    strategy = strategy or STRATEGIES[name]
    settings.setdefault("chunk", 40)
    seeds = range(first, first + rows)
    z0 = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    engine = Engine(strategy, pair, space=pair.spaces["image" if "target" in name else "z"], settings=Settings(**settings))
    done = engine.run(z0, seeds)
    return torch.cat([torch.from_numpy(c.point) for c in done.chunks]), done


@pytest.mark.parametrize("classes", [None, CLASSES], ids=["plain", "labels"])
@pytest.mark.parametrize("prior", [Normal(), Uniform()], ids=["normal", "uniform"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_row_is_its_seed(name, prior, classes):
    pair = networks(prior, classes)
    whole, done = run(name, pair)
    fitted = done.strategy
    assert torch.isfinite(whole).all()
    again, _ = run(name, pair)
    assert torch.equal(whole, again)
    for settings in ({"chunk": 8}, {"chunk": 16, "compact": False}, {"check_every": 4}):
        other, _ = run(name, pair, strategy=fitted, **settings)
        assert torch.equal(whole, other), settings
    alone, _ = run(name, pair, rows=1, first=7, strategy=fitted)
    assert torch.equal(whole[7:8], alone)
    if "target" not in name and name not in ("ae-ot",):
        assert pair.space.inside(whole).all()
    start, _ = run(name, pair, strategy=IFGSM(steps=0))
    assert torch.equal(whole, start) == (name == "obrs-drop")  # which only marks


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_ledger_is_the_cost(name):
    pair = networks(Normal())
    _, done = run(name, pair)
    counts, cost = done.ledger.as_tuple(), done.strategy.cost()
    looks = [0, 0, 0, 0]
    looks[0] = 0 if "target" in name else 2 * 40  # the engine looks at the start and at the end at most
    looks[1] = 2 * 40
    for count, each, more in zip(counts, cost[:4], looks):
        assert count <= 40 * each + more
        if cost.exact:
            assert count >= 40 * each
    if cost.exact:
        assert counts[2:] == (40 * cost.g_backward, 40 * cost.d_backward)


@pytest.mark.parametrize("name", sorted(SAMPLED))
def test_no_gradient_is_asked_by_methods_that_need_none(name):
    assert not STRATEGIES[name].needs & Capability.GRADIENT
    _, done = run(name, networks(Normal(), differentiable=False))
    assert done.ledger.as_tuple()[2:] == (0, 0)
    assert done.fit_ledger.as_tuple()[2:] == (0, 0)


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "chain"])
def test_zero_steps_give_back_the_start(name):
    pair = networks(Uniform())
    points, done = run(name, pair, strategy=replace(STRATEGIES[name], steps=0))
    start, _ = run(name, pair, strategy=IFGSM(steps=0))
    assert torch.equal(points, start)
    assert done.strategy.cost()[:4] == (0, 0, 0, 0)
    assert done.fit_ledger.as_tuple() == (0, 0, 0, 0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_number_may_be_a_tensor(name):
    pair = networks(Normal())
    _, done = run(name, pair, rows=8)
    strategy = done.strategy
    seed = torch.arange(8)
    context = Context(seed=seed)
    space = pair.spaces["image" if "target" in name else "z"]
    z0 = torch.from_numpy(latents(range(8), pair.space.shape, pair.space.prior))
    point = space.enter(pair, z0, context)
    land = Landscape(pair, context._replace(point0=point), space=space)
    with torch.no_grad():
        a = b = strategy.init(point, land, Draw(seed))
    kept = a.point.clone()
    for t in range(strategy.rounds):
        before = a.point.clone()
        later, _ = strategy.step(a, t, land, Draw(seed))
        b, _ = strategy.step(b, torch.tensor(t), land, Draw(seed))
        assert torch.equal(a.point, before)  # nothing was changed in place
        a = later
        assert torch.equal(a.point, b.point)
    assert torch.equal(kept, strategy.init(point, land, Draw(seed)).point)
