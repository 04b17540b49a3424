"""AdvLatGAN-div's pair mining (paper 000, Eq. 8): two latents far apart whose images are close, and its inverse.

    z*(z0) = argmin over |z - z0|_inf <= eps of R(z) = d_I(G(z0), G(z)) / d_z(z0, z)

with mean absolute differences per sample. Published code takes the ratio of two batch means, plus 1 in the denominator, and no
ball: a row's partner then depends on its neighbours. Here each row has its own ratio; the batch form is a compatibility option.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..errors import LatentshiftWarning, RequestError, UsageError
from ..model import Capability
from ..objective import Ratio, Scene, Term
from .base import Cost, Info, need_positive
from .gradient import IFGSM, GradientState

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw


class MiningState(NamedTuple):
    """A point, its start, and the start's images."""

    point: Tensor
    done: Tensor
    why: Tensor
    start: Tensor
    image0: Tensor


@dataclass(frozen=True, kw_only=True)
class PairMining(IFGSM):
    """Find each sample's hardest partner: far in latent space, near in images (AdvLatGAN-div's mining); or its easiest.

    Choose it, in the hard form, to measure collapse (the distribution of the least ratio), the easy form to spread samples. D
    is not used. Source: paper 000, Eq. 8. Cost: steps + 1 forwards and steps backwards of G.
    """

    name: ClassVar[str] = "pair-mining"
    source: ClassVar[str] = "AdvLatGAN-div (paper 000, Eq. 8)"
    needs: ClassVar[Capability] = Capability.GRADIENT
    tells_start: ClassVar[bool] = False

    form: Literal["hard", "easy"] = "hard"  # hard: least ratio (Eq. 8), easy: largest
    jitter: float = 0.01  # standard deviation of the first step away from the start, in latent units (the code: 0.08)
    batch_mean: bool = False  # the published ratio of batch means (plus 1 below): rows then depend on their batch

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(jitter=self.jitter)
        if self.form not in ("hard", "easy"):
            raise UsageError(f"form is 'hard' or 'easy', not {self.form!r}")

    def cost(self) -> Cost:
        return Cost(self.steps + 1 if self.steps else 0, 0, self.steps, 0)

    def check(self, landscape: Landscape) -> None:
        super().check(landscape)
        if not landscape.space.runs_generator:
            raise RequestError(
                f"'{self.name}' compares latents with images, and {landscape.space.name!r} holds images",
                way_out="Use --space z.",
            )
        if self.batch_mean:
            warnings.warn(
                "batch_mean couples the rows of a chunk: a sample's partner depends on its neighbours and on the chunk size.",
                LatentshiftWarning,
                stacklevel=2,
            )

    def init(self, point0: Tensor, landscape: Landscape, draw: Draw) -> MiningState:  # type: ignore[override]
        start = super().init(point0, landscape, draw)
        if self.steps == 0:
            return MiningState(point0, start.done, start.why, point0, point0)
        noise = draw.normal(0, "jitter", landscape.space.shape, point0.dtype)
        point = self.inside(point0 + self.jitter * noise, point0, landscape)
        return MiningState(point, start.done, start.why, point0, landscape.images(point0))

    def step(  # type: ignore[override]
        self, state: MiningState, t: Tensor | int, landscape: Landscape, draw: Draw
    ) -> tuple[MiningState, Info]:
        ratio: Term = BatchRatio() if self.batch_mean else Ratio()
        land = landscape.with_objective(-ratio if self.form == "hard" else ratio)
        land.context = land.context._replace(point0=state.start, image0=state.image0)
        plain = GradientState(state.point, state.done, state.why, state.start)
        moved, info = super().step(plain, t, land, draw)
        return MiningState(moved.point, moved.done, moved.why, state.start, state.image0), info


@dataclass(frozen=True)
class BatchRatio(Term):
    """The published form of Eq. 8: mean image distance of the batch over its mean latent distance plus 1, for every row."""

    def value(self, scene: Scene) -> Tensor:
        point0, image0 = scene.context.point0, scene.context.image0
        assert point0 is not None, "the context holds no start"
        assert image0 is not None, "the context holds no start image"
        ratio = (scene.images - image0).abs().mean() / ((scene.point - point0).abs().mean() + 1.0)
        return ratio.expand(scene.point.shape[0])
