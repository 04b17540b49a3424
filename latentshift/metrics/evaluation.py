"""What an evaluation found: rows of metrics with errors, floors and changes, as values, as a table, as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import RequestError, UnknownNameError
from ..files.write import plain
from .moves import Move


@dataclass(frozen=True)
class Side:
    """A value with its standard error and 95 % interval (None where nothing is known), of `count` images."""

    value: float
    error: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Change:
    """b - a with its error and interval; `z` = value / error, two-sided `p`, `p_holm` over all rows of the table."""

    value: float
    error: float
    low: float
    high: float
    z: float
    p: float
    p_holm: float
    paired: bool


@dataclass(frozen=True)
class Row:
    """One metric: `a`, and `b` with the `change` where two samples were given.

    `metric` is the full name (`fd1k-resnet20`), `family` its kind, `better` lower or higher. `floor`: real against real at
    the same size; `bias`: what sampling alone is expected to add; `reference`: real images; `label`: the class, or None.
    """

    metric: str
    family: str
    network: str
    better: str
    reference: int
    a: Side
    b: Side | None = None
    change: Change | None = None
    floor: float | None = None
    floor_error: float | None = None
    bias: float | None = None
    label: int | None = None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """The rows of the table, those of the classes, how far the rows moved from a to b, and what the reader must know."""

    rows: tuple[Row, ...]
    classes: tuple[Row, ...] = ()
    moves: tuple[Move, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    a: str = "a"
    b: str | None = None
    reals: str = "reals"
    network: str = ""

    def row(self, family: str, label: int | None = None) -> Row:
        """Return the row of a family, such as 'fd'; of one class with `label`."""
        for row in self.rows if label is None else self.classes:
            if row.family == family and row.label == label:
                return row
        raise UnknownNameError("metric", family, [r.family for r in self.rows], way_out="It was not measured here.")

    def verdict(self, z: float = 3.0, families: Sequence[str] = ("fd", "density", "coverage")) -> str:
        """help, harm, mixed or none: which of the families changed by `z` standard errors or more, and which way."""
        if self.b is None:
            raise RequestError("a verdict needs two samples", way_out="Give b.")
        better = worse = 0
        for row in self.rows:
            if row.family in families and row.change is not None and abs(row.change.z) >= z:
                good = (row.change.value < 0) == (row.better == "lower")
                better, worse = better + good, worse + (not good)
        return "mixed" if better and worse else "help" if better else "harm" if worse else "none"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `--json` prints them."""
        told = {
            "a": self.a,
            "b": self.b,
            "reals": self.reals,
            "network": self.network,
            "verdict": None if self.b is None else self.verdict(),
            "metrics": [asdict(r) for r in self.rows],
            "classes": [asdict(r) for r in self.classes],
            "moves": [asdict(m) for m in self.moves],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }
        return dict(plain(told))

    def table(self, width: int = 80) -> str:
        """Return the table as text, at most `width` columns."""
        from .table import table

        return table(self, width)


def short_count(count: int) -> str:
    """50k for 50,000, 1500 for 1,500: the number in a metric's name.

    >>> short_count(50_000), short_count(1500)
    ('50k', '1500')
    """
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)


def metric_name(family: str, count: int, network: str) -> str:
    """The full name of a metric, as StyleGAN's `fid50k` with the network behind it; `fid` is said of Inception alone.

    >>> metric_name("fd", 50_000, "inception"), metric_name("fd", 800, "resnet20")
    ('fid50k-inception', 'fd800-resnet20')
    """
    family = "fid" if family == "fd" and network == "inception" else family
    return f"{family}{short_count(count)}-{network or 'features'}"
