"""The scripts that compare the methods: what they count, mark, keep and draw; the evidence page against its script."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentshift import Sampler, registry
from latentshift.metrics.toy import DOT25, wasserstein1

from .test_methods_page import table

ROOT = Path(__file__).parents[2]


def test_every_stated_row_has_a_strategy_and_the_other_way_round(script: Any) -> None:
    module = script("methods_rows")
    stated, rows = module.stated(), [r.name for r in module.ROWS]
    assert len(set(rows)) == len(rows)
    assert set(stated) <= set(rows)
    assert stated["raw"]["HQ %"] == (38.4, 0.83)
    assert stated["MH K=640 cal*"]["F"] == (641, 0)


def test_what_is_off_and_what_loses_modes(script: Any) -> None:
    module = script("methods_table")
    want = {"HQ %": (57.2, 0.9), "W1 x 1e3": (76.0, 1.0)}
    assert module.off("a", {"HQ %": 58.9, "W1 x 1e3": 83.9}, want) == []
    assert module.off("a", {"HQ %": 59.1, "W1 x 1e3": 84.1}, want) == ["HQ % 59.1 for 57.2", "W1 x 1e3 84.1 for 76"]
    assert [module.mark(kl, 0.146) for kl in (0.02, 0.17, 0.28, 0.67)] == ["", "", "uneven", "loses modes"]


def test_a_second_call_takes_the_finished_runs(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("methods_table")
    row = next(r for r in module.ROWS if r.data == "even")
    first = module.kept(row, None, 0, 100, True, tmp_path)
    assert module.kept(row, None, 1, 100, True, tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(module, "measure", lambda *a: pytest.fail("measured again"))
    assert module.kept(row, None, 0, 100, True, tmp_path) == first
    assert first["HQ %"] > 97
    assert first["KL"] == pytest.approx(0, abs=0.01)


def test_both_ways_to_the_transport_distance_agree(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("methods_table")
    a, b = (DOT25.balanced(200, torch.Generator().manual_seed(s)).numpy() for s in (0, 1))
    assert module.exact_w1(a, b + 0.1) == pytest.approx(wasserstein1(a, b + 0.1), rel=1e-9)


def test_the_plot_shows_every_method_once(script: Any, tmp_path: Path) -> None:
    module = script("methods_plot")
    points = [module.Point(f"m{i}", 100.0, 75.0 + i % 3, 90.0, ("", "uneven", "loses modes")[i % 3]) for i in range(30)]
    page = module.draw([*points, module.Point("raw", 0.0, 141.0, 38.0, "")], floor=56.4, raw=141.0)
    assert page.size == (module.WIDTH + module.KEY, module.HEIGHT)
    colours = {c for _, c in page.getcolors(1 << 24)}
    assert set(module.COLOURS.values()) <= colours
    places: list[tuple[float, float]] = []
    for _ in range(30):
        places.append(module.free_place(500.0, 400.0, places))
    apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for i, a in enumerate(places) for b in places[:i]]
    assert min(apart) >= 2 * module.DISC, "no disc covers another"


def test_the_search_counts_and_refuses_what_takes_too_much(script: Any, tmp_path: Path) -> None:
    module = script("beat_it")
    ring, _ = module.fields("points", None)
    rng = np.random.default_rng(0)
    for _ in range(6):
        candidate = module.drawn(rng, 20, "points")
        found = module.run(ring, candidate, module.SEARCH, 100, 0, tmp_path)
        room = 4 if candidate.recipe.lower_share else 0  # which rows are in the lower half is known on average only
        assert found["evaluations"] <= 20 + room, candidate.line
    best = module.fixed(20, "points")[-2]
    assert best.recipe.strategy == "best-of-n"
    assert module.tried(ring, best, 20, 200, tmp_path) > 2 * module.tried(ring, module.RAW, 20, 200, tmp_path), "modes are lost"
    assert module.tried(ring, best, 10, 200, tmp_path) == float("inf")


def test_candidates_for_images_keep_within_their_budget_and_can_run(script: Any) -> None:
    module = script("beat_it")
    field = module.Field("fashion32", module.load("fashion32"), lambda images, seed: {"figure": float(np.std(images))})
    rng, seen = np.random.default_rng(3), set()
    for _ in range(16):
        candidate = module.drawn(rng, 20, "images")
        seen |= {candidate.recipe.strategy, candidate.recipe.space}
        found = module.run(field, candidate, module.SEARCH, 16, 0, None)
        room = 12 if candidate.recipe.lower_share else 0  # of 16 rows any number may lie in the lower part
        assert 1 < found["evaluations"] <= 20 + room, candidate.line
    assert {"image", "z", "dot-target"} <= seen
    for budget in (100, 500):
        for _ in range(40):
            cost = module.drawn(rng, budget, "images").build().cost()
            assert cost.d_forward + cost.d_backward <= budget or not cost.exact


def test_the_judge_of_images_sees_lost_variety(script: Any) -> None:
    module = script("beat_it")
    judge, pair = module.kernel_distance(), module.load("fashion32")
    raw = module.run(module.Field("a", pair, judge), module.RAW, 0, 100, 0, None)
    one = judge(np.repeat(_images(pair, 10), 10, axis=0), 0)
    assert set(module.BESIDE["images"]) < set(raw)
    assert one["figure"] > raw["figure"]
    assert one["coverage"] < raw["coverage"] / 2


def _images(pair: Any, rows: int) -> np.ndarray:
    return np.asarray(Sampler(pair).refine(seeds=range(rows), steps=0).images)


def test_successive_halving_hands_back_a_winner_within_its_budget(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("beat_it")
    ring, _ = module.fields("points", None)
    rungs = (module.Rung(60, 1, 3), module.Rung(80, 2, 1))
    monkeypatch.setattr(module, "COUNTS", {"points": {20: 3}})
    monkeypatch.setattr(module, "RUNGS", {"points": {20: rungs}})
    ((where, best),) = module.search("points", [ring], tmp_path, [20]).items()
    assert where == ("points", 20)
    assert module.run(ring, best, module.SEARCH, 60, 0, tmp_path)["evaluations"] <= 20
    seen = module.mean(ring, best, 20, 1, rungs[1], tmp_path)
    assert seen <= module.mean(ring, module.RAW, 20, 1, rungs[1], tmp_path)
    first = [json.loads(f.read_text())["run"] for f in tmp_path.iterdir()]
    assert sum(repr(80) in run and "11000000" in run for run in first) <= 2 * 4, "three and raw go on"


def test_the_evidence_page_is_what_its_script_measures(script: Any) -> None:
    module = script("bundled_evidence")
    first = next(r for r in table("setting", ROOT / "docs" / "evidence.md") if (r["D"], r["setting"]) == ("fashion32", "auto"))
    sampler = module.Sampler(module.load("fashion32"))
    raw = sampler.refine(seeds=range(1000), steps=0)
    told = next(float(text) for name, text in first.items() if "before" in name)
    assert module.load_judge("fashion32-judge").distance(module.pixels(raw.images), floor_draws=0).value == pytest.approx(
        told, abs=0.002
    )
    few = sampler.refine(seeds=range(100))
    moved = torch.tensor([reason != "good_already" for reason in few.stopped])
    rose, count = re.fullmatch(r"([0-9.]+)% of (\d+)", first["moved rows that rose"]).groups()
    assert 100 * float((few.gain[moved] > 0).float().mean()) == pytest.approx(float(rose), abs=2)
    assert int(moved.sum()) == pytest.approx(int(count) / 10, abs=20), "four spreads of 100 rows"
    for score, written in zip((few.score0, few.score), first["mean score"].split(" to "), strict=True):
        assert float(score.mean()) == pytest.approx(float(written), abs=0.03)


def test_each_strategy_says_when_to_choose_it() -> None:
    for name, kind in registry.everything("strategies")[0].items():
        if kind.__module__.startswith("latentshift."):
            assert "Choose " in inspect.getdoc(kind), f"'latentshift strategies {name}' does not say when to choose it"
