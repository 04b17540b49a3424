"""`auto` by kind of pair and budget: the table's recipes are there and keep within it; bad budgets are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from latentshift import Pair, Sampler, load
from latentshift.budget import TABLE, Entry, entry, kind_of, settled
from latentshift.commands import run
from latentshift.errors import LatentshiftError, UsageError
from latentshift.recipe import AUTO, get_recipe, recipes


def test_every_line_names_a_recipe_and_says_how_it_was_chosen() -> None:
    assert {e.recipe for e in TABLE} <= set(recipes())
    assert all(len(e.how) > 10 for e in TABLE)
    assert len({(e.kind, e.evaluations) for e in TABLE}) == len(TABLE)
    listed = {n for n in recipes() if n.startswith("auto/points")}
    assert listed == {e.recipe for e in TABLE if e.kind == "points"} - {"auto"}, (
        "no winner is left out, none is listed that is none"
    )


@pytest.mark.parametrize("line", TABLE, ids=lambda e: f"{e.kind}-{e.evaluations}")
def test_a_budget_is_never_exceeded(line: Entry) -> None:
    pair, rows = (load("ring"), 64) if line.kind == "points" else (load("fashion32"), 8)
    result = Sampler(pair, budget=line.evaluations).refine(seeds=range(rows))
    forward, backward = result.ledger.as_tuple()[:2], result.ledger.as_tuple()[2:]
    assert 0 < max(forward) + max(backward) <= line.evaluations * rows
    assert result.recipe["name"] == line.recipe


def test_the_largest_line_within_the_budget_is_taken() -> None:
    for kind in ("points", "images"):
        lines = sorted((e for e in TABLE if e.kind == kind), key=lambda e: e.evaluations)
        for this, after in zip(lines, [*lines[1:], None], strict=True):
            assert entry(kind, this.evaluations) is this
            assert entry(kind, after.evaluations - 1 if after else 10**9) is this
        assert entry(kind) is next(e for e in TABLE if e.kind == kind)
        with pytest.raises(UsageError, match="begins at"):
            entry(kind, lines[0].evaluations - 1)


def test_the_kind_of_pair_chooses() -> None:
    assert [kind_of(s) for s in ((2,), (1, 32, 32), (3, 64, 64), (5,), None)] == ["points", *["images"] * 4]
    plane = settled(AUTO, (2,))
    assert plane.name == entry("points").recipe
    assert settled(AUTO, (3, 64, 64)) is AUTO, "without a budget, images get what they always got"
    other = get_recipe("advlatgan-z/ball")
    assert settled(other, (2,)) is other
    assert Sampler(load("ring")).plan()[1]["name"] == plane.name
    assert Sampler(load("ring"), steps=3).plan()[1]["options"]["steps"] == 3
    made = Pair.wrap(torch.nn.Linear(4, 6).eval(), torch.nn.Linear(6, 1).eval(), z_size=4)
    assert Sampler(made).plan()[1]["name"] == "auto"


def test_the_winner_of_points_is_better_than_raw_on_a_small_set() -> None:
    result = Sampler(load("ring")).refine(seeds=range(200), before=True)
    radius = torch.linalg.vector_norm(torch.as_tensor(result.images), dim=1)
    before = torch.linalg.vector_norm(torch.as_tensor(result.images0), dim=1)
    middle = before.median()
    assert (radius - middle).abs().mean() < (before - middle).abs().mean(), "nearer to the ring than before"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sampler(load("ring"), budget=0),
        lambda: Sampler(load("ring"), budget=5),
        lambda: Sampler(load("ring"), recipe="advlatgan-z/ball", budget=50),
        lambda: Sampler(load("ring"), budget=50).refine(seeds=[0], steps=3),
        lambda: Sampler(load("ring"), budget=50).refine(seeds=[0], strategy="mh"),
        lambda: Sampler(load("ring"), budget=50, steps=3).refine(seeds=[0]),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(make) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert isinstance(caught.value, LatentshiftError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "typed",
    [
        "--budget 0",
        "--budget -5",
        "--budget few",
        "--budget 20 --steps 3",
        "--budget 20 --strategy mh",
        "--budget 20 --keep 0.5",
        "--budget 20 --recipe advlatgan-z/ball",
        "--budget 20 --option mu=0.5",
        "--model ring --budget 5",
    ],
)
def test_a_bad_budget_is_one_line_and_status_2(typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["refine", *typed.split(), "--num", "2", "--outdir", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("latentshift: error: ")
    assert not out.exists() or not list(out.iterdir()), "nothing was written"


def test_the_command_line_takes_it_keeps_it_and_repeats_it(tmp_path: Path) -> None:
    out, line = tmp_path / "out", next(e for e in TABLE if e.kind == "points")
    more = ["--model", "ring", "--num", "6", "--budget", str(line.evaluations), "--no-report", "--quiet"]
    assert run(["refine", *more, "--outdir", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"]["name"] == line.recipe
    assert record["request"]["budget"] == line.evaluations
    ledger = record["ledger"]
    passes = max(ledger["g_forward"], ledger["d_forward"]) + max(ledger["g_backward"], ledger["d_backward"])
    assert passes <= 6 * line.evaluations, "the images before and after are among them"
    many = tmp_path / "many"
    assert run(["refine", *more, "--shard-size", "3", "--outdir", str(many)]) == 0
    assert json.loads((many / "run.json").read_text())["recipe"]["name"] == line.recipe
    from latentshift.report.repeat import repeat_command

    assert f"--budget {line.evaluations}" in repeat_command(record)
    assert run(["refine", "--model", "ring", "--num", "2", "--no-report", "--quiet", "--outdir", str(tmp_path / "none")]) == 0
    assert json.loads((tmp_path / "none" / "run.json").read_text())["recipe"]["name"] == entry("points").recipe


def test_the_card_of_auto_shows_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "auto"]) == 0
    told = capsys.readouterr().out
    assert all(f"{e.kind}, {e.evaluations}: {e.recipe}" in told for e in TABLE)
