"""How many rows fit on a CPU: the bytes that one row's step holds at its peak, watched once, against what the machine has free.

An operating system that promises more memory than there is ends the process instead of raising an error, so this is looked at
before, not after. Small networks are not watched: dozens of their rows fit anywhere.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..landscape import LARGE, Landscape
from ..noise import SEED_LIMIT, Draw, latents
from .threads import PAD

if TYPE_CHECKING:
    from .run import Engine

SHARE = 0.7  # of the free memory that a chunk may take
MARGIN = 1.25  # work space inside operations, and what the allocator keeps


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device had too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def default_chunk(device: torch.device, width: int) -> int:
    """Return rows per chunk: 32 on a CPU (activations stay in the cache), 64 on a card, divided by a strategy's width."""
    rows = 32 if device.type == "cpu" else 64
    return max(PAD, rows // width // PAD * PAD)


class Watch(TorchDispatchMode):
    """Counts the bytes of tensors made inside that are alive, and their `peak`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: set[int] = set()
        self._old: dict[int, Any] = {}  # storages from outside: kept, so that their numbers are not given anew

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._seen:
                self._old[storage._cdata] = storage
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            key, size = storage._cdata, storage.nbytes()
            if size and key not in self._seen and key not in self._old:
                self._seen.add(key)
                weakref.finalize(storage, self._gone, key, size)
                self.live += size
                self.peak = max(self.peak, self.live)
        return out


def _storages(tree: Any) -> list[Any]:
    return [t.untyped_storage() for t in tree_leaves(tree) if isinstance(t, Tensor) and t.layout == torch.strided]


def row_bytes(step: Callable[[], Any]) -> int:
    """Return the bytes that `step` holds at its peak, with a margin."""
    with Watch() as seen:
        step()
    return int(seen.peak * MARGIN)


def free_bytes() -> int | None:
    """Return the bytes that this process may still take, None where the machine does not say: what is available, or what
    the process's group may take (a container), whichever is less."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            root = Path("/sys/fs/cgroup")
            found.append(int((root / limit).read_text()) - int((root / used).read_text()))
        except (OSError, ValueError):  # no group, or "max"
            pass
    if not found and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found) if found else None


def fitting(per_row: int, free: int, chunk: int, pad: int) -> tuple[int, int]:
    """Return (rows of a chunk, rows that calls are padded to) for which `per_row` bytes a row fit into `free`.

    At most `chunk` and `pad`. Below `pad` rows, the chunk is its own padding (a power of two): every call then has the same
    number of rows, and a row the same bits in any batch.

    >>> fitting(1 << 30, 100 << 30, 32, 8), fitting(1 << 30, 30 << 30, 32, 8), fitting(1 << 30, 8 << 30, 32, 8)
    ((32, 8), (16, 8), (4, 4))
    """
    room = int(free * SHARE) // max(per_row, 1)
    if room >= pad:
        return min(chunk, room // pad * pad), pad
    rows = 1 << (max(1, min(room, chunk)).bit_length() - 1)
    return rows, rows


def limit(engine: Engine) -> None:
    """Let an engine take as many rows at a time as fit, where its networks are large, and note it where that is fewer than
    usual. A number of rows that was asked for stays."""
    wanted, shape = engine.settings, engine.pair.image_shape or ()
    usual = default_chunk(engine.device, engine.strategy.width)
    free = free_bytes()
    if engine.device.type != "cpu" or wanted.chunk is not None or int(np.prod(shape)) <= LARGE or free is None:
        return
    per_row = row_bytes(lambda: _step(engine))
    chunk, pad = fitting(per_row, free, usual, wanted.pad)
    if (chunk, pad) == (usual, wanted.pad):
        return
    engine.run_.chunk, engine.settings = chunk, replace(wanted, pad=pad)
    text = (
        f"{chunk} rows at a time in place of {usual}: a row takes about {per_row / 2**30:.2g} GiB, {free / 2**30:.3g} are free"
    )
    engine.run_.notes.append(text)


def _step(engine: Engine) -> None:
    """Do one row's first step, counted nowhere."""
    pair, seed = engine.moving, SEED_LIMIT - 1
    z = torch.from_numpy(latents([seed], pair.space.shape, pair.space.prior)).to(engine.device, pair.compute_dtype)
    context = engine._context([seed], engine.labels_of([seed]), None)
    with torch.no_grad():
        point = engine.space.enter(pair, z, context)
    land = Landscape(pair, context._replace(point0=point), space=engine.space, objective=engine.objective)
    land.with_start_images(point)
    if not engine.strategy.rounds:
        land.images(point)
        return
    draw = Draw(context.seed)
    engine.strategy.step(engine.strategy.init(point, land, draw), 0, land, draw)
