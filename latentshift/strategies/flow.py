"""DGflow: the gradient flow of an f-divergence with an entropy term, simulated in latent space.

    z <- z + step_size c(l) grad l + sqrt(2 step_size gamma) noise;   c = 1 (KL), sigmoid(l) (JS), sigmoid(-l) (logD)

The ratio is not learned anew as the law moves: few steps only. There is no prior in it: a long run leaves the prior behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UsageError
from ..lazy import torch
from .base import Cost, Info, State, ended, fresh, need_positive, not_finite, sigmoid, taken
from .density import DensityRatio

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

Divergence = Literal["kl", "js", "logd"]


@dataclass(frozen=True, kw_only=True)
class DGflow(DensityRatio):
    """Noisy ascent of the critic's log ratio, weighted by an f-divergence (DGflow).

    Choose it for short refinements that keep modes and a little noise; ascent with a calibrated step. Bounded latents are
    folded back at the walls (the published code lets them out), `prior` pulls a Gaussian latent back to its shell. The
    published code runs the nets in training mode, so that an image depends on its batch, and multiplies (B, 1) factors that
    broadcast to (B, B) with some critics; here a row is a row. Cost: one forward and backward pass per step.
    """

    name: ClassVar[str] = "dgflow"
    source: ClassVar[str] = "DGflow (Ansari et al. 2021)"
    tells_start: ClassVar[bool] = True

    steps: int = 25  # steps of the flow
    step_size: float = 0.1  # eta: factor of the gradient of the log ratio
    gamma: float = 0.01  # weight of the entropy; the noise has variance 2 step_size gamma
    divergence: Divergence = "kl"  # kl, js or logd
    prior: float = 0.0  # weight of the prior's pull, times step_size gamma (0: none, as published)

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(step_size=self.step_size)
        if self.divergence not in ("kl", "js", "logd"):
            raise UsageError(f"divergence is kl, js or logd, not {self.divergence!r}")
        if not (0 <= self.gamma < float("inf") and 0 <= self.prior < float("inf")):
            raise UsageError("gamma and prior are 0 or above and finite")

    def cost(self) -> Cost:
        return Cost.of(self.steps, self.steps)

    def factor(self, value: Tensor) -> Tensor:
        """Return c(l) per row."""
        ratio = self.log_ratio(value).double()
        if self.divergence == "kl":
            return torch.ones_like(value)
        return sigmoid(ratio if self.divergence == "js" else -ratio).to(value.dtype)

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> State:
        return State(point0, *fresh(point0))

    def step(self, state: State, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[State, Info]:
        space = landscape.space
        value, grad = landscape.score_and_grad(state.point)
        noise = math.sqrt(2 * self.step_size * self.gamma) * draw.normal(t, "flow", space.shape, state.point.dtype)
        drift = self.step_size * self.gain * space._view(self.factor(value)) * grad
        pull = self.step_size * self.gamma * self.prior * space.prior.score(state.point)
        moved = space.reflect(state.point + drift + pull + noise)
        fine = ~not_finite(value, grad)
        done, why = ended(state.done, state.why, ~fine, "nan")
        return State(taken(fine, moved, state.point), done, why), Info(value)
