"""How many rows at a time: a short search for the least time a row, remembered in the user's cache.

The largest number that fits is not the fastest, and on a CPU nearly all are alike (activations should stay in its cache), so
the search is for cards. Nothing of it has run on one yet.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..strategies.base import options, strategy_name
from .estimate import trial
from .memory import is_out_of_memory
from .threads import PAD

if TYPE_CHECKING:
    from .run import Engine

START, MOST = 64, 4096  # rows that the search begins and ends with on a card
WORTH = 1.05  # how much cheaper a row must get by doubling


def searched(seconds: Callable[[int], float], start: int, most: int) -> tuple[int, dict[int, float]]:
    """Return the rows at which a row's step is cheapest, and seconds a row at each number tried: doubled from `start` until a
    row gets less than 5 % cheaper, or the memory ends.

    >>> searched(lambda rows: 1.0 + rows / 1000, 64, 4096)[0]
    4096
    >>> searched(lambda rows: max(256, rows) / 1000, 64, 4096)[0]
    256
    """
    found: dict[int, float] = {}
    best, rows = start, start
    while rows <= most:
        try:
            found[rows] = seconds(rows) / rows
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        if rows > start and found[rows] * WORTH > found[best]:
            break
        best, rows = rows, rows * 2
    return best, found


def key_of(engine: Engine) -> dict[str, Any]:
    """Return what the answer depends on."""
    kind = engine.device.type
    name = torch.cuda.get_device_name(engine.device) if kind == "cuda" else kind
    nets = [engine.pair.G, *([engine.pair.critic.call] if engine.pair.critic else [])]
    sizes = [sum(p.numel() for p in net.parameters()) if isinstance(net, nn.Module) else 0 for net in nets]
    plan = [type(net).__name__ for net in nets] + [type(engine.stepper).__name__]
    told = {k: v for k, v in options(engine.strategy).items() if k != "steps"}
    return {
        "device": name, "torch": torch.__version__, "precision": engine.precision, "plan": plan, "sizes": sizes,
        "image": list(engine.pair.image_shape or ()), "strategy": strategy_name(engine.strategy), "options": str(told),
    }  # fmt: skip


def chunk_for(engine: Engine, total: int, folder: Path | None = None) -> int:
    """Return the rows at a time for an engine that refines `total` rows, from the cache or by a search; a note says which.

    `folder`: where answers are kept; None: `chunks` in the user's cache.
    """
    if folder is None:
        from ..files.cache import cache_folder  # upwards: the engine owns no folder

        folder = cache_folder() / "chunks"
    width, notes = engine.strategy.width, engine.run_.notes
    least, most = (START, MOST) if engine.device.type == "cuda" else (PAD, 16 * PAD)
    least, most = (max(PAD, rows // width // PAD * PAD) for rows in (least, min(most, max(total, least))))
    key = key_of(engine)
    place = folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.json"
    try:
        kept = json.loads(place.read_text("utf-8"))
        rows = kept["rows"]
        if kept["key"] == key and isinstance(rows, int) and rows >= PAD:
            notes.append(f"{min(rows, most)} rows at a time, as found before ({place}); --chunk N sets another number")
            return min(rows, most)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    began = time.perf_counter()
    rows, found = searched(lambda n: trial(engine, n), least, most)
    told = ", ".join(f"{1e3 * s:.3g} ms a row at {n}" for n, s in found.items())
    notes.append(f"{rows} rows at a time by a search of {time.perf_counter() - began:.1f} s ({told}); --chunk N sets another")
    if rows == most < MOST:
        return rows  # a small run did not see enough to be remembered
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"key": key, "rows": rows, "seconds_a_row": found}), "utf-8")
    except OSError as error:
        notes.append(f"the number of rows at a time is searched anew each run: {folder} cannot be written ({error.strerror})")
    return rows
