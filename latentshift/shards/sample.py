"""What a page shows of a run of any length, as one small file: histograms over all rows, a spread of samples, and both tails.

`page.npz`: `edges`, `count_before`, `count_after` (scores of all rows), `gain_edges`, `count_gain`; of the rows that are shown
`rows`, `seeds`, `kind` (0 spread, 1 largest gains, 2 smallest), `score0`, `score`, and `before`, `after`: pictures (n, H, W, C)
uint8, or points (n, 2) float32. Shards are read one at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..engine.run import Engine
from ..files.pictures import to_bytes
from ..files.run import npz_bytes
from ..files.thumbs import shrink
from ..landscape import Landscape
from ..space import Context
from .manifest import Manifest
from .read import arrays
from .store import Store
from .totals import Totals

Array = np.ndarray[Any, Any]
NAME = "page.npz"
BINS = 64
SHOWN = {"pictures": (48, 24), "points": (3000, 0)}  # samples of the spread, and of each tail
_SIDE = 128  # pixels
_AT_ONCE = 16  # rows whose pictures are made together


def gather(engine: Engine, store: Store, manifest: Manifest) -> None:
    """Read all shards once and write `page.npz`; the pictures of the rows that are shown are made again, before and after."""
    totals = Totals.of(manifest.entries.values())
    pictures = len(engine.pair.image_shape or (1, 1, 1)) == 3
    spread, tail = SHOWN["pictures" if pictures else "points"]
    edges, gain_edges = _edges(totals.low, totals.high), _edges(totals.gain_low, totals.gain_high)
    counts = {name: np.zeros(BINS, np.int64) for name in ("count_before", "count_after", "count_gain")}
    names = ("seeds", "z0", "z", "point0", "point", "score0", "score", "labels")
    every = -(-len(manifest.plan.seeds) // spread)
    kept: list[dict[str, Array]] = []
    tails: dict[str, Array] = {}
    for index, found in arrays(store, manifest, names):
        score0, score = found["score0"].astype(np.float64), found["score"].astype(np.float64)
        gain = score - score0
        for name, values, places in (
            ("count_before", score0, edges),
            ("count_after", score, edges),
            ("count_gain", gain, gain_edges),
        ):
            counts[name] += np.histogram(values[np.isfinite(values)], places)[0]
        found |= {"rows": manifest.plan.rows(index)[0] + np.arange(len(gain)), "gain": np.nan_to_num(gain)}
        here = found["rows"] % every == 0
        kept.append({k: a[here] for k, a in found.items()})
        if tail:
            both = {k: np.concatenate([*([tails[k]] if tails else []), a]) for k, a in found.items()}
            order = np.lexsort((both["rows"], -both["gain"]))
            ends = np.unique(np.concatenate([np.arange(len(order))[:tail], np.arange(len(order))[-tail:]]))
            tails = {k: a[order[ends]] for k, a in both.items()}
    chosen = {k: np.concatenate([p[k] for p in kept]) for k in kept[0]} if kept else {}
    if not chosen:
        return
    kinds = np.zeros(len(chosen["rows"]), np.int8)
    if tail:
        half = len(tails["rows"]) // 2
        chosen = {k: np.concatenate([a, tails[k]]) for k, a in chosen.items()}
        kinds = np.concatenate([kinds, np.repeat([1, 2], [len(tails["rows"]) - half, half]).astype(np.int8)])
    before, after = (_images(engine, chosen, which, pictures) for which in ("start", "end"))
    out = {"edges": edges, "gain_edges": gain_edges, **counts, "kind": kinds, "before": before, "after": after}
    out |= {k: chosen[k] for k in ("rows", "seeds", "score0", "score")}
    store.write(NAME, npz_bytes(out, compress=True))


def _edges(low: float, high: float) -> Array:
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = 0.0, 1.0
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _images(engine: Engine, rows: dict[str, Array], which: str, pictures: bool) -> Array:
    start, end = ("z0", "z") if "z" in rows else ("point0", "point")
    points = rows[start if which == "start" else end]
    parts = []
    for at in range(0, len(points), _AT_ONCE):
        some = slice(at, at + _AT_ONCE)
        seed = torch.from_numpy(rows["seeds"][some]).to(engine.device)
        label = torch.from_numpy(rows["labels"][some]).to(engine.device) if "labels" in rows else None
        point0, point = (torch.from_numpy(p[some]).to(engine.device, engine.pair.compute_dtype) for p in (rows[start], points))
        land = Landscape(
            engine.pair, Context(seed=seed, label=label, point0=point0), space=engine.space, objective=engine.objective
        )
        with torch.no_grad():
            images = land.images(point).cpu().numpy()
        parts.append(shrink(to_bytes(images, engine.pair.image_range), _SIDE) if pictures else images.astype(np.float32))
    return np.concatenate(parts)
