"""Objectives: links, sums, and what a strategy sees of them."""

import pytest
import torch

from latentshift.errors import MissingCapabilityError, UsageError
from latentshift.landscape import Landscape, landscape_of
from latentshift.model import Pair
from latentshift.objective import Displacement, Prior, Quality, Ratio, Realness, describe
from latentshift.space import Context
from latentshift.strategies.gradient import IFGSM
from latentshift.testing import linear_pair, quadratic_pair

LINKS = ["logit", "bce", "saturating", "softplus", "hinge", "probability"]


def climb(pair, link, z, steps=12):
    land = landscape_of(pair, z, objective=Realness(link=link))
    strategy = IFGSM(steps=steps, step_size=0.07, eps=None)
    state = strategy.init(z, land, None)
    for t in range(steps):
        state, _ = strategy.step(state, t, land, None)
    return state.point


@pytest.mark.parametrize("scale", [1.0, 80.0, 5000.0], ids=["plain", "underflow", "far underflow"])
def test_sign_steps_are_bit_equal_for_all_links(scale):
    """Also where a sigmoid underflows: at scale 5000 the slope of every link but the logit's is exactly 0 or 1."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).eval().requires_grad_(False)
    pair = Pair.wrap(torch.nn.Identity().eval(), lambda x: scale * net(x), z_size=6)
    z = torch.randn(40, 6)
    reference = climb(pair, "logit", z)
    assert float((reference - z).abs().max()) > 0.5
    for link in LINKS[1:]:
        assert torch.equal(climb(pair, link, z), reference), link


def test_a_probability_is_read_before_its_sigmoid():
    torch.manual_seed(1)
    body = [torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)]
    z = 400 * torch.randn(16, 6)
    identity = torch.nn.Identity().eval()
    raw = Pair.wrap(identity, torch.nn.Sequential(*body).eval(), z_size=6)
    sigmoid = Pair.wrap(identity, torch.nn.Sequential(*body, torch.nn.Sigmoid()).eval(), z_size=6, returns="probability")
    assert torch.equal(raw.logit(z), sigmoid.logit(z))
    assert torch.equal(climb(raw, "logit", z), climb(sigmoid, "logit", z))
    opaque = Pair.wrap(torch.nn.Identity().eval(), lambda x: torch.sigmoid(raw.logit(x)), z_size=6, returns="probability")
    near = 0.1 * torch.randn(16, 6)
    assert torch.allclose(opaque.logit(near), raw.logit(near), atol=1e-5)


def test_link_values():
    pair = linear_pair()
    z = torch.randn(9, 2)
    d = landscape_of(pair, z).value(z)
    expected = {
        "bce": torch.log(torch.sigmoid(d)),
        "saturating": -torch.log(1 - torch.sigmoid(d)),
        "probability": torch.sigmoid(d),
        "hinge": d,
    }
    for link, value in expected.items():
        assert torch.allclose(landscape_of(pair, z, objective=Realness(link=link)).value(z), value, atol=1e-6)
    target = landscape_of(pair, z, objective=Realness(link="target", target=0.3))
    value, grad = target.value_and_grad(z)
    assert torch.allclose(value, -0.5 * (d - 0.3) ** 2)
    assert torch.allclose(grad, -(d - 0.3)[:, None] * torch.tensor([0.3, -0.25]), atol=1e-6)
    with pytest.raises(UsageError, match="unknown link"):
        Realness(link="relu")


def test_value_and_grad_is_that_of_the_link():
    pair = linear_pair()
    z = torch.randn(5, 2)
    v = torch.tensor([0.3, -0.25])
    _, grad = landscape_of(pair, z, objective=Realness(link="bce")).value_and_grad(z)
    d = landscape_of(pair, z).value(z)
    assert torch.allclose(grad, torch.sigmoid(-d)[:, None] * v, atol=1e-6)


def test_sums_and_their_gradients():
    pair = quadratic_pair((1.0, 2.0))
    z0 = torch.randn(7, 2)
    p = z0 + 0.3
    objective = Realness() - 0.5 * Displacement() + 2 * Prior()
    land = Landscape(pair, Context(seed=torch.arange(7), point0=z0), objective=objective)
    value, grad = land.value_and_grad(p)
    mu = torch.tensor([1.0, 2.0])
    expected = -0.5 * (p - mu).square().sum(1) - 0.5 * (p - z0).square().mean(1) - p.square().sum(1)
    assert torch.allclose(value, expected, atol=1e-5)
    assert torch.allclose(grad, (mu - p) - 0.5 * (p - z0) - 2 * p, atol=1e-5)
    assert describe(objective) == "Realness() - 0.5 * Displacement() + 2 * Prior()"
    assert describe(-Ratio()) == "-Ratio()"


def test_ratio_is_equation_8():
    """G = diag(3, 1), offset (p, q): the ratio is (3 p + q) / (p + q), means of absolute values."""
    pair = linear_pair(A=((3.0, 0.0), (0.0, 1.0)))
    z0 = torch.zeros(1, 2)
    p = torch.tensor([[0.02, 0.01]])
    land = Landscape(pair, Context(seed=torch.arange(1), point0=z0), objective=Ratio()).with_start_images(z0)
    assert torch.allclose(land.value(p), torch.tensor([(3 * 0.02 + 0.01) / 0.03]))


def test_gradients_do_not_scale_with_the_batch():
    pair = quadratic_pair()
    z = torch.randn(32, 2)
    _, grad = landscape_of(pair, z).value_and_grad(z)
    for i in (0, 31):
        assert torch.equal(landscape_of(pair, z[i : i + 1]).value_and_grad(z[i : i + 1])[1][0], grad[i])


def test_population_axis():
    pair = linear_pair()
    z = torch.randn(6, 2)
    many = z[:, None] + torch.randn(6, 4, 2)
    land = landscape_of(pair, z)
    value, grad = land.value_and_grad(many)
    assert value.shape == (6, 4)
    assert grad.shape == (6, 4, 2)
    assert torch.allclose(land.value(many[:, 2]), value[:, 2], atol=1e-6)
    assert land.ledger.as_tuple() == (30, 30, 24, 24)
    assert land.images(many).shape == (6, 4, 2)


def test_a_quality_critic_and_one_without_gradient():
    class Brightness:
        name, differentiable, higher_is_better = "brightness", True, False

        def score(self, images, labels):
            return images.flatten(1).mean(1)

    pair = linear_pair()
    z = torch.randn(5, 2)
    value = landscape_of(pair, z, objective=Quality(Brightness())).value(z)
    assert torch.allclose(value, -pair.generate(z).mean(1))
    blind = Pair.wrap(torch.nn.Identity().eval(), lambda x: x.detach().sum(1), z_size=2)
    with pytest.raises(MissingCapabilityError, match="no gradient"):
        landscape_of(blind, z).value_and_grad(z)


def test_jvp():
    pair = linear_pair()
    z, v = torch.randn(3, 2), torch.randn(3, 2)
    images, tangent = landscape_of(pair, z).jvp(z, v)
    assert torch.allclose(images, pair.generate(z))
    assert torch.allclose(tangent, v @ torch.tensor([[1.0, 0.5], [0.0, 2.0]]).T, atol=1e-6)
