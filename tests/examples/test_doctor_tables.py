"""The scripts that count the doctor's forecasts and weigh the guard's rules: their arithmetic, and their smallest run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def doctor(script):
    return script("doctor_table")


@pytest.fixture
def guard(script):
    return script("guard_table")


def judges(*draws):
    return {"one": [list(d) for d in draws], "two": [[0.0, 0.0, 0.0] for _ in draws]}


@pytest.mark.parametrize(
    ("told", "true"),
    [
        (judges([2.2, 0, 0], [2.2, 0, 0]), "help"),  # 4.4 / sqrt(2) = 3.1
        (judges([2.0, 0, 0], [2.0, 0, 0]), "nothing"),
        (judges([-2.2, 0, 0], [-2.2, 0, 0]), "harm"),
        (judges([4, -4, 0], [4, -4, 0]), "nothing"),
        ({"one": [[4, 0, 0]], "two": [[0, -4, 0]]}, "nothing"),
    ],
)
def test_a_truth_needs_three_standard_errors_and_no_judge_against_it(doctor, told, true):
    assert doctor.truth(told) == true


def test_hits_by_how_many_samples_lie_among_real_images(doctor):
    def record(name, among, z, true):
        seen = {s: {"squeezenet-fire5": [z, 0, 0], "among": among} for s in doctor.SETTINGS}
        return {"pair": name, "truth": {s: {"one": [[9.0 * true, 0, 0]]} for s in doctor.SETTINGS}, "seen": seen}

    text = doctor.tables([record("a", 0.01, 9, -1), record("b", 0.7, 9, 1), record("c", 0.01, -9, 0)])
    assert "| 0 to 0.05 | 6 | 0 (0%) | 3 |" in text
    assert "| 0.5 and more | 3 | 3 (100%) | 0 |" in text
    assert "0.2 to 0.5" not in text


def test_what_cancels_is_no_plain_nothing(doctor):
    assert doctor.cancels(judges([4, -4, 0], [4, -4, 0]))
    assert doctor.cancels({"one": [[4, 0, 0]], "two": [[0, -4, 0]]})
    assert not doctor.cancels(judges([2.0, 0, 0], [2.0, 0, 0]))
    assert not doctor.cancels(judges([4, 0, 0], [4, 0, 0]))


def test_distance_density_and_coverage_are_added_up(doctor):
    seen = {"squeezenet-fire5": [4.5, -1.5, -0.9], "squeezenet-fire9": [9.0, 9.0, 9.0], "pixels": [-9.0, 0, 0]}
    assert [doctor.answer(seen, sure) for sure in (1.5, 2.0, 2.5)] == ["help", "help", "nothing"]
    assert doctor.answer(seen, 3.0, "without coverage") == "help"
    assert doctor.answer(seen, 4.0, "distance alone") == "help"
    assert doctor.points("unsure", "help") == 0.5


def test_a_pair_is_foretold_by_a_rule_chosen_on_the_others(doctor):
    def record(name, z, true, fresh=False):
        big = [[true * 9.0, 0, 0]]
        seen = {s: {"squeezenet-fire5": [z, 0, 0]} for s in doctor.SETTINGS}
        return {
            "pair": f"{name}-3000" if fresh else name,
            "fresh": fresh,
            "truth": {s: {"one": big} for s in doctor.SETTINGS},
            "seen": seen,
        }

    # three pairs say that 1.6 means nothing; the last one, whose 1.6 means help, is judged by them and missed
    three = [record(n, 1.6, 0.0) for n in "abc"]
    text = " ".join(doctor.tables([*three, record("d", 1.6, 1.0)]).split())
    assert "| a | nothing, nothing |" in text
    assert "| d | **nothing, help** |" in text
    assert 'always "nothing" 75%' in text
    # pairs trained here have a table of their own and choose nothing, however many they are
    text = " ".join(doctor.tables([*three, *(record(n, 1.6, 1.0, fresh=True) for n in "wxyz")]).split())
    others, fresh = text.split("pairs trained here")
    assert "| a | nothing, nothing |" in others
    assert "| z-3000 | **nothing, help** |" in fresh
    assert 'always "help" 100%' in fresh


def test_where_rules_stop(guard):
    kept = {
        "moved": np.array([[0.0, 0.0], [0.2, 0.1], [0.4, 0.2], [0.6, 0.3]]),
        "score": np.array([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0], [3.0, 8.0]]),
        "real": np.array([2.0, 2.0]),
        "views": np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 2.0], [9.0, 1.0]]),
    }
    told = guard.stops(kept)
    assert told["displacement 0.3"].tolist() == [1, 3], "the last point that is not beyond the limit"
    assert told["reals 0.5"].tolist() == [2, 0], "the first point that has reached real images"
    assert told["views"].tolist() == [1, 3], "the point before the fall; the end is not looked at"


def test_excess_over_the_best_step(guard):
    told = {"p": {"steps": [1.0, 0.5, 2.0], "rules": {"displacement 0.1": [1.0, 1.0], "reals 0.25": [0.5, 1.0]}}}
    excess = guard.excesses(told)
    assert excess["no move"]["p"] == pytest.approx(np.log(2))
    assert excess["all steps"]["p"] == pytest.approx(np.log(4))
    assert excess["reals 0.25"]["p"] == 0
    assert "| p | 50% (1) | 200% (2) | 100% (1) | 50% (1) | - | - |" in guard.tables(told)


def test_the_guard_stops_where_the_table_counts(guard, reference, tmp_path, capsys):
    args = argparse.Namespace(
        shared=reference("reference").parent, out=tmp_path, critics=None, rows=32, steps=5, reference=200, judges=2, check=True
    )
    guard.measure("sprites16-dcgan-bce", args)
    said = [line for line in capsys.readouterr().out.splitlines() if "the guard itself" in line]
    assert len(said) == 2
    assert all("100.0% as counted" in line for line in said), said
    weighed = guard.weigh(dict(np.load(tmp_path / "sprites16-dcgan-bce.npz")))
    assert len(weighed["steps"]) == 6
    assert weighed["steps"][0] == 1.0


def test_a_cell_is_kept_and_not_measured_again(doctor, reference, tmp_path, monkeypatch):
    shared = reference("reference").parent
    args = argparse.Namespace(
        shared=shared, out=tmp_path, rows=24, pilots=24, reals=60, reference=60, fresh=None, keep=tmp_path / "keep"
    )
    monkeypatch.setattr(doctor, "SETTINGS", {"auto": doctor.SETTINGS["auto"]})
    doctor.measure("sprites16-dcgan-bce", args)
    path = tmp_path / "sprites16-dcgan-bce.json"
    told = json.loads(path.read_text())
    assert set(told["truth"]["auto"]) == {"resnet20", "resnet56"}
    assert set(told["seen"]["auto"]) == {"squeezenet-fire5", "pixels", "above", "among", "rows"}
    assert told["seen"]["auto"]["rows"] in (24, 72)
    with np.load(tmp_path / "keep" / "sprites16-dcgan-bce-auto-710000.npz") as pilots:
        assert len(pilots["after"]) == told["seen"]["auto"]["rows"]
    monkeypatch.setattr(doctor, "pilot", None)
    doctor.measure("sprites16-dcgan-bce", args)
    assert json.loads(path.read_text()) == told


def test_kept_pilots_grow_and_are_the_same(doctor, script, tmp_path, monkeypatch):
    pair = script("third_party_pairs").pair_of("ring", Path("nowhere"))
    monkeypatch.setattr(doctor, "pilot", lambda pair, setting, first, rows, start: points(first + start, rows))

    def points(first, rows):
        made = doctor.Pilot(*(np.arange(first, first + rows) * scale for scale in (1, 2, 3.0)))
        asked.append(rows)
        return made

    asked: list[int] = []
    one = doctor.kept(tmp_path, pair, "ring", "auto", 100, 8, 0)
    two = doctor.kept(tmp_path, pair, "ring", "auto", 100, 16, 8)
    assert asked == [8, 16]
    again = doctor.kept(tmp_path, pair, "ring", "auto", 100, 24, 0)
    assert asked == [8, 16], "nothing is made twice"
    assert all(np.array_equal(np.concatenate([a, b]), c) for a, b, c in zip(one, two, again, strict=True))


@pytest.mark.parametrize(("module", "file"), [("doctor_table", "doctor.json"), ("guard_table", "guard.json")])
def test_the_page_shows_what_was_recorded(script, module, file):
    record = json.loads((ROOT / "docs" / file).read_text())
    page = (ROOT / "docs/doctor.md").read_text("utf-8")
    for table in script(module).tables(record).split("\n\n"):
        assert table in page
