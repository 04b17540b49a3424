"""Adam up the critic: steps whose lengths the gradients' own history sets, coordinate by coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..lazy import torch
from .base import fresh
from .gradient import IFGSM, GradientState

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


@dataclass(frozen=True, kw_only=True)
class Adam(IFGSM):
    """Adam steps up the critic, inside a ball around the start.

    Choose it to go on from code that optimises latents with Adam, or where the gradient's size tells something that signs throw
    away: steps shorten by themselves where gradients change sign. What it does to images has not been measured. Cost: one
    forward and backward pass per step.
    """

    name: ClassVar[str] = "adam"
    source: ClassVar[str] = "Kingma and Ba 2015, Algorithm 1 in the form of section 2 (epsilon beside the uncorrected root)"

    beta1: float = 0.9  # decay of the mean of gradients
    beta2: float = 0.999  # decay of the mean of their squares
    epsilon: float = 1e-8  # added to the root of the latter

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} lies in [0, 1), not {getattr(self, name)!r}")
        if not self.epsilon > 0:
            raise UsageError(f"epsilon is above 0, not {self.epsilon!r}")

    def rate(self, t: Tensor | int) -> Tensor | float:
        """Return alpha_t sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1))."""
        return super().rate(t) * (1 - self.beta2 ** (t + 1)) ** 0.5 / (1 - self.beta1 ** (t + 1))

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> GradientState:
        return GradientState(
            point0, *fresh(point0), start=point0, memory=torch.zeros_like(point0)[..., None].repeat_interleave(2, -1)
        )

    def direction(self, grad: Tensor, memory: Tensor | None, landscape: Landscape) -> tuple[Tensor, Tensor | None]:
        assert memory is not None
        mean = self.beta1 * memory[..., 0] + (1 - self.beta1) * grad
        square = self.beta2 * memory[..., 1] + (1 - self.beta2) * grad * grad
        return mean / (square.sqrt() + self.epsilon), torch.stack([mean, square], -1)
