"""The only thing that a strategy may ask: value and gradient of an objective on a pair, per row, counted.

The plain form wraps live modules too, so the training loop uses a strategy's `step` with it; the engine swaps prepared
networks under it. Gradients are those of the *sum* over rows: they do not scale with the batch.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import MissingCapabilityError
from .lazy import torch
from .objective import Realness, Term, uses_image0
from .space import Context, Space

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .model import Pair

#: values of an image from which memory is looked at: a colour picture of 64 pixels
LARGE = 3 * 64 * 64


@dataclass
class Ledger:
    """Work done, counted in rows: forward and backward passes of G and of D."""

    g_forward: int = 0
    d_forward: int = 0
    g_backward: int = 0
    d_backward: int = 0

    def __sub__(self, other: Ledger) -> Ledger:
        return Ledger(*(a - b for a, b in zip(self.as_tuple(), other.as_tuple(), strict=True)))

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(*(a + b for a, b in zip(self.as_tuple(), other.as_tuple(), strict=True)))

    def as_tuple(self) -> tuple[int, int, int, int]:
        """Return (g_forward, d_forward, g_backward, d_backward)."""
        return self.g_forward, self.d_forward, self.g_backward, self.d_backward

    def as_dict(self) -> dict[str, int]:
        """Return the four counters by name."""
        return dict(zip(("g_forward", "d_forward", "g_backward", "d_backward"), self.as_tuple(), strict=True))

    def copy(self) -> Ledger:
        """Return the counters as they stand."""
        return Ledger(*self.as_tuple())


class _Scene:
    def __init__(self, land: Landscape, point: Tensor, context: Context, rows: int) -> None:
        self.land, self.point, self.context = land, point, context
        self.width = point.shape[0] // rows  # points a row
        self.space, self.pair = land.space, land.pair
        self._images: Tensor | None = None
        self._logit: Tensor | None = None

    @property
    def images(self) -> Tensor:
        if self._images is None:
            self._images = self.land.space.decode(self.land.pair, self.point, self.context)
            if self.space.runs_generator:
                self.land._count("g_forward", self.point.shape[0], self.width)
        return self._images

    @property
    def logit(self) -> Tensor:
        if self._logit is None:
            images = self.images
            self._logit = self.land.pair.logit(images, self.context.label)
            self.land._count("d_forward", self.point.shape[0], self.width)
        return self._logit


class Landscape:
    """Value and gradient of `objective` on `pair` over `space`, for the rows of `context`.

    Points are (rows, *shape), or (rows, width, *shape) with a population axis; values are (rows,) or (rows, width).
    `counted` is the number of rows that count in the ledger (padding and finished rows do not); None counts all. Rows from
    `distinct` on repeat the first (None: none do). The networks are not asked for them where the smaller call gives the others
    the same bits: `few` has the numbers of rows of such calls, in order; multiples of the last are such numbers too. `both`
    gives the critic's logit and its gradient by flat points at once, where an engine has something faster than torch's own.
    """

    def __init__(
        self,
        pair: Pair,
        context: Context,
        *,
        space: Space | None = None,
        objective: Term | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.pair = pair
        self.context = context
        self.space = space or pair.space
        self.objective = objective or Realness()
        self.ledger = ledger if ledger is not None else Ledger()
        self.counted: int | None = None
        self.distinct: int | None = None
        self.few: tuple[int, ...] = ()
        self.both: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]] | None = None
        self._cut: tuple[Context, int, Context] | None = None

    @property
    def block(self) -> int:
        """Rows that a pilot sends through the networks at a time: 64, or 8 where images are large and more fill the memory."""
        return 64 if math.prod(self.pair.image_shape or ()) <= LARGE else 8

    def blocks(self, rows: int) -> tuple[Tensor, ...]:
        """Return the numbers of the first `rows` rows, `block` at a time; a row's bits do not depend on it."""
        return torch.split(torch.arange(rows, device=self.context.seed.device), self.block)

    def called(self, distinct: int, width: int = 1, objective: Term | None = None) -> int:
        """Return how many rows, with `width` points each, the networks are asked for where `distinct` differ."""
        score = (objective or self.objective.core()).is_score  # other terms reduce images in ways of their own
        rows, few = self.context.seed.shape[0], self.few if score else self.few[-1:]
        if not few or distinct >= rows:
            return rows
        return next((m for m in range(distinct, rows) if m * width in few or not m * width % few[-1]), rows)

    def _count(self, what: str, points: int, width: int = 1) -> None:
        done = points if self.counted is None else self.counted * width
        setattr(self.ledger, what, getattr(self.ledger, what) + done)

    def _called(self, p: Tensor, objective: Term | None = None) -> tuple[Tensor, Context]:
        """Return the points and the context of the rows that the networks are asked for."""
        if self.distinct is None:
            return p, self.context
        rows = self.called(self.distinct, 1 if p.ndim == self.space.axes + 1 else p.shape[1], objective)
        if rows >= p.shape[0]:
            return p, self.context
        if self._cut is None or self._cut[0] is not self.context or self._cut[1] != rows:
            self._cut = self.context, rows, self.context.first(rows)
        return p[:rows], self._cut[2]

    def _flat(self, p: Tensor, objective: Term | None = None) -> tuple[Tensor, Context, tuple[int, ...]]:
        p, context = self._called(p, objective)
        if p.ndim == self.space.axes + 1:
            return p, context, (p.shape[0],)
        rows, width = p.shape[:2]
        return p.reshape(rows * width, *p.shape[2:]), context.repeat(width), (rows, width)

    def _whole(self, x: Tensor) -> Tensor:
        """Return what a call gave for all rows: those that it left out repeat the first."""
        short = self.context.seed.shape[0] - x.shape[0]
        return torch.cat([x, x[:1].expand(short, *x.shape[1:])]) if short else x

    def _value(self, objective: Term, p: Tensor) -> Tensor:
        flat, context, lead = self._flat(p, objective)
        with torch.no_grad():
            return self._whole(objective.value(_Scene(self, flat, context, lead[0])).reshape(lead))

    def _value_and_grad(self, objective: Term, p: Tensor) -> tuple[Tensor, Tensor]:
        flat, context, lead = self._flat(p.detach(), objective)
        if self.both is not None and objective.is_score:
            value, grad = self.both(flat, context.label)
            for what in vars(self.ledger):
                self._count(what, flat.shape[0], flat.shape[0] // lead[0])
        else:
            value, grad = self._differentiated(objective, flat, context, lead[0])
        return self._whole(value.detach().reshape(lead)), self._whole(grad.reshape(*lead, *grad.shape[1:]))

    def _differentiated(self, objective: Term, flat: Tensor, context: Context, rows: int) -> tuple[Tensor, Tensor]:
        flat = flat.detach().requires_grad_(True)
        with torch.enable_grad():
            scene = _Scene(self, flat, context, rows)
            value = objective.value(scene)
            if not value.requires_grad:
                raise MissingCapabilityError(
                    f"the score of {self.pair.name!r} has no gradient with respect to the latent",
                    way_out="Use a method without gradients ('latentshift strategies'), or a differentiable G and D.",
                )
            (grad,) = torch.autograd.grad(value, flat, torch.ones_like(value))
        if scene._images is not None and self.space.runs_generator:
            self._count("g_backward", flat.shape[0], scene.width)
        if scene._logit is not None:
            self._count("d_backward", flat.shape[0], scene.width)
        return value, grad

    def value(self, p: Tensor) -> Tensor:
        """Return the objective, (rows,) or (rows, width); no gradient is recorded."""
        return self._value(self.objective, p)

    def value_and_grad(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective and its gradient (like p): one forward of G and D and one backward to p."""
        return self._value_and_grad(self.objective, p)

    def ascent(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return a value that orders points as the objective does, and a gradient equal to the objective's up to a positive
        factor per row. For methods that use only its direction: the link's slope, which may underflow, is left out."""
        return self._value_and_grad(self.objective.core(), p)

    def order(self, p: Tensor) -> Tensor:
        """Return the value that `ascent` returns, without a gradient."""
        return self._value(self.objective.core(), p)

    def score(self, p: Tensor) -> Tensor:
        """Return the critic's logit, whatever the objective is."""
        return self._value(Realness(), p)

    def score_of_views(self, p: Tensor) -> Tensor:
        """Return the critic's mean logit over the images of `p` moved by one pixel to the left and to the right: one forward
        of G and two of D."""
        with torch.no_grad():
            scene = _Scene(self, p, self.context, len(p))
            moved = [torch.cat([x[..., 1:], x[..., -1:]], -1) for x in (scene.images, scene.images.flip(-1))]
            views = (moved[0], moved[1].flip(-1))
            scores = [self.pair.logit(x.contiguous(), self.context.label) for x in views]
        self._count("d_forward", 2 * p.shape[0], 2)
        return (scores[0] + scores[1]) / 2

    def score_and_grad(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the critic's logit and its gradient: for methods that own their prior or distance term."""
        return self._value_and_grad(Realness(), p)

    def images(self, p: Tensor) -> Tensor:
        """Return the images of points (rows, *shape)."""
        flat, context, lead = self._flat(p, Realness())
        with torch.no_grad():
            images = _Scene(self, flat, context, lead[0]).images
        return self._whole(images.reshape(*lead, *images.shape[1:]))

    def images_and_score(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images of points (rows, *shape) and their logits: one forward of G and D."""
        with torch.no_grad():
            called, context = self._called(p, Realness())
            scene = _Scene(self, called, context, len(called))
            return self._whole(scene.images), self._whole(scene.logit)

    def jvp(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and their directional derivative along `v` (like p), by forward differentiation."""
        with warnings.catch_warnings():  # torch's own forward rules load scripted parts with a deprecation of theirs
            warnings.simplefilter("ignore", DeprecationWarning)
            pair = self._differentiable().pair
            out: Any = torch.func.jvp(lambda q: self.space.decode(pair, q, self.context), (p,), (v,))
        self._count("g_forward", 2 * p.shape[0], 2)
        images, tangent = out
        return images, tangent

    def jacobian(self, p: Tensor, project: Tensor | None = None) -> Tensor:
        """Return the derivative (rows, m, size) of the images by the point, or of `project` (m, pixels) times the images: one
        forward of G and m backward passes, batched."""
        p = p.detach().requires_grad_(True)
        with torch.enable_grad():
            flat = _Scene(self._differentiable(), p, self.context, len(p)).images.flatten(1)
            out = flat if project is None else flat @ project.T.to(flat)
            rows, m = out.shape
            unit = torch.eye(m, dtype=out.dtype, device=out.device).unsqueeze(1).expand(m, rows, m)
            (grad,) = torch.autograd.grad(out, p, unit, is_grads_batched=True)
        self._count("g_backward", rows * m, m)
        return grad.flatten(2).transpose(0, 1)

    def with_start_images(self, p: Tensor) -> Landscape:
        """Return this landscape, its context holding the images of `p` where the objective compares with them."""
        if uses_image0(self.objective) and self.context.image0 is None:
            self.context = self.context._replace(image0=self.images(p))
        return self

    def _like(self, **changes: Any) -> Landscape:
        land = copy.copy(self)
        vars(land).update(changes)
        return land

    def select(self, index: Tensor) -> Landscape:
        """Return the landscape of the rows in `index`, on the same ledger."""
        return self._like(context=self.context.select(index), distinct=None)

    def on(self, pair: Pair) -> Landscape:
        """Return this landscape over another form of the same networks, on the same ledger."""
        return self._like(pair=pair, few=(), both=None)

    def _differentiable(self) -> Landscape:
        """Return this landscape over networks that torch can differentiate in every way: a plan's plain form."""
        plain = getattr(self.pair.G, "plain", None)
        return self if plain is None else self.on(self.pair.replaced(G=plain))

    def with_objective(self, objective: Term) -> Landscape:
        """Return the landscape of another objective, on the same ledger."""
        return self._like(objective=objective)


def landscape_of(pair: Pair, z: Tensor, *, label: Tensor | None = None, objective: Term | None = None, **kw: Any) -> Landscape:
    """Return the landscape of `pair` for latents `z` (rows, *shape) as they stand: the form for training loops."""
    seed = torch.arange(z.shape[0], device=z.device)
    return Landscape(pair, Context(seed=seed, label=label, point0=z.detach()), objective=objective, **kw)
