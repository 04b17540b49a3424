"""How far refinement moved the rows (displacement) and the set as a whole (drift), from paired samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .distance import Moments, bias_of, frechet_gaussian
from .sample import Reference, Sample


@dataclass(frozen=True)
class Move:
    """One figure: `name`, `value` (a mean over rows has its standard `error`), and what it means."""

    name: str
    value: float
    error: float | None
    meaning: str


def _mean(name: str, x: Array, meaning: str) -> Move:
    return Move(name, float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))), meaning)


def _lengths(x: Array) -> Array:
    out: Array = np.sqrt((x.reshape(len(x), -1).astype(np.float64) ** 2).sum(1))
    return out


def moves_of(a: Sample, b: Sample, reference: Reference) -> Iterator[Move]:
    """Yield the displacement in latents and features, and the drift, of paired samples a (before) and b (after)."""
    z0, z = (b.z0, b.z) if b.z0 is not None and b.z is not None else (a.z0, a.z)
    if z0 is not None and z is not None and z0.shape == z.shape:
        step = _lengths(z - z0)
        yield _mean("moved", (step > 0).astype(np.float64), "share of the samples that moved at all")
        norm = float(_lengths(z0).mean())
        yield _mean("displacement-z", step / norm, "distance in z over the mean length of z")
        yield _mean("displacement-z-max", np.abs(z - z0).reshape(len(z), -1).max(1), "largest coordinate of the move in z")
    spread = math.sqrt(2 * float(np.trace(reference.moments.cov)))
    step = _lengths(b.features - a.features)
    yield _mean("displacement-features", step / spread, "distance in features over that of two real images")
    m, n = Moments.of(a.features), Moments.of(b.features)
    apart = _lengths((n.mean - m.mean)[None])[0]
    yield Move("drift-mean", apart / spread, None, "move of the mean in features over the distance of two real images")
    if m.mean.size <= 512:
        value = frechet_gaussian(m.mean, m.cov, n.mean, n.cov)
        yield Move("drift-fd", value, None, "Frechet distance from raw to refined (pairs share their sampling error)")
        yield Move(
            "drift-fd-resampled", 2 * bias_of(reference.values, len(a)), None, "what two fresh draws of seeds would show"
        )
    if a.logits is not None and b.logits is not None:
        before, after = a.logits.argmax(1), b.logits.argmax(1)
        classes = a.logits.shape[1]
        shares = [np.bincount(x, minlength=classes) / len(x) for x in (before, after)]
        yield _mean(
            "class-changed",
            (before != after).astype(np.float64),
            "share of the samples that the network now calls another class",
        )
        yield Move(
            "class-shift", float(np.abs(shares[0] - shares[1]).sum() / 2), None, "total variation of the class shares, 0 to 1"
        )
