"""Pairs whose refinement has a closed form: a linear one, a quadratic one, and any pair with its calls counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..model import Critic, Pair
from ..space import Normal, Prior, Space, rows_sum


class _Linear(nn.Module):
    def __init__(self, A: Tensor, c: Tensor) -> None:
        super().__init__()
        self.A, self.c = nn.Parameter(A), nn.Parameter(c)

    def forward(self, z: Tensor) -> Tensor:
        # a product and a sum in place of a matrix product: the same bits in any batch
        return rows_sum(z.unsqueeze(1) * self.A, 1) + self.c


def linear_pair(
    A: Any = ((1.0, 0.5), (0.0, 2.0)),
    w: Any = (0.3, -0.2),
    *,
    c: Any = None,
    e: float = 0.0,
    prior: Prior | None = None,
    returns: str = "logit",
) -> Pair:
    """Return G(z) = A z + c, d(x) = w.x + e. The score is v.z + const with v = A^T w.

    >>> pair = linear_pair()
    >>> pair.logit(pair.generate(torch.tensor([[1.0, 0.0]]))).detach()
    tensor([0.3000])
    """
    A, w = torch.as_tensor(A, dtype=torch.float32), torch.as_tensor(w, dtype=torch.float32)
    shift = torch.zeros(A.shape[0]) if c is None else torch.as_tensor(c, dtype=torch.float32)
    G = _Linear(A, shift).eval()
    D = _Linear(w[None], torch.tensor([float(e)])).eval()
    critic = Critic(D, "linear", returns)
    space = Space("z", (A.shape[1],), prior or Normal())
    return Pair(G, critic, space, "linear", image_shape=(A.shape[0],))


class _Bowl(nn.Module):
    def __init__(self, mu: Tensor, kappa: float) -> None:
        super().__init__()
        self.mu, self.kappa = nn.Parameter(mu), kappa

    def forward(self, x: Tensor) -> Tensor:
        return -0.5 * self.kappa * rows_sum((x - self.mu).square(), 1)


def quadratic_pair(mu: Any = (1.0, -0.5), *, kappa: float = 1.0, prior: Prior | None = None) -> Pair:
    """Return G = identity, d(x) = -kappa |x - mu|^2 / 2."""
    mu = torch.as_tensor(mu, dtype=torch.float32)
    space = Space("z", (len(mu),), prior or Normal())
    return Pair(nn.Identity(), Critic(_Bowl(mu, kappa).eval(), "bowl"), space, "quadratic", image_shape=(len(mu),))


@dataclass
class CountedPair:
    """A pair whose calls are counted in rows, beside the library's own ledger."""

    pair: Pair
    g_rows: int = 0
    d_rows: int = 0
    g_backward: int = 0
    weight_gradients: int = 0


def counted(pair: Pair) -> CountedPair:
    """Return `pair` with its calls counted: rows through G and D, backward passes to z, gradients made for any weight."""
    out = CountedPair(pair)

    def G(z: Tensor, *label: Tensor) -> Tensor:
        out.g_rows += len(z)
        if z.requires_grad:
            z.register_hook(_count_backward)  # type: ignore[no-untyped-call]
        images: Tensor = pair.G(z, *label)
        return images

    def _count_backward(grad: Tensor) -> None:
        out.g_backward += len(grad)

    def D(x: Tensor, *label: Tensor) -> Any:
        out.d_rows += len(x)
        return pair.need_critic().call(x, *label)

    def _count_weight(_: Tensor) -> None:
        out.weight_gradients += 1

    for module in pair.modules():
        for p in module.parameters():
            if p.requires_grad:
                p.register_hook(_count_weight)
    critic = replace(pair.critic, call=D) if pair.critic else None
    out.pair = pair.replaced(G=G, critic=critic)
    return out
