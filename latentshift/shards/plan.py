"""Which rows each shard of a run holds, and what the whole will weigh: arithmetic on ranges, nothing is expanded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..seeds import SeedRanges

KINDS = ("png", "tar", "parquet")
DEFAULT_SIZE = 1000


@dataclass(frozen=True)
class ShardPlan:
    """Rows in the order of the seeds, cut every `size` rows; `kind` is one of KINDS; `classes` go round, one a row.

    >>> plan = ShardPlan(SeedRanges.parse("0-2499"), 1000)
    >>> len(plan), plan.rows(2), plan.text(2), plan.name(2)
    (3, (2000, 2500), '2000-2499', 'shard-000002')
    """

    seeds: SeedRanges
    size: int
    kind: str = "png"
    classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"a shard holds 1 row or more, not {self.size}", where="--shard-size")
        if self.kind not in KINDS:
            raise UsageError(f"unknown form of shards {self.kind!r}", where="--shards-as", way_out=f"Write {', '.join(KINDS)}.")

    def __len__(self) -> int:
        return -(-len(self.seeds) // self.size)

    @property
    def digits(self) -> int:
        """Digits of a seed in a file name."""
        return max(4, len(str(self.seeds.largest)))

    def rows(self, index: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a shard."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return index * self.size, min((index + 1) * self.size, len(self.seeds))

    def numbers(self, index: int) -> Any:
        """Return the seeds of a shard as an int64 array."""
        return self.seeds.part(*self.rows(index))

    def text(self, index: int) -> str:
        """Return the seeds of a shard as they are written."""
        return self.seeds.text(*self.rows(index))

    def stem(self, index: int) -> str:
        """Return a shard's number as its files carry it: six digits or as many as the last one needs."""
        return f"{index:0{max(6, len(str(len(self) - 1)))}d}"

    def name(self, index: int) -> str:
        """Return the name of a shard's folder or file."""
        return f"shard-{self.stem(index)}" + ("" if self.kind == "png" else f".{self.kind}")

    def latents_name(self, index: int) -> str:
        """Return the name of a shard's latents."""
        return f"latents-{self.stem(index)}.npz"
