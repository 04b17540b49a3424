"""Training recipes: every one is data with a source, its pieces and settings can be made, its networks fit each other."""

from __future__ import annotations

import pytest
import torch

from latentshift.errors import UnknownNameError, UsageError
from latentshift.layers import LayerNet, output_shape
from latentshift.recipe import get_recipe
from latentshift.train.build import MANY, build, piece
from latentshift.train.data import BUNDLED, Images, Points, read_data
from latentshift.train.loop import Settings
from latentshift.train.networks import BACKBONES
from latentshift.train.paper000 import EPS000
from latentshift.train.progress import accuracy, auc
from latentshift.train.recipe import SETTINGS
from latentshift.train.recipes import TRAINING, get_training_recipe


@pytest.mark.parametrize("name", TRAINING)
def test_a_recipe_says_its_source_and_its_pieces_can_be_made(name: str) -> None:
    recipe = TRAINING[name]
    assert recipe.source
    assert recipe.evidence
    assert recipe.line
    assert set(recipe.settings) <= set(SETTINGS) <= set(Settings.__dataclass_fields__)
    Settings(**recipe.settings)
    for slot, kinds in recipe.slots.items():
        assert slot in (*MANY, "latent_shift", "image_shift", "g_shift", "partner", "assistant")
        assert len(kinds) == 1 or slot in MANY
        for kind, options in kinds:
            piece(kind, options)
    if recipe.refine:
        get_recipe(recipe.refine)
    assert recipe.as_dict()["name"] == name


@pytest.mark.parametrize("name", [n for n in BACKBONES if n != "mlp"])
@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize("classes", [None, 10])
def test_networks_fit_each_other(name: str, side: int, classes: int | None) -> None:
    shape = (3, side, side)
    with torch.device("meta"):
        G = LayerNet(BACKBONES[name].generator(100, shape, classes), meta=True)
        D = LayerNet(BACKBONES[name].critic(shape, classes, 1), meta=True)
    assert output_shape(G, (100,)) == shape
    assert output_shape(D, shape) == (1,)


def test_sizes_of_the_papers_networks() -> None:
    """One channel, 32 px: tables 17 and 18 have 11.4 and 4.3 M parameters, 21 and 23 have 3.6 and 2.9 M."""

    def millions(layers: list) -> float:
        return sum(p.numel() for p in LayerNet(layers, meta=True).parameters()) / 1e6

    for name, sizes in (("dcgan", (11.4, 4.3)), ("sngan", (3.6, 2.9)), ("small", (0.30, 0.17))):
        backbone, shape = BACKBONES[name], (1, 32, 32)
        made = (
            millions(backbone.generator(100 if name != "small" else 64, shape, None)),
            millions(backbone.critic(shape, None, 1)),
        )
        assert made == pytest.approx(sizes, abs=0.06), name


def test_the_papers_steps_are_the_recipes() -> None:
    for (data, _), rows in EPS000.items():
        for name, eps in rows.items():
            ((kind, options),) = TRAINING[f"advlatgan-qua/{data}-{name}"].slots["latent_shift"]
            assert (kind, options["step_size"], options["steps"], options["eps"]) == ("climb", eps, 1, None)
    assert get_training_recipe("advlatgan-qua+/cifar10-sngan").refine == "advlatgan-z/cifar10"
    with pytest.raises(UnknownNameError, match="advlatgan-qua/cifar10-sngan"):
        get_training_recipe("advlatgan-qua/cifar10-sgan")


def test_options_reach_settings_fields_and_pieces() -> None:
    assert get_training_recipe("vanilla/small").changed({"loss": None}).settings["loss"] == "none", "--option loss=none"
    recipe = get_training_recipe("advlatgan-qua/toy-bce").changed({"z_size": 4, "batch": 8, "latent_shift.step_size": 0.1})
    t = build(recipe, Points(BUNDLED["ring"]), seed=3)
    assert (t.settings.batch, t.settings.seed, t.settings.betas) == (8, 3, (0.5, 0.9))
    assert t.latent_shift.strategy.step_size == 0.1
    assert t.G.entries[0]["kw"]["in_features"] == 4
    with pytest.raises(UsageError):
        recipe.changed({"image_shift.eps": 1.0})


def test_other_strategies_in_both_steps() -> None:
    slots = {
        "latent_shift": (("climb", {"strategy": "mifgsm", "steps": 2, "eps": 0.1}),),
        "g_shift": (("climb", {"strategy": "pgd", "steps": 1, "eps": 0.1, "stats": "running"}),),
    }
    import dataclasses

    recipe = dataclasses.replace(get_training_recipe("vanilla/toy-bce"), slots=slots)
    t = build(recipe, Points(BUNDLED["grid"]))
    t.one_step()
    assert type(t.latent_shift.strategy).__name__ == "MIFGSM"
    assert t.g_shift.stats == "running"


def test_held_out_images_are_never_drawn(tmp_path) -> None:
    import numpy as np

    images = np.arange(40, dtype=np.uint8).repeat(64).reshape(40, 8, 8, 1)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 4)
    data, held = read_data(str(tmp_path / "a.npz"), labels=True, noise=2 / 128, span=(0.0, 1.0))
    assert isinstance(data, Images)
    assert isinstance(held, Images)
    assert (len(data.pixels), len(held.pixels), data.classes) == (36, 4, 4)
    x, y = data(500, torch.Generator().manual_seed(0))
    drawn = set((x * 255).floor()[:, 0, 0, 0].int().tolist())
    clean, labels = held.first(4)
    assert clean[:, 0, 0, 0].mul(255).round().int().tolist() == [9, 19, 29, 39]
    assert labels is not None
    assert labels.tolist() == [1, 3, 1, 3]
    assert y is not None
    assert drawn <= set(range(41))
    assert 0 <= float(x.min()) <= float(x.max()) <= 1 + 1 / 128


def test_auc_and_accuracy_count_right_answers() -> None:
    real, fake = torch.tensor([2.0, 3.0, 0.5]), torch.tensor([-1.0, 0.5, 1.0])
    pairs = [(r > f) + 0.5 * (r == f) for r in real.tolist() for f in fake.tolist()]
    assert auc(real, fake) == pytest.approx(sum(pairs) / 9)
    assert accuracy(real, fake, 0.0) == pytest.approx((1 + 1 / 3) / 2)
    assert accuracy(torch.tensor([5.0, 6.0]), torch.tensor([3.0, 4.0]), None) == 1.0
