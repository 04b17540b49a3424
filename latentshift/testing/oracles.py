"""Pairs whose refinement has a closed form: linear G and D, and the start of a test run on any pair."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from ..engine.run import Engine, Run, Settings
from ..model import Critic, Pair
from ..noise import latents
from ..objective import Term
from ..space import Normal, Prior, Space, Uniform
from ..strategies.base import Strategy

# the linear pair of the closed forms: x = A z, d = w.x, so d(G(z)) = v.z with v = A^T w = (0.3, -0.25)
A = ((1.0, 0.5), (0.0, 2.0))
W = (0.3, -0.2)
V = (0.3, -0.25)


def linear_pair(
    a: Sequence[Sequence[float]] = A,
    w: Sequence[float] = W,
    *,
    shift: float = 0.0,
    prior: Prior | None = None,
    returns: str = "logit",
    differentiable: bool = True,
) -> Pair:
    """Return the pair G(z) = a z, d(x) = w.x + shift."""
    G = torch.nn.Linear(len(a[0]), len(a), bias=False).eval().requires_grad_(False)
    D = torch.nn.Linear(len(w), 1).eval().requires_grad_(False)
    with torch.no_grad():
        G.weight.copy_(torch.tensor(a))
        D.weight.copy_(torch.tensor([w]))
        D.bias.fill_(shift)
    return Pair.wrap(G, D, z_size=len(a[0]), prior=prior, returns=returns, differentiable=differentiable, name="linear")


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
