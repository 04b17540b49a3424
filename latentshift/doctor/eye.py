"""An eye: what features of an image see of a set, as distance, density and coverage on its first principal components.

Features are projected on the first components of the real images and scaled to total variance 1 there, so that a change reads
alike whatever the network. FD is 100 times the Frechet distance in that plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from ..errors import RequestError
from ..metrics.coverage import prdc, prdc_rows
from ..metrics.distance import frechet_gaussian
from ..metrics.features import extract
from ..metrics.networks import SqueezeNet, load_network
from ..train.trunks import BUNDLED

Array = np.ndarray[Any, Any]
K = 5  # neighbours of density and coverage


def _sd(values: Array) -> float:
    return float(values.std(ddof=1)) + 1e-9


class Change(NamedTuple):
    """Raw and refined value of a metric, the change in standard deviations of the change (its sign: + is better)."""

    metric: str
    before: float
    after: float
    better: float


class Eye:
    """`look` gives features (n, size) of uint8 images (n, C, H, W); `reals` are the reference, fixed."""

    def __init__(
        self, name: str, look: Callable[[Array], Array], reals: Array, components: int = 48, limit: int = 2000
    ) -> None:
        self.name, self.look = name, look
        seen = look(reals[:limit]).astype(np.float64)
        if len(seen) < 2 * K:
            raise RequestError(f"{len(seen)} real images are too few to judge by", way_out=f"Give {2 * K} or more.")
        self.mean = seen.mean(0)
        _, _, axes = np.linalg.svd(seen - self.mean, full_matrices=False)
        self.axes = axes[:components]
        plane = (seen - self.mean) @ self.axes.T
        self.unit = float(np.sqrt(plane.var(0).sum())) or 1.0
        self.reals = plane / self.unit
        self.moments = self.reals.mean(0), np.cov(self.reals.T)

    def see(self, images: Array) -> Array:
        """Return images as points of the plane."""
        seen: Array = (self.look(images).astype(np.float64) - self.mean) @ self.axes.T / self.unit
        return seen

    def distance(self, points: Array) -> float:
        """Return 100 times the Frechet distance of points to the real ones."""
        return 100 * frechet_gaussian(points.mean(0), np.cov(points.T), *self.moments)

    def changes(self, a: Array, b: Array, *, paired: bool, draws: int = 40) -> list[Change]:
        """Return the changes of FD, density and coverage between two sets of points (rows of one seed if paired)."""
        balls = [prdc_rows(self.reals, x, k=K).balls / K for x in (a, b)]
        random = np.random.default_rng(0)
        fd, density = np.empty(draws), np.empty(draws)
        for i in range(draws):
            rows = random.integers(len(a), size=len(a))
            other = rows if paired and len(a) == len(b) else random.integers(len(b), size=len(b))
            fd[i] = self.distance(b[other]) - self.distance(a[rows])
            density[i] = balls[1][other].mean() - balls[0][rows].mean()
        whole = [prdc(self.reals, x, k=K) for x in (a, b)]
        c0, c1 = whole[0].coverage, whole[1].coverage
        spread = np.sqrt((c0 * (1 - c0) + c1 * (1 - c1)) / len(self.reals)) + 1e-9
        d0, d1 = self.distance(a), self.distance(b)
        return [
            Change("FD", d0, d1, (d0 - d1) / _sd(fd)),
            Change("density", balls[0].mean(), balls[1].mean(), float(balls[1].mean() - balls[0].mean()) / _sd(density)),
            Change("coverage", c0, c1, float((c1 - c0) / spread)),
        ]


class Pooled(nn.Module):
    """Means over place of what SqueezeNet's fire`last` gives."""

    def __init__(self, net: SqueezeNet, last: int) -> None:
        super().__init__()
        self.net, self.last = net, last

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.net.trunk(x, self.last).mean((2, 3)), None


def squeezenet(side: int, last: int = 9) -> Callable[[Array], Array]:
    """Return the features of the bundled SqueezeNet up to fire`last`, for images of `side` pixels seen at 64 or 128.

    fire9 gives 512, fire5 256.
    """
    network = load_network(BUNDLED, size=64 if side <= 64 else 128)
    assert isinstance(network.net, SqueezeNet)
    network = replace(network, net=Pooled(network.net, last))
    return lambda images: extract(network, images, batch=128).features.numpy()


def pixels(images: Array) -> Array:
    """The pixels themselves, 0..1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255
