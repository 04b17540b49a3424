"""How a run is done and what it gives: settings, finished chunks, the whole run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..landscape import Ledger
from ..strategies.base import Strategy
from .threads import PAD


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the work is done; nothing here changes what a row becomes on a CPU."""

    chunk: int | None = None  # rows at a time; None: chosen for the device
    search: bool | None = None  # look for the fastest number of rows at a time, once per device; None: on a card
    compact: bool = True  # take finished rows out of the batch
    prepare: bool = True  # run on frozen, folded copies of the networks
    plan: bool = True  # run them without autograd, on packed weights, where that can be done
    precision: str = "fp32"  # of the networks while rows move: fp32, tf32, bf16 or auto; state and final scores are float32
    pad: int = PAD  # rows move in multiples of this on a CPU (fewer where they do not fit); equal to 1e-5 across pads
    trace: bool = False  # keep every row's value at every step
    images: bool = True  # keep the images of all rows in the result
    check_every: int | None = None  # steps between looks at finished rows; None: 1 on a CPU, 10 elsewhere


class Chunk(NamedTuple):
    """The finished rows of one chunk, on the CPU; arrays have rows first. `rows` counts rows of the whole run."""

    rows: np.ndarray[Any, Any]
    z0: np.ndarray[Any, Any]
    point0: np.ndarray[Any, Any]
    point: np.ndarray[Any, Any]
    score0: np.ndarray[Any, Any]
    score: np.ndarray[Any, Any]
    stopped: np.ndarray[Any, Any]
    evaluations: np.ndarray[Any, Any]
    accepted: np.ndarray[Any, Any] | None
    images0: np.ndarray[Any, Any] | None
    images: np.ndarray[Any, Any]
    trace: np.ndarray[
        Any, Any
    ]  # (steps + 1, rows): values before each step and at the end (one column, the mean, unless `trace`)
    extra: dict[str, np.ndarray[Any, Any]] | None = None  # what the method tells beyond, by name


@dataclass
class Run:
    """What a run made and what it cost."""

    strategy: Strategy
    chunks: list[Chunk] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    fit_ledger: Ledger = field(default_factory=Ledger)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plan: str = ""
    precision: str = "fp32"  # of the networks while rows move
    chunk: int = 0
    pilot_seeds: tuple[int, int] | None = None


def traced(told: Tensor, score0: Tensor, score: Tensor, rows: int) -> np.ndarray[Any, Any]:
    """Return values per step (steps + 1, rows), finished rows at their last value, the final score at the end."""
    out = np.concatenate([array(told.T, rows).T, array(score, rows)[None].astype(np.float32)])
    out[0] = np.where(np.isnan(out[0]), array(score0, rows), out[0])
    final = out[-1]
    for t in range(1, len(out) - 1):
        out[t] = np.where(np.isnan(out[t]), final, out[t])
    return out


def array(x: Tensor, rows: int) -> np.ndarray[Any, Any]:
    out: np.ndarray[Any, Any] = x.detach()[:rows].cpu().numpy()
    return out
