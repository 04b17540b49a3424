"""AdvLatGAN-z: I-FGSM, MI-FGSM and PGD on the latent (paper 001 Eq. 5 to 7; paper 000 D and E).

    z*(z0) = argmin over |z - z0| <= eps of log(1 - D(G(z)))        (Eq. 5)
    z <- z + alpha * direction(grad_z d(G(z)))                      (Eq. 6; d = the logit, whose order is that of the loss)

The papers print one letter for the radius of Eq. 5 and the step of Eq. 6; here `eps` is the radius and `step_size` alpha.
The published code has no ball and no projection: `eps=None, support="free"` is that form. Cost: one forward of G and D and
one backward to z per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..errors import RequestError, UsageError
from ..lazy import torch
from ..space import Norm, rows_sum
from .base import Cost, Info, Outcome, Strategy, ended, fresh, need_positive, not_finite, taken

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

Support = Literal["clamp", "shell", "auto", "free"]
Unit = Literal["latent", "prior"]


class GradientState(NamedTuple):
    """A point, its gradient memory, and whether the row is finished."""

    point: Tensor
    done: Tensor
    why: Tensor
    start: Tensor
    memory: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class IFGSM(Strategy):
    """Iterated sign steps up the critic, inside a ball around the start (AdvLatGAN-z's I-FGSM; l_2: I-FGM).

    Choose it first: cheap, keeps each sample near its start and so the modes, needs a gradient. The score rises on nearly every
    sample; whether the images get better is for a judge to say. Cost: one forward and backward pass per step.
    """

    name: ClassVar[str] = "ifgsm"
    source: ClassVar[str] = "AdvLatGAN (paper 001 Eq. 5 to 7, paper 000 D)"
    tells_start: ClassVar[bool] = True

    steps: int = 20  # gradient steps
    eps: float | None = 0.3  # radius of the ball around the start, in latent units; none: unconstrained
    step_size: float | None = None  # length of a step, in latent units; none: 2.5 eps / steps
    norm: Norm = "inf"  # norm of the ball and of the step: inf or 2
    support: Support = "clamp"  # clamp to the prior's support, shell (the start's length), auto (by prior), or free
    decay: bool = False  # let the step size fall linearly to 0
    unit: Unit = "latent"  # of eps and step_size: latent, or prior (standard deviations of the prior)

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(eps=self.eps, step_size=self.step_size)
        if str(self.norm) not in ("inf", "2"):
            raise UsageError(f"norm is 'inf' or '2', not {self.norm!r}")
        object.__setattr__(self, "norm", str(self.norm))
        if self.support not in ("clamp", "shell", "auto", "free"):
            raise UsageError(f"support is clamp, shell, auto or free, not {self.support!r}")
        if self.unit not in ("latent", "prior"):
            raise UsageError(f"unit is latent or prior, not {self.unit!r}")
        if self.eps is None and self.step_size is None:
            raise UsageError("an unconstrained climb needs a step size", way_out="Give step_size, or a radius eps.")

    def cost(self) -> Cost:
        return Cost.of(self.steps, self.steps)

    def check(self, landscape: Landscape) -> None:
        if self.support == "shell" and landscape.space.prior.bounded:
            raise RequestError(
                f"a shell has no meaning for a {landscape.space.prior.kind} prior",
                way_out="Use support=clamp, or auto.",
            )

    def scale(self, landscape: Landscape) -> float:
        """Return the length of one unit of eps and step_size in latent units."""
        return landscape.space.prior.scale() if self.unit == "prior" else 1.0

    def rate(self, t: Tensor | int) -> Tensor | float:
        """Return alpha_t: `step_size`, or 2.5 eps / steps; falling to 0 with `decay`."""
        alpha = self.step_size if self.step_size is not None else 2.5 * (self.eps or 0.0) / max(self.steps, 1)
        return alpha * (1 - t / self.steps) if self.decay else alpha

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> GradientState:
        return GradientState(point0, *fresh(point0), start=point0)

    def direction(self, grad: Tensor, memory: Tensor | None, landscape: Landscape) -> tuple[Tensor, Tensor | None]:
        """Return the unit step of a gradient (sign for l_inf, g / |g|_2 for l_2) and the next memory."""
        return (grad.sign() if self.norm == "inf" else landscape.space.unit(grad)), memory

    def inside(self, point: Tensor, start: Tensor, landscape: Landscape) -> Tensor:
        """Return `point` back in the ball and in the prior's support. Clamping after projecting keeps both: the ball's
        centre lies in a convex support."""
        space = landscape.space
        support = self.support
        if support == "auto":
            support = "shell" if space.prior.kind == "normal" and space.size > 8 else "clamp"
        if support == "shell":
            point = space.shell(point, start)
        eps = None if self.eps is None else self.eps * self.scale(landscape)
        point = space.project(point, start, eps, self.norm)
        return space.clamp(point) if support == "clamp" else point

    def step(self, state: GradientState, t: Tensor | int, landscape: Landscape, draw: Draw) -> tuple[GradientState, Info]:
        value, grad = landscape.ascent(state.point)
        direction, memory = self.direction(grad, state.memory, landscape)
        moved = self.inside(state.point + self.rate(t) * self.scale(landscape) * direction, state.start, landscape)
        broken = not_finite(value, grad)
        done, why = ended(state.done, state.why, broken, "nan")
        point = taken(broken, state.point, moved)
        return GradientState(point, done, why, state.start, memory), Info(value)

    def finish(self, state: GradientState, landscape: Landscape) -> Outcome:
        return Outcome(state.point, stopped=state.why)


@dataclass(frozen=True, kw_only=True)
class MIFGSM(IFGSM):
    """I-FGSM with momentum on the l_1-normalised gradient (MI-FGSM).

    Choose it where plain steps stall in a noisy score. m <- mu m + g / |g|_1, step along sign(m). Overshoots where gradients
    turn; harmed on 3 of 3 measured image pairs. Cost: one forward and backward pass per step.
    """

    name: ClassVar[str] = "mifgsm"
    source: ClassVar[str] = "AdvLatGAN (paper 000 E, Table 10); Dong et al. 2018"

    mu: float = 1.0  # decay of the momentum

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> GradientState:
        return super().init(point0, landscape, draw)._replace(memory=torch.zeros_like(point0))

    def direction(self, grad: Tensor, memory: Tensor | None, landscape: Landscape) -> tuple[Tensor, Tensor | None]:
        assert memory is not None
        norm1 = landscape.space._view(rows_sum(grad.abs(), landscape.space.axes).clamp_min(1e-12))
        memory = self.mu * memory + grad / norm1
        return super().direction(memory, memory, landscape)


@dataclass(frozen=True, kw_only=True)
class PGD(IFGSM):
    """I-FGSM from a random start inside the ball (PGD).

    Choose it to compare with the papers, or for several different ends of one start. Spends radius on the start; equal or below
    I-FGSM in the papers and on all measured pairs. Cost: one forward and backward pass per step.
    """

    name: ClassVar[str] = "pgd"
    source: ClassVar[str] = "AdvLatGAN (paper 000 E, Table 10); Madry et al. 2018"
    tells_start: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps is None:
            raise UsageError("a random start needs a ball", way_out="Give eps.")

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> GradientState:
        state = super().init(point0, landscape, draw)
        if self.steps == 0:
            return state
        assert self.eps is not None
        noise = draw.uniform(0, "start", (1 + landscape.space.size,), dtype=torch.float64).to(point0.dtype)
        jittered = landscape.space.jitter(point0, noise, self.eps * self.scale(landscape), self.norm)
        return state._replace(point=self.inside(jittered, point0, landscape))


def ifgsm_step(
    z: Tensor,
    landscape: Landscape,
    step_size: float,
    z0: Tensor | None = None,
    eps: float | None = None,
    norm: Norm = "inf",
) -> Tensor:
    """Return z after one I-FGSM step: one forward of G, one of D, one backward to z; no weight gets a gradient.

    z: (rows, *shape). `z0` and `eps` give a ball. For use inside a training loop (AdvLatGAN-qua is this step on D's batch).
    """
    strategy = IFGSM(steps=1, step_size=step_size, eps=eps, norm=norm, support="free")
    state = GradientState(z.detach(), *fresh(z), start=z.detach() if z0 is None else z0.detach())
    return strategy.step(state, 0, landscape, None)[0].point  # type: ignore[arg-type]
