"""DDLS, MALA, REP-GAN and Ex2MCMC against the closed forms of a linear pair (methods O1 to O7, O20)."""

import math
from dataclasses import replace

import pytest
import torch

from latentshift.errors import LatentshiftWarning, MissingCapabilityError, RequestError, UsageError
from latentshift.landscape import landscape_of
from latentshift.model import Critic
from latentshift.noise import Draw
from latentshift.objective import Displacement, Realness
from latentshift.space import EmpiricalGaussian, Flat, Normal, Sphere, TruncatedNormal, Uniform
from latentshift.strategies.langevin import DDLS, MALA, REPGAN, Ex2MCMC
from latentshift.testing.oracles import V, column, function_pair, linear_pair, refined

ROWS = 20_000
TARGET = torch.tensor(V).double() / 0.5  # the mean m of the tilted Gaussian at temperature 0.5


def close(points, mean, variance, cross=0.0, se=3.0):
    """Assert mean, variances and covariance of (rows, 2) within `se` standard errors."""
    x, n = points.double(), len(points)
    mean = torch.as_tensor(mean, dtype=torch.float64)
    assert ((x.mean(0) - mean).abs() <= se * math.sqrt(variance / n)).all(), (x.mean(0), mean)
    assert ((x.var(0) - variance).abs() <= se * variance * math.sqrt(2 / n)).all(), (x.var(0), variance)
    assert abs(float(torch.cov(x.T)[0, 1]) - cross) <= se * variance / math.sqrt(n)


@pytest.mark.parametrize("steps", [3, 40])
def test_o2_unadjusted_langevin_has_the_biased_law_and_not_the_exact_one(steps):
    eps = 0.5
    points, _ = refined(DDLS(steps=steps, step_size=eps, temperature=0.5), linear_pair(), ROWS)
    r, stationary = 1 - eps / 2, 1 / (1 - eps / 4)
    variance = stationary + r ** (2 * steps) * (1 - stationary)
    close(points, TARGET * (1 - r**steps), variance)
    with pytest.raises(AssertionError):  # nor the law of a doubled noise (O3)
        close(points, TARGET * (1 - r**steps), 2 * variance)
    with pytest.raises(AssertionError):
        close(points, TARGET, 1.0)


def test_o3_noise_is_its_own_option():
    points, _ = refined(DDLS(steps=40, step_size=0.5, noise=1.0, temperature=0.5), linear_pair(), ROWS)
    close(points, TARGET, 2 / (1 - 0.125))


def test_o4_the_prior_is_not_dropped():
    points, _ = refined(DDLS(steps=40, step_size=0.5, temperature=0.5), linear_pair(), ROWS)
    assert points.var(0).max() < 2  # without it: 1 + 40 * 0.5


def test_decay_lets_the_bias_go():
    points, _ = refined(DDLS(steps=60, step_size=0.5, decay=True, temperature=0.5), linear_pair(), ROWS)
    variance = mean = 1.0
    for t in range(60):  # the same AR(1) with falling step
        eps = 0.5 * (1 - t / 60)
        variance = (1 - eps / 2) ** 2 * variance + eps
        mean *= 1 - eps / 2
    close(points, TARGET * (1 - mean), variance)
    assert variance < 1.03


@pytest.mark.parametrize(
    "strategy",
    [
        MALA(steps=25, step_size=0.8, temperature=0.5),
        MALA(steps=25, step_size=0.8, noise=1.1, temperature=0.5),
        REPGAN(steps=25, step_size=0.8, slope=2.0),
        Ex2MCMC(steps=6, candidates=5, local_steps=2, step_size=0.8, temperature=0.5),
    ],
    ids=["mala", "mala-own-noise", "repgan", "ex2mcmc"],
)
def test_o1_o5_o6_adjusted_chains_have_the_exact_law(strategy):
    points, run = refined(strategy, linear_pair(), ROWS)
    close(points, TARGET, 1.0)
    share = column(run, "acceptance")
    assert 0.3 < share.mean() < 1
    assert ((share >= 0) & (share <= 1)).all()


def test_o6_acceptance_ratio_is_the_closed_form():
    pair, eps = linear_pair(), 0.5
    mala = MALA(steps=1, step_size=eps, temperature=0.5)
    seeds = torch.arange(4096)
    z = torch.randn(4096, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pair.G.double(), pair.D.double()
    land = landscape_of(pair, z)
    state = mala.init(z, land, Draw(seeds))
    after, _ = mala.step(state, 0, land, Draw(seeds))
    xi = Draw(seeds).normal(0, "langevin", (2,), torch.float64)
    new = z + eps / 2 * (TARGET - z) + math.sqrt(eps) * xi
    log_alpha = -(eps / 8) * ((new - TARGET).square().sum(1) - (z - TARGET).square().sum(1))
    accept = Draw(seeds).uniform(0, "langevin accept", (), torch.float64).log() < log_alpha
    assert 0 < int((~accept).sum()) < 1000
    assert torch.equal(after.accepted, accept.double())
    torch.testing.assert_close(after.point, torch.where(accept.unsqueeze(1), new, z), atol=1e-7, rtol=0)  # O6's identity
    assert torch.equal(after.point[~accept], z[~accept])  # error 19: a refused step keeps the old point


def test_o6_acceptance_at_stationarity():
    _, run = refined(MALA(steps=30, step_size=0.5, temperature=0.5), linear_pair(), ROWS)
    assert abs(float(column(run, "acceptance").mean()) - 0.956) < 0.003


def test_error_19_no_gradient_is_summed_up_over_steps():
    once, _ = refined(DDLS(steps=2, step_size=0.5, noise=0.0), linear_pair(), 8)
    z, _ = refined(DDLS(steps=0), linear_pair(), 8)
    for _ in range(2):
        z = z + 0.25 * (torch.tensor(V) - z)
    torch.testing.assert_close(once, z)


def test_error_17_score_and_gradient_are_those_of_the_chosen_point():
    """With one local step, the move after a jump must start from the jump's own slope."""
    pair = function_pair(lambda x: -0.5 * (x - 2).square().sum(1), 2, Normal(), returns="logit")
    seeds = torch.arange(256)
    z = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    chain = Ex2MCMC(steps=1, candidates=20, local_steps=1, step_size=0.1)
    land = landscape_of(pair, z)
    state = chain.init(z, land, Draw(seeds))
    after, _ = chain.step(state, 0, land, Draw(seeds))
    fresh = Normal().sample(Draw(seeds), 0, "candidates", (19, 2))
    moved = after.accepted == 1
    assert int(moved.sum()) > 200
    xi = math.sqrt(0.1) * Draw(seeds).normal(0, "langevin 0", (2,))
    jumps = torch.cat([z.unsqueeze(1), fresh], 1)
    landed = jumps + 0.05 * (-jumps + (2 - jumps)) + xi.unsqueeze(1)  # one step from each candidate with its own slope
    nearest = (landed - after.point.unsqueeze(1)).square().sum(2).sqrt().amin(1)
    assert nearest[moved].max() < 1e-5


def test_error_18_noise_is_gaussian_and_walls_refuse():
    pair = linear_pair(prior=Uniform())
    points, run = refined(MALA(steps=40, step_size=0.3, temperature=0.5), pair, ROWS)
    assert points.abs().max() <= 1
    exact = 1 / torch.tanh(TARGET) - 1 / TARGET  # the mean of exp(m z) on [-1, 1]
    spread = points.double().std(0) / math.sqrt(ROWS)
    assert ((points.double().mean(0) - exact).abs() < 3 * spread).all()
    assert column(run, "acceptance").mean() < 0.9
    xi = Draw(torch.arange(1000)).normal(0, "langevin", (2,))
    assert xi.abs().max() > 2  # no draw of the prior


def test_reflected_langevin_stays_inside_and_near_the_law():
    points, _ = refined(DDLS(steps=150, step_size=0.02, temperature=0.5), linear_pair(prior=Uniform()), ROWS)
    assert points.abs().max() <= 1
    exact = 1 / torch.tanh(TARGET) - 1 / TARGET
    assert ((points.double().mean(0) - exact).abs() < 0.02).all()


@pytest.mark.parametrize("kind", [DDLS, MALA])
def test_a_sphere_is_not_left_and_has_its_own_law(kind):
    """On the sphere of radius sqrt(3) in 3-D, exp(k z_1) has the mean r (coth(k r) - 1 / (k r)) (von Mises and Fisher)."""
    pair = linear_pair([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]], (0.6, 0.0, 0.0), prior=Sphere())
    step = {"step_size": 0.1, "steps": 150} if kind is DDLS else {"step_size": 0.6, "steps": 40}
    points, _ = refined(kind(**step), pair, ROWS)
    assert (points.norm(dim=1) - math.sqrt(3)).abs().max() < 1e-4
    r, k = math.sqrt(3), 0.6
    exact = r / math.tanh(k * r) - 1 / k
    tolerance = 3 / math.sqrt(ROWS) + (0.01 if kind is DDLS else 0)
    assert abs(float(points[:, 0].mean()) - exact) < tolerance
    assert points[:, 1:].mean(0).abs().max() < 3 / math.sqrt(ROWS)


def test_other_gaussian_priors():
    factor = torch.tensor([[1.2, 0.0], [0.3, 0.6]])
    prior = EmpiricalGaussian(torch.tensor([1.0, -1.0]), factor)
    points, _ = refined(MALA(steps=60, step_size=0.5, temperature=0.5), linear_pair(prior=prior), ROWS)
    covariance = (factor @ factor.T).double()
    mean = torch.tensor([1.0, -1.0]).double() + covariance @ TARGET
    spread = covariance.diag().sqrt() / math.sqrt(ROWS)
    assert ((points.double().mean(0) - mean).abs() < 3 * spread).all()
    truncated, _ = refined(MALA(steps=40, step_size=0.5), linear_pair(prior=TruncatedNormal(1.0)), 2000)
    assert truncated.abs().max() <= 1


def test_burn_in_adapts_each_row_and_then_stops():
    pair = linear_pair(w=(3.0, -2.0))
    kw = {"step_size": 5.0, "burn_in": 60}
    _, run = refined(MALA(steps=60, **kw), pair, 500)
    before = column(run, "step_size")
    points, run = refined(MALA(steps=90, **kw), pair, 500)
    assert torch.equal(column(run, "step_size"), before)  # thirty more steps change nothing
    assert before.std() > 0  # each row its own
    fixed = refined(MALA(steps=90, step_size=5.0), pair, 500)[1]
    share, stuck = column(run, "acceptance").mean(), column(fixed, "acceptance").mean()
    assert abs(float(share) - 0.57) < abs(float(stuck) - 0.57)
    assert abs(float(points.double().mean(0)[0]) - 3.0) < 4 / math.sqrt(500)


@pytest.mark.parametrize(
    "strategy",
    [DDLS(steps=7), MALA(steps=7), MALA(steps=7, burn_in=4), REPGAN(steps=7), Ex2MCMC(steps=3)],
    ids=lambda s: s.name,
)
def test_o20_only_differences_of_the_logit_matter_and_the_slope_undoes_its_scale(strategy):
    plain, _ = refined(strategy, linear_pair(), 256)
    shifted, _ = refined(strategy, linear_pair(e=5.0), 256)
    doubled, _ = refined(replace(strategy, slope=0.5), linear_pair(w=(0.6, -0.4)), 256)
    torch.testing.assert_close(shifted, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(doubled, plain, atol=1e-5, rtol=1e-5)


def test_temperature_is_not_the_priors():
    cold, _ = refined(MALA(steps=40, step_size=0.8, temperature=0.25), linear_pair(), ROWS)
    close(cold, torch.tensor(V) / 0.25, 1.0)  # O5: not N(v, T I)


def test_a_row_without_a_score_keeps_its_start_and_says_so():
    pair = function_pair(lambda x: torch.where(x[:, 0] > 1, torch.nan, x[:, 0]), 2, Normal(), returns="logit")
    for strategy in (DDLS(steps=20, step_size=0.2), MALA(steps=20, step_size=0.2), Ex2MCMC(steps=4)):
        with pytest.warns(LatentshiftWarning, match="kept their last finite point") as seen:
            points, run = refined(strategy, pair, 200)
        assert seen
        assert torch.isfinite(points).all()
        assert (column(run, "stopped")[torch.from_numpy(run.chunks[0].z0)[:, 0] > 1] == 3).all()
        if type(strategy) is not DDLS:  # an adjusted chain refuses a point without a score
            assert (points[column(run, "stopped") != 3][:, 0] <= 1).all()


@pytest.mark.parametrize("returns", ["critic", "least-squares"])
@pytest.mark.parametrize("kind", [DDLS, MALA, REPGAN, Ex2MCMC])
def test_an_uncalibrated_critic_is_refused(kind, returns):
    pair = linear_pair(returns=returns)
    with pytest.raises(MissingCapabilityError, match=r"no log odds.*--reals DATA.*--calibration none"):
        refined(kind(steps=2), pair, 8)
    with pytest.warns(LatentshiftWarning, match="wreck the samples"):
        refined(kind(steps=2, calibration="none"), pair, 8)
    refined(kind(steps=2, slope=3.0), pair, 8)  # a warning would be an error here


def test_what_makes_no_sense_is_refused():
    blind = linear_pair(differentiable=False)
    with pytest.raises(MissingCapabilityError, match="gives no gradient"):
        refined(DDLS(steps=2), blind, 8)
    with pytest.raises(RequestError, match="needs a prior density"):
        refined(MALA(steps=2), linear_pair(prior=Flat()), 8, z0=torch.zeros(8, 2))
    with pytest.raises(RequestError, match="climbs no other objective"):
        refined(DDLS(steps=2), linear_pair(), 8, objective=Realness() - 0.1 * Displacement())
    for options in ({"step_size": 0}, {"noise": -1.0}, {"temperature": 0}, {"slope": -1.0}, {"calibration": "no"}):
        with pytest.raises(UsageError):
            DDLS(**options)
    with pytest.raises(UsageError):
        MALA(noise=0.0)
    with pytest.raises(UsageError):
        MALA(steps=5, burn_in=6)


def test_repgan_is_mala_and_ties_its_noise():
    pair = linear_pair(prior=Uniform())
    a, _ = refined(REPGAN(steps=30), pair, 64)
    b, _ = refined(MALA(steps=30, step_size=0.01, noise=0.1), pair, 64)
    torch.testing.assert_close(a, b)


def test_probability_critics_are_read_as_logits():
    """Error 23: the sigmoid is undone once. A callable is needed: a visible sigmoid layer is read before it."""
    pair = linear_pair()
    squashed = pair.replaced(critic=Critic(lambda x: torch.sigmoid(pair.logit(x)).double(), "p", "probability"))
    a, _ = refined(DDLS(steps=10, temperature=0.5), pair, 64)
    b, _ = refined(DDLS(steps=10, temperature=0.5), squashed, 64)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
