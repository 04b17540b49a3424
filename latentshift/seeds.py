"""Seeds as ranges: ten million of them weigh as much as ten."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import Any

from .errors import UsageError
from .lazy import numpy as np

SEED_LIMIT = 2**32


@dataclass(frozen=True)
class SeedRanges:
    """Seeds in the order written, as (first, last) spans; never expanded as a whole.

    >>> s = SeedRanges.parse("0-9999999,4000000000")
    >>> len(s), s.part(9999999, 10000001).tolist(), s.text(0, 5)
    (10000001, [9999999, 4000000000], '0-4')
    """

    spans: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        ends = list(itertools.accumulate(last - first + 1 for first, last in self.spans))
        object.__setattr__(self, "_ends", ends)

    @classmethod
    def parse(cls, text: str) -> SeedRanges:
        """Return the seeds of a list such as '0-63,85'; raises UsageError for anything else, for doubles too."""
        spans = []
        for part in text.split(","):
            low, dash, high = (p.strip() for p in part.strip().partition("-"))
            if not low.isdecimal() or (dash and not high.isdecimal()):
                hint = "Write numbers and ranges, as in 0-63,85,100-109."
                raise UsageError(f"cannot read the seeds {text[:80]!r}", where=f"at {part.strip()[:40]!r}", way_out=hint)
            first, last = int(low), int(high) if dash else int(low)
            if last < first:
                raise UsageError(f"the seed range {part.strip()!r} runs backwards", way_out=f"Write {last}-{first}.")
            if last >= SEED_LIMIT:
                raise UsageError(f"seed {last} is above {SEED_LIMIT - 1}")
            spans.append((first, last))
        for (_, end), (begin, _) in itertools.pairwise(sorted(spans)):
            if begin <= end:
                raise UsageError(f"seed {begin} is named twice in {text[:80]!r}", way_out="Name every seed once.")
        return cls(tuple(spans))

    @property
    def largest(self) -> int:
        """The largest seed."""
        return max(last for _, last in self.spans)

    def __len__(self) -> int:
        ends: list[int] = self.__dict__["_ends"]
        return ends[-1] if ends else 0

    def _cut(self, start: int, stop: int) -> list[tuple[int, int]]:
        ends: list[int] = self.__dict__["_ends"]
        out = []
        at = bisect.bisect_right(ends, start)
        while start < min(stop, len(self)):
            first, last = self.spans[at]
            begin = ends[at] - (last - first + 1)
            some = min(stop, ends[at]) - start
            out.append((first + start - begin, first + start - begin + some - 1))
            start, at = start + some, at + 1
        return out

    def part(self, start: int, stop: int) -> Any:
        """Return the seeds of the rows [start, stop) as an int64 array."""
        cut = self._cut(start, stop)
        return np.concatenate([np.arange(a, b + 1, dtype=np.int64) for a, b in cut]) if cut else np.zeros(0, np.int64)

    def text(self, start: int = 0, stop: int | None = None) -> str:
        """Return the seeds of the rows [start, stop) as they are written."""
        cut = self._cut(start, len(self) if stop is None else stop)
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in cut)
