"""Tables in the docs against the code: read one from a Markdown page, and compare rows that were measured again.

from latentshift.testing.tables import check_table
def test_the_table_still_holds():
    check_table(Path("docs/evidence.md"), ["D", "setting"], [{"D": "fashion32", "setting": "auto", "after": 0.86}], rel=0.02)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import RequestError

_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)


def numbers(cell: str) -> list[float]:
    """The numbers of a cell in order: '-0.04 [-0.11, +0.03]' gives three; thousands may carry commas, 1,000.

    >>> numbers("**-0.04** [-0.11, +.03] of 1,000 (fd50k)")
    [-0.04, -0.11, 0.03, 1000.0]
    """
    return [float(n.replace("−", "-").rstrip(",").replace(",", "")) for n in _NUMBER.findall(cell)]


def read_table(page: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of the first table of a Markdown page that has all these columns, cells without `**` and backticks.

    Raises RequestError where no table has them.
    """
    head: list[str] = []
    rows: list[dict[str, str]] = []
    for line in [*page.read_text("utf-8").splitlines(), ""]:
        if not line.startswith("|"):
            if rows and set(columns) <= set(head):
                return rows
            head, rows = [], []
            continue
        cells = [re.sub(r"\*\*|`", "", c).strip() for c in line.strip().strip("|").split("|")]
        if not head:
            head = cells
        elif not all(re.fullmatch(r":?-+:?", c) for c in cells):
            rows.append(dict(zip(head, cells)))
    raise RequestError(f"no table with the columns {', '.join(columns)}", where=str(page))


def check_table(
    page: Path,
    keys: Sequence[str],
    measured: Sequence[Mapping[str, str | float | Sequence[float]]],
    *,
    rel: float = 0.02,
    near: float = 0.0,
) -> None:
    """Compare rows that were measured again with the table of a page; AssertionError names row, column and both numbers.

    `keys`: the columns that say which row it is. Other entries are numbers (the first of the cell) or sequences of them (as
    many of the cell, in order), compared to `rel` of the written one or `near`, and half a unit of its last digit.
    """
    columns = [*keys, *(c for row in measured for c in row if c not in keys)]
    table = read_table(page, list(dict.fromkeys(columns)))
    for row in measured:
        name = {k: str(row[k]) for k in keys}
        found = [r for r in table if all(r[k] == v for k, v in name.items())]
        assert len(found) == 1, f"{page.name}: {len(found)} rows are {name}"
        for column, value in row.items():
            if column in keys:
                continue
            cell = found[0][column]
            wanted = list(value) if not isinstance(value, str | float | int) else [float(value)]
            written = numbers(cell)[: len(wanted)]
            assert len(written) == len(wanted), f"{page.name}: {name}: {column!r} holds {cell!r}, no {len(wanted)} numbers"
            digit = max((len(m.partition(".")[2]) for m in re.findall(r"\d*\.\d+", cell)), default=0)
            for new, old in zip(wanted, written):
                margin = max(rel * abs(old), near) + 0.5000001 * 10**-digit
                assert abs(new - old) <= margin, f"{page.name}: {name}: {column} is {new:.6g} now, {old:g} is written"
