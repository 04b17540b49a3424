"""How many threads of torch a piece of work runs on. The caller's number is always put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: rows of a CPU call come in multiples of this
PAD = 8


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run on `count` threads."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


@contextmanager
def dealt(device: torch.device) -> Iterator[None]:
    """Run on as many of the caller's threads as deal out `PAD` rows evenly: 1, 2, 4 or 8; a card is left alone.

    oneDNN splits a sum over threads where rows are not dealt evenly (6, 12 and 24 threads do it, as does any number above the
    rows): then the bits of a row depend on the number of rows beside it.
    """
    if device.type != "cpu":
        yield
        return
    with threads(max(n for n in range(1, PAD + 1) if PAD % n == 0 and n <= max(1, torch.get_num_threads()))):
        yield
