"""A row of operations as a module, differentiated by their own backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .few import FEW, fitted
from .ops import Op, channels_last


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ops: list[Op], label: Tensor | None) -> Tensor:
        y, kept = x, []
        for op in ops:
            y, keep = op.forward(y, label)
            # the result itself must not hang on its own graph
            kept.append(keep.detach() if isinstance(keep, Tensor) else keep)
        ctx.ops, ctx.kept = ops, kept
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        for op, keep in zip(reversed(ctx.ops), reversed(ctx.kept), strict=True):
            grad = op.backward(grad, keep)
        return grad, None, None


class Plan(nn.Module):
    """A row of operations in `dtype` as a module; `plain` is the same network in its differentiable form.

    `forward(x, label=None)`: x is cast to `dtype`, the result comes back in the dtype of x.
    """

    plain_row = "layers"  # what cuts a network in the middle gets the plain layers

    def __init__(self, ops: list[Op], plain: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.ops, self.plain, self.dtype = ops, plain, dtype
        self._few: dict[tuple[int, int], list[Op]] = {}

    @property
    def layers(self) -> Any:
        """The plain form's layers."""
        return self.plain.layers

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        given = x.dtype
        x = x.to(self.dtype)
        if x.ndim == 4:
            x = channels_last(x)
        ops = self.called(len(x))
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Run.apply(x, ops, label)  # type: ignore[no-untyped-call]
        else:
            with torch.no_grad():
                y = x
                for op in ops:
                    y = op.forward(y, label)[0]
        return y.to(given)

    def forth(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return what `forward` does, and the way from its gradient to that of x: for callers without autograd."""
        given, ops, kept = x.dtype, self.called(len(x)), []
        y = x.to(self.dtype)
        if y.ndim == 4:
            y = channels_last(y)
        for op in ops:
            y, keep = op.forward(y, label)
            kept.append(keep)
        inner = y.dtype

        def back(grad: Tensor) -> Tensor:
            grad = grad.to(inner)
            for op, keep in zip(reversed(ops), reversed(kept), strict=True):
                grad = op.backward(grad, keep)
            return grad.to(given)

        return y.to(given), back

    def called(self, rows: int) -> list[Op]:
        """Return the operations for a call of so many rows: where it is one of `FEW`, in forms that give a row the bits that it
        has in a call of 8."""
        if rows not in FEW:
            return self.ops
        key = rows, torch.get_num_threads()
        if key not in self._few:
            self._few[key] = [fitted(op, rows) for op in self.ops]
        return self._few[key]
