"""Recording work and replaying it: torch's CUDA graphs behind a small interface, so that all but the card can be tested.

Nothing in `TorchGraphs` has run on a card yet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch

Work = Callable[[], object]
WARM = 3  # runs before a recording: libraries choose kernels and workspaces at first use


class Graphs(Protocol):
    """Records a piece of work that reads and writes the same tensors every time."""

    def record(self, work: Work, reset: Work) -> Work:
        """Return what repeats `work`. Before each of its trial runs, and before the recording, `reset` is called.

        Raises RuntimeError where the work waits for the device, or does what cannot be repeated.
        """

    def forget(self) -> None:
        """Give the memory of all recordings back; none of them is called again."""


class TorchGraphs:
    """CUDA graphs in one pool of memory: the first recording should be the largest, later ones live in its space."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: Any = None

    def record(self, work: Work, reset: Work) -> Work:
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        now = torch.cuda.current_stream(self.device)
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(now)
        with torch.cuda.stream(side):
            for _ in range(WARM):
                reset()
                work()
            reset()
        now.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            work()
        return graph.replay

    def forget(self) -> None:
        self.pool = None
        torch.cuda.empty_cache()


@functools.cache
def can_record(device: str) -> str:
    """Return "" where this torch records work on a device and repeats it rightly, else what is missing."""
    kind = torch.device(device)
    if kind.type != "cuda":
        return f"no graphs on {kind.type}"
    try:
        x = torch.zeros(4, device=kind)
        again = TorchGraphs(kind).record(lambda: x.add_(1), x.zero_)
        again()
        again()
        return "" if float(x.sum()) == 8 else "a recorded addition gave another sum"
    except (RuntimeError, AttributeError) as error:
        return f"this torch records no graphs ({str(error).splitlines()[0][:80]})"
