"""Whether bfloat16 keeps the signs of the gradient of z, and which operations must stay in float32 so that it does.

Every rounding adds a little; those of G's first layers, where few numbers carry the whole gradient, add most and cost least to
avoid. So G's operations are raised to float32 from z on, one after the other, until enough signs are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..landscape import LARGE
from ..model import Pair
from .matrix import MatrixConv
from .ops import To
from .packed import Conv
from .plan import Plan
from .prepare import probe_rows

SIGNS = 0.90  # share of equal signs that reduced precision must keep
ROWS = 64, 256  # looked at where the few rows of a probe leave it open: of the largest images that are, and of small ones


class Share(NamedTuple):
    """A share of equal signs, and its standard error over rows."""

    mean: float
    error: float

    def surely(self, times: float) -> bool:
        """Whether the share is at least `SIGNS` by so many standard errors."""
        return self.mean - times * self.error >= SIGNS


def gradient(pair: Pair, z: Tensor, label: Tensor | None) -> Tensor | None:
    """Return the gradient of the score by z, flat; None where there is none."""
    q = z.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        score = pair.logit(pair.generate(q, label), label)
        grad = torch.autograd.grad(score.sum(), q, allow_unused=True)[0] if score.requires_grad else None
    return None if grad is None else grad.flatten(1)


def share(theirs: Tensor, mine: Tensor | None) -> Share:
    """Return the share of equal signs of two gradients (rows, n), where neither is 0."""
    if mine is None:
        return Share(0.0, 0.0)
    both = (theirs != 0) & (mine != 0)
    rows = both.any(1)
    equal = ((theirs.sign() == mine.sign()) & both).sum(1)[rows] / both.sum(1)[rows]
    if not len(equal):
        return Share(1.0, 0.0)
    return Share(float(equal.mean()), float(equal.std() / math.sqrt(len(equal))) if len(equal) > 1 else 1.0)


def raised(exact: Pair, low: Pair) -> Iterator[tuple[int, Pair]]:
    """Yield `low` with the first 1, 2, ... operations of its G in float32, taken from `exact`; nothing where they differ."""
    whole, part = exact.G, low.G
    if not (isinstance(whole, Plan) and isinstance(part, Plan)) or _kinds(whole) != _kinds(part):
        return
    for count in range(1, len(whole.ops)):
        if not whole.ops[count - 1].rowwise:
            ops = [*whole.ops[:count], To(torch.float32, part.dtype), *part.ops[count:]]
            yield count, replace(low, G=Plan(ops, part.plain), dtype=low.compute_dtype)
    yield len(whole.ops), replace(low, G=whole, dtype=low.compute_dtype)


def _kinds(plan: Plan) -> list[type]:
    """Return what kind each operation is; one and the same layer may be a product in one precision only."""
    return [Conv if isinstance(op, MatrixConv) else type(op) for op in plan.ops]


def with_signs(exact: Pair, low: Pair) -> tuple[Pair, str, bool]:
    """Return the reduced pair with as much of G in float32 as `SIGNS` needs, and what was done; where all of it would not do,
    the pair as it was, how far it falls short, and False."""
    if exact.critic is None or not exact.critic.differentiable:
        return low, "", True
    z, label = probe_rows(exact)
    theirs = gradient(exact, z, label)
    if theirs is None or share(theirs, gradient(low, z, label)).surely(3):
        return low, "", True
    if (size := math.prod(exact.image_shape or ())) <= LARGE:
        z, label = probe_rows(exact, min(ROWS[1], ROWS[0] * LARGE // size))
        theirs = gradient(exact, z, label)
        assert theirs is not None
    first = share(theirs, gradient(low, z, label))
    if first.surely(2):
        return low, "", True
    for count, pair in raised(exact, low):
        now = share(theirs, gradient(pair, z, label))
        if now.surely(2):
            what = "layer" if count == 1 else f"{count} layers"
            return pair, f"G's first {what} in fp32: {100 * now.mean:.1f} % of signs kept, not {100 * first.mean:.1f} %", True
    return low, f"keeps only {100 * first.mean:.1f} % of the gradient's signs ({100 * SIGNS:.0f} % asked)", False
