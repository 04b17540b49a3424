"""What fit learned goes through its file unchanged, for every strategy that learns; a resume and a worker never fit again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentshift import load
from latentshift.commands import run
from latentshift.engine.run import Engine, Settings
from latentshift.errors import DamagedFileError
from latentshift.recipe import get_recipe
from latentshift.registry import make_strategy
from latentshift.shards.fitted import learned, pack, restored, unpack
from latentshift.strategies.base import Strategy, options

LEARN: dict[str, dict[str, Any]] = {
    "obrs": {"pilot_rows": 64, "slope": 1.0},
    "drs": {"pilot_rows": 64, "slope": 1.0},
    "dot": {},
    "collaborative": {},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool(np.array_equal(np.asarray(a), np.asarray(b)))
    if isinstance(a, Strategy):
        return type(a) is type(b) and all(same(getattr(a, f), getattr(b, f)) for f in options(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def through_a_file(before: Any, after: Any) -> Any:
    kinds, data = pack(learned(before, after))
    return restored(before, unpack(json.loads(json.dumps(kinds)), data))


@pytest.mark.parametrize("name", LEARN)
def test_strategies_that_learn(name: str) -> None:
    plain = make_strategy(name, **LEARN[name])
    fitted = Engine(plain, load("ring"), settings=Settings(images=False, prepare=False)).strategy
    assert same(fitted, through_a_file(plain, fitted))


def test_wrapped_chained_and_tensors() -> None:
    plain = get_recipe("auto").build()
    fitted = Engine(plain, load("ring"), settings=Settings(images=False, prepare=False)).strategy
    found = learned(plain, fitted)
    assert list(found) != []
    assert same(fitted, through_a_file(plain, fitted))
    chain = make_strategy(
        "chain", stages=(make_strategy("ifgsm", steps=1), make_strategy("obrs", steps=1, pilot_rows=64, slope=1.0))
    )
    fitted = Engine(chain, load("ring"), settings=Settings(images=False, prepare=False)).strategy
    assert same(fitted, through_a_file(chain, fitted))
    codes = torch.arange(12.0).reshape(6, 2)
    before = make_strategy("ae-ot", codes=codes, samples=64, iterations=50, tolerance=0.5)
    fitted = Engine(before, load("ring"), settings=Settings(images=False, prepare=False)).strategy
    after = through_a_file(before, fitted)
    assert torch.equal(after.heights, fitted.heights)
    assert torch.equal(after.codes, fitted.codes)


def test_a_file_that_is_not_the_records() -> None:
    kinds, data = pack({"target": 0.1 + 0.2, "levels": (0.1, float("inf")), "n": 3})
    assert unpack(kinds, data) == {"target": 0.1 + 0.2, "levels": (0.1, float("inf")), "n": 3}
    for damaged in (None, b"", data[:40]):
        with pytest.raises(DamagedFileError):
            unpack(kinds, damaged)


def test_a_resume_never_fits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    words = [
        "refine",
        "--model",
        "ring",
        "--strategy",
        "obrs",
        "--option",
        "pilot_rows=200",
        "--option",
        "slope=1",
        "--steps",
        "4",
        "--quiet",
    ]
    assert run([*words, "--num", "60", "--shard-size", "20", "--outdir", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["fit"]["ledger"]["g_forward"] >= 200
    assert record["fit"]["pilot_seeds"][1] == 2**32 - 1
    assert list(record["shards"]["learned"]) != []
    whole = {p.name: p.read_bytes() for p in out.glob("latents-*")}
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text(lines[0])

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(Engine, "_fit", never)
    assert run(["refine", "--resume", str(out), "--quiet"]) == 0
    assert {p.name: p.read_bytes() for p in out.glob("latents-*")} == whole
    assert json.loads((out / "run.json").read_text())["fit"] == record["fit"]
