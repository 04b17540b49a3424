"""Spaces and their priors: what moves, where it may go, how far it went.

A `Space` is data: name, shape of one point, prior. `enter` makes a point of a prior latent, `decode` makes images of a point
with the networks it is handed (so the engine may hand it prepared ones). All methods act on rows: the first axis is the row,
a population axis may follow it. `eps` is the radius of the trust region everywhere, and nothing else; None is unconstrained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import RequestError, ShapeError, UsageError
from .lazy import numpy as np
from .lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .noise import Draw

Norm = Literal["inf", "2"]


class Context(NamedTuple):
    """What belongs to a row and does not move. Every tensor has rows as its first axis; None where a pair has none."""

    seed: Tensor
    label: Tensor | None = None
    point0: Tensor | None = None
    noise: Tensor | None = None  # held generator noise, flattened per row
    image0: Tensor | None = None
    companion: Tensor | None = None

    def _map(self, f: Callable[[Tensor], Tensor]) -> Context:
        parts: dict[str, Any] = {name: None if v is None else f(v) for name, v in self._asdict().items()}
        return Context(**parts)

    def select(self, index: Tensor) -> Context:
        """Return the context of the rows in `index`."""
        return self._map(lambda v: v[index])

    def first(self, rows: int) -> Context:
        """Return the context of the first rows."""
        return self._map(lambda v: v[:rows])

    def repeat(self, width: int) -> Context:
        """Return the context with every row `width` times in a row (for a population axis)."""
        return self._map(lambda v: v.repeat_interleave(width, 0))


def rows_sum(x: Tensor, axes: int) -> Tensor:
    """Sum the last `axes` axes, by halves: additions of whole columns give a row the same bits wherever it lies in a batch,
    which a library's own reduction does not."""
    if not axes:
        return x
    x = x.flatten(-axes)
    while (n := x.shape[-1]) > 1:
        half = n // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        x = torch.cat([folded, x[..., -1:]], -1) if n % 2 else folded
    return x[..., 0]


@dataclass(frozen=True)
class Prior:
    """A law of latents. Subclasses say how it draws, its log density (up to a constant), and its support."""

    kind = "none"
    bounded = False
    product = False  # whether coordinates are independent, so that one can be redrawn alone

    def draw(self, random: Any, shape: Sequence[int]) -> Any:
        raise RequestError(f"a {self.kind!r} prior cannot be drawn from")

    def sample(self, noise: Draw, t: Tensor | int, purpose: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """Return (rows, *shape) draws made of the rows' own noise for (t, purpose): redraws, proposals, candidates."""
        raise RequestError(f"a {self.kind!r} prior cannot be drawn from")

    def log_density(self, z: Tensor, axes: int) -> Tensor:
        return torch.zeros(z.shape[: z.ndim - axes], dtype=z.dtype, device=z.device)

    def score(self, z: Tensor) -> Tensor:
        """Gradient of the log density inside the support."""
        return torch.zeros_like(z)

    def clamp(self, z: Tensor) -> Tensor:
        return z

    def reflect(self, z: Tensor) -> Tensor:
        return z

    def inside(self, z: Tensor, axes: int) -> Tensor:
        return torch.ones(z.shape[: z.ndim - axes], dtype=torch.bool, device=z.device)

    def scale(self) -> float:
        """Standard deviation of one coordinate (1 where it has no meaning)."""
        return 1.0

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        """Return a point near `z`, whose law is the prior where z's is: `s` (0 stays, 1 is the longest move) sets how near,
        `noise` is standard normal, like z."""
        raise RequestError(f"a {self.kind!r} prior has no move that keeps it")

    def tangent(self, z: Tensor, v: Tensor) -> Tensor:
        """Return the part of `v` along the support at `z` (all of it, unless the support is curved)."""
        return v

    def move(self, z: Tensor, v: Tensor) -> Tensor:
        """Return where the tangent vector `v` leads from `z`; walls are not looked at."""
        return z + v

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the tangent vector at `a` that leads to `b`: the inverse of `move`."""
        return b - a

    def card(self) -> dict[str, Any]:
        """Return the form of a card's `z_prior`."""
        return {"kind": self.kind}


@dataclass(frozen=True)
class Flat(Prior):
    """No law: every point is as good as another (image space, a hidden layer).

    `spread` is the length of one unit of it, where there is one: a hidden layer's coordinates spread that far.
    """

    kind = "none"
    spread: float = 1.0

    def scale(self) -> float:
        return self.spread

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        return z + s * self.spread * noise


@dataclass(frozen=True)
class Normal(Prior):
    """N(0, I)."""

    kind = "normal"
    product = True

    def draw(self, random: Any, shape: Sequence[int]) -> Any:
        return random.randn(*shape)

    def sample(self, noise: Draw, t: Tensor | int, purpose: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        return noise.normal(t, purpose, shape, dtype)

    def log_density(self, z: Tensor, axes: int) -> Tensor:
        return -0.5 * rows_sum(z.square(), axes)

    def score(self, z: Tensor) -> Tensor:
        return -z

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        return _shrink(s) * z + s * noise


def _shrink(s: Tensor | float) -> Tensor | float:
    return (1 - s * s).clamp_min(0).sqrt() if isinstance(s, torch.Tensor) else math.sqrt(max(1 - s * s, 0.0))


def _fold(z: Tensor, low: float, high: float) -> Tensor:
    width = high - low
    y = torch.remainder(z - low, 2 * width)
    return torch.where(y > width, 2 * width - y, y).clamp(0, width) + low


@dataclass(frozen=True)
class Uniform(Prior):
    """Uniform on [low, high] per coordinate."""

    low: float = -1.0
    high: float = 1.0
    kind = "uniform"
    bounded = True
    product = True

    def draw(self, random: Any, shape: Sequence[int]) -> Any:
        return random.uniform(self.low, self.high, size=tuple(shape))

    def sample(self, noise: Draw, t: Tensor | int, purpose: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        return self.low + (self.high - self.low) * noise.uniform(t, purpose, shape, dtype)

    def clamp(self, z: Tensor) -> Tensor:
        return z.clamp(self.low, self.high)

    def reflect(self, z: Tensor) -> Tensor:
        return _fold(z, self.low, self.high)

    def inside(self, z: Tensor, axes: int) -> Tensor:
        return ((z >= self.low) & (z <= self.high)).flatten(-axes).all(-1)

    def scale(self) -> float:
        return (self.high - self.low) / math.sqrt(12)

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        return self.reflect(z + self.scale() * s * noise)

    def card(self) -> dict[str, Any]:
        return {"kind": "uniform", "low": self.low, "high": self.high}


@dataclass(frozen=True)
class TruncatedNormal(Prior):
    """N(0, 1) per coordinate, conditioned on [-bound, bound], times `factor` (BigGAN: bound 2, factor = truncation)."""

    bound: float = 2.0
    factor: float = 1.0
    kind = "truncated-normal"
    bounded = True
    product = True

    def draw(self, random: Any, shape: Sequence[int]) -> Any:
        return self._inverse(torch.from_numpy(random.uniform(0.0, 1.0, size=tuple(shape)))).numpy()

    def _inverse(self, q: Tensor) -> Tensor:
        low = 0.5 * math.erfc(self.bound / math.sqrt(2))
        z: Tensor = self.factor * torch.special.ndtri(low + q * (1 - 2 * low))
        return z

    def sample(self, noise: Draw, t: Tensor | int, purpose: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        return self._inverse(noise.uniform(t, purpose, shape, torch.float64)).to(dtype or torch.float32)

    def log_density(self, z: Tensor, axes: int) -> Tensor:
        return -0.5 * rows_sum((z / self.factor).square(), axes)

    def score(self, z: Tensor) -> Tensor:
        return -z / self.factor**2

    def clamp(self, z: Tensor) -> Tensor:
        return z.clamp(-self.bound * self.factor, self.bound * self.factor)

    def reflect(self, z: Tensor) -> Tensor:
        return _fold(z, -self.bound * self.factor, self.bound * self.factor)

    def inside(self, z: Tensor, axes: int) -> Tensor:
        return (z.abs() <= self.bound * self.factor).flatten(-axes).all(-1)

    def scale(self) -> float:
        b = self.bound
        mass = math.erf(b / math.sqrt(2))
        return self.factor * math.sqrt(1 - 2 * b * math.exp(-b * b / 2) / math.sqrt(2 * math.pi) / mass)

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        low = 0.5 * math.erfc(self.bound / math.sqrt(2))  # a Gaussian move of the normal number of equal rank
        rank = (torch.special.ndtr(z.double() / self.factor) - low) / (1 - 2 * low)
        normal = torch.special.ndtri(rank.clamp(1e-15, 1 - 1e-15))
        moved = _shrink(s) * normal + s * noise
        return self.clamp(self._inverse(torch.special.ndtr(moved)).to(z.dtype))

    def card(self) -> dict[str, Any]:
        return {"kind": self.kind, "bound": self.bound} | ({"factor": self.factor} if self.factor != 1 else {})


@dataclass(frozen=True)
class Sphere(Prior):
    """Uniform on the sphere of radius sqrt(d)."""

    kind = "sphere"

    def draw(self, random: Any, shape: Sequence[int]) -> Any:
        x = random.randn(*shape)
        norm = np.sqrt((x.reshape(shape[0], -1) ** 2).mean(1)).reshape(-1, *[1] * (len(shape) - 1))
        return x / norm

    def sample(self, noise: Draw, t: Tensor | int, purpose: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        return self.clamp(noise.normal(t, purpose, shape, dtype))

    def clamp(self, z: Tensor) -> Tensor:  # one axis of coordinates
        return z / (rows_sum(z.square(), 1) / z.shape[-1]).sqrt().clamp_min(1e-12).unsqueeze(-1)

    reflect = clamp

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        return self.clamp(_shrink(s) * z + s * noise)

    def tangent(self, z: Tensor, v: Tensor) -> Tensor:
        return v - z * (z * v).mean(-1, keepdim=True) / z.square().mean(-1, keepdim=True).clamp_min(1e-24)

    def move(self, z: Tensor, v: Tensor) -> Tensor:
        return self.clamp(z + v)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return b / (a * b).mean(-1, keepdim=True).clamp_min(1e-12) - a

    def inside(self, z: Tensor, axes: int) -> Tensor:
        return (z.square().flatten(-axes).mean(-1) - 1).abs() < 1e-3


@dataclass(frozen=True)
class EmpiricalGaussian(Prior):
    """A Gaussian fitted to points, such as a `w` space's: mean and a factor of the covariance (rows of the factor span it)."""

    mean: Any = field(default=None, repr=False)  # (d,)
    factor: Any = field(default=None, repr=False)  # (d, d), lower triangular, covariance = factor factor^T
    kind = "empirical-gaussian"

    def draw(self, random: Any, shape: Sequence[int]) -> Any:
        x = random.randn(*shape)
        return x @ np.asarray(self.factor, np.float64).T + np.asarray(self.mean, np.float64)

    def sample(self, noise: Draw, t: Tensor | int, purpose: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        x = noise.normal(t, purpose, shape, dtype)
        z: Tensor = x @ self.factor.to(x).T + self.mean.to(x)
        return z

    def _whiten(self, z: Tensor) -> Tensor:
        factor = self.factor.to(z)
        white: Tensor = torch.linalg.solve_triangular(factor, (z - self.mean.to(z)).unsqueeze(-1), upper=False)
        return white.squeeze(-1)

    def log_density(self, z: Tensor, axes: int) -> Tensor:
        return -0.5 * rows_sum(self._whiten(z).square(), axes)

    def score(self, z: Tensor) -> Tensor:
        factor = self.factor.to(z)
        back: Tensor = torch.linalg.solve_triangular(factor.T, self._whiten(z).unsqueeze(-1), upper=True)
        return -back.squeeze(-1)

    def scale(self) -> float:
        return float((self.factor.square().sum() / self.factor.shape[0]).sqrt())

    def near(self, z: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
        mean = self.mean.to(z)
        moved: Tensor = mean + _shrink(s) * (z - mean) + s * (noise @ self.factor.to(noise).T)
        return moved


def prior_of_card(card: dict[str, Any]) -> Prior:
    """Return the prior that a card's `z_prior` names; raises UsageError for another kind."""
    kind = card.get("kind")
    numbers = {k: float(v) for k, v in card.items() if k != "kind"}
    table = {"normal": Normal, "uniform": Uniform, "truncated-normal": TruncatedNormal, "sphere": Sphere}
    if kind not in table:
        raise UsageError(f"unknown prior {kind!r}", way_out=f"Known: {', '.join(table)}.")
    try:
        prior: Prior = table[kind](**numbers)
    except TypeError:
        raise UsageError(f"a {kind} prior takes no such field: {', '.join(numbers)}") from None
    if isinstance(prior, Uniform) and not prior.low < prior.high:
        raise UsageError(f"a uniform prior needs low < high, not {prior.low} and {prior.high}")
    return prior


@dataclass(frozen=True)
class Space:
    """What moves. `shape` is one point's, `prior` its law. Plain form: a point is a prior latent, decoded by G."""

    name: str = "z"
    shape: tuple[int, ...] = ()
    prior: Prior = Normal()

    entered: bool = False  # starts are points of this space already, and not prior latents

    runs_generator = True  # whether `decode` runs G (the ledger counts it then)

    @property
    def axes(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def enter(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        """Return the point that stands for the prior latent `z`."""
        return z

    def start(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        """Return the point to start from: `z` itself where starts are points (`entered`)."""
        return z.clone() if self.entered else self.enter(pair, z, context)

    def decode(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        """Return the images of `point` (rows, C, H, W) in the pair's image range."""
        images: Tensor = pair.generate(point, context.label)
        return images

    def check(self, z: Tensor, what: str = "latents") -> None:
        """Raise ShapeError where `z` is not (rows, *shape)."""
        if tuple(z.shape[1:]) != self.shape or z.ndim != self.axes + 1:
            raise ShapeError(f"{what} have shape {tuple(z.shape)}, this pair takes (rows, {', '.join(map(str, self.shape))})")

    def _view(self, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape, *[1] * self.axes)

    def norm2(self, x: Tensor) -> Tensor:
        """Return the Euclidean norm over the coordinates."""
        return rows_sum(x.square(), self.axes).sqrt()

    def distance(self, a: Tensor, b: Tensor, norm: Norm = "2") -> Tensor:
        """Return the distance per row, l_2 or l_inf."""
        d = a - b
        return self.norm2(d) if norm == "2" else d.abs().flatten(-self.axes).amax(-1)

    def unit(self, x: Tensor, floor: float = 1e-12) -> Tensor:
        """Return x / max(|x|_2, floor) per row."""
        return x / self._view(self.norm2(x).clamp_min(floor))

    def project(self, point: Tensor, point0: Tensor, eps: float | None, norm: Norm) -> Tensor:
        """Return `point` brought back into the ball of radius `eps` around `point0` (the trust region)."""
        if eps is None:
            return point
        if norm == "inf":
            return torch.maximum(torch.minimum(point, point0 + eps), point0 - eps)
        d = point - point0
        return point0 + d * (eps / self._view(self.norm2(d)).clamp_min(1e-30)).clamp(max=1.0)

    def clamp(self, point: Tensor) -> Tensor:
        """Return the nearest point of the prior's support (for optimisers)."""
        return self.prior.clamp(point)

    def reflect(self, point: Tensor) -> Tensor:
        """Return `point` folded back at the walls of the support (for unadjusted diffusions)."""
        return self.prior.reflect(point)

    def inside(self, point: Tensor) -> Tensor:
        """Return whether each row lies in the support (for Metropolis methods)."""
        return self.prior.inside(point, self.axes)

    def shell(self, point: Tensor, point0: Tensor) -> Tensor:
        """Return `point` scaled to the length of `point0` (a Gaussian's mass lies on its shell)."""
        return point * self._view(self.norm2(point0) / self.norm2(point).clamp_min(1e-12))

    def tangent(self, direction: Tensor, point: Tensor) -> Tensor:
        """Return `direction` without its radial part at `point`."""
        dot = rows_sum(direction * point, self.axes) / rows_sum(point.square(), self.axes).clamp_min(1e-24)
        return direction - self._view(dot) * point

    def log_density(self, point: Tensor) -> Tensor:
        """Return the prior's log density per row, up to a constant."""
        return self.prior.log_density(point, self.axes)

    def jitter(self, point: Tensor, noise: Tensor, eps: float, norm: Norm) -> Tensor:
        """Return `point` plus a draw from the ball of radius `eps`, from `noise` in (0, 1) of shape (rows, 1 + size) (l_inf
        ignores the first column; l_2 takes r^(1/d) of it as radius, the rest turned into a direction)."""
        if norm == "inf":
            return point + eps * (2 * noise[:, 1:].reshape(point.shape) - 1)
        direction = self.unit(torch.special.ndtri(noise[:, 1:].double()).to(point.dtype).reshape(point.shape))
        return point + eps * self._view(noise[:, 0] ** (1 / self.size)) * direction


@dataclass(frozen=True)
class ImageSpace(Space):
    """The images themselves: a start is G(z), what moves is the picture, and only D is asked (DOT in target space).

    `low` and `high` are the walls of the image range; infinite for points whose range nobody stated.
    """

    name: str = "image"
    prior: Prior = Flat()
    low: float = -1.0
    high: float = 1.0
    runs_generator = False

    def enter(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        with torch.no_grad():
            images: Tensor = pair.generate(z, context.label)
        return images

    def decode(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        return point

    def clamp(self, point: Tensor) -> Tensor:
        return point.clamp(self.low, self.high)

    def reflect(self, point: Tensor) -> Tensor:
        return _fold(point, self.low, self.high) if math.isfinite(self.high - self.low) else point

    def inside(self, point: Tensor) -> Tensor:
        return ((point >= self.low) & (point <= self.high)).flatten(-self.axes).all(-1)
