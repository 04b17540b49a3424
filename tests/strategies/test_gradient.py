"""I-FGSM, MI-FGSM and PGD against closed forms and references written by hand from the papers' formulas."""

import math

import pytest
import torch

from latentshift.engine.run import Engine, Settings
from latentshift.errors import RequestError, UsageError
from latentshift.landscape import landscape_of
from latentshift.model import Pair
from latentshift.noise import Draw
from latentshift.space import Normal, Uniform
from latentshift.strategies.gradient import IFGSM, MIFGSM, PGD, ifgsm_step
from latentshift.testing import check_strategy, counted, linear_pair, quadratic_pair

V = torch.tensor([0.3, -0.25])


def run(strategy, pair, z):
    return torch.cat([torch.from_numpy(c.point) for c in Engine(strategy, pair).run(z, list(range(len(z)))).chunks])


def network_pair(d=6, prior=None):
    torch.manual_seed(3)
    G = torch.nn.Sequential(torch.nn.Linear(d, 24), torch.nn.Tanh(), torch.nn.Linear(24, 10)).eval()
    D = torch.nn.Sequential(torch.nn.Linear(10, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1)).eval()
    return Pair.wrap(G, D, z_size=d, prior=prior)


def by_hand(pair, z, n, alpha, eps, norm, mu=None, start=None, clamp=None):
    """A plain loop: v from the gradient, z <- Pi(z + alpha v), as `methods` prints it."""
    z0, m = z.clone(), torch.zeros_like(z)
    z = z if start is None else start
    path = []
    for _ in range(n):
        q = z.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(pair.logit(pair.generate(q)).sum(), q)
        if mu is not None:
            m = mu * m + g / g.abs().sum(1, keepdim=True).clamp_min(1e-12)
            g = m
        v = g.sign() if norm == "inf" else g / g.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        z = z + alpha * v
        if eps is not None and norm == "inf":
            z = z0 + (z - z0).clamp(-eps, eps)
        elif eps is not None:
            d = z - z0
            z = z0 + d * (eps / d.square().sum(1, keepdim=True).sqrt().clamp_min(1e-30)).clamp(max=1)
        if clamp:
            z = z.clamp(*clamp)
        path.append(z)
    return path


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.05), (7, 0.03), (40, 0.01)])
def test_ifgsm_on_a_linear_pair_is_the_closed_form(n, alpha):
    """z_n = z0 + n alpha sign(A^T w): to the bit against the same float32 loop, within 1e-6 against the formula."""
    z = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    got = run(IFGSM(steps=n, step_size=alpha, eps=None, support="free"), linear_pair(), z)
    loop = z.clone()
    for _ in range(n):
        loop = loop + alpha * V.sign()
    assert torch.equal(got, loop)
    assert float((got.double() - (z.double() + n * alpha * V.sign().double())).abs().max()) < 1e-6


def test_ball_on_a_linear_pair():
    z = torch.randn(16, 2)
    got = run(IFGSM(steps=50, eps=0.3), linear_pair(), z)
    assert torch.allclose(got, z + 0.3 * V.sign(), atol=1e-6)
    got = run(IFGSM(steps=50, eps=0.3, norm="2"), linear_pair(), z)
    assert torch.allclose(got, z + 0.3 * V / V.norm(), atol=1e-6)
    # equal for MI-FGSM, and for PGD where n alpha >= 2 eps
    assert torch.allclose(run(MIFGSM(steps=50, eps=0.3), linear_pair(), z), z + 0.3 * V.sign(), atol=1e-6)
    assert torch.allclose(run(PGD(steps=50, eps=0.3), linear_pair(), z), z + 0.3 * V.sign(), atol=1e-6)


def test_quadratic_reaches_the_peak_and_stays_within_a_step():
    """Each coordinate arrives in ceil(|z0 - mu| / alpha) steps and then stays within alpha; never farther than n alpha."""
    mu, alpha = torch.tensor([1.0, -0.5]), 0.07
    z = torch.randn(16, 2)
    need = math.ceil(float((z - mu).abs().max()) / alpha)
    for n in (3, need, need + 11):
        got = run(IFGSM(steps=n, step_size=alpha, eps=None, support="free"), quadratic_pair(mu.tolist()), z)
        assert float((got - z).abs().max()) <= n * alpha + 1e-5
        if n >= need:
            assert float((got - mu).abs().max()) <= alpha + 1e-5


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("eps", [None, 0.2])
@pytest.mark.parametrize("mu", [None, 1.0, 0.5])
def test_every_step_matches_the_definition(norm, eps, mu):
    pair = network_pair()
    z = torch.randn(24, 6, generator=torch.Generator().manual_seed(5))
    kind = IFGSM if mu is None else MIFGSM
    extra = {} if mu is None else {"mu": mu}
    strategy = kind(steps=9, step_size=0.05, eps=eps, norm=norm, **extra)
    land = landscape_of(pair, z)
    state = strategy.init(z, land, None)
    for t, want in enumerate(by_hand(pair, z, 9, 0.05, eps, norm, mu)):
        state, _ = strategy.step(state, t, land, None)
        assert torch.allclose(state.point, want, atol=2e-6), t


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_pgd_starts_in_the_ball_and_matches_the_definition(norm):
    pair = network_pair(prior=Uniform(-1, 1))
    z = Uniform(-1, 1).sample(Draw(torch.arange(24)), 0, "z", (6,))
    strategy = PGD(steps=6, eps=0.2, norm=norm)
    land = landscape_of(pair, z)
    state = strategy.init(z, land, Draw(torch.arange(24)))
    moved = land.space.distance(state.point, z, norm)
    assert float(moved.max()) <= 0.2 + 1e-6
    assert float(moved.min()) > 0
    assert not torch.equal(state.point[0] - z[0], state.point[1] - z[1])
    path = by_hand(pair, z, 6, 2.5 * 0.2 / 6, 0.2, norm, start=state.point, clamp=(-1, 1))
    for t in range(6):
        state, _ = strategy.step(state, t, land, None)
        assert torch.allclose(state.point, path[t], atol=2e-6)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("kind", [IFGSM, MIFGSM, PGD])
@pytest.mark.parametrize("prior", [Normal(), Uniform(-1, 1)], ids=["normal", "uniform"])
@pytest.mark.parametrize("support", ["clamp", "auto", "free"])
def test_a_ball_is_never_left(kind, norm, prior, support):
    pair = network_pair(d=12, prior=prior)
    z = prior.sample(Draw(torch.arange(40)), 0, "z", (12,))
    for eps in (0.01, 0.3, 2.0):
        got = run(kind(steps=8, eps=eps, norm=norm, support=support), pair, z)
        assert float(pair.space.distance(got, z, norm).max()) <= eps + 1e-6
        if support != "free":
            assert bool(pair.space.inside(got).all())


def test_shell_keeps_the_length():
    pair = network_pair(d=12)
    z = torch.randn(16, 12)
    got = run(IFGSM(steps=10, step_size=0.1, eps=None, support="shell"), pair, z)
    assert torch.allclose(got.norm(dim=1), z.norm(dim=1), rtol=1e-5)
    with pytest.raises(RequestError, match="no meaning for a uniform prior"):
        Engine(IFGSM(support="shell"), network_pair(prior=Uniform()))


@pytest.mark.parametrize("n", [0, 1, 5])
def test_n_steps_are_n_entries_of_the_trace(n):
    z = torch.randn(8, 2)
    chunk = Engine(IFGSM(steps=n, step_size=0.1), linear_pair(), settings=Settings(trace=True)).run(z, range(8)).chunks[0]
    assert chunk.trace.shape == (n + 1, 8)
    assert (chunk.trace[-1] == chunk.score).all()
    assert (chunk.trace[0] == chunk.score0).all()


@pytest.mark.parametrize("kind", [IFGSM, MIFGSM, PGD])
def test_zero_steps_give_back_the_start_to_the_bit(kind):
    z = torch.randn(11, 2)
    assert torch.equal(run(kind(steps=0), linear_pair(), z)[:11], z)


def test_decay_and_default_step_size():
    s = IFGSM(steps=10, eps=0.4)
    assert s.rate(0) == pytest.approx(2.5 * 0.4 / 10)
    d = IFGSM(steps=10, step_size=0.1, decay=True)
    assert [d.rate(t) for t in (0, 5, 9)] == pytest.approx([0.1, 0.05, 0.01])
    z = torch.randn(8, 2)
    got = run(IFGSM(steps=10, step_size=0.1, eps=None, decay=True), linear_pair(), z)
    assert torch.allclose(got, z + 0.55 * V.sign(), atol=1e-5)


def test_units_of_the_prior():
    pair = linear_pair(prior=Uniform(0, 1))
    z = torch.full((8, 2), 0.5)
    got = run(IFGSM(steps=1, step_size=0.5, eps=1.0, unit="prior"), pair, z)
    assert torch.allclose(got, z + 0.5 / math.sqrt(12) * V.sign(), atol=1e-6)


def test_one_step_in_a_training_loop_costs_one_pass_of_each_and_no_weight_gradient():
    """Counted on the pair's own calls; parameters require gradients, as they do in training."""
    torch.manual_seed(0)
    G = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.Tanh(), torch.nn.Linear(24, 10)).eval()
    D = torch.nn.Sequential(torch.nn.Linear(10, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1)).eval()
    count = counted(Pair.wrap(G, D))
    count.pair = count.pair.replaced(space=network_pair().space)
    z = torch.randn(16, 6)
    land = landscape_of(count.pair, z)
    moved = ifgsm_step(z, land, 0.05)
    assert (count.g_rows, count.d_rows, count.g_backward, count.weight_gradients) == (16, 16, 16, 0)
    assert land.ledger.as_tuple() == (16, 16, 16, 16)
    assert all(p.grad is None and p.requires_grad for m in (G, D) for p in m.parameters())
    assert not moved.requires_grad
    assert torch.allclose(moved, by_hand(count.pair, z, 1, 0.05, None, "inf")[0])
    near = ifgsm_step(moved, land, 0.05, z0=z, eps=0.06)
    assert float((near - z).abs().max()) <= 0.06 + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"steps": -1},
        {"steps": 2.5},
        {"eps": -0.1},
        {"eps": float("nan")},
        {"step_size": 0},
        {"norm": "1"},
        {"support": "box"},
        {"eps": None},
        {"unit": "cm"},
    ],
    ids=str,
)
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        IFGSM(**options)
    with pytest.raises(UsageError):
        PGD(eps=None, step_size=0.1)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("kind", [IFGSM, MIFGSM, PGD])
def test_the_contract(kind, norm):
    check_strategy(kind(steps=5, eps=0.3, norm=norm))
    check_strategy(kind(steps=5, eps=0.3, norm=norm), network_pair(prior=Uniform(-1, 1)))
