"""DGflow: closed forms O14 and O20, the factors of the divergences, walls, rows."""

import math
from dataclasses import replace

import pytest
import torch

from latentshift.errors import LatentshiftWarning, MissingCapabilityError, UsageError
from latentshift.space import Flat, Normal, Uniform
from latentshift.strategies.flow import DGflow
from latentshift.testing.oracles import V, function_pair, linear_pair, refined

ROWS = 20_000


def test_o14_kl_drifts_along_the_slope_and_widens():
    eta, gamma, steps = 0.01, 0.1, 50
    points, run = refined(DGflow(steps=steps, step_size=eta, gamma=gamma, temperature=0.5), linear_pair(), ROWS)
    x = points.double()
    mean = steps * eta * torch.tensor(V).double() / 0.5
    variance = 1 + 2 * eta * gamma * steps
    assert ((x.mean(0) - mean).abs() < 3 * math.sqrt(variance / ROWS)).all()
    assert ((x.var(0) - variance).abs() < 3 * variance * math.sqrt(2 / ROWS)).all()
    assert run.ledger.as_tuple() == (ROWS * (steps + 1), ROWS * (steps + 1), ROWS * steps, ROWS * steps)


@pytest.mark.parametrize(
    ("divergence", "f_prime"), [("kl", torch.log), ("js", lambda r: (r / (1 + r)).log()), ("logd", torch.log1p)]
)
def test_the_drift_is_the_derivative_of_the_divergence(divergence, f_prime):
    """The velocity is -grad f'(r) with r = p_g / p_data = exp(-l) (log r, log r / (1 + r), log(1 + r) up to constants)."""
    pair = linear_pair(e=0.7)
    strategy = DGflow(steps=1, step_size=1.0, gamma=0.0, divergence=divergence, slope=2.0, intercept=-0.3, temperature=0.8)
    points, run = refined(strategy, pair, 256)
    z = torch.from_numpy(run.chunks[0].z0).double().requires_grad_()
    ratio = torch.exp(-(2.0 * (z @ torch.tensor(V).double() + 0.7) - 0.3) / 0.8)
    (grad,) = torch.autograd.grad(-f_prime(ratio).sum(), z)
    torch.testing.assert_close(points.double(), (z + grad).detach(), atol=1e-5, rtol=1e-5)


def test_o20_scale_and_shift():
    flow = DGflow(steps=10, step_size=0.05)
    plain, _ = refined(flow, linear_pair(), 128)
    doubled, _ = refined(replace(flow, slope=0.5), linear_pair(w=(0.6, -0.4)), 128)
    shifted, _ = refined(flow, linear_pair(e=5.0), 128)
    torch.testing.assert_close(doubled, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shifted, plain, atol=1e-5, rtol=1e-5)
    js, _ = refined(replace(flow, divergence="js"), linear_pair(), 128)
    moved, _ = refined(replace(flow, divergence="js"), linear_pair(e=5.0), 128)
    assert (js - moved).abs().max() > 1e-3  # JS and logD know the level of the ratio


def test_bounded_latents_stay_inside_and_the_prior_can_hold_a_gaussian():
    points, _ = refined(DGflow(steps=100, step_size=0.5, gamma=0.2), linear_pair(prior=Uniform()), 256)
    assert points.abs().max() <= 1
    flow = DGflow(steps=400, step_size=0.5, gamma=0.2, slope=1e-9)
    free, _ = refined(flow, linear_pair(), 2000)
    held, _ = refined(replace(flow, prior=1.0), linear_pair(), 2000)
    assert free.var() > 50  # error 12: no stationary law without a prior
    assert abs(float(held.var()) - 1 / (1 - 0.05)) < 0.12  # the AR(1) of drift eta gamma, noise 2 eta gamma


def test_error_12_factors_do_not_spread_over_rows():
    """A critic of shape (rows, 1) must not turn the factor into (rows, rows)."""
    column = function_pair(lambda x: x.sum(1, keepdim=True), 2, Normal(), returns="logit")
    flat = function_pair(lambda x: x.sum(1), 2, Normal(), returns="logit")
    a, _ = refined(DGflow(steps=5, divergence="js"), column, 16)
    b, _ = refined(DGflow(steps=5, divergence="js"), flat, 16)
    assert torch.equal(a, b)


def test_refusals():
    pair = linear_pair(returns="critic")
    with pytest.raises(MissingCapabilityError, match="no log odds"):
        refined(DGflow(steps=2), pair, 8)
    with pytest.warns(LatentshiftWarning):
        refined(DGflow(steps=2, calibration="none"), pair, 8)
    for options in ({"gamma": -1}, {"prior": -1}, {"divergence": "hellinger"}, {"step_size": 0}):
        with pytest.raises(UsageError):
            DGflow(**options)
    flat = function_pair(lambda x: x.sum(1), 2, Flat(), returns="logit")
    points, _ = refined(DGflow(steps=2), flat, 8, z0=torch.zeros(8, 2))  # no density needed
    assert torch.isfinite(points).all()
