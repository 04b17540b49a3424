"""Pairs whose refinement has a closed form (a linear one, a quadratic one, any function), a pair with its calls counted, and
the short way from a strategy to the points that it makes."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.run import Engine, Run, Settings
from ..model import Critic, Pair
from ..noise import latents
from ..objective import Term
from ..space import Normal, Prior, Space, Uniform, rows_sum
from ..strategies.base import Strategy

V = (0.3, -0.25)  # the slope of the default linear pair's score in z


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
    differentiable: bool = True,
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
    critic = Critic(D, "linear", returns, differentiable=differentiable)
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


def function_pair(f: Any, size: int, prior: Prior, *, returns: str = "critic", differentiable: bool = True) -> Pair:
    """Return the pair G(z) = z, d(x) = f(x) for a function of rows (rows, size) -> (rows,)."""
    return Pair(lambda z: z, Critic(f, "f", returns, differentiable=differentiable), Space("z", (size,), prior), "function")


@functools.cache  # twenty thousand seeds take seconds
def _drawn(first: int, rows: int, shape: tuple[int, ...], prior: Prior) -> torch.Tensor:
    return torch.from_numpy(latents(range(first, first + rows), shape, prior))


def refined(
    strategy: Strategy,
    pair: Pair,
    rows: int = 64,
    *,
    z0: torch.Tensor | None = None,
    first: int = 0,
    reals: Any = None,
    objective: Term | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, Run]:
    """Return the points (rows, *shape) that a strategy makes of seeds `first`, `first` + 1, ..., and the run."""
    seeds = range(first, first + rows)
    if z0 is None:
        prior = pair.space.prior
        draw = _drawn if type(prior) in (Normal, Uniform) else _drawn.__wrapped__
        z0 = draw(first, rows, pair.space.shape, prior).clone()
    settings.setdefault("chunk", -(-rows // 8) * 8)
    run = Engine(strategy, pair, objective=objective, settings=Settings(**settings), reals=reals).run(z0, seeds)
    return torch.cat([torch.from_numpy(c.point) for c in run.chunks]), run


def column(run: Run, name: str) -> torch.Tensor:
    """Return a column of a run's chunks, or a number of the method's own, as one tensor."""
    parts = [(c.extra or {}).get(name) if name in (c.extra or {}) else getattr(c, name) for c in run.chunks]
    return torch.cat([torch.as_tensor(p) for p in parts])
