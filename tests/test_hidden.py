"""Hidden layers of G as spaces: the same image, also on a prepared copy; what climbs works there, what needs a law refuses."""

import numpy as np
import pytest
import torch

from latentshift import Pair, Sampler, load
from latentshift.commands import run
from latentshift.engine.prepare import prepare
from latentshift.engine.run import Engine
from latentshift.errors import LatentshiftError, RequestError
from latentshift.hidden import row_of_layers
from latentshift.noise import latents
from latentshift.space import Context
from latentshift.strategies.collaborative import Collaborative
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.langevin import DDLS, MALA
from latentshift.strategies.selection import MH


@pytest.mark.parametrize("name", ["ring", "fashion32"])
def test_every_layer_gives_the_images_of_z_also_when_prepared(name):
    pair = load(name)
    z = torch.from_numpy(latents(range(8), pair.space.shape, pair.space.prior))
    context = Context(torch.arange(8))
    ready, note = prepare(pair)
    assert "frozen" in note
    assert {k: s.shape for k, s in ready.spaces.items()} == {k: s.shape for k, s in pair.spaces.items()}
    with torch.no_grad():
        images = pair.generate(z)
        layers = [s for n, s in pair.spaces.items() if n.startswith("layer")]
        assert len(layers) >= 3
        for space in layers:
            point = space.enter(pair, z, context)
            assert tuple(point.shape[1:]) == space.shape
            assert torch.equal(space.decode(pair, point, context), images)
            mine = space.enter(ready, z, context)
            torch.testing.assert_close(mine, point, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(space.decode(ready, mine, context), images, atol=1e-4, rtol=1e-3)
            far = point + torch.randn(point.shape, generator=torch.Generator().manual_seed(0))
            for norm in ("inf", "2"):
                ball = space.project(far, point, 0.1, norm)
                assert float(space.distance(ball, point, norm).max()) <= 0.1 + 1e-5


@pytest.mark.parametrize("space", ["layer1", "layer3"])
def test_collaborative_sampling_climbs_on_a_hidden_layer(space):
    pair = load("ring")
    strategy = Collaborative(steps=10, step_size=0.02, loss="score")
    result = Sampler(pair, strategy=strategy, space=space).refine(seeds=range(40))
    assert float(result.gain.mean()) > 0.02
    assert (result.gain >= -1e-6).all()  # the best iterate is kept
    assert result.z.shape == (40, *pair.spaces[space].shape)
    assert result.run.ledger.g_backward == 40 * 10
    some = Sampler(pair, strategy=strategy, space=space).refine(seeds=[31, 7])
    assert torch.equal(some.z, result.z[[31, 7]])  # a row is the same in any batch


def test_what_needs_a_law_is_refused_and_what_climbs_is_not():
    pair = load("ring")
    layer = pair.spaces["layer2"]
    for strategy in (MH(calibration="none"), DDLS(calibration="none"), MALA(calibration="none")):
        with pytest.raises(LatentshiftError, match=r"space z"):
            Engine(strategy, pair, space=layer)
    Engine(IFGSM(steps=1, eps=0.1), pair, space=layer)


def test_who_has_such_layers():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])

        def forward(self, x):
            return self.layers[1](x) + self.layers[0](x)  # no row, whatever its parts look like

    assert row_of_layers(Block()) is None
    assert [n for n in Pair.wrap(Block().eval(), torch.nn.Linear(4, 1).eval(), z_size=4).spaces] == ["z", "image"]
    G = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(5, 6))).eval()
    pair = Pair.wrap(G, torch.nn.Linear(6, 1).eval(), z_size=4)
    assert pair.spaces["layer1"].shape == (5,)
    with pytest.raises(RequestError, match="layer9"):
        Sampler(pair, space="layer9").refine(torch.zeros(2, 4))


def test_from_the_command_line(tmp_path):
    out = tmp_path / "out"
    typed = ["--model", "ring", "--num", "16", "--space", "layer2", "--strategy", "collaborative", "--steps", "3"]
    assert run(["refine", *typed, "--step-size", "0.02", "--quiet", "--no-report", "--outdir", str(out)]) == 0
    with np.load(out / "latents.npz") as data:
        assert str(data["space"]) == "layer2"
        assert data["point"].shape == (16, 200)
