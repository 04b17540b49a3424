"""Every strategy says what it is, when to use it, what it costs and where it is from, and has a recipe with its settings."""

import inspect
import re

import pytest

from latentshift import registry
from latentshift.commands import run
from latentshift.recipe import recipes
from latentshift.strategies.base import Strategy

FOUND = registry.everything("strategies")[0]


@pytest.mark.parametrize("name", sorted(FOUND))
def test_what_a_user_reads(name, capsys):
    assert run(["strategies", name]) == 0
    text = " ".join(capsys.readouterr().out.split())
    told = re.search(r"Choose it[^.]{20,}\.", text)
    assert told, f"{name} does not say when to use it"
    assert re.search(r"Source: \S+ .{5,}", text), f"{name} has no source"
    assert "Cost per sample" in text or name == "chain"  # that of its stages
    doc = FOUND[name].__doc__
    assert doc.splitlines()[0].endswith((".", ")"))
    assert len(doc.splitlines()[0]) <= 125
    assert "Cost" in doc, f"{name} does not say what it costs"


@pytest.mark.parametrize("name", sorted(FOUND))
def test_every_option_has_words(name):
    for option, doc in registry.option_docs(FOUND[name]).items():
        assert doc.help, f"{name}: {option} has no comment behind it"


@pytest.mark.parametrize("name", sorted(set(FOUND) - {"chain"}))
def test_every_method_has_a_recipe_with_its_source(name):
    mine = [r for r in recipes().values() if r.strategy == name]
    assert mine, f"{name} has no recipe"
    for recipe in mine:
        assert recipe.source, recipe.name
        assert recipe.line, recipe.name
        assert isinstance(recipe.build(), Strategy)


def test_chains_are_recipes_too():
    chains = [r for r in recipes().values() if r.then]
    assert len(chains) >= 2
    for recipe in chains:
        assert len(recipe.build().stages) == 2


def test_steps_of_evolution_are_its_budget(capsys):
    assert run(["strategies", "evolgan"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the budget b" in text
    assert "`rate` (a in the paper's tables) is our own definition" in text
    assert run(["refine", "--help"]) == 0
    assert "for evolgan and best-of-n the budget b of evaluations" in " ".join(capsys.readouterr().out.split())


def test_a_method_is_one_file_and_one_line():
    """Nothing outside of a method's own file and its entry point knows it by name (recipes name settings, and are data)."""
    import ast
    import pathlib

    import latentshift

    root = pathlib.Path(latentshift.__file__).parent
    homes = {kind.__name__: pathlib.Path(inspect.getsourcefile(kind)) for kind in FOUND.values()}
    shared = {"IFGSM", "Chain", "TopShare"}  # the default method, composition, and what --keep adds
    for path in root.rglob("*.py"):
        if path.parent.name in ("train", "testing", "doctor", "bench"):
            continue  # these use methods, as a user does
        tree = ast.parse(path.read_text("utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        for name, home in homes.items():
            family = path.parent == home.parent and any(path == h for h in homes.values())
            assert name not in names or family or name in shared, f"{path.relative_to(root)} knows {name}"
