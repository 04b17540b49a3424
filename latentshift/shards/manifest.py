"""`manifest.jsonl`: one line for every finished shard, appended once its files are whole under their names.

A shard that is not listed does not exist, whatever lies in the folder. A line that cannot be read counts for nothing: its shard
is made again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..files.write import plain
from .plan import ShardPlan

NAME = "manifest.jsonl"


@dataclass(frozen=True)
class Piece:
    """A file (or folder of pictures) of a shard. `sha256` of a folder is that of the lines 'sha256  name' of its files."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A finished shard: its files, the seeds that it holds, and sums over its rows (`stats`)."""

    index: int
    seeds: str
    rows: int
    main: Piece
    latents: Piece
    stats: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the entry as a line of the manifest."""
        row = {
            "name": self.main.name,
            "index": self.index,
            "seeds": self.seeds,
            "rows": self.rows,
            "bytes": self.main.bytes,
            "sha256": self.main.sha256,
            "latents": dataclasses.asdict(self.latents),
            "stats": self.stats,
        }
        return json.dumps(plain(row), allow_nan=False, separators=(", ", ": ")) + "\n"

    @classmethod
    def read(cls, line: str) -> Entry | None:
        """Return the entry of a line, or None where it is not a whole one."""
        try:
            row = json.loads(line)
            main = Piece(str(row["name"]), int(row["bytes"]), str(row["sha256"]))
            latents = Piece(**{k: row["latents"][k] for k in ("name", "bytes", "sha256")})
            return cls(int(row["index"]), str(row["seeds"]), int(row["rows"]), main, latents, dict(row["stats"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


@dataclass
class Manifest:
    """What a manifest says of a plan: entries by shard number; lines that cannot be used, by line number and reason."""

    plan: ShardPlan
    entries: dict[int, Entry] = field(default_factory=dict)
    bad: list[tuple[int, str]] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, plan: ShardPlan, lines: Iterable[str]) -> Manifest:
        """Read lines; the last one may be cut."""
        out = cls(plan)
        for number, line in enumerate(lines, 1):
            if line.strip():
                out.take(Entry.read(line) if line.endswith("\n") else None, number)
        return out

    def take(self, entry: Entry | None, number: int = 0) -> None:
        """Add an entry; one that does not belong to the plan is bad."""
        if entry is None:
            self.bad.append((number, "is cut or damaged"))
            return
        plan, index = self.plan, entry.index
        mine = 0 <= index < len(plan)
        if mine:
            start, stop = plan.rows(index)
            names = (entry.main.name, entry.latents.name) == (plan.name(index), plan.latents_name(index))
            mine = names and entry.rows == stop - start and entry.seeds == plan.text(index)
        if not mine:
            self.bad.append((number, f"is of another run: {entry.main.name[:40]!r} with seeds {entry.seeds[:40]}"))
            return
        if index in self.entries:
            self.doubled.append(index)
        self.entries[index] = entry
        self.order.append(index)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not finished."""
        return [k for k in range(len(self.plan)) if k not in self.entries]

    @property
    def rows(self) -> int:
        """How many rows are finished."""
        return sum(e.rows for e in self.entries.values())

    @property
    def bytes(self) -> int:
        """How many bytes the finished shards take."""
        return sum(e.main.bytes + e.latents.bytes for e in self.entries.values())
