"""Score and gradient through two plans at once: the bits and the counts of torch's own differentiation."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from latentshift.bench import pairs
from latentshift.engine import packed
from latentshift.engine.climb import both_ways, readied
from latentshift.engine.precision import networks
from latentshift.engine.run import Settings
from latentshift.files.folder import read_pair
from latentshift.landscape import Landscape, Ledger
from latentshift.layers import LabelJoin
from latentshift.model import Critic, Pair
from latentshift.objective import Displacement, Realness
from latentshift.space import Context

pytestmark = pytest.mark.skipif(bool(packed.can_pack()), reason="this torch has no packed convolutions")


def small(name="A"):
    nets = pairs.networks(name, shrink=8)
    return Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=name)


def lands(pair, z, label=None, **more):
    plain = Landscape(pair, Context(torch.arange(len(z)), label=label, point0=z), **more)
    fast = readied(Landscape(pair, Context(torch.arange(len(z)), label=label, point0=z), **more))
    return plain, fast


def assert_alike(plain, fast, z, call="score_and_grad"):
    for mine, theirs in zip(getattr(fast, call)(z), getattr(plain, call)(z), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    assert fast.ledger == plain.ledger


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize("call", ["score_and_grad", "value_and_grad", "ascent"])
def test_bits_and_counts_are_those_of_differentiation(name, precision, call):
    form = networks(small(name), Settings(precision=precision)).moving
    z = torch.randn(16, pairs.Z, generator=torch.Generator().manual_seed(0))
    plain, fast = lands(form, z)
    assert fast.both is not None
    assert_alike(plain, fast, z, call)
    assert plain.ledger == Ledger(16, 16, 16, 16)


def test_a_critic_that_is_low_for_real_images_turns_both():
    form = networks(small(), Settings()).moving
    turned = form.replaced(critic=replace(form.critic, real_is="low"))
    z = torch.randn(8, pairs.Z)
    plain, fast = lands(turned, z)
    assert_alike(plain, fast, z)
    assert torch.equal(fast.score_and_grad(z)[1], -lands(form, z)[1].score_and_grad(z)[1])


def test_labels_reach_both_networks(reference):
    form = networks(read_pair(reference("reference", "pairs", "mnist28-cond-wgangp")), Settings()).moving
    z, label = torch.randn(16, *form.space.shape), torch.arange(16) % 10
    plain, fast = lands(form, z, label)
    assert fast.both is not None
    assert any(isinstance(m, LabelJoin) for m in form.G.plain.modules())
    assert_alike(plain, fast, z)
    other = lands(form, z, label.flip(0))[1].score_and_grad(z)[0]
    assert not torch.equal(other, fast.score_and_grad(z)[0])


def test_other_objectives_networks_and_spaces_are_differentiated_by_torch():
    form = networks(small(), Settings()).moving
    z = torch.randn(8, pairs.Z)
    assert both_ways(small(), small().space) is None
    assert both_ways(form.replaced(critic=replace(form.critic, returns="probability")), form.space) is None
    assert both_ways(form.replaced(critic=Critic(call=nn.Flatten())), form.space) is None
    plain, fast = lands(form, z, objective=Realness() - 0.1 * Displacement())
    assert_alike(plain, fast, z, "value_and_grad")
    assert fast.on(small()).both is None
