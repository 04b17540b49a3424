"""Recipes: each builds, says its source, goes through TOML, and runs on a bundled pair."""

import pytest
import torch

from latentshift.errors import FileError, UnknownNameError
from latentshift.recipe import BUILTIN, Recipe, get_recipe, parse_option, recipes
from latentshift.sampler import Sampler, load
from latentshift.strategies.wrappers import KeepBest, LowerShare, StopAt


def test_names_are_unique_and_auto_is_there():
    names = [r.name for r in BUILTIN]
    assert len(set(names)) == len(names)
    assert set(names) <= set(recipes())
    assert get_recipe("auto").lower_share == 0.5
    with pytest.raises(UnknownNameError, match="Did you mean 'auto'"):
        get_recipe("atuo")


@pytest.mark.parametrize("recipe", BUILTIN, ids=lambda r: r.name)
def test_every_recipe_builds_has_a_source_and_goes_through_toml(recipe):
    assert recipe.source
    assert recipe.line
    again = Recipe.from_toml(recipe.toml())
    assert again.as_dict() == recipe.as_dict()
    assert again.build() == recipe.build()


@pytest.mark.parametrize("name", ["auto", "advlatgan-z/cifar10", "evolgan/a0-b80", "dot/latent", "dot/target", "best-of-n/20"])
def test_recipes_run_on_points(name):
    sampler = Sampler(load("ring"), recipe=name, space=get_recipe(name).space)
    result = sampler.refine(seeds=range(24))
    assert result.images.shape == (24, 2)
    assert torch.isfinite(result.score).all()


def test_wrappers_and_changes():
    built = get_recipe("auto").changed(target=3.0).build()
    assert isinstance(built, LowerShare)
    assert isinstance(built.inner, StopAt)
    assert isinstance(built.inner.inner, KeepBest)
    auto = get_recipe("auto")
    finer = auto.changed(steps=40)
    assert finer.name == "auto*"
    assert finer.options["steps"] == 40
    assert "step_size" not in finer.options, "more steps are finer, not farther"
    assert auto.changed() is auto
    other = auto.changed(strategy="mifgsm", mu=0.5)
    assert (other.strategy, other.lower_share, other.options) == ("mifgsm", None, {"mu": 0.5})
    assert auto.changed(eps="none", step_size=0.1).options["eps"] is None


def test_what_is_refused():
    with pytest.raises(FileError, match="not TOML"):
        Recipe.from_toml("a = = 1")
    with pytest.raises(UnknownNameError, match="unknown field 'stpes'"):
        Recipe.from_toml("stpes = 3")
    with pytest.raises(UnknownNameError, match="unknown option 'momentum'"):
        Recipe(name="x", options={"momentum": 1}).build()
    assert parse_option("a=[1, 2]") == ("a", [1, 2])
