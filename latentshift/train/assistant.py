"""AdvAs, the adversary's assistant (paper 003): G also makes D's gradient small, so that D is nearer to its own optimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import UsageError
from .scores import norm_of


@dataclass(frozen=True)
class AdvAs:
    """G's gradient becomes g0 + s g1, where g1 is the gradient by theta of r = |grad_phi L_adv|^2.

    `scale` "cap": s = min(1, |g0| / |g1|) (recalled from section 4.3 of the paper, not checked against it); "match":
    |g0| / |g1|; a number: a fixed lambda; "alone": g1 in the place of G's own gradient (paper 003 C.3). `estimator` "biased":
    r of the whole batch, as published; "split": the product of the gradients of two half batches, which is unbiased.
    `penalties`: whether L_adv holds D's penalties too. At a D that is optimal, r = 0 and the step is the plain one to the bit.
    D's own gradients, buffers and optimiser are not touched.
    """

    scale: Literal["cap", "match", "alone"] | float = "cap"
    estimator: Literal["biased", "split"] = "biased"
    penalties: bool = True

    def __post_init__(self) -> None:
        if not (self.scale in ("cap", "match", "alone") or (isinstance(self.scale, float | int) and self.scale >= 0)):
            raise UsageError(f"scale is 'cap', 'match', 'alone' or a number of 0 or more, not {self.scale!r}")
        if self.estimator not in ("biased", "split"):
            raise UsageError(f"estimator is 'biased' or 'split', not {self.estimator!r}")

    def __call__(
        self,
        g0: Sequence[Tensor],
        adversary: Callable[[slice, bool], Tensor],
        theta: Sequence[Tensor],
        phi: Sequence[Tensor],
        rows: int,
    ) -> list[Tensor]:
        """Return the combined gradient; `adversary(rows, penalties)` is D's loss on those rows, with a graph."""
        if self.estimator == "split":
            parts = [slice(0, rows // 2), slice(rows // 2, rows)]
        else:
            parts = [slice(0, rows)]
        q = [torch.autograd.grad(adversary(p, self.penalties), phi, create_graph=True, allow_unused=True) for p in parts]
        pairs = [(a, b) for a, b in zip(q[0], q[-1], strict=True) if a is not None and b is not None]
        r = torch.stack([(a * b).sum() for a, b in pairs]).sum()
        made = torch.autograd.grad(r, theta, allow_unused=True)
        g1 = [torch.zeros_like(t) if g is None else g for t, g in zip(theta, made, strict=True)]
        if self.scale == "alone":
            return g1
        n0, n1 = norm_of(list(g0)), norm_of(g1)
        if isinstance(self.scale, str):
            s = torch.where(n1 > 0, n0 / n1.clamp_min(torch.finfo(n1.dtype).tiny), torch.zeros_like(n1))
            s = s.clamp_max(1.0) if self.scale == "cap" else s
        else:
            s = torch.as_tensor(float(self.scale)).to(n1)
        return [a + s * b for a, b in zip(g0, g1, strict=True)]
