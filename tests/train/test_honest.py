"""The honest critic: fitted to a pair whose truth is known, and to the bundled one through the frozen network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from latentshift import Sampler
from latentshift.errors import FileError, LatentshiftWarning, RequestError, UsageError
from latentshift.files.folder import read_critic
from latentshift.layers import LayerNet
from latentshift.model import Capability, Critic, Pair
from latentshift.space import Normal, Space, Uniform
from latentshift.strategies.gradient import IFGSM
from latentshift.train.critic import Frozen, HonestShift, head_layers
from latentshift.train.honest import USE, fit_critic, spread_of
from latentshift.train.kinds import bound_of, make_part
from latentshift.train.overfit import kinship, overfitting
from latentshift.train.trunks import SQUEEZENET, get_trunk


def blob(x, y, size=16):
    """Images (rows, 1, size, size) in [-1, 1] of one soft blob each at (x, y) in -1..1."""
    axis = torch.linspace(-1, 1, size)
    dx, dy = axis[None, None, :] - x[:, None, None], axis[None, :, None] - y[:, None, None]
    return (2 * torch.exp(-(dx**2 + dy**2) / 0.1) - 1)[:, None]


def cloud(z):
    """A soft pattern (rows, 1, 16, 16) of 16 numbers."""
    return 0.25 * nn.functional.interpolate(z.reshape(-1, 1, 4, 4), (16, 16), mode="bilinear")


class Blobs(nn.Module):
    """G: two latents place the blob, the third adds stripes that real images do not have, 16 make a soft background."""

    def forward(self, z):
        axis = torch.linspace(-1, 1, 16)
        stripes = torch.sin(12 * axis)[None, None, None, :] * 0.3 * (1 + z[:, 2].tanh())[:, None, None, None]
        return (blob(0.4 * z[:, 0].tanh(), 0.4 * z[:, 1].tanh()) + stripes + cloud(z[:, 3:])).clamp(-1, 1)


def pair(prior=None):
    net = LayerNet([{"op": "Flatten"}, {"op": "Linear", "key": "a", "kw": {"in_features": 256, "out_features": 1}}])
    return Pair(Blobs(), Critic(net), Space("z", (19,), prior or Normal()), "blobs", image_shape=(1, 16, 16))


def real_blobs(rows=300, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = blob(*(0.4 * torch.randn(2, rows, generator=g).tanh())) + cloud(torch.randn(rows, 16, generator=g))
    x = x.clamp(-1, 1)
    return ((x + 1) * 127.5).round().byte().numpy()


@pytest.fixture(scope="module")
def fitted():
    return fit_critic(pair(), real_blobs(), kind="pixel", updates=36)


def test_it_learns_what_is_wrong_with_the_samples(fitted):
    assert fitted.verdict == "climb"
    assert fitted.auc_raw > 0.9
    sampler = Sampler(pair(), critic=fitted.critic, recipe="auto/reals")
    result = sampler.refine(seeds=range(64), steps=10)
    # the third latent is the flaw: it must fall, and the blobs must not drift together
    moved = result.z - result.z0
    assert (moved[:, 2] < 0).float().mean() > 0.9
    assert moved[:, 2].mean() < -2 * moved[:, [0, 1]].mean(0).abs().max()


def test_the_numbers_are_those_of_held_out_images(fitted):
    card = fitted.card()["honest"]
    assert card["reals"] == 300
    assert len(card["reals_sha256"]) == 64
    assert card["may_not_judge"] == []
    part = card["parts"][0]
    losses = [h["held_out_loss"] for h in part["history"]]
    assert part["held_out_loss"] == min(losses), "held-out images decide when to stop"
    assert len(losses) == 6
    assert card["overfitting"]["images"] == 60
    json.dumps(card)


def test_the_folder_is_a_critic(fitted, tmp_path):
    fitted.save(tmp_path / "c")
    again = read_critic(tmp_path / "c")
    x = torch.rand(8, 1, 16, 16) * 2 - 1
    assert torch.equal(again.logit(x), fitted.critic.logit(x))
    assert again.returns == ("logit" if fitted.calibrated else "critic")
    assert bool(again.capabilities & Capability.CALIBRATED) is fitted.calibrated
    result = Sampler(pair(), critic=again, recipe="auto/reals").refine(seeds=range(8))
    assert (result.gain > 0).all()


def test_equal_seeds_give_equal_critics():
    one, other = (fit_critic(pair(), real_blobs(250), kind="pixel", updates=6) for _ in range(2))
    x = torch.rand(4, 1, 16, 16)
    assert torch.equal(one.critic.logit(x), other.critic.logit(x))


def test_a_critic_of_noise_says_neither():
    """Real images drawn from G itself: nothing can be told apart, and the verdict says so."""
    with torch.no_grad():
        x = Blobs()(torch.randn(300, 19, generator=torch.Generator().manual_seed(5)))
    fakes = ((x + 1) * 127.5).round().byte().numpy()
    found = fit_critic(pair(), fakes, kind="pixel", updates=24)
    assert found.verdict == "neither"
    assert found.steps == 0
    assert found.auc_raw < 0.6
    assert "left alone" in found.why


@pytest.mark.parametrize("bound", ["gradient-penalty", "spectral-norm", "dat"])
def test_every_bound_fits(bound):
    found = fit_critic(pair(), real_blobs(250), kind="pixel", updates=18, bound=bound)
    assert found.auc_raw > 0.6
    assert found.parts[0]["bound"] == bound


def test_own_weights_are_trained_on_and_left_alone():
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the weights it starts from
        p = pair()
    before = {k: v.clone() for k, v in p.D.state_dict().items()}
    found = fit_critic(p, real_blobs(), kind="own", updates=40)
    assert found.auc_raw > 0.7
    assert all(torch.equal(v, before[k]) for k, v in p.D.state_dict().items())
    plain = p.replaced(critic=Critic(lambda x: x.mean((1, 2, 3))))
    with pytest.raises(RequestError, match="no plain layer network"):
        fit_critic(plain, real_blobs(), kind="own")


def test_features_of_the_frozen_network(tmp_path):
    found = fit_critic(pair(), real_blobs(250), kind="features", updates=6, strategy=USE)
    assert found.networks == ("squeezenet10",)
    assert found.auc_raw > 0.6
    folder = found.save(tmp_path / "f")
    x = torch.rand(8, 1, 16, 16) * 2 - 1
    score = read_critic(folder).logit(x)
    fresh = found.critic.logit(x)  # in another memory layout: equal to float32 rounding of the largest score
    assert torch.allclose(score, fresh, atol=1e-5 * float(fresh.abs().max()))
    assert torch.equal(read_critic(folder).logit(x[:8])[:8], score), "a row does not see another row"
    assert json.loads((folder / "card.json").read_text())["honest"]["may_not_judge"] == ["squeezenet10"]


def test_the_trunk_is_squeezenet():
    """The layer list gives the very numbers of the judge's SqueezeNet at fire5, and no weight asks for a gradient."""
    from latentshift.metrics.networks import caffe_bgr, load_network

    net = load_network(SQUEEZENET.file, size=64).net
    x = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    trunk = get_trunk("squeezenet").build(64, (-1.0, 1.0))
    with torch.no_grad():
        theirs = net.trunk(caffe_bgr(x), last=5)
        ours = trunk(x / 127.5 - 1)
    assert ours.shape == (3, 256, 7, 7)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    assert not any(p.requires_grad for p in trunk.parameters())
    z = torch.rand(2, 1, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(trunk(z).sum(), z)
    assert (grad != 0).any()


def test_negatives_are_raw_refined_and_remembered():
    critic = LayerNet([{"op": "Flatten"}, {"op": "Linear", "key": "a", "kw": {"in_features": 256, "out_features": 1}}])
    shift = HonestShift(IFGSM(steps=2, step_size=0.1, eps=None, support="free"), space=Space("z", (19,)))
    G = Frozen(pair())
    z = torch.randn(30, 19)
    label = torch.arange(30) % 2
    first = shift(z, label, lambda z, y: G(z), lambda x, y: critic(x))
    assert torch.equal(first[:10], z[:10]), "a third stays raw"
    assert (first[10:] != z[10:]).any(1).all(), "without a pool the rest is climbed"
    second = shift(z, label, lambda z, y: G(z), lambda x, y: critic(x))
    assert (second[10:20] != z[10:20]).any(1).all()
    for row, mine in zip(second[20:], label[20:], strict=True):
        old = (first[10:] == row).all(1)
        assert old.any(), "the last third comes from the pool"
        assert (label[10:][old] == mine).all(), "of its own label"


def test_the_negatives_stay_in_a_bounded_support():
    shift = HonestShift(
        IFGSM(steps=3, step_size=0.5, eps=None, support="auto", unit="prior"), space=Space("z", (19,), Uniform())
    )
    G, critic = Frozen(pair(Uniform())), Critic(lambda x: x.mean((1, 2, 3)))
    moved = shift(torch.rand(30, 19) * 2 - 1, None, lambda z, y=None: G(z), lambda x, y=None: critic.call(x))
    assert moved.abs().max() <= 1


def test_overfitting_is_seen():
    """A critic that knows its training images by heart, and samples that are copies of them."""
    g = torch.Generator().manual_seed(0)
    train, held, raw = (torch.rand(80, 1, 16, 16, generator=g) for _ in range(3))
    known = {tuple(x.flatten()[:4].tolist()) for x in train}

    def score(x):
        return torch.tensor([float(tuple(row.flatten()[:4].tolist()) in known) for row in x])

    bad = overfitting(train + 0.01, raw, train, held, score)
    assert bad.memory == 1.0
    assert bad.nearer == 1.0
    assert bad.copies
    assert bad.distance < 0.2
    fine = overfitting(torch.rand(80, 1, 16, 16, generator=g), raw, train, held, lambda x: x.mean((1, 2, 3)))
    assert not fine.copies
    assert abs(fine.memory - 0.5) < 0.15


def test_images_of_another_kind_are_refused():
    with pytest.raises(RequestError, match="another kind"):
        fit_critic(pair(), 255 - real_blobs(), kind="pixel", updates=4)
    x = torch.from_numpy(real_blobs()).float() / 127.5 - 1
    assert kinship(x[:100], x[100:])[0] < 1.5
    assert kinship(-x[:100], x[100:])[1] > 0.65


def test_too_few_images_say_how_many_are_wanted():
    with pytest.raises(FileError, match="wants 250 or more and is fitted from 100 on"):
        fit_critic(pair(), real_blobs(20))
    with pytest.warns(LatentshiftWarning, match="wants 250"):
        fit_critic(pair(), real_blobs(120), kind="pixel", updates=6)


@pytest.mark.parametrize(
    ("reals", "text"),
    [
        (np.zeros((300, 1, 9, 9), np.uint8), "where 'blobs' makes"),
        (np.zeros((300, 1, 16, 16), np.int64), "of uint8 or of floats"),
        (np.zeros((300, 16, 16), np.uint8), "of uint8 or of floats"),
        (np.full((300, 1, 16, 16), 200.0), "run from 200 to 200"),
        (np.full((300, 1, 16, 16), np.nan), "run from nan"),
    ],
)
def test_wrong_images(reals, text):
    with pytest.raises(RequestError, match=text):
        fit_critic(pair(), reals)


def test_wrong_words():
    with pytest.raises(UsageError, match="a critic is one of"):
        fit_critic(pair(), real_blobs(), kind="nice")
    with pytest.raises(UsageError, match="a bound is one of"):
        bound_of("rope", "pixel", (-1, 1))
    wide = pair().replaced(image_shape=(1, 16, 20))
    with pytest.raises(RequestError, match="square"):
        make_part("pixel", wide, torch.zeros(2, 1, 16, 20), trunk="squeezenet", mirror=False, updates=1, seed=0)
    assert USE.steps == 2


def test_a_trunk_of_a_plug_in(monkeypatch, tmp_path):
    """A user's own frozen network: any module; the folder holds the head and names the plug-in."""
    from latentshift import registry

    class Mine:
        name, line, network = "mine", "two filters", "mine-net"

        def build(self, side, image_range):
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(1, 6, 5, stride=2), nn.ReLU()).eval().requires_grad_(False)

    get = registry.get
    monkeypatch.setattr(registry, "get", lambda group, name: Mine() if group == "trunks" else get(group, name))
    found = fit_critic(pair(), real_blobs(250), kind="features", trunk="mine", updates=30)
    assert found.networks == ("mine-net",)
    folder = found.save(tmp_path / "m")
    card = json.loads((folder / "card.json").read_text())
    assert card["critic"]["trunk"] == "mine"
    x = torch.rand(4, 1, 16, 16)
    assert torch.allclose(read_critic(folder).logit(x), found.critic.logit(x))


def test_vectors_have_a_head_too():
    assert LayerNet(head_layers((7,)))(torch.zeros(3, 7)).shape == (3, 1)
    assert LayerNet(head_layers((7, 5, 4)))(torch.zeros(3, 7, 5, 4)).shape == (3, 1)


def test_one_wild_score_does_not_decide_the_weights_of_a_sum():
    """Seen on fashion28-dcgan-bce: one of 200 held-out scores was 270,000, and a part with AUC 0.97 had no weight left."""
    scores = torch.randn(200, generator=torch.Generator().manual_seed(1))
    plain = spread_of(scores)
    assert plain == pytest.approx(1.0, abs=0.2)
    scores[3] = 270_000.0
    assert spread_of(scores) == pytest.approx(plain, rel=0.05)
    assert spread_of(torch.zeros(9)) > 0
