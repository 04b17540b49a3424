"""Is a run what it says? Every listed shard against its size and checksum, and the seeds inside it against the plan."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .drive import read_manifest
from .manifest import Manifest
from .plan import ShardPlan
from .store import SCRATCH, Store


@dataclass
class Finding:
    """What `verify` found: `wrong` one line each; `missing` shards; `loose` names that no line of the manifest explains."""

    manifest: Manifest
    wrong: list[str] = field(default_factory=list)
    missing: int = 0
    loose: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether what is listed is there, whole and once."""
        return not self.wrong

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "sound": self.sound,
            "complete": self.sound and not self.missing,
            "shards": len(self.manifest.plan),
            "shards_sound": len(self.manifest.entries),
            "rows": len(self.manifest.plan.seeds),
            "rows_sound": self.manifest.rows,
            "missing": self.missing,
            "wrong": self.wrong,
            "loose": self.loose,
        }


def verify(store: Store, plan: ShardPlan, *, sums: bool = True) -> Finding:
    """Check all shards; `sums=False` compares sizes alone."""
    manifest, wrong = read_manifest(store, plan, sums=sums)
    found = Finding(manifest, wrong)
    if sums:
        for index in sorted(manifest.entries):
            why = seeds_wrong(store, manifest, index)
            if why:
                wrong.append(f"{plan.latents_name(index)} {why}")
                del manifest.entries[index]
    found.missing = len(plan) - len(manifest.entries)
    listed = {n for e in manifest.entries.values() for n in (e.main.name, e.latents.name)}
    mine = ("shard-", "latents-", SCRATCH)
    found.loose = sorted(n for n in store.names() - listed if n.startswith(mine) or n.endswith(".part"))
    return found


def seeds_wrong(store: Store, manifest: Manifest, index: int) -> str:
    """Return why the seeds in a shard's latents are not those of the plan; empty where they are."""
    try:
        with store.open(manifest.plan.latents_name(index)) as stream:
            seeds = np.load(io.BytesIO(stream.read()), allow_pickle=False)["seeds"]
    except Exception as error:
        return f"cannot be read ({type(error).__name__})"
    return "" if np.array_equal(seeds, manifest.plan.numbers(index)) else "holds other seeds than the plan"
