"""Calibration of a critic: from its score d to the log odds of real against generated.

`l = d / T` (temperature), `l = a d + b` (logistic, no penalty), a monotone step function (isotonic), and beta
calibration where only a probability is at hand (Kull 2017). Fitted on real and generated scores that the critic was not
trained on; log(n_real / n_fake) is taken off, so that l = 0 means even odds whatever the two counts were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import NumericError, RequestError
from .lazy import numpy as np
from .lazy import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    Array = npt.NDArray[np.float64]
    ArrayLike = npt.NDArray[Any] | Tensor


def _array(x: ArrayLike) -> Array:
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().double().numpy()
    out: Array = np.asarray(x, np.float64).ravel()
    return out


def _scores(real: ArrayLike, fake: ArrayLike) -> tuple[Array, Array]:
    out = []
    for name, x in (("real", real), ("generated", fake)):
        d = _array(x)
        if len(d) < 2:
            raise RequestError(f"calibration needs 2 or more {name} scores, got {len(d)}")
        if not np.isfinite(d).all():
            raise NumericError(f"{int((~np.isfinite(d)).sum())} of {len(d)} {name} scores are NaN or infinite")
        out.append(d)
    return out[0], out[1]


def _ranks(x: Array) -> Array:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def auc(real: ArrayLike, fake: ArrayLike) -> float:
    """Probability that a real scores above a fake, ties counting half (the Mann-Whitney form)."""
    r, f = _scores(real, fake)
    rank = _ranks(np.concatenate([r, f]))[: len(r)].sum()
    return float((rank - len(r) * (len(r) + 1) / 2) / (len(r) * len(f)))


def z_statistic(logit_real: ArrayLike, logit_fake: ArrayLike) -> float:
    """Z = sum(y - p) / sqrt(sum p (1 - p)) of calibrated logits on held-out scores; |Z| < 2 passes (Turner 2019).

    p is taken at the odds of the two counts, as the logits themselves stand for even odds.
    """
    r, f = _scores(logit_real, logit_fake)
    logit = np.concatenate([r, f]) + np.log(len(r) / len(f))
    p = _sigmoid(logit)
    return float((len(r) - p.sum()) / np.sqrt(max((p * (1 - p)).sum(), np.finfo(np.float64).tiny)))


def _sigmoid(x: Array) -> Array:
    y: Array = 0.5 * (1 + np.tanh(x / 2))  # no overflow on either side
    return y


def _newton(design: Array, y: Array) -> Array:
    """Maximum likelihood of a logistic model without penalty: (columns,); damped Newton on standardised columns.

    Raises RequestError where the two sides are separable: the maximum is at infinity.
    """
    weight = np.zeros(design.shape[1])

    def loss(w: Array) -> float:
        s = design @ w
        return float(np.logaddexp(0, s).sum() - y @ s)

    value = loss(weight)
    for _ in range(100):
        p = _sigmoid(design @ weight)
        gradient = design.T @ (p - y)
        hessian = (design * (p * (1 - p))[:, None]).T @ design
        try:
            move = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0
        while size > 1e-8 and loss(weight - size * move) > value:
            size /= 2
        weight = weight - size * move
        value = loss(weight)
        if np.abs(design @ weight).max() > 1e4 or value < 1e-6 * len(y):
            break
        if np.abs(size * move).max() < 1e-12 * (1 + np.abs(weight).max()):
            return weight
    p = _sigmoid(design @ weight)
    if np.abs(design.T @ (p - y)).max() < 1e-6 * len(y) and value > 1e-6 * len(y):
        return weight
    raise RequestError(
        "the critic separates real from generated perfectly: no finite calibration exists",
        way_out="Give more real images, and such as it was not trained on.",
    )


def _labels(real: Array, fake: Array) -> tuple[Array, Array]:
    return np.concatenate([real, fake]), np.concatenate([np.ones(len(real)), np.zeros(len(fake))])


def _informative(a: float) -> float:
    if not a > 0:
        raise RequestError(
            f"the critic is anti-informative: its slope is {a:.3g}, generated samples score above real ones",
            way_out="Check which sign means real (--critic-sign, real_is=) and the range of the real images.",
        )
    return a


@dataclass(frozen=True)
class Linear:
    """l = a d + b, differentiable; `kind` says how it was fitted."""

    a: float
    b: float
    kind: str = "logistic"

    def __call__(self, score: Tensor) -> Tensor:
        return self.a * score + self.b


def fit_temperature(real: ArrayLike, fake: ArrayLike) -> Linear:
    """l = d / T with T by maximum likelihood at the odds of the two counts; a = 1/T, b = 0.

    Raises RequestError where no positive temperature fits, or where 0 separates the scores.
    """
    r, f = _scores(real, fake)
    d, y = _labels(r, f)
    offset, scale = np.log(len(r) / len(f)), max(float(np.abs(d).max()), np.finfo(np.float64).tiny)
    if (r > 0).all() and (f < 0).all():
        raise RequestError(
            "the critic separates real from generated perfectly, at 0: the temperature would be 0",
            way_out="Give more real images, and such as it was not trained on.",
        )
    s, low, high = d / scale, 0.0, 1.0

    def slope(a: float) -> float:
        return float(s @ (y - _sigmoid(a * s + offset)))

    if slope(0.0) <= 0:
        if r.mean() > f.mean():
            raise RequestError(
                "no temperature fits: the critic ranks real above generated, but about another point than 0",
                way_out="Use a logistic calibration, which has an offset.",
            )
        _informative(slope(0.0))
    while slope(high) > 0 and high < 1e12:
        low, high = high, high * 2
    for _ in range(200):  # the likelihood is concave in a: bisection on its slope
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return Linear((low + high) / 2 / scale, 0.0, "temperature")


def fit_logistic(real: ArrayLike, fake: ArrayLike) -> Linear:
    """l = a d + b by maximum likelihood without penalty (Platt), log(n_real / n_fake) taken off b.

    Raises RequestError for a <= 0, and for scores that separate perfectly.
    """
    r, f = _scores(real, fake)
    d, y = _labels(r, f)
    mean, std = float(d.mean()), float(d.std())
    if std == 0:
        raise RequestError("all scores are equal: there is nothing to calibrate")
    a, b = _newton(np.stack([(d - mean) / std, np.ones_like(d)], 1), y)
    slope = _informative(float(a) / std)
    return Linear(slope, float(b) - slope * mean - float(np.log(len(r) / len(f))))


@dataclass(frozen=True)
class Beta:
    """l = a log p - b log(1 - p) + c of a probability p."""

    a: float
    b: float
    c: float

    def __call__(self, probability: Tensor) -> Tensor:
        p = probability.clamp(1e-12, 1 - 1e-7)
        return self.a * p.log() - self.b * torch.log1p(-p) + self.c


def fit_beta(real: ArrayLike, fake: ArrayLike) -> Beta:
    """Beta calibration of probabilities in 0..1; a negative a or b is set to 0 and the rest fitted again."""
    r, f = _scores(real, fake)
    p, y = _labels(r, f)
    if (p < 0).any() or (p > 1).any():
        raise RequestError(f"beta calibration takes probabilities, got {p.min():.3g} to {p.max():.3g}")
    p = p.clip(1e-12, 1 - 1e-7)
    columns, one = [np.log(p), -np.log1p(-p)], np.ones_like(p)
    w = _newton(np.stack([*columns, one], 1), y)
    if min(w[0], w[1]) < 0:
        keep = int(w[1] > w[0])
        slope, c = _newton(np.stack([columns[keep], one], 1), y)
        w = np.array([slope if keep == 0 else 0.0, slope if keep == 1 else 0.0, c])
    _informative(max(float(w[0]), float(w[1])))
    return Beta(float(w[0]), float(w[1]), float(w[2] - np.log(len(r) / len(f))))


def pool_adjacent(y: Array, weight: Array) -> Array:
    """Weighted least-squares fit that never falls (pool adjacent violators), (n,) in linear time."""
    value: list[float] = []
    mass: list[float] = []
    size: list[int] = []
    for v, w in zip(y.tolist(), weight.tolist()):
        value.append(v)
        mass.append(w)
        size.append(1)
        while len(value) > 1 and value[-2] >= value[-1]:
            last, heavy = value.pop(), mass.pop()
            value[-1] = (value[-1] * mass[-1] + last * heavy) / (mass[-1] + heavy)
            mass[-1] += heavy
            joined = size.pop()
            size[-1] += joined
    return np.repeat(value, size)


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A monotone step function: the logit of the block of the largest fitted score at or below d. Its gradient is 0."""

    scores: Tensor = field(repr=False)
    logits: Tensor = field(repr=False)

    def __call__(self, score: Tensor) -> Tensor:
        place = torch.searchsorted(self.scores.to(score.device), score.double().contiguous(), right=True) - 1
        return self.logits.to(score.device)[place.clamp(min=0)].to(score.dtype)


def fit_isotonic(real: ArrayLike, fake: ArrayLike) -> Isotonic:
    """Isotonic regression of y on d; p clipped to [1/(2n), 1 - 1/(2n)]. For acceptance steps, not for climbing.

    Raises RequestError where the fit is flat: the critic then ranks nothing.
    """
    r, f = _scores(real, fake)
    d, y = _labels(r, f)
    scores, inverse, counts = np.unique(d, return_inverse=True, return_counts=True)
    fitted = pool_adjacent(np.bincount(inverse, y) / counts, counts.astype(np.float64))
    if fitted[0] == fitted[-1]:
        _informative(0.0)
    p = fitted.clip(0.5 / len(d), 1 - 0.5 / len(d))
    logits = np.log(p) - np.log1p(-p) - np.log(len(r) / len(f))
    first = np.flatnonzero(np.diff(fitted, prepend=-1.0) > 0)  # one entry a block
    return Isotonic(torch.from_numpy(scores[first]), torch.from_numpy(logits[first]))
