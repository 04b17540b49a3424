"""Calibration of a critic beside the metrics that check it; its home is `latentshift.calibration`."""

from ..calibration import (
    Beta,
    Isotonic,
    Linear,
    auc,
    fit_beta,
    fit_isotonic,
    fit_logistic,
    fit_temperature,
    pool_adjacent,
    z_statistic,
)

__all__ = [
    "Beta",
    "Isotonic",
    "Linear",
    "auc",
    "fit_beta",
    "fit_isotonic",
    "fit_logistic",
    "fit_temperature",
    "pool_adjacent",
    "z_statistic",
]
