"""The comparison of tables: what it reads, and that it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentshift.errors import RequestError
from latentshift.testing.tables import check_table, read_table

PAGE = """
| other | a |
| --- | --- |
| x | 1 |

| pair | rows | FD | change |
| --- | ---: | --- | --- |
| `one` | 1,000 | **0.90** | -0.04 [-0.11, +0.03] |
| two | 20 | 1.5 | n/a |
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_a_table_is_found_by_its_columns(page: Path) -> None:
    assert read_table(page, ["pair", "FD"])[0] == {
        "pair": "one",
        "rows": "1,000",
        "FD": "0.90",
        "change": "-0.04 [-0.11, +0.03]",
    }
    assert read_table(page, ["other"]) == [{"other": "x", "a": "1"}]
    with pytest.raises(RequestError, match="no table with the columns pair, KID"):
        read_table(page, ["pair", "KID"])


def test_rounding_passes_and_a_change_does_not(page: Path) -> None:
    check_table(page, ["pair"], [{"pair": "one", "rows": 1000, "FD": 0.904, "change": (-0.0449, -0.11, 0.03)}], rel=0)
    with pytest.raises(AssertionError, match=r"FD is 0\.92 now, 0\.9 is written"):
        check_table(page, ["pair"], [{"pair": "one", "FD": 0.92}], rel=0.01)
    with pytest.raises(AssertionError, match=r"change is 0\.04 now, -0\.04 is written"):
        check_table(page, ["pair"], [{"pair": "one", "change": 0.04}])
    with pytest.raises(AssertionError, match="0 rows are"):
        check_table(page, ["pair"], [{"pair": "three", "FD": 1.0}])
    with pytest.raises(AssertionError, match="holds 'n/a', no 1 numbers"):
        check_table(page, ["pair"], [{"pair": "two", "change": 0.0}])
