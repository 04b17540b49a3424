"""MH-GAN, DRS and OBRS against the closed forms of a linear pair (methods O7 to O9, O20)."""

import math
from statistics import NormalDist

import pytest
import torch

from latentshift.engine.run import Engine
from latentshift.errors import LatentshiftWarning, MissingCapabilityError, RequestError, UsageError
from latentshift.landscape import landscape_of
from latentshift.noise import Draw
from latentshift.space import Uniform
from latentshift.strategies.base import REASONS
from latentshift.strategies.selection import DRS, MH, OBRS
from latentshift.testing.oracles import V, column, function_pair, linear_pair, refined

ROWS = 20_000
M = torch.tensor(V).double() / 0.5  # the mean of the tilted Gaussian at temperature 0.5
Q = float(M.norm())
phi, Phi = NormalDist().pdf, NormalDist().cdf


def close(points, mean, se=3.0):
    """Assert mean and covariance of (rows, 2) equal N(mean, I) within `se` standard errors."""
    x, n = points.double(), len(points)
    assert ((x.mean(0) - torch.as_tensor(mean)).abs() <= se / math.sqrt(n)).all(), x.mean(0)
    assert ((x.var(0) - 1).abs() <= se * math.sqrt(2 / n)).all(), x.var(0)
    assert abs(float(torch.cov(x.T)[0, 1])) <= se / math.sqrt(n)


def test_o7_the_chain_samples_the_tilted_gaussian():
    points, run = refined(MH(steps=30, temperature=0.5), linear_pair(), ROWS)
    close(points, M)
    with pytest.raises(AssertionError):
        close(points, M / 2)  # the temperature divides the score: O5's and a raw critic's law differ
    assert run.ledger.as_tuple() == (31 * ROWS + ROWS, 31 * ROWS, 0, 0)  # and the final images


def test_o7_acceptance_at_stationarity():
    z0 = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(4)) + M.float()
    points, run = refined(MH(steps=8, temperature=0.5), linear_pair(), ROWS, z0=z0)
    close(points, M)
    assert abs(float(column(run, "acceptance").mean()) - 2 * Phi(-Q / math.sqrt(2))) < 0.005


def test_a_chain_from_a_real_score_hands_back_no_real_sample_and_marks_rows_without_a_move():
    reals = torch.randn(4000, 2, generator=torch.Generator().manual_seed(2)) + torch.tensor([1.5, -1.0])
    pair = linear_pair()
    strategy = MH(steps=3, start="real", slope=6.0)
    points, run = refined(strategy, pair, 512, reals=reals)
    start, _ = refined(MH(steps=0), pair, 512)
    taken = column(run, "accepted").bool()
    assert 0 < int(taken.sum()) < 512
    assert torch.equal(points[~taken], start[~taken])
    assert not (points[taken] == start[taken]).any()
    assert (column(run, "stopped")[~taken] == REASONS.index("rejected")).all()
    assert (column(run, "stopped")[taken] == REASONS.index("steps")).all()
    levels = torch.tensor(run.strategy.real_levels)
    want = torch.quantile(pair.logit(reals), (torch.arange(256) + 0.5) / 256)
    torch.testing.assert_close(levels, want, atol=1e-4, rtol=1e-3)
    with pytest.raises(RequestError, match=r"needs real images\. Give --reals DATA"):
        refined(strategy, pair, 8)


def test_error_13_extreme_scores_are_compared_in_logits():
    # scores of +-800: odds are 0 / 0 or infinite; in logits the rank decides
    pair = function_pair(lambda x: 800 * torch.where(x[:, 0] > 0, x[:, 0], -1.0), 1, Uniform(-1, 1), returns="logit")
    points, _ = refined(MH(steps=40), pair, 256)
    assert points.min() > 0.5
    assert torch.isfinite(points).all()


def test_a_broken_score_is_never_taken_and_left_at_once():
    def score(x):
        return torch.where(x[:, 0] > 0.5, torch.nan, x[:, 0])

    pair = function_pair(score, 1, Uniform(-1, 1), returns="logit")
    for strategy in (MH(steps=20), DRS(steps=20, pilot_rows=500), OBRS(steps=20, pilot_rows=500)):
        points, run = refined(strategy, pair, 256)
        assert (points[column(run, "accepted").bool()] <= 0.5).all()
        assert int(column(run, "accepted").sum()) > 250


def accepted_share(strategy, rows=ROWS, pair=None):
    """Return the share of first tries that a method accepts, the points, and the fitted method."""
    points, run = refined(strategy, pair or linear_pair(), rows)
    return float(column(run, "accepted").float().mean()), points, run


@pytest.mark.parametrize(("budget", "c", "mean"), [(2.0, 0.58286, 0.5628), (5.0, 0.20249, 0.7520)])
def test_o8_o9_obrs_keeps_its_budget_and_its_mean(budget, c, mean):
    pair = linear_pair()
    strategy = OBRS(steps=1, budget=budget, temperature=0.5)
    share, points, run = accepted_share(strategy, pair=pair)
    fitted = run.strategy
    assert abs(share - 1 / budget) < 0.01
    # c is relative to r = exp(q u - q^2 / 2), our ratio is exp(q u): the same up to the normaliser
    u0 = (Q * Q / 2 - math.log(c)) / Q
    assert fitted.log_c + Q * Q / 2 == pytest.approx(math.log(c), abs=0.05)
    assert fitted.achieved == pytest.approx(1 / budget, abs=1e-6)
    exact = budget * (phi(u0) + c * (Q * Phi(u0 - Q) - phi(u0 - Q)))
    assert exact == pytest.approx(mean, abs=1e-3)
    along = (points[column(run, "accepted").bool()].double() @ M) / Q
    assert abs(float(along.mean()) - exact) < 4 * float(along.std()) / math.sqrt(len(along))


def test_o8_rows_that_are_rejected_are_drawn_again_within_the_budget():
    share, points, run = accepted_share(OBRS(budget=2.0, temperature=0.5, steps=40))
    tries = column(run, "tries")
    assert share == 1
    assert abs(float(tries.mean()) - 2) < 0.05
    assert run.ledger.d_forward == int(tries.sum())  # finished rows cost nothing, and the last score is known
    assert (column(run, "evaluations") == tries + 1).all() or (column(run, "evaluations") == tries).all()
    start, _ = refined(OBRS(steps=0), linear_pair(), ROWS)
    first = tries == 1
    assert torch.equal(points[first], start[first])  # the first try is the row itself
    along = (points.double() @ M) / Q
    assert abs(float(along.mean()) - 0.5628) < 4 / math.sqrt(ROWS)


def test_error_20_rates_below_one_over_m_are_reached():
    rare = OBRS(steps=1, budget=200.0, temperature=0.5)
    share, _, run = accepted_share(rare)
    assert run.strategy.log_c < -float(M @ M) / 2  # and c is far below 1
    assert abs(share - 0.005) < 0.003
    full, _, run = accepted_share(OBRS(steps=1, budget=1.0, temperature=0.5), 2000)
    assert full == 1
    assert run.strategy.achieved == 1


def test_drs_follows_its_formula_with_constants_of_the_pilot():
    strategy = DRS(steps=1, temperature=0.5)
    share, _, run = accepted_share(strategy, 4000)
    fitted = run.strategy
    assert abs(share - fitted.achieved) < 4 * math.sqrt(0.25 / 4000)
    land = landscape_of(linear_pair(), torch.zeros(1, 2))
    ratio = torch.linspace(-6, fitted.log_max, 50, dtype=torch.float64)
    d = ratio * 0.5
    F = ratio - fitted.log_max - torch.log1p(-torch.exp(ratio - fitted.log_max - 1e-6)) - fitted.gamma
    torch.testing.assert_close(fitted.log_accept(fitted.log_ratio(d)), F.sigmoid().log())
    assert float(fitted.log_accept(ratio[-1:] + 50)) == pytest.approx(float(fitted.log_accept(ratio[-1:])))  # no NaN above M
    assert land is not None
    low = accepted_share(DRS(steps=1, temperature=0.5, percentile=95), 4000)[2].strategy
    assert low.gamma > fitted.gamma
    assert low.achieved < fitted.achieved


def test_error_14_constants_do_not_move_with_the_batch():
    pair = linear_pair()
    _, run = refined(DRS(temperature=0.5, pilot_rows=2000), pair, 8)
    fitted = run.strategy
    whole, _ = refined(fitted, pair, 256)
    parts = torch.cat([refined(fitted, pair, 64, first=64 * i)[0] for i in range(4)])
    assert torch.equal(whole, parts)


def test_error_15_neighbouring_rows_are_not_correlated():
    points, _ = refined(MH(steps=15, temperature=0.5), linear_pair(), ROWS)
    x = (points - points.mean(0)).double()
    lag = (x[1:] * x[:-1]).mean(0) / x.var(0)
    assert lag.abs().max() < 4 / math.sqrt(ROWS)


def test_o20_a_shift_of_the_critic_changes_only_drs_with_a_fixed_maximum():
    pair, moved = linear_pair(), linear_pair(e=4.0)  # representable: 4 + d rounds, so rows near a threshold may differ
    for strategy in (MH(steps=10), OBRS(steps=20, pilot_rows=2000)):
        a, b = refined(strategy, pair, 2000)[0], refined(strategy, moved, 2000)[0]
        assert (a == b).all(1).float().mean() > 0.995
    fixed = DRS(steps=1, log_max=2.0, gamma=0.5)
    assert accepted_share(fixed, 2000, moved)[0] > accepted_share(fixed, 2000, pair)[0] + 0.1
    doubled = linear_pair(w=(0.6, -0.4))
    assert torch.equal(refined(MH(steps=10, slope=1.0), pair, 500)[0], refined(MH(steps=10, slope=0.5), doubled, 500)[0])


def test_a_calibration_on_real_images_makes_the_chain_exact():
    # data N(A m, A A^T) with m = 2 v: the slope is 2, whatever the scale of the critic
    pair = linear_pair(returns="critic")
    a = pair.G.A.detach()
    reals = (torch.randn(5000, 2, generator=torch.Generator().manual_seed(5)) + 2 * torch.tensor(V)) @ a.T
    points, run = refined(MH(steps=30), pair, 5000, reals=reals)
    assert run.strategy.slope == pytest.approx(2.0, abs=0.2)
    close(points, run.strategy.slope * torch.tensor(V).double(), se=4)


def test_uncalibrated_critics_are_refused_with_the_way_out():
    pair = linear_pair(returns="critic")
    for strategy in (MH(), DRS(), OBRS()):
        with pytest.raises(
            MissingCapabilityError, match=r"no log odds\. Calibrate it on real images .--reals DATA.*--calibration none"
        ):
            Engine(strategy, pair)
    with pytest.warns(LatentshiftWarning, match="no scale"):
        Engine(MH(calibration="none"), pair)


def test_image_space_has_no_prior_to_draw_from():
    pair = linear_pair()
    with pytest.raises(RequestError, match=r"space 'image' has no prior\. Use --space z"):
        Engine(MH(), pair, space=pair.spaces["image"])


def test_bad_options_are_named():
    for kind, bad in ((OBRS, {"budget": 0.5}), (DRS, {"percentile": 101}), (MH, {"start": "fake"}), (MH, {"steps": -1})):
        with pytest.raises(UsageError, match=next(iter(bad))):
            kind(**bad)


def test_a_row_is_its_seed_whatever_step_type_is_used():
    pair = linear_pair()
    z, _ = refined(MH(steps=0), pair, 16)
    land, draw = landscape_of(pair, z), Draw(torch.arange(16))
    for strategy in (MH(), OBRS(log_c=-1.0), DRS(log_max=2.0, gamma=0.0)):
        state = strategy.init(z, land, draw)
        for t in (0, 3):
            for a, b in zip(strategy.step(state, t, land, draw)[0], strategy.step(state, torch.tensor(t), land, draw)[0]):
                assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
