"""The residual pair at 48x48 (512 channels down to 64 and back): the engine's rewritten form beside the plain one."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.precision import networks as forms
from ..engine.run import Settings
from ..model import Pair, frozen_copy

Z = 128


class _Up(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.conv1, self.conv2, self.side = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1), nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor) -> Tensor:
        t = self.conv1(F.interpolate(F.relu(self.bn1(x)), scale_factor=2))
        return self.conv2(F.relu(self.bn2(t))) + self.side(F.interpolate(x, scale_factor=2))  # type: ignore[no-any-return]


class _Down(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.side = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1), nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv2(F.relu(self.conv1(F.relu(x)))), 2) + F.avg_pool2d(self.side(x), 2)


class _G(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.first = widths[0]
        self.linear = nn.Linear(Z, widths[0] * 36)
        self.blocks = nn.Sequential(*[_Up(a, b) for a, b in itertools.pairwise(widths)])
        self.bn, self.conv = nn.BatchNorm2d(widths[-1]), nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.linear(z).reshape(z.shape[0], self.first, 6, 6))
        return torch.tanh(self.conv(F.relu(self.bn(h))))


class _D(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[_Down(a, b) for a, b in itertools.pairwise(widths)])
        self.linear = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.relu(self.blocks(x)).sum((2, 3)))  # type: ignore[no-any-return]


def pair_c(shrink: int = 1) -> Pair:
    """Return the residual pair with weights from a seed and batch-norm statistics of one batch."""
    keep = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        up, down = ([w // shrink for w in widths] for widths in ((512, 256, 128, 64), (64, 128, 256, 512)))
        G, D = _G(up), _D([3, *down])
        with torch.no_grad():
            for m in G.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.momentum = None  # one batch: its own statistics
            G(torch.randn(16, Z))
        return Pair.wrap(G.eval(), D.eval(), z_size=Z, name="C")
    finally:
        torch.set_rng_state(keep)


def rewritten(*, rows: int = 8, rounds: int = 7, shrink: int = 1) -> dict[str, Any]:
    """Return the time of the engine's form over the plain form's (and its channels-last form's): forward and gradient to z,
    float32, median, least and greatest of paired rounds; and the greatest difference of scores over their scale."""
    pair = pair_c(shrink)
    assert pair.critic is not None
    G, D = frozen_copy(pair.G), frozen_copy(pair.critic.call)
    last = [frozen_copy(net).to(memory_format=torch.channels_last) for net in (G, D)]
    mine = forms(pair, Settings()).moving
    z = torch.randn(rows, Z, generator=torch.Generator().manual_seed(1))

    def step(score: Callable[[Tensor], Tensor]) -> Tensor:
        q = z.clone().requires_grad_(True)
        value = score(q)
        torch.autograd.grad(value.sum(), q)
        return value.detach().flatten()

    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda q: D(G(q)),
        "channels last": lambda q: last[1](last[0](q)),
        "engine": lambda q: mine.logit(mine.generate(q)),
    }
    scores = {name: step(call) for name, call in calls.items()}  # also the warm-up
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = time.process_time()
            step(call)
            took[name].append(time.process_time() - before)

    def beside(name: str) -> tuple[float, float, float]:
        ratios = [a / b for a, b in zip(took["engine"], took[name], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    far = float((scores["engine"] - scores["plain"]).abs().max() / scores["plain"].abs().max())
    return {"to_plain": beside("plain"), "to_channels_last": beside("channels last"), "scores_differ": far}
