"""Adam in latent space: against torch's own optimiser, and the contract of every strategy."""

import pytest
import torch

from latentshift.engine.run import Engine
from latentshift.errors import UsageError
from latentshift.strategies.adam import Adam
from latentshift.testing import check_strategy, quadratic_pair


@pytest.mark.parametrize("steps", [1, 2, 15])
def test_the_path_is_that_of_the_optimiser(steps):
    pair = quadratic_pair()
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    adam = Adam(steps=steps, eps=None, step_size=0.03, support="free", beta1=0.8)
    mine = Engine(adam, pair).run(z, list(range(8)))
    point = z.clone().requires_grad_()
    theirs = torch.optim.Adam([point], lr=0.03, betas=(0.8, 0.999), maximize=True)
    for _ in range(steps):
        theirs.zero_grad()
        pair.need_critic().call(pair.G(point)).sum().backward()
        theirs.step()
    assert torch.allclose(torch.from_numpy(mine.chunks[0].point), point.detach(), atol=1e-6)


def test_the_contract():
    check_strategy(Adam(steps=5, eps=0.2))


@pytest.mark.parametrize("options", [{"beta1": 1.0}, {"beta2": -0.1}, {"epsilon": 0.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        Adam(**options)
