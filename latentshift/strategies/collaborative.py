"""Collaborative sampling: ascent of the critic with momentum on what G's next layer reads, best iterate kept (Liu et al. 2020).

    v <- mu v + lambda grad loss,   h <- h - v,   loss = -log sigmoid(D(G(h)))

Here h is the latent. Published code skips the clipping where a bound is 0 and runs D in training mode, so that scores depend on
the batch; here the support is always kept and networks are in evaluation mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..errors import UsageError
from ..lazy import torch
from .base import Cost, Info, Outcome, Strategy, ended, fresh, need_positive, not_finite, rowwise, sigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


class CollaborativeState(NamedTuple):
    """A point, its start and velocity; the iterate that is kept, its value, and the row's own random step."""

    point: Tensor
    done: Tensor
    why: Tensor
    start: Tensor
    velocity: Tensor
    kept: Tensor
    value: Tensor
    pick: Tensor


@dataclass(frozen=True, kw_only=True)
class Collaborative(Strategy):
    """Climb the critic with momentum and keep the iterate of highest score (collaborative sampling).

    Choose it when the raw gradient's size means something: samples that the critic already believes move little. Source: Liu
    et al. 2020, algorithm 1. Cost: one forward and one backward a step, and one forward for the last iterate. There is no
    ball: `relative` in the outcome is the distance moved over the start's length.
    """

    name: ClassVar[str] = "collaborative"
    source: ClassVar[str] = "Collaborative sampling in GANs (Liu et al. 2020), algorithm 1"
    tells_start: ClassVar[bool] = True

    steps: int = 50  # gradient steps
    step_size: float = 0.1  # lambda: factor of the loss's gradient (images 0.1 to 0.5, 2-D 0.008 to 0.05)
    mu: float = 0.9  # decay of the momentum
    loss: Literal["bce", "score"] = "bce"  # -log sigmoid(score), or minus the score itself
    iterate: Literal["best", "random", "last"] = "best"  # what is handed back: best, random (the paper's probabilistic), last

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(step_size=self.step_size)
        if not 0 <= self.mu < 1:
            raise UsageError(f"mu lies in [0, 1), not {self.mu!r}")
        if self.loss not in ("bce", "score"):
            raise UsageError(f"loss is 'bce' or 'score', not {self.loss!r}")
        if self.iterate not in ("best", "random", "last"):
            raise UsageError(f"iterate is best, random or last, not {self.iterate!r}")

    def cost(self) -> Cost:
        return Cost.of(self.steps + (1 if self.steps and self.iterate == "best" else 0), self.steps)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> CollaborativeState:
        worst = torch.full((len(point0),), -torch.inf, dtype=point0.dtype, device=point0.device)
        pick = (draw.uniform(0, "pick", dtype=torch.float64) * (self.steps + 1)).long()
        return CollaborativeState(point0, *fresh(point0), point0, torch.zeros_like(point0), point0, worst, pick)

    def step(
        self, state: CollaborativeState, t: Tensor | int, landscape: Landscape, draw: Draw
    ) -> tuple[CollaborativeState, Info]:
        point = state.point
        value, grad = landscape.ascent(point)
        broken = not_finite(value, grad)
        slope = sigmoid(-value) if self.loss == "bce" else torch.ones_like(value)
        velocity = self.mu * state.velocity + self.step_size * rowwise(slope, grad) * grad
        moved = landscape.space.clamp(point + velocity)
        take = value > state.value if self.iterate == "best" else state.pick == t
        done, why = ended(state.done, state.why, broken, "nan")
        new = CollaborativeState(
            torch.where(rowwise(broken, point), point, moved),
            done,
            why,
            state.start,
            velocity,
            torch.where(rowwise(take, point), point, state.kept),
            torch.where(take, value.to(state.value.dtype), state.value),
            state.pick,
        )
        return new, Info(value)

    def finish(self, state: CollaborativeState, landscape: Landscape) -> Outcome:
        point, value = state.point, None
        if self.iterate == "best" and self.steps:
            last = landscape.order(point)
            ahead = last > state.value
            point = torch.where(rowwise(ahead, point), point, state.kept)
            value = torch.where(ahead, last, state.value)
        elif self.iterate == "random":
            point = torch.where(rowwise(state.pick >= self.steps, point), point, state.kept)
        space = landscape.space
        relative = space.distance(point, state.start) / space.norm2(state.start).clamp_min(1e-12)
        return Outcome(point, value=value, stopped=state.why, extra={"relative": relative})
