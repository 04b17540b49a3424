"""The ground that an honest critic is fitted and climbed on: latents, or a hidden layer of a row of layers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from latentshift import Sampler, load
from latentshift.commands import run
from latentshift.commands.honest import as_fitted
from latentshift.errors import FileError, RequestError
from latentshift.files.folder import write_pair
from latentshift.hidden import row_of_layers
from latentshift.layers import LayerNet
from latentshift.model import Critic, Pair
from latentshift.noise import latents
from latentshift.recipe import AUTO_REALS
from latentshift.space import Context, Normal, Space
from latentshift.strategies.gradient import IFGSM
from latentshift.train.auto import guided
from latentshift.train.critic import Frozen, HonestShift
from latentshift.train.ground import Ground
from latentshift.train.honest import fit_critic
from latentshift.train.kinds import UPDATES

from .test_honest import pair as blobs

SHAPE = (1, 16, 16)


def networks():
    """G: two latents place nothing, a wide layer draws; its flaw, a bright first row, no latent can undo."""
    G = LayerNet(
        [
            {"op": "Linear", "key": "a", "kw": {"in_features": 2, "out_features": 24}},
            {"op": "ReLU"},
            {"op": "Linear", "key": "b", "kw": {"in_features": 24, "out_features": 256}},
            {"op": "Tanh"},
            {"op": "Reshape", "kw": {"shape": list(SHAPE)}},
        ]
    )
    D = LayerNet([{"op": "Flatten"}, {"op": "Linear", "key": "c", "kw": {"in_features": 256, "out_features": 1}}])
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for net in (G, D):
            for p in net.parameters():
                p.copy_(torch.randn(p.shape, generator=g) / max(1, p.shape[-1]) ** 0.5)
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


def pair():
    G, D = networks()
    return Pair(G, Critic(D), Space("z", (2,), Normal()), "wide", image_shape=SHAPE, sha256="1" * 64)


def reals(rows=250):
    """What G would draw from a layer that is on everywhere: out of reach for its two latents."""
    h = 0.8 + 0.4 * torch.randn(rows, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        x = h
        for layer in row_of_layers(networks()[0])[2:]:
            x = layer(x)
    return ((x + 1) * 127.5).round().byte().numpy()


def test_auto_is_the_first_layer_where_there_is_one():
    assert Ground.of(pair()).space.name == "layer1"
    assert Ground.of(pair(), "z").space.name == "z"
    assert Ground.of(blobs()).space.name == "z", "its G is no row of layers"
    for name in ("image", "layer7"):
        with pytest.raises(RequestError, match=r"no space .* to climb in.*It has: z, layer1"):
            Ground.of(pair(), name)


def test_points_give_the_images_of_their_latents():
    ground = Ground.of(pair())
    z = torch.from_numpy(latents(range(70), (2,), Normal()))
    point = ground.enter(z, None)
    assert torch.allclose(ground.images(point, None), ground.pair.generate(z), atol=1e-5)  # 64 rows at a time
    again, label = ground.pilots(70)
    assert again.shape == (70, 24)
    assert label is None
    assert torch.allclose(Frozen(ground.pair, None, ground.space)(point), ground.pair.generate(z), atol=1e-5)


def test_a_layer_has_a_unit_its_spread():
    p = load("fashion32")
    space = p.spaces["layer1"]
    z = torch.from_numpy(latents(range(400), p.space.shape, p.space.prior))
    with torch.no_grad():
        spread = float(space.enter(p, z, Context(torch.arange(400))).std())
    assert space.prior.scale() == pytest.approx(spread, rel=0.1)
    assert space.prior.scale() == float(f"{space.prior.scale():.3g}"), "three digits: the same for a prepared copy"
    step = IFGSM(steps=1, step_size=0.1, eps=None, unit="prior", support="auto")
    result = Sampler(p, strategy=step, space="layer1").refine(seeds=range(4))
    moved = (result.z - result.z0).abs()
    assert float(moved.max()) == pytest.approx(0.1 * space.prior.scale(), rel=1e-3)


def test_labels_go_along():
    G = LayerNet(
        [
            {"op": "Embedding", "key": "embed", "kw": {"num_embeddings": 3, "embedding_dim": 2}},
            {"op": "Linear", "key": "a", "kw": {"in_features": 4, "out_features": 8}},
            {"op": "ReLU"},
            {"op": "Linear", "key": "b", "kw": {"in_features": 8, "out_features": 256}},
            {"op": "Reshape", "kw": {"shape": list(SHAPE)}},
        ]
    )
    G.eval().requires_grad_(False)
    p = Pair(G, Critic(networks()[1]), Space("z", (2,), Normal()), "labelled", classes=3, image_shape=SHAPE)
    ground = Ground.of(p)
    point, label = ground.pilots(9)
    assert label.tolist() == [0, 1, 2] * 3
    z = torch.from_numpy(latents(range(3_000_000_000, 3_000_000_009), (2,), Normal()))
    assert torch.allclose(ground.images(point, label), p.generate(z, label))
    shift = HonestShift(IFGSM(steps=1, step_size=0.1, eps=None, support="free"), ground=ground)
    score = Critic(networks()[1]).call
    for _ in range(3):
        rows = shift(z, label, Frozen(p, None, ground.space), score)
        assert rows.shape == (9, 8)
    assert torch.equal(rows[:3], point[:3]), "a third stays raw"


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    for kind, count in (("pixel", 30), ("features", 2)):
        monkeypatch.setitem(UPDATES, kind, count)


def far(x, y):
    """Squared distance of mean images."""
    return float((x.mean(0) - y.mean(0)).square().mean())


def test_a_layer_mends_what_no_latent_can(quick):
    real = torch.from_numpy(reals()).float() / 127.5 - 1
    ends = {}
    for space in ("z", "auto"):
        found = fit_critic(pair(), reals(), kind="pixel", space=space)
        assert found.space == ("layer1" if space == "auto" else "z")
        assert found.card()["honest"]["space"] == found.space
        sampler = Sampler(pair(), critic=found.critic, recipe="auto/reals", space=found.space)
        result = sampler.refine(seeds=range(3000, 3064), steps=10, before=True)
        ends[space] = far(result.images, real) / far(result.images0, real)
    assert ends["auto"] < 0.8 * ends["z"], ends


def test_auto_with_real_images_moves_in_the_layer(quick, tmp_path):
    found = guided(pair(), reals(), kind="pixel")
    assert found.recipe.space == "layer1" == found.honest["space"]
    assert found.recipe.name == "auto/reals"
    assert "in layer1" in found.told
    result = Sampler(found.pair, recipe=found.recipe).refine(seeds=range(4))
    assert result.z.shape == (4, 24)
    assert guided(pair(), reals(), kind="pixel", space="z").recipe.space == "z"


def test_from_the_command_line(quick, tmp_path, capsys):
    G, D = networks()
    card = {"name": "wide", "image": {"channels": 1, "height": 16, "width": 16, "range": [-1, 1]}, "z_size": 2}
    card |= {"z_prior": {"kind": "normal"}, "classes": None, "critic": {"returns": "logit", "real_is": "high"}}
    model = str(write_pair(tmp_path / "wide", card, G, D))
    np.savez(tmp_path / "reals.npz", images=reals().transpose(0, 2, 3, 1))
    common = ["--model", model, "--num", "4", "--no-report", "--quiet"]
    fit = ["critic", "--model", model, "--reals", str(tmp_path / "reals.npz"), "--kind", "pixel", "--updates", "30"]
    assert run([*fit, "--outdir", str(tmp_path / "c"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["space"] == "layer1"
    assert told["verdict"] == "climb"
    climb = ["refine", *common, "--critic", str(tmp_path / "c"), "--recipe", "auto/reals"]
    for typed, space, steps in (([], "layer1", told["steps"]), (["--space", "z", "--steps", "1"], "z", 1)):
        out = tmp_path / f"out-{space}"
        assert run([*climb, *typed, "--outdir", str(out)]) == 0
        record = json.loads((out / "run.json").read_text())
        assert record["recipe"].get("space", "z") == space
        assert record["recipe"]["options"]["steps"] == steps
        with np.load(out / "latents.npz") as data:
            assert data["point" if space != "z" else "z"].shape == (4, 24 if space != "z" else 2)


@pytest.mark.parametrize(("key", "value"), [("steps", "x"), ("steps", []), ("steps", 1e9), ("steps", True), ("space", [])])
def test_a_card_of_nonsense_is_one_line(key, value):
    typed = {"recipe": "auto/reals", "strategy": None, "more": (), "critic": "c"}
    told = {"verdict": "climb", "steps": 2, "step_size": 0.05, "space": "layer1"}
    assert as_fitted(typed, AUTO_REALS, told).space == "layer1"
    with pytest.raises(FileError, match=f"the card's honest.{key} is"):
        as_fitted(typed, AUTO_REALS, told | {key: value})


def test_a_ground_is_data():
    one = Ground.of(pair())
    assert replace(one, space=one.pair.space).plain.shape == (2,)
    assert isinstance(one.pair.G, nn.Module)
