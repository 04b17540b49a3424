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

BLOCK = 64  # rows that a pilot scores at a time


@dataclass(frozen=True, kw_only=True)
class DensityRatio(Strategy):
    """Base of methods that need log p_data / p_g from the critic; calibrates it in `fit` where real images are given."""

    slope: float | None = None  # factor of the critic's score in the log ratio; none: 1, or fitted where reals are given
    intercept: float = 0.0  # added to slope times score
    temperature: float = 1.0  # divides the log ratio, never the prior; below 1 sharpens
    calibration: Literal["auto", "none"] = "auto"  # none: read an uncalibrated critic as a log ratio as it stands
    pilot_rows: int = 5000  # generated samples that a calibration is fitted on (5,000 or more, and as many reals)

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(temperature=self.temperature, slope=self.slope)
        if not math.isfinite(self.intercept):
            raise UsageError(f"intercept is a finite number, not {self.intercept!r}")
        if self.calibration is None:  # the word none of a command line or a TOML file
            object.__setattr__(self, "calibration", "none")
        if self.calibration not in ("auto", "none"):
            raise UsageError(f"calibration is 'auto' or 'none', not {self.calibration!r}")
        if self.pilot_rows < 2:
            raise UsageError(f"a calibration needs 2 generated samples or more, not {self.pilot_rows!r}")

    @property
    def gain(self) -> float:
        """The derivative of the log ratio by the score."""
        return (1.0 if self.slope is None else self.slope) / self.temperature

    def log_ratio(self, logit: Tensor) -> Tensor:
        """Return log p_data / p_g over the temperature, like `logit`."""
        return self.gain * logit + self.intercept / self.temperature

    @property
    def pilot_with_reals(self) -> int:
        return max(self.pilot, self.pilot_rows if self.slope is None and self.calibration == "auto" else 0)

    def check(self, landscape: Landscape) -> None:
        """Refuse a critic that is no log ratio (no LOGIT, not CALIBRATED, no slope), and an objective that is not the critic's
        score: a sampler has its own target."""
        who, pair = strategy_name(self), landscape.pair
        if not landscape.objective.core().is_score:
            raise RequestError(
                f"'{who}' samples the critic's density and climbs no other objective",
                way_out="Leave the objective out, or use a method that climbs (ifgsm, evolgan, tarsier).",
            )
        if self.slope is not None or pair.capabilities & (Capability.LOGIT | Capability.CALIBRATED):
            return
        if self.calibration == "auto":
            raise MissingCapabilityError(
                f"'{who}' cannot run: {pair.name!r} scores with a critic that is no log odds",
                way_out="Calibrate it on real images (reals= in Python), give --option slope=A, type "
                "--option calibration=none, or use a method that only climbs.",
            )
        warnings.warn(
            f"'{who}' reads the score of {pair.name!r} as log odds although it has no scale: the law that is sampled is an "
            "arbitrary power of the right one, which may change nothing or wreck the samples.",
            LatentshiftWarning,
            stacklevel=2,
        )

    def fit(self, landscape: Landscape, draw: Draw, reals: Any = None) -> Self:
        """Fit slope and intercept by logistic regression where `reals` are given: images in the pair's range (n, C, H, W),
        points (n, d), or for a conditional critic a pair (images, labels)."""
        if reals is None or self.slope is not None or self.calibration == "none":
            return self
        real = real_scores(landscape, reals)
        fake = pilot_scores(landscape, self.pilot_rows)
        slope, intercept = logistic(real, fake)
        if not slope > 0:
            raise RequestError(
                f"the critic of {landscape.pair.name!r} ranks generated images above real ones (fitted slope {slope:.3g})",
                way_out="Check the sign of the critic (real_is) and the range of the real images.",
            )
        return replace(self, slope=slope, intercept=intercept)


def pilot_scores(landscape: Landscape, rows: int) -> Tensor:
    """Return the logits (rows,) of the landscape's first `rows` starts, scored in blocks of `BLOCK`."""
    point0 = landscape.context.point0
    assert point0 is not None
    index = torch.arange(len(point0), device=point0.device)[:rows]
    return torch.cat([landscape.select(i).score(point0[i]) for i in torch.split(index, BLOCK)])


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
        for index in torch.split(torch.arange(len(images)), BLOCK):
            label = None if labels is None else torch.as_tensor(labels)[index].to(pair.device)
            out.append(pair.logit(images[index].to(pair.device, pair.compute_dtype), label))
    landscape.ledger.d_forward += len(images)
    return torch.cat(out)


def logistic(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Return (slope, intercept) of log p_data / p_g = slope d + intercept: maximum likelihood without a penalty, by Newton's
    method in float64; log(n_real / n_fake) is taken off the intercept. Scores that are not finite are left out.

    Raises RequestError where the scores separate the two perfectly: no finite slope is best then.
    """
    real, fake = (d[torch.isfinite(d)].double().cpu() for d in (real, fake))
    if min(len(real), len(fake)) < 2:
        raise RequestError("a calibration needs 2 finite scores of each kind or more")
    if float(real.min()) > float(fake.max()) or float(fake.min()) > float(real.max()):
        raise RequestError(
            "the critic separates the real from the generated images perfectly, so it has no finite calibration",
            way_out="Use real images that it was not trained on, or give slope and intercept.",
        )
    d = torch.cat([real, fake])
    y = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    centre, scale = d.mean(), d.std().clamp_min(1e-12)
    x = torch.stack([(d - centre) / scale, torch.ones_like(d)], 1)

    def loss(beta: Tensor) -> Tensor:
        u = x @ beta
        return (torch.nn.functional.softplus(u) - y * u).sum()

    beta = torch.zeros(2, dtype=torch.float64)
    for _ in range(100):
        p = torch.sigmoid(x @ beta)
        step = torch.linalg.solve((x * (p * (1 - p)).unsqueeze(1)).T @ x + 1e-12 * torch.eye(2).double(), x.T @ (y - p))
        while loss(beta + step) > loss(beta) and float(step.abs().max()) > 1e-14:
            step = step / 2
        beta = beta + step
        if float(step.abs().max()) < 1e-10:
            break
    slope = float(beta[0] / scale)
    return slope, float(beta[1]) - slope * float(centre) - math.log(len(real) / len(fake))
