import math

import pytest
import torch

from latentshift.errors import ShapeError, UsageError
from latentshift.noise import Draw
from latentshift.space import EmpiricalGaussian, Normal, Space, Sphere, TruncatedNormal, Uniform, prior_of_card
from latentshift.testing import check_space

PRIORS = [Normal(), Uniform(-1, 1), Uniform(0, 1), TruncatedNormal(2.0), TruncatedNormal(2.0, 0.4)]


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_the_contract_of_spaces(prior):
    check_space(Space("z", (6,), prior))


def test_reflect_folds_as_the_formula_says():
    """Per coordinate y = (z + 1) mod 4, y = 4 - y if y > 2, z = y - 1."""
    z = torch.linspace(-9, 9, 1001)[None]
    y = (z + 1) % 4
    y = torch.where(y > 2, 4 - y, y) - 1
    assert torch.allclose(Space("z", (1001,), Uniform(-1, 1)).reflect(z), y, atol=1e-5)


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_samples_from_row_noise_have_the_priors_law(prior):
    x = prior.sample(Draw(torch.arange(20000)), 5, "candidate", (3,))
    assert x.shape == (20000, 3)
    assert bool(prior.inside(x, 1).all())
    middle = (prior.low + prior.high) / 2 if isinstance(prior, Uniform) else 0.0
    assert abs(float(x.mean()) - middle) < 4 * prior.scale() / math.sqrt(60000)
    assert abs(float(x.std()) / prior.scale() - 1) < 0.02


def test_sphere():
    space = Space("z", (16,), Sphere())
    z = Sphere().sample(Draw(torch.arange(9)), 0, "x", (16,))
    assert bool(space.inside(z).all())
    assert torch.allclose(space.norm2(space.clamp(3 * z)), torch.full((9,), 4.0), atol=1e-4)


def test_empirical_gaussian():
    factor = torch.tensor([[2.0, 0.0], [0.5, 1.0]])
    prior = EmpiricalGaussian(torch.tensor([1.0, -1.0]), factor)
    x = prior.sample(Draw(torch.arange(40000)), 0, "x", (2,)).double()
    assert torch.allclose(x.mean(0), torch.tensor([1.0, -1.0]).double(), atol=0.05)
    assert torch.allclose(torch.cov(x.T), (factor @ factor.T).double(), atol=0.1)
    q = x[:5].clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(prior.log_density(q, 1).sum(), q)
    assert torch.allclose(grad, prior.score(q.detach()))


def test_tangent_has_no_radial_part_in_any_dimension():
    for d in (2, 16, 128, 512):
        space = Space("z", (d,))
        z, g = torch.randn(4, d), torch.randn(4, d)
        radial = (space.tangent(g, z) * z).sum(1) / z.square().sum(1).sqrt()
        assert float(radial.abs().max()) < 1e-5 * math.sqrt(d)


def test_jitter_stays_in_the_ball_and_fills_it():
    space = Space("z", (2,))
    noise = Draw(torch.arange(20000)).uniform(0, "start", (3,), torch.float64)
    for norm in ("inf", "2"):
        d = space.distance(space.jitter(torch.zeros(20000, 2), noise, 0.5, norm), torch.zeros(20000, 2), norm)
        assert float(d.max()) <= 0.5 + 1e-6
        # uniform in a 2-D ball: the radius squared is uniform, mean 1/2 of the square of the radius
        assert abs(float((d / 0.5).square().mean()) - 0.5) < 0.01


def test_priors_of_cards():
    assert prior_of_card({"kind": "uniform", "low": 0, "high": 1}) == Uniform(0, 1)
    for bad in ({"kind": "cauchy"}, {"kind": "uniform", "low": 1, "high": 0}, {"kind": "normal", "mean": 3}):
        with pytest.raises(UsageError):
            prior_of_card(bad)
    for prior in PRIORS:
        assert prior_of_card(prior.card()) == prior


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match=r"\(3, 5\).*\(rows, 4\)"):
        Space("z", (4,)).check(torch.zeros(3, 5))
