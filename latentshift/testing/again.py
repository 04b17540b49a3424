"""A stand-in for a card's graphs: recorded work is simply done again."""

from __future__ import annotations

import torch

from ..engine.graphs import WARM, Work


class Again:
    """Records and replays (`latentshift.engine.graphs.Graphs`) without a card, for tests of what is built on it.

    `rows` lists the sizes that were recorded, `forgotten` counts how often all were dropped. Work on more than `most` rows
    fails as it does where the memory of a card is too small.
    """

    def __init__(self, most: int = 10**9) -> None:
        self.rows: list[int] = []
        self.forgotten, self.most = 0, most

    def record(self, work: Work, reset: Work) -> Work:
        rows = int(getattr(getattr(work, "__self__", None), "rows", 0))
        if rows > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.rows.append(rows)
        for _ in range(WARM):
            reset()
            work()
        reset()
        return work

    def forget(self) -> None:
        self.forgotten += 1
