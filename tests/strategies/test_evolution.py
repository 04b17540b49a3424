"""EvolGAN and best-of-N: invariant mutations, budgets, closed forms, and nevergrad's (1+1) with the 1/5 rule as referee."""

import math

import pytest
import torch
from scipy import stats

from latentshift.errors import LatentshiftWarning, RequestError, UsageError
from latentshift.landscape import landscape_of
from latentshift.noise import Draw
from latentshift.objective import Quality
from latentshift.space import EmpiricalGaussian, Flat, Normal, Sphere, TruncatedNormal, Uniform
from latentshift.strategies.base import fresh
from latentshift.strategies.evolution import BestOfN, EvolGAN, SearchState
from latentshift.testing.oracles import V, column, function_pair, linear_pair, refined

ROWS = 20_000
FACTOR = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [-0.5, 0.2, 0.7]])
PRIORS = {
    "normal": Normal(),
    "uniform": Uniform(-1.0, 2.0),
    "truncated": TruncatedNormal(1.5, 0.7),
    "sphere": Sphere(),
    "empirical": EmpiricalGaussian(torch.tensor([1.0, 0.0, -1.0]), FACTOR),
}


def mutated(prior, strategy, size=3, rows=ROWS):
    """Return prior draws (rows, size) and one mutant of each."""
    draw = Draw(torch.arange(rows))
    z = prior.sample(draw, 10**6, "test", (size,))
    land = landscape_of(function_pair(lambda x: x.sum(1), size, prior), z)
    state = SearchState(z, torch.zeros(rows), *fresh(z), torch.full((rows,), strategy.length))
    return z, strategy.mutants(state, 0, land, draw)[:, -1]


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize(
    "options",
    [
        {"mutation": "discrete"},
        {"mutation": "discrete", "rate": 0.7},
        {"mutation": "portfolio", "offspring": 2},
        {"mutation": "gaussian", "length": 0.5},
        {"mutation": "gaussian", "length": 1.0},
        {"mutation": "random"},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_mutations_leave_the_prior_invariant(prior, options):
    strategy = EvolGAN(steps=80, **options)
    if options["mutation"] in ("discrete", "portfolio") and not prior.product:
        with pytest.raises(RequestError, match="mutation=gaussian"):
            strategy.check(landscape_of(function_pair(lambda x: x.sum(1), 3, prior), torch.zeros(1, 3)))
        return
    _, new = mutated(prior, strategy)
    other = prior.sample(Draw(torch.arange(ROWS, 2 * ROWS)), 0, "fresh", (3,))  # other rows: independent of the mutants
    for j in range(3):
        assert stats.ks_2samp(new[:, j].numpy(), other[:, j].numpy()).pvalue > 1e-3
    wanted, found = torch.cov(other.T), torch.cov(new.T)
    assert (wanted - found).abs().max() < 6 * float(wanted.diag().max()) / math.sqrt(ROWS)
    assert prior.inside(new, 1).all()


def test_a_gaussian_move_stays_near_by_its_length():
    for s in (0.1, 0.5):
        z, new = mutated(Normal(), EvolGAN(mutation="gaussian", length=s))
        correlation = float((z * new).mean())
        assert abs(correlation - math.sqrt(1 - s * s)) < 3 / math.sqrt(3 * ROWS) + 1e-3


def test_the_rate_is_ours_max_of_a_and_one_over_d_with_one_forced():
    size = 20
    for rate, expected in ((0.0, 1 / size), (0.3, 0.3), (1.0, 1.0)):
        z, new = mutated(Normal(), EvolGAN(rate=rate), size)
        changed = (z != new).double()
        assert (changed.sum(1) >= 1).all()
        forced = (1 - expected) ** size / size  # no coordinate chosen: one at random
        assert abs(float(changed.mean()) - expected - forced) < 4 * math.sqrt(0.25 / (ROWS * size))
        assert (changed.mean(0) - expected - forced).abs().max() < 4.5 * math.sqrt(0.25 / ROWS)
    z, new = mutated(Normal(), EvolGAN(mutation="portfolio"), size)
    count = (z != new).sum(1)
    assert set(range(1, size + 1)) <= set(count.tolist())  # every share of coordinates occurs


@pytest.mark.parametrize("n", [20, 100])
def test_o15_best_of_n_gains_the_expected_maximum(n):
    expected = {20: 1.8675, 100: 2.5076}[n] * math.hypot(*V)
    rows = 4000
    for strategy in (BestOfN(steps=n), EvolGAN(steps=n - 1, rate=1.0)):
        points, run = refined(strategy, linear_pair(), rows)
        score = points @ torch.tensor(V)
        assert abs(float(score.mean()) - expected) < 3 * float(score.std()) / math.sqrt(rows)
        assert run.ledger.d_forward == n * rows


def test_two_draws_of_n_count_the_start():
    draws, _ = refined(BestOfN(steps=1), linear_pair(), 16)
    start, _ = refined(BestOfN(steps=0), linear_pair(), 16)
    assert torch.equal(draws, start)


@pytest.mark.parametrize(
    "strategy",
    [
        EvolGAN(steps=24),
        EvolGAN(steps=24, offspring=6, mutation="portfolio"),
        EvolGAN(steps=24, mutation="gaussian"),
        EvolGAN(steps=24, offspring=4, mutation="gaussian"),
        EvolGAN(steps=24, mutation="random"),
        BestOfN(steps=25),
    ],
    ids=["discrete", "portfolio-6", "gaussian", "gaussian-4", "random", "best-of-n"],
)
def test_the_score_never_falls_and_the_budget_is_kept(strategy):
    points, run = refined(strategy, linear_pair(prior=Uniform()), 64, trace=True)
    trace = torch.from_numpy(run.chunks[0].trace)
    assert (trace.diff(dim=0) >= -1e-6).all()
    assert (trace[-1] > trace[0]).float().mean() > 0.9
    assert (points @ torch.tensor(V) - column(run, "score")).abs().max() < 1e-5
    assert points.abs().max() <= 1
    assert run.ledger.d_forward == 64 * 25
    assert run.ledger.d_backward == run.ledger.g_backward == 0


def test_coordinates_stay_untouched_in_many_dimensions():
    pair = function_pair(lambda x: x.sum(1), 100, Normal())
    points, run = refined(EvolGAN(steps=80), pair, 200)
    share = float((points == torch.from_numpy(run.chunks[0].z0)).float().mean())
    assert share > (1 - 1 / 100) ** 80  # accepted redraws only


def test_no_gradient_is_asked_for():
    points, _ = refined(EvolGAN(steps=5), linear_pair(differentiable=False), 8)
    quality = Quality(type("Bright", (), {"score": staticmethod(lambda images, labels: images[:, 0])}))
    better, _ = refined(EvolGAN(steps=5), linear_pair(), 8, objective=quality)
    assert points.shape == better.shape
    assert not torch.equal(points, better)


def test_rows_without_a_score():
    pair = function_pair(lambda x: torch.where(x[:, 0] > 0, torch.nan, x[:, 0]), 2, Normal())
    points, run = refined(EvolGAN(steps=30, rate=1.0), pair, 64)
    assert (points[:, 0] <= 0).all()  # a start without a score is left for the first candidate with one
    assert torch.isfinite(column(run, "score")).all()
    lost = function_pair(lambda x: torch.where(x[:, 0] < 99, torch.nan, x[:, 0]), 2, Normal())
    some = torch.tensor([[100.0, 0.0]] + 7 * [[0.0, 0.0]])
    with pytest.warns(LatentshiftWarning, match="7 of 8 rows"):
        points, _ = refined(EvolGAN(steps=3), lost, 8, z0=some)
    assert torch.equal(points[1:], some[1:])


def test_what_makes_no_sense_is_refused():
    for options in ({"steps": 10, "offspring": 3}, {"rate": 1.5}, {"length": 0}, {"mutation": "cauchy"}, {"offspring": 0}):
        with pytest.raises(UsageError):
            EvolGAN(**options)
    for strategy in (BestOfN(), EvolGAN(mutation="random"), EvolGAN()):
        with pytest.raises(RequestError):
            refined(strategy, function_pair(lambda x: x.sum(1), 2, Flat()), 8, z0=torch.zeros(8, 2))


def sphere(x):
    return -x.square().sum(-1)


def rosenbrock(x):
    return -(100 * (x[..., 1:] - x[..., :-1].square()).square() + (1 - x[..., :-1]).square()).sum(-1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the referee's own
@pytest.mark.parametrize("f", [sphere, rosenbrock], ids=lambda f: f.__name__)
def test_the_fifth_rule_agrees_with_nevergrad_in_distribution(f):
    """In a space without a law the Gaussian move is the classical one: z + s noise, s twice or 0.84 times."""
    ng = pytest.importorskip("nevergrad")
    runs, size, budget = 200, 5, 100
    theirs = []
    for seed in range(runs):
        optimizer = ng.optimizers.OnePlusOne(ng.p.Array(init=torch.ones(size).numpy() * 2), budget=budget + 1)
        optimizer.parametrization.random_state.seed(seed)
        best = math.inf
        for _ in range(budget + 1):  # its first candidate is the start
            candidate = optimizer.ask()
            loss = -float(f(torch.from_numpy(candidate.value)))
            optimizer.tell(candidate, loss)
            best = min(best, loss)
        theirs.append(math.log(best))
    pair = function_pair(f, size, Flat())
    _, run = refined(EvolGAN(steps=budget, mutation="gaussian", length=1.0), pair, runs, z0=torch.full((runs, size), 2.0))
    ours = torch.log(-column(run, "score").double())
    assert stats.ks_2samp(ours.numpy(), theirs).pvalue > 0.01
    strategy = EvolGAN(steps=budget, mutation="gaussian", length=1.0, adapt=False)
    _, run = refined(strategy, pair, runs, z0=torch.full((runs, size), 2.0))
    worse = torch.log(-column(run, "score").double())
    assert stats.ks_2samp(worse.numpy(), theirs).pvalue < 1e-6  # the test can tell
