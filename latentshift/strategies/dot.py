"""DOT: descend a transport cost minus the critic (Tanaka 2019, with the errata of 2023).

    latent:  min over z of |z - z_y| - D(G(z)) / k        target:  min over x of |x - y| - D(x) / K

If D / k is 1-Lipschitz and optimal, the optimal transport map sends y to a minimiser. The norm is not squared: where
|grad D| <= k the start is already a minimum and nothing moves. Only D / k enters, so no calibration is needed.

Published code adds 0.001 to every coordinate of z - z_y (a fixed push along (1, .., 1) and a hovering beside the start: here
`offset`, off), divides the radial part of the gradient by sqrt(128) instead of |z|^2 (which turns it round tenfold), and takes
k from a single maximum over 100 pairs, whose spread is a quarter of its mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ..errors import RequestError, UsageError
from ..lazy import torch
from .base import Cost, Info, Strategy, ended, fresh, need_positive, not_finite, rowwise, strategy_name

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw
    from ..space import Space


class DOTState(NamedTuple):
    """A point, its start, and Adam's two moments."""

    point: Tensor
    done: Tensor
    why: Tensor
    start: Tensor
    mean: Tensor | None = None
    square: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class DOT(Strategy):
    """Descend the distance moved minus D / k, in latent space (DOT).

    Choose it where only samples in steep regions of the critic should move, and little. Source: Tanaka 2019, Eq. 15 and
    algorithm 2. Cost: one forward and one backward a step, and once 2 * pairs * repeats forwards for k.
    """

    name: ClassVar[str] = "dot"
    source: ClassVar[str] = "Discriminator optimal transport (Tanaka 2019), algorithm 2"
    tells_start: ClassVar[bool] = True

    steps: int = 50  # descent steps
    step_size: float = 0.01  # learning rate, in latent units
    optimizer: Literal["sgd", "adam"] = "sgd"  # sgd (the paper's for latents) or adam (its 2-D demonstration's)
    beta1: float = 0.0  # Adam's decay of the mean gradient
    beta2: float = 0.9  # Adam's decay of the mean square
    support: Literal["auto", "clamp", "sphere", "free"] = "auto"  # clamp to the support, sphere (tangent steps), free
    offset: float = 0.0  # added to each coordinate of the move inside the norm; 0.001: as the published code
    k: float | None = None  # Lipschitz constant of the critic; none: mean of `repeats` maxima
    pairs: int = 100  # random pairs of samples per maximum (the maximum grows with it: state it)
    repeats: int = 10  # maxima that are averaged; 1: as published
    class_pairs: int = 50  # pairs per class and maximum, where the pair has classes
    k_spread: float | None = None  # learned: standard deviation between the maxima
    k_classes: tuple[float, ...] = ()  # learned: one constant per class, where the pilot holds class_pairs of each

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(step_size=self.step_size, k=self.k)
        if self.optimizer not in ("sgd", "adam"):
            raise UsageError(f"optimizer is 'sgd' or 'adam', not {self.optimizer!r}")
        if self.support not in ("auto", "clamp", "sphere", "free"):
            raise UsageError(f"support is auto, clamp, sphere or free, not {self.support!r}")
        if min(self.pairs, self.repeats, self.class_pairs) < 1:
            raise UsageError("pairs, repeats and class_pairs are 1 or more")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UsageError(f"beta1 and beta2 lie in [0, 1), not {self.beta1!r} and {self.beta2!r}")

    def cost(self) -> Cost:
        return Cost.of(self.steps, self.steps)

    @property
    def pilot(self) -> int:
        return 0 if self.k is not None or self.steps == 0 else 2 * self.pairs * self.repeats

    def check(self, landscape: Landscape) -> None:
        prior = landscape.space.prior
        if self.support == "sphere" and prior.kind not in ("normal", "sphere"):
            raise RequestError(
                f"'{strategy_name(self)}' cannot step along a sphere: a {prior.kind} prior has none",
                way_out="Use support=clamp, or auto.",
            )

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Strategy:
        if not self.pilot:
            return self
        point, label = landscape.context.point0, landscape.context.label
        assert point is not None
        parts = landscape.blocks(min(self.pilot, len(point)))
        value, index = torch.cat([landscape.select(i).order(point[i]) for i in parts]), torch.cat(parts)
        k, spread, classes = k_effective(value, point[index], None if label is None else label[index], landscape.space, self)
        return replace(self, k=k, k_spread=spread, k_classes=classes)

    def constant(self, landscape: Landscape, like: Tensor) -> Tensor | float:
        """Return k, per row where there is one per class."""
        assert self.k is not None, "not fitted"
        label = landscape.context.label
        if not self.k_classes or label is None:
            return self.k
        return rowwise(torch.tensor(self.k_classes, dtype=like.dtype, device=like.device)[label], like)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> DOTState:
        memory = torch.zeros_like(point0) if self.optimizer == "adam" else None
        return DOTState(point0, *fresh(point0), start=point0, mean=memory, square=memory)

    def gradient(self, grad: Tensor, point: Tensor, start: Tensor, space: Space, sphere: bool) -> Tensor:
        """Return the gradient of |z - z_y| - D / k from grad D / k: at z_y itself, where the norm has none, the shortest
        subgradient."""
        moved = point - start + self.offset
        far = space._view(space.norm2(moved))
        pull = moved / far.clamp_min(torch.finfo(moved.dtype).tiny)
        if sphere:
            grad, pull = space.tangent(grad, point), space.tangent(pull, point)
        steep = space._view(space.norm2(grad))
        shortest = -grad * (1 - 1 / steep.clamp_min(1e-30)).clamp_min(0)
        return torch.where(far > 0, pull - grad, shortest)

    def step(self, state: DOTState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[DOTState, Info]:
        space, point = landscape.space, state.point
        kind = space.prior.kind
        sphere = self.support == "sphere" or (
            self.support == "auto" and (kind == "sphere" or (kind == "normal" and space.size > 8))
        )
        value, grad = landscape.ascent(point)
        g = self.gradient(grad / self.constant(landscape, grad), point, state.start, space, sphere)
        mean, square = state.mean, state.square
        if mean is not None and square is not None:
            mean = self.beta1 * mean + (1 - self.beta1) * g
            square = self.beta2 * square + (1 - self.beta2) * g.square()
            count = torch.as_tensor(t, dtype=torch.float64, device=g.device) + 1
            b1, b2 = ((1 - beta**count).to(g.dtype) for beta in (self.beta1, self.beta2))
            g = (mean / b1) / ((square / b2).sqrt() + 1e-8)
        moved = point - self.step_size * g
        if sphere:
            moved = space.shell(moved, state.start)
        elif self.support != "free":
            moved = space.clamp(moved)
        broken = not_finite(value, grad)
        done, why = ended(state.done, state.why, broken, "nan")
        return DOTState(torch.where(rowwise(broken, point), point, moved), done, why, state.start, mean, square), Info(value)


@dataclass(frozen=True, kw_only=True)
class DOTTarget(DOT):
    """Descend the distance moved minus D / K, on the images themselves (DOT in target space).

    Choose it where G need not be followed: images leave the generator's range, and D's flaws show. Source: Tanaka 2019,
    algorithm 1. Cost: one forward and one backward of D alone a step.
    """

    name: ClassVar[str] = "dot-target"
    source: ClassVar[str] = "Discriminator optimal transport (Tanaka 2019), algorithm 1"
    spaces: ClassVar[tuple[str, ...]] = ("image",)

    steps: int = 100  # descent steps
    step_size: float = 0.01  # learning rate, in units of the image range
    optimizer: Literal["sgd", "adam"] = "adam"  # adam (the paper's here) or sgd

    def cost(self) -> Cost:
        return Cost(0, self.steps, 0, self.steps)

    def check(self, landscape: Landscape) -> None:
        if landscape.space.name not in self.spaces:
            raise RequestError(
                f"'{strategy_name(self)}' moves images, not points of {landscape.space.name!r}",
                way_out="Use --space image, or the strategy dot.",
            )
        super().check(landscape)


def k_effective(
    value: Tensor, point: Tensor, label: Tensor | None, space: Space, options: DOT
) -> tuple[float, float | None, tuple[float, ...]]:
    """Return (k, its standard deviation between maxima, one k per class or none): maxima of |d1 - d2| / |z1 - z2| over random
    pairs, averaged. Both members of a pair carry one label."""
    rows = torch.arange(len(value), device=value.device)
    groups = [rows] if label is None else [rows[label == c] for c in range(int(label.max()) + 1)]
    halves = [(g[: len(g) // 2], g[len(g) // 2 : len(g) // 2 * 2]) for g in groups]
    slopes = [(value[a] - value[b]).abs().double() / space.distance(point[a], point[b]).double() for a, b in halves]
    classes: tuple[float, ...] = ()
    m = options.pairs
    if label is not None and min(len(s) for s in slopes) >= options.class_pairs:
        m = options.class_pairs
        classes = tuple(float(_maxima(s, m).mean()) for s in slopes)
        maxima = torch.cat([_maxima(s, m) for s in slopes])
    else:  # as the rows came, so that each maximum sees all classes
        order = torch.cat([a for a, _ in halves]).argsort()
        maxima = _maxima(torch.cat(slopes)[order], m)
    k = float(maxima.mean())
    if not k > 0 or k == float("inf") or (classes and not min(classes) > 0):
        raise RequestError(
            f"the critic has no slope that DOT could scale by (k = {k:.3g})",
            way_out="Check the critic: it may be constant. Or give k.",
        )
    return k, float(maxima.std()) if len(maxima) > 1 else None, classes


def _maxima(slopes: Tensor, m: int) -> Tensor:
    slopes = slopes[torch.isfinite(slopes)]
    if len(slopes) < m:
        raise RequestError(f"a maximum over {m} pairs needs as many finite ones, the pilot has {len(slopes)}")
    return slopes[: len(slopes) // m * m].reshape(-1, m).amax(1)
