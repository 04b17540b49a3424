"""The binary head on D's frozen features: exact where the features are linear, refused where there are none."""

import numpy as np
import pytest
import torch

from latentshift import Pair, load
from latentshift.calibration import auc
from latentshift.engine.prepare import prepare
from latentshift.engine.run import Engine
from latentshift.errors import MissingCapabilityError, RequestError
from latentshift.head import features_of, fit_head
from latentshift.metrics.toy import MIXTURES
from latentshift.model import Capability, Critic
from latentshift.strategies.langevin import DDLS

TARGET = torch.tensor([0.9, -0.75])  # real rows are N(TARGET, I), generated ones N(0, I)


def linear_features(**more):
    G = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False)).eval()
    torch.nn.init.eye_(G[0].weight)
    torch.manual_seed(0)
    D = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)).eval().requires_grad_(False)
    return Pair.wrap(G.requires_grad_(False), D, z_size=2, returns="critic", **more)


def reals(rows):
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(1)) + TARGET


def test_the_head_finds_the_true_log_ratio():
    """log N(x; t, 1) / N(x; 0, 1) = t.x - |t|^2 / 2, linear in D's features; the counts do not matter."""
    pair = linear_features()
    fitted = fit_head(pair, reals(2000), rows=4000)
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    exact = x @ TARGET - TARGET.square().sum() / 2
    with torch.no_grad():
        mine = fitted.critic.logit(x)
    assert float((mine - exact).abs().max()) < 0.4
    assert float((mine - exact).mean()) == pytest.approx(0, abs=0.1)
    assert abs(fitted.z) < 3
    assert fitted.auc == pytest.approx(float(torch.distributions.Normal(0.0, 1.0).cdf(TARGET.norm() / 2**0.5)), abs=0.03)
    again = fit_head(pair, reals(2000), rows=4000)
    with torch.no_grad():
        assert torch.equal(again.critic.logit(x), mine)


def test_langevin_takes_the_head_where_it_refuses_the_critic():
    pair = linear_features()
    with pytest.raises(MissingCapabilityError, match="no log odds"):
        Engine(DDLS(steps=2), pair)
    fitted = fit_head(pair, reals(500), rows=500)
    assert fitted.critic.capabilities & Capability.LOGIT
    better = pair.replaced(critic=fitted.critic)
    run = Engine(DDLS(steps=30, step_size=0.5), better).run(torch.zeros(256, 2), range(256))
    points = torch.from_numpy(np.concatenate([c.point for c in run.chunks]))
    assert float((points.mean(0) - TARGET).abs().max()) < 0.25
    ready, note = prepare(better)
    assert "as given" not in note
    assert torch.allclose(ready.logit(points), better.logit(points), atol=1e-4)


def test_on_a_bundled_pair_the_head_ranks_what_it_never_saw():
    pair = load("ring")
    data = MIXTURES["ring"].sample(1500, torch.Generator().manual_seed(3))
    fitted = fit_head(pair, data[:750], rows=750)
    z = torch.randn(1500, 2, generator=torch.Generator().manual_seed(4))[:800]
    with torch.no_grad():
        made = pair.generate(z)
        mine = auc(fitted.critic.logit(data[750:]), fitted.critic.logit(made))
        plain = auc(pair.logit(data[750:]), pair.logit(made))
    assert mine > plain - 0.02
    assert mine == pytest.approx(fitted.auc, abs=0.05)


def test_an_adapters_own_features_serve():
    pair = linear_features()
    critic = pair.critic.__class__(lambda x: x.sum(1), "D", "critic", features_call=lambda x: torch.cat([x, 0 * x], 1))
    fitted = fit_head(pair.replaced(critic=critic), reals(1000), rows=1000)
    x = torch.eye(2)
    with torch.no_grad():
        slope = fitted.critic.logit(x) - fitted.critic.logit(0 * x)
    torch.testing.assert_close(slope, TARGET, atol=0.2, rtol=0)


def test_what_cannot_be_fitted_is_refused():
    pair = linear_features()
    with pytest.raises(RequestError, match="too few"):
        fit_head(pair, reals(4))
    with pytest.raises(RequestError, match="shape"):
        fit_head(pair, torch.zeros(50, 3))
    bare = pair.replaced(critic=pair.critic.__class__(lambda x: x.sum(1), "D", "critic"))
    with pytest.raises(MissingCapabilityError, match="no features"):
        fit_head(bare, reals(50))


def test_features_are_what_ds_last_layer_reads():
    pair = linear_features()
    x = reals(70)
    see = features_of(pair)
    with torch.no_grad():
        assert torch.allclose(see(x), pair.critic.call[0](x).double(), atol=1e-6)
    assert features_of(pair.replaced(critic=Critic(lambda x: x.sum(1)))) is None, "a function has no layers to look into"
    assert features_of(pair.replaced(critic=Critic(pair.critic.call, labels=True))) is None, "classes would have to be known"
    own = Critic(lambda x: x.sum(1), features_call=lambda x: 2 * x)
    assert torch.allclose(features_of(pair.replaced(critic=own))(x), 2 * x.double())
