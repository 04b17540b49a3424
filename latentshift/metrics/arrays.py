"""What every metric asks of its input, checked once: finite float64 rows, two sets of the same width."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import NumericError, ShapeError

Array = npt.NDArray[np.float64]
ArrayLike = npt.NDArray[Any] | torch.Tensor


def to_numpy(x: ArrayLike) -> npt.NDArray[Any]:
    """Return a tensor or an array as a numpy array (a tensor is detached and brought to the CPU)."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        return np.asarray(x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy())
    return np.asarray(x)


def as_rows(x: ArrayLike, name: str = "features", *, least: int = 1) -> Array:
    """Return `x` as float64 (rows, size).

    Raises ShapeError unless it has two axes and `least` rows, NumericError where a number is NaN or infinite: one such
    row would turn every metric into NaN, and dropping it would flatter the set that it came from.
    """
    a = to_numpy(x)
    if a.ndim != 2:
        raise ShapeError(f"{name} must be (rows, size), got {a.shape}")
    if a.shape[0] < least:
        raise ShapeError(f"{name}: {a.shape[0]} rows where {least} are needed", way_out="Give more images.")
    if a.shape[1] == 0:
        raise ShapeError(f"{name} have size 0")
    rows: Array = a.astype(np.float64, copy=False)
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise NumericError(
            f"{name}: {int((~finite).sum())} of {len(rows)} rows are NaN or infinite, the first is row {first}",
            way_out="Look at these images: a metric over the rest would be a wrong number.",
        )
    return rows


def as_pair(a: ArrayLike, b: ArrayLike, *, least: int = 1) -> tuple[Array, Array]:
    """Return two feature sets as float64 rows of the same width; the numbers of rows may differ."""
    x, y = as_rows(a, "features a", least=least), as_rows(b, "features b", least=least)
    if x.shape[1] != y.shape[1]:
        raise ShapeError(
            f"features of size {x.shape[1]} and {y.shape[1]} cannot be compared", way_out="Use one network for both."
        )
    return x, y
