"""More penalties on D, and what is done to its weights after a step. The usual two (gradient penalty, R1): pieces.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..strategies.base import need_positive
from .pieces import Net, rows_norm
from .shifts import still


@dataclass(frozen=True)
class WGANDiv:
    """k mean |grad_x D(x_hat)|^p over points between real and generated ones (WGAN-div: k = 2, p = 6).

    Written without a square root: (sum of squares)^(p/2), whose slope at 0 is 0.
    """

    k: float = 2.0  # weight
    p: float = 6.0  # power of the norm

    def __post_init__(self) -> None:
        need_positive(k=self.k, p=self.p)

    def __call__(self, D: Net, real: Tensor, fake: Tensor, label: Tensor | None, generator: torch.Generator) -> Tensor:
        t = torch.rand(real.shape[0], *[1] * (real.ndim - 1), generator=generator).to(real)
        x = t * real + (1 - t) * fake
        if not x.requires_grad:
            x.requires_grad_(True)
        (grad,) = torch.autograd.grad(D(x, label).sum(), x, create_graph=True)
        return self.k * grad.flatten(1).square().sum(1).pow(self.p / 2).mean()


@dataclass(frozen=True)
class RobDis:
    """weight |phi(x + e g) - phi(x)|_F for real and for generated x: the robust feature matching that DAT is compared with.

    phi: what D's last layer is given; g: the gradient by x of D's mean logit, of length 1 per row; e: `eps`. The norm is over
    the whole batch, as published, so it grows as the square root of the rows. `reduce="row"`: mean of the rows' norms.
    """

    weight: float = 10.0
    eps: float = 1e-4  # length of the shift in image space
    reduce: Literal["batch", "row"] = "batch"

    def __call__(self, D: Any, real: Tensor, fake: Tensor, label: Tensor | None, generator: torch.Generator) -> Tensor:
        total = real.new_zeros(())
        for x, sign in ((real.detach(), -1.0), (fake.detach(), 1.0)):
            x = x.clone().requires_grad_(True)  # noqa: PLW2901
            with still(D):
                (g,) = torch.autograd.grad(D(x, label).sum(), x)
            unit = sign * g / rows_norm(g).view(-1, *[1] * (x.ndim - 1))
            x = x.detach()  # noqa: PLW2901
            with still(D):
                moved = D.features(x + self.eps * unit, label) - D.features(x, label)
            total = total + (rows_norm(moved).mean() if self.reduce == "row" else (moved.square().sum() + 1e-24).sqrt())
        return self.weight * total


@dataclass(frozen=True)
class ClassLoss:
    """Cross-entropy of the class logits in D's step: of real images, and with `fake` of generated ones (ACGAN)."""

    weight: float = 1.0
    fake: bool = True

    def __call__(self, D: Any, real: Tensor, fake: Tensor, label: Tensor | None, generator: torch.Generator) -> Tensor:
        if label is None:
            raise UsageError("a class term needs labels", way_out="Give data with labels, or leave the term out.")
        loss = F.cross_entropy(D.class_logits(real, label), label)
        if self.fake:
            loss = loss + F.cross_entropy(D.class_logits(fake, label), label)
        return self.weight * loss


@dataclass(frozen=True)
class WeightClip:
    """Clamp every weight and bias of D to [-c, c] after each of its steps (WGAN: c = 0.01; AdvLatGAN's code: 0.1)."""

    c: float = 0.01

    def __post_init__(self) -> None:
        need_positive(c=self.c)

    @torch.no_grad()
    def __call__(self, D: nn.Module) -> None:
        for p in D.parameters():
            p.clamp_(-self.c, self.c)
