"""The doctor recognises pairs as they are found in the wild: one small pair for each, and the real broken ones."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from latentshift import load
from latentshift.doctor.examine import applicable, examine, quick
from latentshift.model import Pair
from latentshift.space import Uniform


class Maker(nn.Module):
    """A G of 8x8 images of clear variety; `end` is put on its output."""

    def __init__(self, channels=1, end=torch.tanh, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(64) if norm else nn.Identity()
        self.a, self.b = nn.Linear(16, 64), nn.Linear(64, channels * 64)
        self.b.weight.data *= 3
        self.channels, self.end = channels, end

    def forward(self, z):
        return self.end(self.b(torch.relu(self.norm(self.a(z))))).reshape(len(z), self.channels, 8, 8)


class Look(nn.Module):
    """A D of 8x8 images."""

    def __init__(self, channels=1, scale=1.0, shift=0.0, out=1, end=None, inner=None):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 32), nn.LeakyReLU(0.2))
        self.inner = inner or nn.Identity()
        self.head = nn.Linear(32, out)
        self.scale, self.shift, self.end = scale, shift, end or nn.Identity()

    def forward(self, x):
        return self.end(self.head(self.inner(self.net(x))) * self.scale + self.shift)


def pair(G=None, D=None, **kw):
    G, D = G or Maker(), D or Look()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what wrapping notices by itself is tested with the model
        return Pair.wrap(G.eval(), D.eval() if isinstance(D, nn.Module) else D, z_size=16, **kw)


def topics(p, reals=None, **kw):
    if reals is not None:
        low, high = p.image_range
        reals = torch.from_numpy(reals).float() / 255 * (high - low) + low
    return {f.topic: f for f in examine(p, reals, rows=128, pilots=50, settings=(), **kw).findings}


def test_a_sound_pair_has_no_complaint():
    found = topics(pair())
    assert not [f for f in found.values() if f.level in ("broken", "warning")], found
    assert found["step-size"].level == "good"


def test_dead_critic():
    found = topics(pair(D=Look(scale=0.0, shift=-1.0, end=nn.ReLU())))
    assert found["dead"].level == "broken"
    e = examine(pair(D=Look(scale=0.0)), rows=64)
    assert [f.answer for f in e.forecasts] == ["nothing"] * 3


def test_dead_for_some():
    class Half(Look):
        def forward(self, x):
            x = super().forward(x)
            return torch.relu(x - x.detach().new_tensor(self.cut))

    D = Half()
    D.cut = -100.0
    with torch.no_grad():
        z = torch.randn(500, 16, generator=torch.Generator().manual_seed(3))
        D.cut = float(D(Maker()(z)).quantile(0.5)) - 100.0
    assert topics(pair(D=D))["no-slope"].level == "warning"


def test_turned_round_by_its_odds():
    D = Look(scale=0.3, shift=4.0)
    found = topics(pair(D=D))
    assert found["turned-round"].level == "broken"
    assert "--critic-sign low" in found["turned-round"].mend
    assert "turned-round" not in topics(pair(D=D, real_is="low"))  # told: no complaint
    assert "turned-round" not in topics(pair(D=D, returns="critic"))  # a critic's zero means nothing


def test_a_sigmoid_that_the_card_does_not_tell():
    D = nn.Sequential(Look(scale=0.3, shift=4.0), nn.Sigmoid())
    found = topics(pair(D=D, returns="critic"))
    assert "--returns probability" in found["probability"].mend
    assert "turned-round" in found


def grey(G, rows=200, turn=0.0):
    with torch.no_grad():
        x = G(torch.randn(rows, 16, generator=torch.Generator().manual_seed(5)))
    return ((x.clamp(-1, 1) + 1) * 127.5 + turn).clamp(0, 255).round().to(torch.uint8).numpy()


def test_real_images_settle_the_sign():
    G = Maker()
    reals = np.clip(grey(G).astype(np.int64) + 30, 0, 255).astype(np.uint8)

    class Bright(nn.Module):
        def forward(self, x):
            return x.flatten(1).mean(1, keepdim=True) * 10

    class Dark(Bright):
        def forward(self, x):
            return -super().forward(x)

    assert "turned-round" not in topics(pair(G, Bright(), returns="critic"), reals)
    found = topics(pair(G, Dark(), returns="critic"), reals)
    assert found["turned-round"].level == "broken"
    assert "AUC" in found["turned-round"].what
    assert topics(pair(G, Look(), returns="critic"), grey(G))["knows-nothing"].level == "warning"


def test_knows_everything_and_other_kind():
    class Bright(nn.Module):
        def forward(self, x):
            return x.flatten(1).mean(1, keepdim=True) * 10

    reals = np.full((200, 1, 8, 8), 250, np.uint8)
    reals[:, :, ::2] -= np.arange(200, dtype=np.uint8).reshape(-1, 1, 1, 1) // 20
    found = topics(pair(Maker(), Bright(), returns="critic"), reals)
    assert {"knows-everything", "other-kind"} <= set(found)


@pytest.mark.parametrize(("shape", "numbers"), [((1, 2, 2), 4), ((3,), 3)])
def test_several_numbers(shape, numbers):
    n = int(np.prod(shape))
    D = nn.Sequential(Look(out=n), nn.Unflatten(1, shape))
    p = Pair.wrap(Maker().eval(), None, z_size=16).replaced(critic=pair(D=Look()).critic)
    p = p.replaced(critic=p.critic.__class__(D.eval()))
    found = topics(p)
    assert f"{numbers} numbers" in found["several-numbers"].what
    assert "mean(1)" in found["several-numbers"].mend


def test_one_number_for_the_batch():
    p = pair()
    p = p.replaced(critic=p.critic.__class__(lambda x: x.mean()))
    assert topics(p)["D-fails"].level == "broken"


def test_a_score_that_depends_on_the_batch():
    inner = nn.BatchNorm1d(32, track_running_stats=False)
    p = pair(D=Look(inner=inner))
    assert "D-batch" in topics(p)


def test_batch_statistics_that_turn_it_round():
    inner = nn.BatchNorm1d(32)
    inner.weight.data = torch.randn(32, generator=torch.Generator().manual_seed(0))
    inner.running_var = torch.rand(32, generator=torch.Generator().manual_seed(1)) ** 6 * 30 + 1e-3
    D = Look(inner=inner)
    p = pair(D=D)
    before = {k: v.clone() for k, v in D.state_dict().items()}
    assert "training-mode-turns" in topics(p)
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items()), "the examination changed the network"


def test_huge_scale():
    assert topics(pair(D=Look(scale=3000.0), returns="critic"))["huge-scale"].level == "warning"


def test_dropout():
    assert topics(pair(D=Look(inner=nn.Dropout(0.5))))["dropout"].level == "note"

    class Noisy(Look):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5, True)

    p = pair(D=Noisy())
    assert "D-random" in topics(p)


def test_collapsed_and_blind_to_z():
    class Same(Maker):
        def forward(self, z):
            return super().forward(0.05 * z) * 0.2 + torch.linspace(-0.8, 0.8, 64).reshape(1, 1, 8, 8)

    assert topics(pair(G=Same()))["collapsed"].level == "broken"

    class Blind(Maker):
        def forward(self, z):
            return super().forward(0 * z + 1)

    assert topics(pair(G=Blind()))["ignores-z"].level == "broken"


def test_image_ranges():
    unit = pair(G=Maker(end=lambda x: torch.sigmoid(x + 1)))
    assert topics(unit)["range"].mend == "--range 0,1"
    assert "range" not in topics(pair(G=Maker(end=torch.sigmoid), image_range=(0.0, 1.0)))
    signed = pair(image_range=(0.0, 1.0))
    assert topics(signed)["range"].mend == "--range=-1,1"
    found = topics(pair(G=Maker(end=lambda x: 5 * x)))["unbounded"]
    assert found.mend.startswith("--range=-")


def test_channels():
    assert "alpha" in topics(pair(G=Maker(4), D=Look(4)))
    hot = pair(G=Maker(6, end=lambda x: torch.softmax(4 * x.reshape(len(x), 6, 64), 1)), D=Look(6))
    assert "one-hot" in topics(hot)


@pytest.fixture
def uniform_generator():
    G = Maker(norm=True)
    G.norm.momentum = None
    G.train()
    with torch.no_grad():
        for i in range(20):
            G(2 * torch.rand(256, 16, generator=torch.Generator().manual_seed(i)) - 1)
    return G.eval()


def test_gaussian_latents_fed_to_a_uniform_prior(uniform_generator):
    found = topics(pair(G=uniform_generator))
    assert found["prior"].level == "broken"
    assert found["prior"].mend == "--prior uniform:-1,1"
    assert "prior" not in topics(pair(G=uniform_generator, prior=Uniform(-1, 1)))


def test_running_statistics_that_fit_nothing():
    G = Maker(norm=True)
    G.norm.running_var *= 100
    assert topics(pair(G=G))["batch-statistics"].level == "broken"


def test_random_and_coupled_generators():
    class Random(Maker):
        def forward(self, z):
            return super().forward(z + 0.1 * torch.randn_like(z))

    class Coupled(Maker):
        def forward(self, z):
            return super().forward(z - z.mean(0))

    random, coupled = pair(G=Random()), pair(G=Coupled())
    assert "G-random" in topics(random)
    assert "G-batch" in topics(coupled)


def test_not_finite():
    class Broken(Maker):
        def forward(self, z):
            return torch.where(z[:, :1, None, None] > 1, torch.nan, super().forward(z))

    p = pair(G=Broken())
    assert {"not-finite", "D-not-finite"} <= set(topics(p))


def test_no_critic():
    found = examine(Pair.wrap(Maker().eval(), None, z_size=16), rows=64)
    assert any(f.topic == "no-critic" for f in found.findings)
    assert found.methods["ifgsm"]
    assert not found.methods["polarity"]


def test_what_applies():
    logit, plain = applicable(load("ring")), applicable(load("fashion32"))
    assert not plain["ifgsm"]
    assert "log odds" in logit["mh"]


def test_quick_finds_what_a_few_evaluations_show():
    assert not quick(load("fashion32"))
    assert {f.topic for f in quick(pair(D=Look(scale=0.0)))} == {"dead"}


#: what each broken pair must be known by
BROKEN = {
    "broken-dead-critic": {"dead"},
    "broken-fgan-collapsed": {"collapsed", "huge-scale"},
    "broken-inverted-labels": {"collapsed"},
}


@pytest.mark.parametrize("name", sorted(BROKEN))
@pytest.mark.parametrize("card", ["as it is", "wrong", "silent"])
def test_the_broken_pairs_are_recognised_whatever_the_card_says(name, card, reference, tmp_path):
    folder = tmp_path / name
    shutil.copytree(reference("reference", "pairs", name), folder)
    path = folder / "card.json"
    path.chmod(0o644)
    content = json.loads(path.read_text())
    if card != "as it is":
        content["name"], content["notes"], content["metrics"], content["data"] = "pair", [], {}, ""
        wrong = card == "wrong"
        content["critic"] = {"returns": "critic" if wrong else "logit", "real_is": "high"}
        if not wrong:
            content.pop("z_prior")
        path.unlink()
        path.write_text(json.dumps(content))
    found = {f.topic: f for f in examine(load(str(folder)), rows=128).findings}
    assert BROKEN[name] <= set(found)
    assert all(found[t].level in ("broken", "warning") for t in BROKEN[name])
    if name == "broken-inverted-labels":
        assert ("low-is-real" in found) == (card == "as it is")
        assert ("turned-round" in found) == (card != "as it is")
        assert ("probability" in found) == (card != "as it is")


def test_the_usable_pairs_are_not_called_broken(pair_name, reference):
    if pair_name.startswith(("broken", "absent")):
        pytest.skip("not a usable pair")
    found = examine(load(str(reference("reference", "pairs", pair_name))), rows=128)
    assert not [f for f in found.findings if f.level == "broken"], found.findings


def test_the_prior_of_a_real_pair_is_read_off_its_normalisations(reference):
    from dataclasses import replace

    from latentshift.space import Normal

    p = load(str(reference("reference", "pairs", "faces32-lsgan")))
    wrong = p.replaced(space=replace(p.space, prior=Normal()))
    assert topics(wrong)["prior"].mend == "--prior uniform:-1,1"
    assert [f.topic for f in quick(wrong)] == ["prior"]
