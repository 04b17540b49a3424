"""The tables of docs/methods.md come from scripts that run: their smallest pieces are run again and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"


def table(column: str, page: Path = PAGE) -> list[dict[str, str]]:
    """Return the rows, by column name, of the page's tables that have such a column."""
    found: list[dict[str, str]] = []
    names: list[str] = []
    for line in page.read_text("utf-8").splitlines():
        cells = [c.strip() for c in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            names = []
        elif not names:
            names = cells
        elif column in names and not set(line) <= set("| -"):
            found.append(dict(zip(names, cells, strict=True)))
    assert found, f"no table with {column}"
    return found


def mean(cell: str) -> float:
    return float(cell.split(" +- ")[0])


@pytest.mark.shared
def test_rows_of_the_methods_table_are_what_it_says(script: Any, reference: Any) -> None:
    module = script("methods_table")
    pair = module.load_pair(reference("reference", "dot_25gaussians"))
    written = {row["row"]: row for row in table("in-std x 1e3")}
    even = float("nan")
    for name in ("raw", "I-FGSM l_inf eps=0.1, n=10", "best of 20"):
        (row,) = [r for r in module.ROWS if r.name == name]
        found = module.measure(row, pair, 0)
        for column, room in (("HQ %", 4.0), ("in-std x 1e3", 1.5), ("W1 x 1e3", 45.0), ("dz", 0.05)):  # four spreads of a seed
            if written[name][column]:
                assert found[column] == pytest.approx(mean(written[name][column]), abs=room), (name, column)
        even = found["KL"] if name == "raw" else even
        assert module.mark(found["KL"], even) == written[name]["modes"]
    assert set(written) <= {r.name for r in module.ROWS}
    five = sum(row["seeds"] == "5" for row in written.values())
    assert f"{five} of {len(module.ROWS)} rows have five seeds" in " ".join(PAGE.read_text("utf-8").split())
    assert five > 50
    assert {n for n, r in written.items() if r["modes"] == "loses modes"} >= {
        "EvolGAN a=0, b=80",
        "best of 100*",
        "MH K=100 T=.1*",
    }


def test_held_out_figures_of_the_ring_are_what_the_page_says(script: Any) -> None:
    module = script("beat_it")
    ring, _ = module.fields("points", None)
    written = {row["samples"]: row for row in table("W1 x 1e3") if row.get("pair") == "ring"}
    size, blocks = module.REPORTED["points"]
    figures = [module.run(ring, module.RAW, module.HELD_OUT, size, b, None)["figure"] for b in range(blocks)]
    assert float(np.mean(figures)) == pytest.approx(mean(written["raw"]["W1 x 1e3"]), rel=0.01)
    now = module.Candidate(module.settled(module.AUTO, (2,)))
    assert written["auto"]["recipe"] == now.line, "today's"
    auto = module.run(ring, now, module.HELD_OUT, size, 0, None)["figure"] - figures[0]
    assert auto == pytest.approx(mean(written["auto"]["change"]), abs=15), "one block of those behind the page's figure"


def test_the_committed_picture_is_the_scripts(script: Any) -> None:
    module = script("methods_plot")
    with Image.open(ROOT / "docs" / "methods.png") as committed:
        assert committed.size == (module.WIDTH + module.KEY, module.HEIGHT)
    assert "](methods.png)" in PAGE.read_text("utf-8")
