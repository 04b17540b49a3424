"""What the samplers share: the critic's score read as a log density ratio of real against generated.

    log_ratio(d) = (slope * d + intercept) / temperature

A trained logit is one as it stands. A critic without a scale (Wasserstein, hinge, least squares) is not: read raw, it is
either hardly a sampler at all or wrecks the samples, so it is refused until it is calibrated, or `calibration="none"` is
given. The temperature divides the score alone, never the prior: tempering both samples another law.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from ..errors import LatentshiftWarning, MissingCapabilityError, RequestError, UsageError
from ..lazy import torch
from ..model import Capability
from .base import Strategy, need_positive, strategy_name

if TYPE_CHECKING:
    from torch import Tensor

    from ..landscape import Landscape
    from ..noise import Draw

Kind = Literal["auto", "logistic", "temperature", "isotonic", "head", "none"]
KINDS = ("auto", "logistic", "temperature", "isotonic", "head", "none")


@dataclass(frozen=True, kw_only=True)
class DensityRatio(Strategy):
    """Base of methods that need log p_data / p_g from the critic; calibrates it in `fit` where real images are given."""

    slope: float | None = None  # factor of the critic's score in the log ratio; none: 1, or fitted where reals are given
    intercept: float = 0.0  # added to slope times score
    temperature: float = 1.0  # divides the log ratio, never the prior; below 1 sharpens
    calibration: Kind = "auto"  # fitted on reals: logistic (auto), temperature, isotonic, head (on D's features); none: off
    pilot_rows: int = 5000  # generated samples that a calibration is fitted on (5,000 or more, and as many reals)
    levels: tuple[float, ...] = ()  # learned by an isotonic fit: scores where a step begins
    level_ratios: tuple[float, ...] = ()  # learned: the log ratio of each step

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(temperature=self.temperature, slope=self.slope)
        if not math.isfinite(self.intercept):
            raise UsageError(f"intercept is a finite number, not {self.intercept!r}")
        if self.calibration is None:  # the word none of a command line or a TOML file
            object.__setattr__(self, "calibration", "none")
        if self.calibration not in KINDS:
            raise UsageError(f"calibration is one of {', '.join(KINDS)}, not {self.calibration!r}")
        if self.pilot_rows < 2:
            raise UsageError(f"a calibration needs 2 generated samples or more, not {self.pilot_rows!r}")

    @property
    def gain(self) -> float:
        """The derivative of the log ratio by the score."""
        return (1.0 if self.slope is None else self.slope) / self.temperature

    def log_ratio(self, logit: Tensor) -> Tensor:
        """Return log p_data / p_g over the temperature, like `logit`."""
        if self.levels:
            return self._stepped(logit) / self.temperature
        return self.gain * logit + self.intercept / self.temperature

    def _stepped(self, logit: Tensor) -> Tensor:
        from ..calibration import Isotonic

        knots = [torch.tensor(v, dtype=torch.float64) for v in (self.levels, self.level_ratios)]
        ratio = Isotonic(*knots)(logit)
        return torch.where(torch.isnan(logit), logit, ratio)

    @property
    def calibrates(self) -> bool:
        """Whether a calibration is still to be fitted where real images are given."""
        return self.slope is None and not self.levels and self.calibration not in ("head", "none")

    @property
    def reads_reals(self) -> bool:
        return self.calibrates or (self.calibration == "head" and self.slope is None)

    @property
    def pilot_with_reals(self) -> int:
        return max(self.pilot, self.pilot_rows if self.calibrates else 0)

    def check(self, landscape: Landscape) -> None:
        """Refuse a critic that is no log ratio (no LOGIT, not CALIBRATED, no slope), and an objective that is not the critic's
        score: a sampler has its own target."""
        who, pair = strategy_name(self), landscape.pair
        if not landscape.objective.core().is_score:
            raise RequestError(
                f"'{who}' samples the critic's density and climbs no other objective",
                way_out="Leave the objective out, or use a method that climbs (ifgsm, evolgan, tarsier).",
            )
        if self.calibration == "isotonic" and Capability.GRADIENT in self.needs:
            raise RequestError(
                f"'{who}' follows the gradient of the log ratio, and that of an isotonic fit is 0",
                way_out="Use --calibration logistic or temperature, or a method that selects (mh, drs, obrs).",
            )
        if self.slope is not None or self.levels or Capability.CALIBRATED in pair.capabilities:
            return
        if self.calibration == "head" and Capability.LOGIT in pair.capabilities:
            return
        if self.calibration in ("logistic", "temperature", "isotonic", "head"):
            raise MissingCapabilityError(
                f"'{who}' cannot fit a {self.calibration} calibration without real images",
                way_out="Give --reals DATA (reals= in Python), or --option slope=A.",
            )
        if Capability.LOGIT in pair.capabilities:
            return
        if self.calibration == "auto":
            raise MissingCapabilityError(
                f"'{who}' cannot run: {pair.name!r} scores with a critic that is no log odds",
                way_out="Calibrate it on real images (--reals DATA; reals= in Python), give --option slope=A, type "
                "--calibration none, or use a method that only climbs.",
            )
        warnings.warn(
            f"'{who}' reads the score of {pair.name!r} as log odds although it has no scale: the law that is sampled is an "
            "arbitrary power of the right one, which may change nothing or wreck the samples.",
            LatentshiftWarning,
            stacklevel=2,
        )

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Self:
        """Calibrate the critic where `reals` are given: images in the pair's range (n, C, H, W), points (n, d), or for a
        conditional critic a pair (images, labels). Scores that are not finite are left out.

        Raises RequestError where the critic ranks generated images above real ones, or separates the two perfectly.
        """
        if reals is None or not self.calibrates:
            return self
        from .. import calibration

        real, fake = real_scores(landscape, reals), pilot_scores(landscape, self.pilot_rows)
        real, fake = real[torch.isfinite(real)], fake[torch.isfinite(fake)]
        if self.calibration == "isotonic":
            steps = calibration.fit_isotonic(real, fake)
            return replace(self, levels=tuple(steps.scores.tolist()), level_ratios=tuple(steps.logits.tolist()))
        kind = calibration.fit_temperature if self.calibration == "temperature" else calibration.fit_logistic
        line = kind(real, fake)
        return replace(self, slope=line.a, intercept=line.b)


def pilot_scores(landscape: Landscape, rows: int) -> Tensor:
    """Return the logits (rows,) of the landscape's first `rows` starts, scored a block at a time."""
    point0 = landscape.context.point0
    assert point0 is not None
    return torch.cat([landscape.select(i).score(point0[i]) for i in landscape.blocks(min(rows, len(point0)))])


def real_scores(landscape: Landscape, reals: Any) -> Tensor:
    """Return the logits (n,) of real images, counted in the ledger."""
    pair = landscape.pair
    images, labels = reals if isinstance(reals, tuple) else (reals, None)
    if labels is None and pair.need_critic().labels:
        raise RequestError(f"the critic of {pair.name!r} is conditional", way_out="Give reals as (images, labels).")
    images = torch.as_tensor(images)
    if pair.image_shape is not None and tuple(images.shape[1:]) != pair.image_shape:
        raise RequestError(f"real images have shape {tuple(images.shape)}, this pair makes (rows, {pair.image_shape})")
    out = []
    with torch.no_grad():
        for index in torch.split(torch.arange(len(images)), landscape.block):
            label = None if labels is None else torch.as_tensor(labels)[index].to(pair.device)
            out.append(pair.logit(images[index].to(pair.device, pair.compute_dtype), label))
    landscape.ledger.d_forward += len(images)
    return torch.cat(out)
