"""Watching a long run: `status.json` every few seconds, lines that get rarer, and `run.log` in the run's folder."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files.write import plain
from .manifest import Entry, Manifest
from .store import Folder, Store
from .totals import Totals

NAME = "status.json"
SCHEMA = 1
_EVERY = 5.0  # seconds between two status files


def clock(seconds: float | None) -> str:
    """Return a time as people read it.

    >>> clock(42), clock(3725), clock(400000), clock(None)
    ('42 s', '1 h 02 min', '4 d 15 h', 'unknown')
    """
    if seconds is None:
        return "unknown"
    s = round(seconds)
    if s < 90:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min"
    return f"{s // 3600} h {s % 3600 // 60:02d} min" if s < 172800 else f"{s // 86400} d {s % 86400 // 3600} h"


class Watch:
    """Rows done, rate, time left, mean gain, refused rows. `say` prints a line; nothing is printed where it is None."""

    def __init__(self, store: Store, manifest: Manifest, say: Callable[[str], None] | None = None, rank: str = "") -> None:
        self.store, self.say, self.rank = store, say, rank
        self.totals = Totals.of(manifest.entries.values())
        self.rows, self.shards = len(manifest.plan.seeds), len(manifest.plan)
        self.had = self.totals.rows
        self.began = time.monotonic()
        self.started = time.time()
        self._wrote, self._said, self._pause = -1e9, self.began, 10.0
        self._at_work: dict[str, int] = {}
        self._log: Path | None = store.path / "run.log" if isinstance(store, Folder) else None
        self.bar: Any = None
        if say is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.rows, initial=self.had, unit="sample", file=sys.stderr, dynamic_ncols=True)

    def note(self, text: str, aloud: bool = True) -> None:
        """Keep a line in run.log, with the time of day, and say it."""
        if self._log is not None:
            try:
                with self._log.open("a", encoding="utf-8") as stream:
                    stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.rank}{text}\n")
            except OSError:  # a log is no reason to stop
                self._log = None
        if aloud and self.say is not None:
            self.say(text)

    def progress(self, who: str, rows: int) -> None:
        """Take how many rows of its shard a worker has finished."""
        self._at_work[who] = rows
        self.tick()

    def add(self, entry: Entry, who: str) -> None:
        """Take a finished shard."""
        self._at_work.pop(who, None)
        self.totals.add(entry)
        self.tick()

    def lost(self, who: str) -> None:
        """Forget the rows of a worker that died."""
        self._at_work.pop(who, None)

    def state(self, status: str = "running") -> dict[str, Any]:
        """Return what status.json says."""
        now = time.monotonic()
        done = self.totals.rows + sum(self._at_work.values())
        fresh = done - self.had
        rate = fresh / (now - self.began) if fresh and now > self.began else None
        left = (self.rows - done) / rate if rate else None
        return {
            "schema": SCHEMA,
            "status": status,
            "pid": os.getpid(),
            "started": round(self.started, 3),
            "updated": round(time.time(), 3),
            "rows": self.rows,
            "rows_done": done,
            "shards": self.shards,
            "shards_done": self.totals.shards,
            "rows_at_work": dict(self._at_work),
            "samples_per_second": rate,
            "seconds_left": left if status == "running" else None,
            "mean_gain": self.totals.gain,
            "refused": self.totals.refused,
            "stopped": self.totals.stopped,
        }

    def tick(self) -> None:
        """Write or say what is due."""
        now = time.monotonic()
        if now - self._wrote >= _EVERY:
            self.write()
        if self.bar is not None:
            self.bar.update(self.totals.rows + sum(self._at_work.values()) - self.bar.n)
        elif now - self._said >= self._pause:
            self._said = now
            if now - self.began > 600:  # after ten minutes a line a minute, after two hours one every five
                self._pause = 60.0 if now - self.began < 7200 else 300.0
            self.note(self.line())

    def line(self) -> str:
        """Return the state in one line."""
        s = self.state()
        rate, gain = s["samples_per_second"], s["mean_gain"]
        parts = [f"{s['rows_done']:,} of {s['rows']:,} samples", f"{s['shards_done']:,} of {s['shards']:,} shards"]
        parts += [f"{rate:.3g}/s"] if rate else []
        parts += [f"{clock(s['seconds_left'])} left"] if rate else []
        parts += [f"mean gain {gain:+.3f}"] if gain is not None else []
        refused = sum(s["refused"].values())
        return ", ".join(parts + ([f"{refused:,} refused"] if refused else []))

    def write(self, status: str = "running") -> None:
        """Write status.json; a full disk shows where shards are written, not here."""
        self._wrote = time.monotonic()
        text = json.dumps(plain(self.state(status)), indent=2) + "\n"
        try:
            if isinstance(self.store, Folder):
                part = self.store.path / f".{NAME}.{os.getpid()}"
                part.write_text(text, "utf-8")
                os.replace(part, self.store.path / NAME)
            else:
                self.store.write(NAME, text.encode())
        except (OSError, OutputError):
            pass

    def close(self, status: str) -> None:
        """Write the last status and end the bar."""
        self.write(status)
        if self.bar is not None:
            self.bar.close()
