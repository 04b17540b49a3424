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

from ..errors import UsageError
from ..landscape import landscape_of
from ..model import Critic, Pair
from ..noise import Draw, row_seeds
from ..space import Space
from ..strategies.base import Strategy, where_rows
from .pieces import LOSSES

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


def moved(
    strategy: Strategy,
    z: Tensor,
    label: Tensor | None,
    G: Callable[..., Tensor],
    D: Callable[..., Tensor] | None,
    stats: Literal["batch", "running"] = "batch",
    space: Space | None = None,
) -> Tensor:
    """Return `z` (rows, *shape) after a strategy of the library on the live networks, without a trace and without a graph."""
    z = z.detach()
    pair = Pair(
        G,
        None if D is None else Critic(D, labels=label is not None),
        space or Space("z", tuple(z.shape[1:])),
        name="the pair in training",
        classes=None if label is None else int(label.max()) + 1,
    )
    land = landscape_of(pair, z, label=label)
    # noise, where a strategy wants some, is a function of the row itself: the global generator is not touched
    draw = Draw(torch.tensor(row_seeds(z.cpu().numpy()), dtype=torch.int64, device=z.device))
    strategy.check(land)
    with still(G, D, stats=stats):
        state = strategy.init(z, land, draw)
        for t in range(strategy.steps):
            fresh, _ = strategy.step(state, t, land, draw)
            state = where_rows(state.done, state, fresh)
        return strategy.finish(state, land).point.detach()


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
    space: Space | None = None  # the latents' space with its prior; None: normal

    def __call__(self, z: Tensor, label: Tensor | None, G: Callable[..., Tensor], D: Callable[..., Tensor]) -> Tensor:
        return moved(self.strategy, z, label, G, D, self.stats, self.space)


@dataclass(frozen=True)
class TowardsOther:
    """DAT, direct adversarial training (paper 002 Eq. 9 to 11).

    Every image of D's step moves one gradient step towards the mean score of the other side. `reduce` "batch" is the published
    code: it compares two batch means, so a row moves by eps / rows times its gradient, all rows the same way, and its eps is
    1. "row" is Eq. 10 as printed: each row by its own difference; its useful eps is near 1 / rows. `link` "logit" is the code
    (and the Wasserstein form); "bce" takes the scores of Eq. 10 for the plain loss, g1(t) = -softplus(-t) for real images and
    g2(t) = -softplus(t) for generated ones. No component moves farther than `limit` (the published code's 1; None: no limit).
    `clamp` is the image range, None for 2-D points.
    """

    eps: float = 1.0
    clamp: tuple[float, float] | None = (-1.0, 1.0)
    reduce: Literal["batch", "row"] = "batch"
    link: Literal["logit", "bce"] = "logit"
    limit: float | None = 1.0

    def __post_init__(self) -> None:
        if self.reduce not in ("batch", "row") or self.link not in ("logit", "bce"):
            raise UsageError(f"reduce is batch or row and link logit or bce, not {self.reduce!r} and {self.link!r}")

    def _towards(self, own: Tensor, other: Tensor, x: Tensor) -> Tensor:
        away = (own.mean() - other.mean()).abs() if self.reduce == "batch" else (own - other.mean()).abs().sum()
        return torch.autograd.grad(away, x, retain_graph=self.link == "bce")[0]

    def __call__(self, D: Callable[..., Tensor], real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        x = real.detach().requires_grad_(True)
        f = fake.detach().requires_grad_(True)
        with still(D):
            dx, df = D(x, label).flatten(), D(f, label).flatten()
            if self.link == "bce":
                sp = torch.nn.functional.softplus
                gx = self._towards(-sp(-dx), -sp(-df.detach()), x)
                gf = self._towards(-sp(df), -sp(dx.detach()), f)
            else:
                gx, gf = self._towards(dx, df.detach(), x), self._towards(df, dx.detach(), f)
        dx, df = -self.eps * gx, -self.eps * gf
        if self.limit is not None:
            dx, df = dx.clamp(-self.limit, self.limit), df.clamp(-self.limit, self.limit)
        return _within(x + dx, self.clamp), _within(f + df, self.clamp)


def _within(x: Tensor, clamp: tuple[float, float] | None) -> Tensor:
    return x.detach() if clamp is None else x.detach().clamp(*clamp)


@dataclass(frozen=True)
class AgainstLoss:
    """ASGAN: one sign step of every image that lowers what D maximises (raises D's own loss); D is trained on the moved images.

    `eps` is in the units of the images: the papers' 1/255 of a [0, 1] range is 2/255 of [-1, 1]. `fake`: generated images too.
    """

    loss: str = "bce"
    eps: float = 1 / 255
    clamp: tuple[float, float] | None = (-1.0, 1.0)
    fake: bool = True

    def __call__(self, D: Callable[..., Tensor], real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        x, f = real.detach().requires_grad_(True), fake.detach().requires_grad_(True)
        pair = LOSSES[self.loss]
        assert pair.d is not None
        with still(D):
            rows = real.shape[0]  # times the rows: the sign must not underflow
            gx, gf = torch.autograd.grad(rows * pair.d(D(x, label).flatten(), D(f, label).flatten()), (x, f))
        x = _within(x + self.eps * gx.sign(), self.clamp)
        return x, _within(f + self.eps * gf.sign(), self.clamp) if self.fake else fake


@dataclass(frozen=True)
class Both:
    """Keep the rows as they were beside the shifted ones: D is trained on twice the rows (DATT)."""

    shift: Any

    def __call__(self, D: Callable[..., Tensor], real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        x, f = self.shift(D, real, fake, label)
        return torch.cat([real, x]), torch.cat([fake, f])
