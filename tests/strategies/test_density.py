"""The critic as a log density ratio: logistic calibration (O17), temperature, and who is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from latentshift.calibration import fit_logistic
from latentshift.engine.run import Engine
from latentshift.errors import LatentshiftWarning, MissingCapabilityError, RequestError, UsageError
from latentshift.model import Capability
from latentshift.space import Normal
from latentshift.strategies.chain import Chain
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.langevin import DDLS, MALA
from latentshift.strategies.wrappers import KeepBest
from latentshift.testing.oracles import function_pair, linear_pair, refined


def logistic(real, fake):
    line = fit_logistic(real, fake)
    return line.a, line.b


def test_o17_logistic_calibration_of_two_gaussians():
    draw = torch.Generator().manual_seed(0)
    real = 1.0 + 0.4 * torch.randn(200_000, generator=draw)
    fake = 0.5 + 0.4 * torch.randn(200_000, generator=draw)
    slope, intercept = logistic(real, fake)
    assert slope == pytest.approx(3.125, abs=0.03)
    assert intercept == pytest.approx(-(1 - 0.25) / 0.32, abs=0.03)
    fewer = logistic(real, fake[:50_000])  # error 16: unequal counts leave the intercept alone
    assert fewer[1] == pytest.approx(intercept, abs=0.05)


def test_error_10_there_is_no_penalty_and_the_optimum_is_found():
    draw = torch.Generator().manual_seed(1)
    real, fake = 30 + 0.02 * torch.randn(300, generator=draw), 29.99 + 0.02 * torch.randn(300, generator=draw)
    slope, intercept = logistic(real, fake)
    d = torch.cat([real, fake]).double()
    y = torch.cat([torch.ones(300), torch.zeros(300)]).double()
    residual = y - torch.sigmoid(slope * d + intercept)
    assert abs(float(residual.sum())) < 1e-4  # the likelihood equations hold
    assert abs(float((residual * (d - 30)).sum())) < 1e-4
    assert slope > 10


def test_a_separating_or_inverted_critic_is_refused():
    with pytest.raises(RequestError, match="perfectly"):
        logistic(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]))
    pair = linear_pair(returns="critic")
    low = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0.0], [0.5, 2.0]]
    ) - 3 * torch.tensor([1.0, -1.0])
    with pytest.raises(RequestError, match=r"anti-informative.*real_is"):
        Engine(DDLS(steps=1, pilot_rows=400), pair, reals=low)


@pytest.mark.parametrize("kind", ["tensor", "array", "float64"])
def test_reals_calibrate_a_critic_without_a_scale(kind):
    """Real points from the tilted law itself: the fit must undo the critic's factor of 1/8."""
    target = torch.tensor([0.9, -0.75])  # data: z ~ N(target, I), so the true log ratio is target.z - |target|^2 / 2
    z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(3)) + target
    reals = z @ torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    pair = linear_pair(w=(0.3 / 8, -0.2 / 8), returns="critic")
    data = {"tensor": reals, "array": reals.numpy(), "float64": reals.double()}[kind]
    engine = Engine(MALA(steps=25, step_size=0.8, pilot_rows=20_000), pair, reals=data)
    fitted = engine.strategy
    assert fitted.slope == pytest.approx(24, rel=0.05)
    assert fitted.intercept == pytest.approx(-float(target.square().sum()) / 2, abs=0.05)
    assert engine.run_.fit_ledger.as_tuple() == (20_000, 40_000, 0, 0)
    if kind == "tensor":
        points, _ = refined(fitted, pair, 4000)
        assert (points.mean(0) - target).abs().max() < 0.05 * float(target.norm()) + 4 / math.sqrt(4000)


def test_reals_are_checked():
    pair = linear_pair(returns="critic")
    with pytest.raises(RequestError, match="shape"):
        Engine(DDLS(), pair, reals=torch.zeros(50, 3))
    with pytest.raises(MissingCapabilityError):
        Engine(DDLS(), pair)


def test_who_needs_no_calibration():
    assert linear_pair().capabilities & Capability.LOGIT
    strategy = Engine(DDLS(steps=1), linear_pair()).strategy
    assert strategy.slope is None
    assert strategy.gain == 1
    given = Engine(DDLS(steps=1, slope=2.0), linear_pair(returns="critic"), reals=np.zeros((4, 2))).strategy
    assert given.slope == 2.0  # what is given is not fitted over
    with pytest.warns(LatentshiftWarning, match="arbitrary power"):
        Engine(DDLS(steps=1, calibration="none"), linear_pair(returns="least-squares"))


def test_temperature_divides_slope_and_intercept():
    strategy = DDLS(slope=3.0, intercept=-1.0, temperature=0.5)
    assert strategy.log_ratio(torch.tensor(2.0)) == pytest.approx((3 * 2 - 1) / 0.5)
    with pytest.raises(UsageError):
        DDLS(intercept=math.nan)


def test_calibration_needs_labels_where_the_critic_does():
    pair = function_pair(lambda x, y: x.sum(1) + y, 2, Normal())
    pair = replace(pair, G=lambda z, y: z, classes=3, critic=replace(pair.critic, labels=True))
    reals = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 0.5
    with pytest.raises(RequestError, match=r"\(images, labels\)"):
        Engine(DDLS(pilot_rows=100), pair, reals=reals)
    fitted = Engine(DDLS(pilot_rows=100), pair, reals=(reals, torch.arange(100) % 3)).strategy
    assert fitted.slope > 0


def test_reals_reach_the_stages_of_a_chain_and_the_inside_of_a_wrapper():

    pair = linear_pair(returns="critic")
    reals = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    reals = reals + torch.tensor([1.0, -1.0])
    inner = DDLS(steps=2, pilot_rows=500)
    wrapped = Engine(KeepBest(inner=inner), pair, reals=reals).strategy
    alone = Engine(inner, pair, reals=reals).strategy
    assert wrapped.inner == alone
    assert alone.slope is not None
    chain = Engine(Chain(stages=(IFGSM(steps=1, eps=0.1), inner)), pair, reals=reals).strategy
    assert chain.stages[1].slope is not None
