"""Activations that an operation can take in: applied in place, and undone for a gradient from the output alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: activations whose backward needs their output alone: module -> (name in oneDNN, its number)
FUSED: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}


Act = tuple[str, float] | None


def act_of(module: nn.Module) -> Act:
    """Return an activation as (name, slope) where it can be fused, else None."""
    name = FUSED.get(type(module))
    if name is None or (name == "leaky_relu" and getattr(module, "negative_slope", -1.0) <= 0):
        return None
    return name, float(getattr(module, "negative_slope", 0.0))


def named(act: Act) -> tuple[str, list[float]]:
    """Return an activation as oneDNN's operators take it."""
    return ("none", []) if act is None else (act[0], [act[1]] if act[0] == "leaky_relu" else [])


def applied(y: Tensor, act: Act) -> Tensor:
    """Apply an activation in place."""
    if act is None:
        return y
    if act[0] == "relu":
        return y.relu_()
    if act[0] == "leaky_relu":
        return F.leaky_relu_(y, act[1])
    return y.tanh_() if act[0] == "tanh" else y.sigmoid_()


def in_vectors(act: Act, size: int) -> bool:
    """Whether an activation gives rows of `size` numbers the same bits in a call of any number of rows."""
    return act is None or act[0] in ("relu", "leaky_relu") or size % 64 == 0


def masked(grad: Tensor, y: Tensor, act: Act) -> Tensor:
    """Return the gradient before an activation from the one behind it and the output."""
    aten = torch.ops.aten
    if act is None:
        return grad
    if act[0] == "relu":
        return aten.threshold_backward(grad, y, 0)  # type: ignore[no-any-return]
    if act[0] == "leaky_relu":
        return aten.leaky_relu_backward(grad, y, act[1], True)  # type: ignore[no-any-return]
    back = aten.tanh_backward if act[0] == "tanh" else aten.sigmoid_backward
    return back(grad, y)  # type: ignore[no-any-return]
