"""How far an honest critic is climbed: longer as long as real images that the fit did not see have nothing against it.

The rule. Latents of pilots (seeds that nobody uses) are climbed by 2, then 5, then 10 steps, or what the strategy allows. A
climb passes where, asked of the held-out images,

1. honest: the critic tells them from what it refined, AUC at least `HONEST`;
2. diverse: the distance of the pilots' latents to each other (to the nearest, in the median) falls by at most `GATHER` of its
   value, and no eye sees their recall or coverage of the held-out images fall by more than `FALL` of its value;
3. no drift: no eye sees the Frechet distance to them grow by more than `DRIFT` standard errors (paired bootstrap).

The last length that passes is taken; the first that fails ends it. If two steps fail it is one, then a half, a quarter and an
eighth of one; if none passes the samples are left alone. The eyes are the pixels, the network that the critic looks through,
and the pair's own D before its last layer: who judges the outcome must be another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..metrics.arrays import Array
from ..metrics.coverage import nearest_distances, prdc_rows
from ..metrics.distance import frechet_gaussian
from ..metrics.stats import bootstrap_change, paired_test
from ..strategies.base import Strategy

#: steps that are tried, and shares of a step where two are too many
RUNGS, SHARES = (2, 5, 10), (1.0, 0.5, 0.25, 0.125)
#: DRIFT: one-sided, 5 %. A fall counts from one standard error of the paired change on: below it is noise
HONEST, GATHER, FALL, DRIFT = 0.6, 0.05, 0.05, 1.645
_COMPONENTS, _K = 32, 5


class Eye:
    """Features on the first principal components of real images; `held` are those it compares with, `raw` the samples."""

    def __init__(self, name: str, look: Callable[[Tensor], Tensor], known: Tensor, held: Tensor, raw: Tensor) -> None:
        self.name, self.look = name, look
        rows = self._rows(known)
        self.mean = rows.mean(0)
        _, _, axes = np.linalg.svd(rows - self.mean, full_matrices=False)
        self.axes = axes[:_COMPONENTS].T
        self.held, self.raw = self.see(held), self.see(raw)
        self.moments = self.held.mean(0), np.cov(self.held.T)
        self.before = prdc_rows(self.held, self.raw, k=_K)

    def _rows(self, images: Tensor) -> Array:
        out: Array = self.look(images).flatten(1).double().cpu().numpy()
        return out

    def see(self, images: Tensor) -> Array:
        """Return images as rows."""
        out: Array = (self._rows(images) - self.mean) @ self.axes
        return out

    def distance(self, rows: Any) -> float:
        """Return the Frechet distance of rows to the held-out images."""
        return frechet_gaussian(rows.mean(0), np.cov(rows.T), *self.moments)

    def changes(self, images: Tensor) -> dict[str, float]:
        """Return what refinement changed: the relative falls of recall and of coverage (0 within one standard error), and the
        growth of the distance to real images in standard errors."""
        after = self.see(images)
        rows = prdc_rows(self.held, after, k=_K)
        drift = bootstrap_change(self.distance, self.raw, after, draws=40)
        return {
            "recall": _fall(self.before.recalled, rows.recalled),
            "coverage": _fall(self.before.covered, rows.covered),
            "distance": drift.value / drift.sd if drift.sd > 0 else 0.0,
        }


def _fall(before: Any, after: Any) -> float:
    if not before.any():
        return 0.0
    test = paired_test(before, after)
    return 0.0 if abs(test.mean) < test.error else float(-test.mean / before.mean())


def apart(z: Tensor) -> float:
    """Return the median distance of a latent to the nearest other one."""
    return float(np.median(nearest_distances(z.flatten(1).double().cpu().numpy(), 1)))


@dataclass(frozen=True)
class Tried:
    """One length of climb: `auc` of held-out real images over refined samples, by how much the latents gather, changes per eye,
    and what speaks against it."""

    steps: int
    step_size: float | None
    auc: float
    gather: float
    changes: dict[str, dict[str, float]]
    against: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Depth:
    """How far to climb: `strategy` (None: leave the samples alone), what was tried, and why it ends there."""

    strategy: Strategy | None
    tried: tuple[Tried, ...]
    why: str

    @property
    def auc(self) -> float:
        """AUC after the climb that was chosen; after the last that was tried where none was."""
        passed = [t for t in self.tried if not t.against]
        return (passed or self.tried)[-1].auc


def ladder(strategy: Strategy) -> tuple[list[Strategy], list[Strategy]]:
    """Return the climbs to try, rising, and those to fall back to, falling: what `strategy` is with fewer or shorter steps."""
    most = max(1, strategy.steps)
    up = [replace(strategy, steps=n) for n in sorted({n for n in RUNGS if n < most} | {most})]
    size = getattr(strategy, "step_size", None)
    down = [replace(strategy, steps=1)] if up[0].steps > 1 else []
    if isinstance(size, float):
        down += [replace(strategy, steps=1, step_size=size * s) for s in SHARES if s < 1]  # type: ignore[call-arg]
    return up, down


def against(auc: float, gather: float, changes: dict[str, dict[str, float]]) -> str:
    """Return what speaks against a climb, '' for nothing: the rule's three questions in their order."""
    if auc < HONEST:
        return f"it hardly tells held-out real images from what it refined (AUC {auc:.2f})"
    if gather > GATHER:
        return f"samples gather: their latents lie {gather:.0%} closer to each other"
    said = {eye: text for eye, found in changes.items() if (text := _objection(found))}
    return "; ".join(f"{text} ({eye})" for eye, text in said.items())


def _objection(found: dict[str, float]) -> str:
    for what in ("recall", "coverage"):
        if found[what] > FALL:
            return f"{what} falls by {found[what]:.0%}"
    if found["distance"] > DRIFT:
        return f"samples move away from held-out real images, by {found['distance']:.1f} standard errors"
    return ""


def depth(
    strategy: Strategy,
    start: Tensor,
    climb: Callable[[Strategy], tuple[Tensor, Tensor]],
    score: Callable[[Tensor], float],
    eyes: Sequence[Eye],
) -> Depth:
    """Return how far `strategy` may climb from the pilots' latents `start`. `climb(strategy)` gives their latents and images
    after it, `score(images)` the AUC of held-out real images over them."""
    tried: list[Tried] = []
    before = apart(start)

    def passes(one: Strategy) -> bool:
        z, images = climb(one)
        auc, gather = score(images), 1 - apart(z) / before if before > 0 else 0.0
        changes = {e.name: e.changes(images) for e in eyes}
        size = getattr(one, "step_size", None)
        tried.append(Tried(one.steps, size, auc, gather, changes, against(auc, gather, changes)))
        return not tried[-1].against

    up, down = ladder(strategy)
    best = None
    for one in up:
        if not passes(one):
            break
        best = one
    if best is None:
        best = next((one for one in down if passes(one)), None)
    return Depth(best, tuple(tried), told(best, tried))


def told(best: Strategy | None, tried: Sequence[Tried]) -> str:
    """Return one line: what is done and why no more."""
    stopped = [t for t in tried if t.against]
    if best is None:
        return f"even {_length(tried[-1])} is too far: {tried[-1].against}"
    chosen = [t for t in tried if not t.against][-1]
    end = f"; {_length(stopped[-1])} not: {stopped[-1].against}" if stopped else ""
    return f"AUC {chosen.auc:.2f} after {_length(chosen)}{end}"


def _length(t: Tried) -> str:
    size = "" if t.step_size is None else f" of {t.step_size:g}"
    return f"{t.steps} step{'s' * (t.steps != 1)}{size}"
