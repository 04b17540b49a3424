"""The pieces of a training run: loss pairs on logits, the usual penalties, augmentation, averaging, spectral norm.

Shifts: shifts.py; more penalties and the weight clip: penalties.py; terms of G: terms.py; AdvAs: assistant.py.
Sources: the saturating-free BCE, hinge (SNGAN), Wasserstein and least-squares losses as in paper 000 H and J; the
relativistic pair of Jolicoeur-Martineau 2018; gradient penalty of WGAN-GP and LP; R1. All take raw logits; none of them
calls `.backward`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from ..layers import LayerNet

Net = Callable[..., Tensor]


@dataclass(frozen=True)
class LossPair:
    """Two losses on logits: `d(real, fake)` and `g(fake)`, both scalars to be minimised.

    With `relative`, G's loss compares with real images too: `g(fake, real)`. `middle` is the logit between the two sides, None
    where the scale has no zero. The pair "none" has no losses: D is not asked, and G's terms are all there is.
    """

    name: str
    d: Callable[[Tensor, Tensor], Tensor] | None
    g: Callable[..., Tensor] | None
    relative: bool = False
    middle: float | None = None


LOSSES: dict[str, LossPair] = {
    pair.name: pair
    for pair in (
        # softplus(-d) and not log(sigmoid(d)): the latter has a NaN gradient in float32 from d about 17 up
        LossPair("bce", lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(), lambda f: F.softplus(-f).mean(), middle=0.0),
        LossPair("hinge", lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), lambda f: -f.mean(), middle=0.0),
        LossPair("wasserstein", lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
        LossPair(
            "least-squares",
            lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
            lambda f: 0.5 * (f - 1).square().mean(),
            middle=0.5,
        ),
        LossPair("relativistic", lambda r, f: F.softplus(f - r).mean(), lambda f, r: F.softplus(r - f).mean(), relative=True),
        LossPair("none", None, None),
    )
}


def rows_norm(grad: Tensor) -> Tensor:
    return (grad.flatten(1).square().sum(1) + 1e-12).sqrt()


@dataclass(frozen=True)
class GradientPenalty:
    """weight * mean((|grad_x D(x_hat)| - target)^2), x_hat = t x + (1 - t) f with one t per row (WGAN-GP).

    `one_sided` gives the LP form: only norms above the target count.
    """

    weight: float = 10.0
    target: float = 1.0
    one_sided: bool = False

    def __call__(self, D: Net, real: Tensor, fake: Tensor, label: Tensor | None, generator: torch.Generator) -> Tensor:
        t = torch.rand(real.shape[0], *[1] * (real.ndim - 1), generator=generator).to(real)
        x = t * real + (1 - t) * fake
        if not x.requires_grad:  # it does where G is to feel the penalty (AdvAs)
            x.requires_grad_(True)
        (grad,) = torch.autograd.grad(D(x, label).sum(), x, create_graph=True)
        excess = rows_norm(grad) - self.target
        if self.one_sided:
            excess = F.relu(excess)
        return self.weight * excess.square().mean()


@dataclass(frozen=True)
class R1:
    """gamma / 2 * mean |grad_x D(x)|^2 on real images."""

    gamma: float = 1.0

    def __call__(self, D: Net, real: Tensor, fake: Tensor, label: Tensor | None, generator: torch.Generator) -> Tensor:
        x = real.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(D(x, label).sum(), x, create_graph=True)
        return 0.5 * self.gamma * grad.flatten(1).square().sum(1).mean()


@dataclass(frozen=True)
class ShiftAndFlip:
    """Differentiable augmentation: a horizontal flip and a shift by up to `pixels`, drawn per row.

    The same rule for real and generated images in D's and in G's step, so that nothing leaks into the samples.
    """

    pixels: int = 3
    flip: bool = True
    fill: float = -1.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        rows, p = x.shape[0], self.pixels
        if self.flip:
            mask = torch.rand(rows, 1, 1, 1, generator=generator).to(x) < 0.5
            x = torch.where(mask, x.flip(3), x)
        if p:
            height, width = x.shape[2:]
            dy = torch.randint(0, 2 * p + 1, (rows, 1), generator=generator).to(x.device)
            dx = torch.randint(0, 2 * p + 1, (rows, 1), generator=generator).to(x.device)
            padded = F.pad(x, (p, p, p, p), value=self.fill)
            iy = (dy + torch.arange(height, device=x.device)).view(rows, 1, height, 1)
            ix = (dx + torch.arange(width, device=x.device)).view(rows, 1, 1, width)
            x = padded[
                torch.arange(rows, device=x.device).view(-1, 1, 1, 1),
                torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1),
                iy,
                ix,
            ]
        return x


class Average:
    """Exponential moving average of a network: decay min(beta, (1 + t) / (10 + t)); integer buffers are copied.

    With constant weights w: ema_n = w + beta^n (ema_0 - w) once the warm-up is over.
    """

    def __init__(self, net: nn.Module, beta: float) -> None:
        self.beta = beta
        self.net = copy.deepcopy(net).requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.beta, (1 + step) / (10 + step))
        for mine, theirs in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point and decay > 0:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def add_spectral_norm(net: LayerNet, seed: int = 0) -> LayerNet:
    """Normalise every weighted layer of `net` by its largest singular value (one power step per forward in training).

    Layers that are normalised already stay so. The power iteration starts from `seed`, not from the global random state.
    """
    layers = [m for m in net.stack if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    with torch.random.fork_rng(sorted({m.weight.get_device() for m in layers if m.weight.is_cuda})):
        torch.manual_seed(seed)
        for module in layers:
            if not parametrize.is_parametrized(module, "weight"):
                parametrizations.spectral_norm(module)
    return net


def baked(net: LayerNet) -> LayerNet:
    """Return a plain copy of `net` in evaluation mode, spectral norms multiplied into the weights; `net` stays as it is."""
    modes = [(m, m.training) for m in net.modules()]
    net.eval()  # a spectral norm in training mode would take a power step when its weight is read
    plain = LayerNet(net.entries, where=net.where, meta=True)
    tensors: dict[str, Tensor] = {}
    for entry, module, blank in zip(net.entries, net.stack, plain.stack, strict=True):
        key = str(entry.get("key", ""))
        for name in blank.state_dict():
            owner: object = module
            for part in name.split("."):
                owner = getattr(owner, part)
            assert isinstance(owner, Tensor)
            short = name.removeprefix("embed.")
            tensors[f"{key}.{short}" if key else short] = owner.detach().clone()
    for m, training in modes:
        m.training = training
    return plain.load(tensors).eval()


def initialise(net: LayerNet, std: float, generator: torch.Generator) -> LayerNet:
    """Draw weights from N(0, std^2), norm scales from N(1, std^2), biases 0 (the DCGAN convention)."""
    with torch.no_grad():
        for module in net.stack:
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.weight.normal_(0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.normal_(1, std, generator=generator)
                module.bias.zero_()
    return net
