"""The page of third-party pairs: its tables are those of its results, and the smallest piece gives the same numbers again."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/third-party.json"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tables = script("third_party_tables")
RECORDS = json.loads(RESULTS.read_text())


@pytest.mark.parametrize("number", range(4))
def test_the_page_shows_its_results(number):
    table = tables.page(RECORDS)[number]
    assert table.count("\n") >= 2
    assert table in (ROOT / "docs/third-party.md").read_text("utf-8")


def test_the_page_shows_the_fresh_pairs_and_the_figure():
    fresh = json.loads((ROOT / "docs/fresh-pairs.json").read_text())
    page = (ROOT / "docs/third-party.md").read_text("utf-8")
    for table in tables.page(fresh)[:3]:
        assert table.count("\n") >= 3
        assert table in page
    assert tables.figure(RECORDS, 500) == (ROOT / "docs/third-party-reals.svg").read_text("utf-8")


def test_the_readme_shows_its_count():
    assert tables.short(tables.full(RECORDS, 500)) in (ROOT / "README.md").read_text("utf-8")


def test_every_record_says_how_it_was_made():
    for r in RECORDS:
        assert {"pair", "rows", "draws", "reals", "reference", "version", "torch", "machine"} <= set(r)
        for arm in r["arms"].values():
            assert not any("squeeze" in judge for judge in arm["judges"]), "the critic's network may not judge"


def draws(*changes, error=1.0):
    return [{"FD": {"raw": 10.0, "value": 10.0 + c, "change": c, "error": error}} for c in changes]


def test_a_cell_over_two_draws():
    c = tables.cell(draws(-4.0, -2.0))
    assert (c.raw, c.value) == (10.0, 7.0)
    assert math.isclose(c.z, -3 / math.sqrt(0.5))


def test_verdicts_need_three_errors_after_holms_correction():
    one = {("a", "j"): tables.cell(draws(3.1 / math.sqrt(2), 3.1 / math.sqrt(2)))}
    assert tables.verdicts(one) == {("a", "j"): "worse"}
    many = {**one, **{(str(i), "j"): tables.cell(draws(0.0, 0.0)) for i in range(9)}}
    assert set(tables.verdicts(many).values()) == {""}
    assert tables.verdicts({("a", "j"): tables.cell(draws(-5.0, -5.0))}) == {("a", "j"): "better"}


def test_the_smallest_piece_again(reference, tmp_path, monkeypatch):
    """Sprites, 100 rows, 500 reference images, no fit: the numbers of the committed record, to one per cent."""
    shared = reference("reference", "pairs", "sprites16-dcgan-bce").parents[2]
    reference("data", "nets")
    run = script("third_party_pairs")
    monkeypatch.setattr(run.torch, "set_num_threads", lambda count: None)
    sys.argv, old = ["", "--shared", str(shared), "--out", str(tmp_path), "--short"], sys.argv
    try:
        run.main()
    finally:
        sys.argv = old
    (path,) = tmp_path.glob("*.json")
    mine = json.loads(path.read_text())
    (theirs,) = [r for r in RECORDS if r["rows"] == 100]
    assert set(mine["arms"]) == set(theirs["arms"]) == {"auto", "random"}
    for arm, told in theirs["arms"].items():
        for judge, (row,) in told["judges"].items():
            (now,) = mine["arms"][arm]["judges"][judge]
            for metric in ("FD", "precision", "recall", "density", "coverage"):
                assert math.isclose(now[metric]["value"], row[metric]["value"], rel_tol=0.01, abs_tol=0.011), (
                    arm,
                    judge,
                    metric,
                )
