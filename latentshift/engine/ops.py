"""The operations of a plan: a forward that keeps what its own backward needs, and an input gradient written by hand.

No weight ever gets a gradient. Everything runs on channels-last tensors (rows, C, H, W), or on (rows, n). Those with weights
are in `packed.py`, `matrix.py` and `thin.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .acts import Act, applied, in_vectors, masked


class Op:
    """One operation: `forward(x) -> (y, kept)`, `backward(gradient of y, kept) -> gradient of x`.

    `rowwise`: whether a row has the same bits in a call of any number of rows. `made` has what an operation with weights was
    made of, by name, its weight left out: `few.py` makes another from it, to see how many rows it needs.
    """

    rowwise = False
    made: dict[str, Any] | None = None

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        raise NotImplementedError


class Activation(Op):
    """An activation that no layer could take in."""

    def __init__(self, act: Act) -> None:
        self.act, self.rowwise = act, in_vectors(act, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        y = applied(x.clone(memory_format=torch.preserve_format), self.act)
        return y, y

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return masked(grad, kept, self.act)


class Flatten(Op):
    """(rows, C, H, W) -> (rows, H * W * C): the next layer's columns are in that order."""

    rowwise = True

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1), x.shape

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        rows, c, h, w = kept
        return grad.reshape(rows, h, w, c).permute(0, 3, 1, 2)


class To(Op):
    """From one precision to another, and back."""

    rowwise = True

    def __init__(self, given: torch.dtype, wanted: torch.dtype) -> None:
        self.given, self.wanted = given, wanted

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        return x.to(self.wanted), None

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return grad.to(self.given)


class Eager(Op):
    """Any other layer, by torch's own differentiation."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype
        self.takes_label = hasattr(module, "embed")

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            y = self.module(x, label) if self.takes_label else self.module(x)
        out = y.detach()
        return (channels_last(out) if out.ndim == 4 else out), (x, y)

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        x, y = kept
        out: Tensor = torch.autograd.grad(y, x, grad)[0]
        return out


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class Filled(Op):
    """An operation that is called with at least `rows` rows: the first is repeated."""

    def __init__(self, op: Op, rows: int) -> None:
        self.op, self.rows = op, rows

    def _full(self, x: Tensor) -> Tensor:
        y = torch.cat([x, x[:1].expand(self.rows - len(x), *x.shape[1:])])
        return channels_last(y) if y.ndim == 4 else y

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Any]:
        y, kept = self.op.forward(self._full(x), None if label is None else self._full(label))
        return y[: len(x)], kept

    def backward(self, grad: Tensor, kept: Any) -> Tensor:
        return self.op.backward(self._full(grad), kept)[: len(grad)]
