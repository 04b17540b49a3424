"""Sums over all shards of a run, from the manifest alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..landscape import Ledger
from .manifest import Entry


@dataclass
class Totals:
    """Sums over finished shards. Means are over rows whose scores are finite."""

    shards: int = 0
    rows: int = 0
    bytes: int = 0
    finite: int = 0
    before: float = 0.0
    after: float = 0.0
    raised: int = 0
    rejected: int = 0
    seconds: float = 0.0
    stopped: dict[str, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    low: float = float("inf")
    high: float = float("-inf")
    gain_low: float = float("inf")
    gain_high: float = float("-inf")

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Totals:
        """Return the sums of entries, in the order of their shards: floating-point sums depend on it."""
        out = cls()
        for entry in sorted(entries, key=lambda e: e.index):
            out.add(entry)
        return out

    def add(self, entry: Entry) -> None:
        """Add a shard."""
        s = entry.stats
        self.shards += 1
        self.rows += entry.rows
        self.bytes += entry.main.bytes + entry.latents.bytes
        self.finite += s["finite"]
        self.before += s["score_before"]
        self.after += s["score_after"]
        self.raised += s["raised"]
        self.rejected += s.get("rejected", 0)
        self.seconds += s["seconds"]
        self.ledger = self.ledger + Ledger(*s["work"])
        for word, count in s["stopped"].items():
            self.stopped[word] = self.stopped.get(word, 0) + count
        self.low, self.high = min(self.low, s.get("low", self.low)), max(self.high, s.get("high", self.high))
        self.gain_low = min(self.gain_low, s.get("gain_low", self.gain_low))
        self.gain_high = max(self.gain_high, s.get("gain_high", self.gain_high))

    def _mean(self, total: float) -> float | None:
        return total / self.finite if self.finite else None

    @property
    def gain(self) -> float | None:
        """Mean gain, or None where there is no row."""
        return self._mean(self.after - self.before)

    @property
    def refused(self) -> dict[str, int]:
        """Rows that a method rejected, and rows whose numbers broke."""
        out = {"rejected": max(self.rejected, self.stopped.get("rejected", 0)), "nan": self.stopped.get("nan", 0)}
        return {k: v for k, v in out.items() if v}

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the rows."""
        return {
            "rows": self.rows,
            "ledger": self.ledger.as_dict(),
            "score_before": self._mean(self.before),
            "score_after": self._mean(self.after),
            "gain": self.gain,
            "raised": self._mean(self.raised),
            "score_per_step": [],
            "stopped": self.stopped,
            "samples_per_second": self.rows / self.seconds if self.seconds else None,
        }
