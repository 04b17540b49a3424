"""Searching the noise maps of a style-based generator: the space's contract, and Tarsier in it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from latentshift_plugins.stylegan2 import FAMILY

from latentshift import Sampler
from latentshift.noise import latents
from latentshift.space import Context
from latentshift.strategies.cma import Tarsier

sys.path.insert(0, str(Path(__file__).parent))
container = importlib.import_module("container")


@pytest.mark.shared
@pytest.mark.parametrize("space", ["noise", "z+noise"])
def test_tarsier_moves_noise_maps(space: str) -> None:
    pair = FAMILY.load(container.folder("stylegan") / "sg2ada-default-32.pkl")
    strategy = Tarsier(steps=3, population=6)
    result = Sampler(pair, strategy=strategy, space=space).refine(seeds=range(3))
    assert (result.gain >= 0).all()
    assert float(result.gain.max()) > 0
    assert result.run.ledger.g_backward == 0
    assert result.run.ledger.g_forward <= 3 * (3 * 6 + 3)
    size = pair.space.size
    z = torch.from_numpy(latents(range(3), pair.space.shape, pair.space.prior)).float()
    if space == "noise":  # z is held: the image is that of the row's own z with other noise
        here = pair.spaces[space]
        moved = result.z.clone()
        moved[:, :size] += 1.0
        start = here.enter(pair, z, Context(torch.arange(3)))
        context = Context(torch.arange(3), point0=start)
        torch.testing.assert_close(here.decode(pair, moved, context), here.decode(pair, result.z, context))
    alone = Sampler(pair, strategy=strategy, space=space).refine(seeds=[2])
    torch.testing.assert_close(alone.z[0], result.z[2], atol=1e-4, rtol=1e-4)
