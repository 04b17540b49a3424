"""Reading all shards of a run, one at a time: the best k, and what a page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FileError
from .manifest import Manifest
from .store import Store

Array = np.ndarray[Any, Any]


def arrays(store: Store, manifest: Manifest, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield (shard number, the named arrays of its latents), shard by shard; names that a file lacks are left out.

    Raises FileError for a file that cannot be read.
    """
    for index in sorted(manifest.entries):
        name = manifest.plan.latents_name(index)
        try:
            with store.open(name) as stream, np.load(stream, allow_pickle=False) as data:
                yield index, {k: data[k] for k in names if k in data.files}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise FileError(
                f"not readable: {error}", where=f"{store.name}/{name}", way_out="'latentshift verify' says what is damaged."
            ) from None


@dataclass(frozen=True)
class Top:
    """The best rows, best first: `rows` of the run, and their arrays."""

    rows: Array
    values: Array
    arrays: Mapping[str, Array]


def top(store: Store, manifest: Manifest, k: int, *, by: str = "score", worst: bool = False) -> Top:
    """Return the k rows of highest score or gain over all shards; never more than k and one shard are held.

    Rows that a method rejected and those without a finite number are left out; of equal ones the earlier comes first.
    """
    wanted = ("seeds", "z", "point", "score0", "score", "labels", "accepted", "x")
    kept: dict[str, Array] = {}
    for index, found in arrays(store, manifest, wanted):
        value = found["score"].astype(np.float64)
        if by == "gain":
            value = value - found["score0"]
        good = np.isfinite(value) & found.pop("accepted", np.ones(len(value), bool)).astype(bool)
        found |= {"value": -value if worst else value, "row": manifest.plan.rows(index)[0] + np.arange(len(value))}
        kept = {n: np.concatenate([*([kept[n]] if kept else []), a[good]]) for n, a in found.items()}
        if len(kept["row"]) > k:
            order = np.lexsort((kept["row"], -kept["value"]))[:k]
            kept = {n: a[order] for n, a in kept.items()}
    if not kept:
        empty = np.zeros(0)
        return Top(empty.astype(np.int64), empty, {"seeds": empty.astype(np.int64), "score": empty, "score0": empty})
    order = np.lexsort((kept["row"], -kept["value"]))
    kept = {n: a[order] for n, a in kept.items()}
    value = kept.pop("value")
    return Top(kept.pop("row"), -value if worst else value, kept)
