"""What is climbed: a value per row, made of terms with weights.

    Realness()                                   the critic's logit
    Realness() - 0.1 * Displacement()            stay near the start
    Quality(critic)                              any other critic

Every term is *maximised*. Terms see a `Scene`: images, logit, point, context, each computed once at most.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .errors import UsageError
from .lazy import torch
from .model import Capability
from .space import rows_sum

if TYPE_CHECKING:
    from torch import Tensor

    from .space import Context, Space

Link = Literal["logit", "bce", "saturating", "softplus", "hinge", "probability", "target"]


class Scene(Protocol):
    """What a term may look at. Images and logit are made when first asked for, and counted."""

    @property
    def point(self) -> Tensor: ...
    @property
    def context(self) -> Context: ...
    @property
    def space(self) -> Space: ...
    @property
    def pair(self) -> Any: ...
    @property
    def images(self) -> Tensor: ...
    @property
    def logit(self) -> Tensor: ...


class Term:
    """A value per row to be maximised. Terms add and scale: `Realness() - 0.1 * Displacement()`."""

    needs = Capability.NONE

    def value(self, scene: Scene) -> Tensor:
        """Return (rows,)."""
        raise NotImplementedError

    def core(self) -> Term:
        """Return a term with the same order of points and a gradient that never underflows: for methods that use only the
        direction of each row's gradient."""
        return self

    @property
    def is_score(self) -> bool:
        """Whether the value is the critic's logit itself."""
        return False

    def __add__(self, other: Term) -> Term:
        return Sum((*_parts(self), *_parts(other)))

    def __sub__(self, other: Term) -> Term:
        return self + -1.0 * other

    def __mul__(self, weight: float) -> Term:
        return Sum(tuple((weight * w, t) for w, t in _parts(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Term:
        return -1.0 * self


def _parts(term: Term) -> tuple[tuple[float, Term], ...]:
    return term.parts if isinstance(term, Sum) else ((1.0, term),)


@dataclass(frozen=True)
class Sum(Term):
    """Terms with weights."""

    parts: tuple[tuple[float, Term], ...]

    @property
    def needs(self) -> Capability:  # type: ignore[override]
        needs = Capability.NONE
        for _, term in self.parts:
            needs |= term.needs
        return needs

    def value(self, scene: Scene) -> Tensor:
        total = None
        for weight, term in self.parts:
            v = weight * term.value(scene)
            total = v if total is None else total + v
        assert total is not None
        return total

    def core(self) -> Term:
        if len(self.parts) == 1 and self.parts[0][0] > 0:
            return self.parts[0][1].core()
        return self


@dataclass(frozen=True)
class Realness(Term):
    """The critic's opinion, seen through a link of the logit d.

    `logit`: d. `bce`: log sigmoid(d) (minus the non-saturating loss). `saturating`: -log(1 - sigmoid(d)) (paper 001 Eq. 5).
    `softplus`: softplus(d), the same by another name of the StyleGAN loss. `hinge`: d, G's hinge and Wasserstein loss.
    `probability`: sigmoid(d). `target`: -(d - target)^2 / 2. All but `target` rise strictly with d: sign steps are equal.
    """

    link: Link = "logit"
    target: float = 0.0
    needs = Capability.CRITIC

    def __post_init__(self) -> None:
        known = ("logit", "bce", "saturating", "softplus", "hinge", "probability", "target")
        if self.link not in known:
            raise UsageError(f"unknown link {self.link!r}", way_out=f"Known: {', '.join(known)}.")

    def value(self, scene: Scene) -> Tensor:
        d = scene.logit
        if self.link in ("logit", "hinge"):
            return d
        if self.link == "bce":
            return torch.nn.functional.logsigmoid(d)
        if self.link in ("saturating", "softplus"):
            return torch.nn.functional.softplus(d)
        if self.link == "probability":
            return torch.sigmoid(d)
        return -0.5 * (d - self.target).square()

    def core(self) -> Term:
        return self if self.link in ("logit", "target") else Realness()

    @property
    def is_score(self) -> bool:
        return self.link in ("logit", "hinge")


@dataclass(frozen=True)
class Quality(Term):
    """Another critic's score of the images, rising with quality. `critic.score(images, labels) -> (rows,)`."""

    critic: Any

    def value(self, scene: Scene) -> Tensor:
        score: Tensor = self.critic.score(scene.images, scene.context.label)
        return score if getattr(self.critic, "higher_is_better", True) else -score


@dataclass(frozen=True)
class Prior(Term):
    """The prior's log density of the point, up to a constant."""

    def value(self, scene: Scene) -> Tensor:
        return scene.space.log_density(scene.point)


@dataclass(frozen=True)
class Displacement(Term):
    """The squared distance moved, mean over coordinates: `where` "point" (from point0) or "image" (from image0).

    `norm` "2" takes squares, "1" absolute values. Subtract it to stay near the start.
    """

    where: Literal["point", "image"] = "point"
    norm: Literal["1", "2"] = "2"

    def value(self, scene: Scene) -> Tensor:
        if self.where == "point":
            a, b = scene.point, scene.context.point0
        else:
            a, b = scene.images, scene.context.image0
        assert b is not None, "the context holds no start"
        d = (a - b).flatten(1)
        return rows_sum(d.square() if self.norm == "2" else d.abs(), 1) / d.shape[1]


@dataclass(frozen=True)
class Ratio(Term):
    """Eq. 8 (paper 000): image distance over latent distance from the start, mean absolute differences per row.

    Minimising it (`-Ratio()`) finds a hard pair: far in latent space, near in images; maximising it an easy one. Undefined
    at the start itself: begin with a jitter.
    """

    plus_one: bool = False  # the published code's denominator |dz| + 1
    floor: float = 1e-12

    def value(self, scene: Scene) -> Tensor:
        point0, image0 = scene.context.point0, scene.context.image0
        assert point0 is not None, "the context holds no start"
        assert image0 is not None, "the context holds no start image"
        moved = rows_sum((scene.point - point0).abs(), scene.point.ndim - 1) / scene.space.size
        d = (scene.images - image0).abs().flatten(1)
        changed = rows_sum(d, 1) / d.shape[1]
        return changed / (moved + 1.0 if self.plus_one else moved.clamp_min(self.floor))


def uses_image0(term: Term) -> bool:
    """Whether the objective compares with the start's images."""
    return any(isinstance(t, Ratio) or (isinstance(t, Displacement) and t.where == "image") for _, t in _parts(term))


def describe(term: Term) -> str:
    """Return an objective as text, as in `Realness(link='bce') - 0.1 * Displacement()`."""
    out = ""
    for weight, t in _parts(term):
        sign = "" if not out and weight > 0 else "-" if not out else " + " if weight > 0 else " - "
        factor = "" if abs(weight) == 1 else f"{abs(weight):g} * "
        fields: Any = dataclasses.fields(t) if dataclasses.is_dataclass(t) else ()
        changed = [f"{f.name}={getattr(t, f.name)!r}" for f in fields if getattr(t, f.name) != f.default]
        out += f"{sign}{factor}{type(t).__name__}({', '.join(changed)})"
    return out
