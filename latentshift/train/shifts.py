"""Shifts: what moves the latents or the images of D's step before D sees them.

A shift is pure. It changes no weight, no gradient, no buffer, no mode and no global random number: running statistics and
the vectors of spectral norm are as they were, which the published code does not care for. What comes back carries no graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..landscape import landscape_of
from ..model import Critic, Pair
from ..noise import Draw, row_seeds
from ..space import Space
from ..strategies.base import Strategy, where_rows

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def has_dropout(*nets: Any) -> bool:
    """Whether a network draws random numbers of its own in training."""
    return any(isinstance(m, _DROPOUT) for net in nets for m in net.modules())


@contextlib.contextmanager
def still(*nets: Any, stats: Literal["batch", "running"] = "batch") -> Iterator[None]:
    """Let networks be evaluated without a trace: buffers and modes are as before on leaving.

    Inside, spectral norm uses the vectors that it has and dropout is off; batch norm uses the batch's statistics, or with
    `stats="running"` its running ones, which keeps rows independent. Callables that are no modules are left alone.
    """
    modules = [m for net in nets if isinstance(net, nn.Module) for m in net.modules()]
    quiet = (
        modules if stats == "running" else [m for m in modules if isinstance(m, (parametrizations._SpectralNorm, *_DROPOUT))]
    )
    buffers = [(b, b.clone()) for net in nets if isinstance(net, nn.Module) for b in net.buffers()]
    modes = [(m, m.training) for m in quiet]
    for m in quiet:
        m.training = False
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
        with torch.no_grad():
            for b, saved in buffers:
                b.copy_(saved)


@dataclass(frozen=True)
class Climb:
    """AdvLatGAN-qua (paper 000 Alg. 1): D is trained on the best samples near the drawn latents.

    `strategy` is one of the library's: `IFGSM(steps=1, step_size=eps, eps=None, support="free")` is the published form
    (t_z = 1, so step and radius are one; for more steps give the radius, which the published code lacks). It climbs the raw
    logit of the D in training. With batch norm in G or D the rows of `stats="batch"` see each other, as published.
    Cost: one forward of G and D and one backward to z per step; no gradient of any weight is computed.
    """

    strategy: Strategy
    stats: Literal["batch", "running"] = "batch"

    def __call__(self, z: Tensor, label: Tensor | None, G: Callable[..., Tensor], D: Callable[..., Tensor]) -> Tensor:
        z = z.detach()
        pair = Pair(
            G,
            Critic(D, labels=label is not None),
            Space("z", tuple(z.shape[1:])),
            name="the pair in training",
            classes=None if label is None else int(label.max()) + 1,
        )
        land = landscape_of(pair, z, label=label)
        # noise, where a strategy wants some, is a function of the row itself: the global generator is not touched
        draw = Draw(torch.tensor(row_seeds(z.cpu().numpy()), dtype=torch.int64, device=z.device))
        self.strategy.check(land)
        with still(G, D, stats=self.stats):
            state = self.strategy.init(z, land, draw)
            for t in range(self.strategy.steps):
                fresh, _ = self.strategy.step(state, t, land, draw)
                state = where_rows(state.done, state, fresh)
            return self.strategy.finish(state, land).point.detach()


@dataclass(frozen=True)
class TowardsOther:
    """DAT, direct adversarial training (paper 002 Eq. 9 to 11), in the batch form of the published code.

    D's images move one gradient step towards the mean score of the other side; `eps` belongs to the batch form (eps / rows
    for each row). `clamp` is the image range, None for 2-D points.
    """

    eps: float = 1.0
    clamp: tuple[float, float] | None = (-1.0, 1.0)

    def __call__(self, D: Callable[..., Tensor], real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        x = real.detach().requires_grad_(True)
        f = fake.detach().requires_grad_(True)
        with still(D):
            dx, df = D(x, label).mean(), D(f, label).mean()
            (gx,) = torch.autograd.grad((dx - df.detach()).abs(), x)
            (gf,) = torch.autograd.grad((df - dx.detach()).abs(), f)
        x, f = (x - self.eps * gx).detach(), (f - self.eps * gf).detach()
        if self.clamp is not None:
            x, f = x.clamp(*self.clamp), f.clamp(*self.clamp)
        return x, f
