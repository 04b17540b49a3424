"""A small binary head on frozen features of D: log odds from a critic that is none (what DDLS used for SNGAN).

    l(x) = w . f(x) + b,   f: what D's last layer reads

Fitted by maximum likelihood with a ridge, on real images and fresh samples of G; the ridge is chosen on rows held out of the
fit. log(n_real / n_generated) is taken off b, so that 0 means even odds. Same data, same head: nothing is drawn but by seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .calibration import auc, z_statistic
from .engine.prepare import Stack
from .errors import MissingCapabilityError, RequestError
from .hidden import cuts, row_of_layers
from .model import Critic, Pair
from .noise import SEED_LIMIT, Draw, latents

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # on standardised features, per row of the fit
HELD = 5  # every so many-th row is held out
BLOCK = 64  # rows at a time


class _OnFeatures(nn.Module):
    """The head on what an adapter gives as features."""

    def __init__(self, critic: Critic, head: nn.Linear) -> None:
        super().__init__()
        self.critic, self.head = critic, head

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        call = self.critic.features_call
        assert call is not None
        f = call(x, label) if self.critic.labels else call(x)
        out: Tensor = self.head(f.flatten(1))
        return out


@dataclass(frozen=True, eq=False)
class FittedHead:
    """The critic, and how it does on the rows that were held out: AUC and the calibration's Z (below 2 in size passes)."""

    critic: Critic
    auc: float
    z: float
    ridge: float
    rows: tuple[int, int]


def wants_head(strategy: Any) -> bool:
    """Whether a method asked for a head on D's features in place of a calibration."""
    return any(getattr(part, "calibration", None) == "head" and part.slope is None for part in strategy.parts)


def _parts(pair: Pair) -> list[nn.Module] | None:
    critic = pair.need_critic()
    if critic.features_call is not None:
        return None
    layers = row_of_layers(critic.call) if isinstance(critic.call, nn.Module) else None
    places = cuts(layers) if layers else []
    if not layers or len(places) < 2:
        raise MissingCapabilityError(
            f"a head on D's features cannot be fitted: the critic of {pair.name!r} gives no features",
            way_out="Use --calibration logistic, or an adapter with features_call.",
        )
    return [*layers[: places[-1]], nn.Flatten()]


def features_of(pair: Pair) -> Callable[[Tensor], Tensor] | None:
    """Return images -> (rows, n) features of the pair's own D, the input of its last layer; None where D gives none or wants
    labels."""
    if pair.critic is None or pair.critic.labels:
        return None
    try:
        parts = _parts(pair)
    except MissingCapabilityError:
        return None
    net = None if parts is None else Stack(parts).eval()
    return lambda images: _features(pair, net, images, None)


def _features(pair: Pair, net: nn.Module | None, images: Tensor, labels: Tensor | None) -> Tensor:
    out = []
    with torch.no_grad():
        for index in torch.split(torch.arange(len(images)), BLOCK):
            x = images[index].to(pair.device, pair.compute_dtype)
            y = None if labels is None else labels[index].to(pair.device)
            f = pair.features(x, y) if net is None else net(x, y)
            out.append(f.flatten(1).double().cpu())
    return torch.cat(out)


def _fake(pair: Pair, rows: int) -> tuple[Tensor, Tensor | None]:
    seeds = [SEED_LIMIT - 1 - i for i in range(rows)]
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    label = None
    if pair.classes:
        label = Draw(torch.tensor(seeds)).bits(0, "label", 1)[:, 0] * pair.classes >> 32
    made = []
    with torch.no_grad():
        for index in torch.split(torch.arange(rows), BLOCK):
            y = None if label is None else label[index].to(pair.device)
            made.append(pair.generate(z[index].to(pair.device, pair.compute_dtype), y).cpu())
    return torch.cat(made), label


def _fit(f: Tensor, y: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return (w, b) of a ridge logistic fit on standardised features."""
    w = torch.zeros(f.shape[1], dtype=f.dtype, requires_grad=True)
    b = torch.zeros((), dtype=f.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([w, b], max_iter=300, history_size=20, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        u = f @ w + b
        value: Tensor = (nn.functional.softplus(u) - y * u).mean() + 0.5 * ridge * w.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return w.detach(), b.detach()


def fit_head(pair: Pair, reals: Any, *, rows: int = 5000) -> FittedHead:
    """Return a critic of log odds: a linear head on the frozen features of the pair's own D.

    `reals`: real images in the pair's range (n, ...), or (images, labels) for a conditional critic; `rows` samples of G stand
    against them. Raises MissingCapabilityError where D gives no features, RequestError for too few or odd real images.
    """
    layers = _parts(pair)
    images, labels = reals if isinstance(reals, tuple) else (reals, None)
    images = torch.as_tensor(images)
    if pair.image_shape is not None and tuple(images.shape[1:]) != pair.image_shape:
        raise RequestError(f"real images have shape {tuple(images.shape)}, this pair makes (rows, {pair.image_shape})")
    if len(images) < 2 * HELD:
        raise RequestError(f"{len(images)} real images are too few for a head", way_out=f"Give {2 * HELD} or more.")
    if labels is None and pair.need_critic().labels and pair.classes:
        raise RequestError(f"the critic of {pair.name!r} is conditional", way_out="Give reals as (images, labels).")
    net = None if layers is None else Stack(layers).eval()
    made, made_labels = _fake(pair, max(rows, 2 * HELD))
    real = _features(pair, net, images, None if labels is None else torch.as_tensor(labels))
    fake = _features(pair, net, made, made_labels if pair.need_critic().labels else None)
    f = torch.cat([real, fake])
    y = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))]).double()
    mean, std = f.mean(0), f.std(0)
    std = torch.where(std > 1e-8 * std.max().clamp_min(1e-30), std, torch.inf)  # a feature that never varies says nothing
    f = (f - mean) / std
    held = torch.from_numpy(np.arange(len(f)) % HELD == 0)
    found = []
    for ridge in RIDGES:
        w, b = _fit(f[~held], y[~held], ridge)
        u = f[held] @ w + b
        found.append((float((nn.functional.softplus(u) - y[held] * u).mean()), ridge, w, b))
    _, ridge, w, b = min(found, key=lambda row: row[0])
    offset = math.log(float(y[~held].sum()) / float((1 - y[~held]).sum()))
    u = f[held] @ w + b - offset
    told = u[y[held] == 1], u[y[held] == 0]
    like = torch.empty(0, dtype=pair.compute_dtype, device=pair.device)
    head = nn.Linear(f.shape[1], 1)
    head.weight = nn.Parameter((w / std)[None].to(like), requires_grad=False)
    head.bias = nn.Parameter((b - offset - (w * mean / std).sum())[None].to(like), requires_grad=False)
    critic = pair.need_critic()
    call = _OnFeatures(critic, head) if layers is None else Stack([*layers, head])
    made_critic = Critic(call.eval(), f"head on features of {critic.name}", "logit", "high", critic.labels)
    return FittedHead(made_critic, auc(*told), z_statistic(*told), ridge, (len(real), len(fake)))
