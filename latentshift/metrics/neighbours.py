"""Exact nearest-neighbour distances of large feature sets: single precision finds the candidates, double precision decides.

One float32 product of rows with two columns more gives, for every pair at once, a number `low` that never exceeds the squared
distance: with |x|^2 + |y|^2 = s, unit roundoff u = 2^-24 and `size` features, the computed -2xy + s is off by at most

    slack s,    slack = 1.05 (2 (size + 2) u / (1 - (size + 2) u) + 4 u)

(Higham 2002, section 3.1: an inner product of m terms in any order errs by at most m u / (1 - m u) of the sum of magnitudes;
4 u for rounding the features and norms), and `low` is formed with (1 - slack) s. Pairs that `low` cannot settle are
measured again in float64, from differences. So results are those of float64, at the price of float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .arrays import Array

BLOCK = 4096  # rows a block: 4096 x 4096 float32 = 64 MiB
SPARE = 6  # candidates kept beyond k: enough for nearly every row
_PAIRS = 2**18  # numbers a go when pairs are measured in float64: 2 MiB an operand stay in the cache
_TINY = 1e-30  # squared distances below this, in units of the largest feature, underflow in float32
_EDGE = 2.0**-22  # relative; rounding a limit to float32 must not lose a pair

Index = npt.NDArray[np.int64]


def distances(x: Array, y: Array, i: Index, j: Index) -> Array:
    """Return |x[i] - y[j]| for pairs of row numbers, (pairs,) float64."""
    out = np.empty(len(i))
    step = max(1, _PAIRS // x.shape[1])
    for a in range(0, len(i), step):
        part = slice(a, a + step)
        gap = x[i[part]] - y[j[part]]
        out[part] = np.sqrt(np.einsum("ij,ij->i", gap, gap))
    return out


class Screen:
    """Lower bounds of the squared distances between the rows of two sets, in units of `unit`, block by block."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        shift = x.mean(0) if x is y else (x.mean(0) + y.mean(0)) / 2
        share = (x.shape[1] + 2) * 2.0**-24
        self.slack = 1.05 * (2 * share / max(1 - share, 0.01) + 4 * 2.0**-24)
        ends = [e(0) - shift for a in (x, y) for e in (a.max, a.min)]
        self.unit = max(float(np.abs(e).max()) for e in ends) or 1.0
        self.left, self.xx = self._side(x, shift, first=True)
        self.right, self.yy = self._side(y, shift, first=False)

    def _side(self, a: Array, shift: Array, *, first: bool) -> tuple[npt.NDArray[np.float32], Array]:
        size = a.shape[1]
        out, squares = np.ones((len(a), size + 2), np.float32), np.empty(len(a))
        for rows in spans(len(a)):
            scaled = (a[rows] - shift) / self.unit
            squares[rows] = np.einsum("ij,ij->i", scaled, scaled)
            out[rows, :size] = -2 * scaled if first else scaled
        out[:, size if first else size + 1] = (1 - self.slack) * squares
        return out, squares

    def low(self, rows: slice | Index, columns: slice) -> torch.Tensor:
        """Return the lower bounds of a block, (rows, columns) float32."""
        return torch.from_numpy(self.left[rows] @ self.right[columns].T)

    def near(self, low: torch.Tensor, reach: Array) -> tuple[Index, Index]:
        """Return the places in a block of all pairs that may lie within `reach`, (rows, 1) or (1, columns)."""
        limit = torch.from_numpy((reach / self.unit) ** 2 * (1 + _EDGE) + _TINY).float()
        at = (low <= limit).nonzero().numpy()
        return at[:, 0], at[:, 1]

    def closer(self, low: torch.Tensor, rows: slice, columns: slice, reach: Array) -> tuple[Index, Index]:
        """Return the row numbers of a block's pairs that are closer than `reach`, (rows, 1) or (1, columns), exactly."""
        i, j = self.near(low, reach)
        limit = np.broadcast_to(reach, low.shape)[i, j]
        bound = low.numpy()[i, j].astype(np.float64)
        i, j = i + rows.start, j + columns.start
        high = bound + 2.1 * self.slack * (self.xx[i] + self.yy[j]) + _TINY
        inside = high < (limit / self.unit) ** 2 * (1 - _EDGE)
        open_ = np.flatnonzero(~inside)
        inside[open_] = distances(self.x, self.y, i[open_], j[open_]) < limit[open_]
        return i[inside], j[inside]


def spans(rows: int) -> list[slice]:
    """Return the blocks of so many rows."""
    return [slice(i, min(i + BLOCK, rows)) for i in range(0, rows, BLOCK)]


def kth_distances(a: Array, k: int) -> Array:
    """Return the distance of every row to its k-th neighbour, itself not counted; each block of pairs is met once."""
    n = len(a)
    screen = Screen(a, a)
    keep = min(k + SPARE, n - 1)
    low, index = torch.full((n, keep), float("inf")), torch.zeros((n, keep), dtype=torch.int64)

    def merge(rows: slice, block: torch.Tensor, start: int) -> None:
        values, at = block.topk(min(keep, block.shape[1]), 1, largest=False)
        values, at = torch.cat([low[rows], values], 1), torch.cat([index[rows], at + start], 1)
        low[rows], pick = values.topk(keep, 1, largest=False)
        index[rows] = at.gather(1, pick)

    for b, rows in enumerate(spans(n)):
        for columns in spans(n)[b:]:
            block = screen.low(rows, columns)
            if rows == columns:
                block.fill_diagonal_(float("inf"))
            merge(rows, block, columns.start)
            if rows != columns:
                merge(columns, block.T.contiguous(), rows.start)
    pairs = distances(a, a, np.repeat(np.arange(n), keep), index.numpy().ravel())
    found: Array = np.sort(pairs.reshape(n, keep), 1)[:, k - 1]
    if keep < n - 1:  # a row that was not kept is no nearer than the last one that was: is that beyond the k-th?
        limit = (found / screen.unit) ** 2 * (1 + _EDGE)
        doubtful = np.flatnonzero(limit > low[:, -1].double().numpy())
        for part in spans(len(doubtful)):
            rows_ = doubtful[part]
            found[rows_] = _settled(screen, rows_, found[rows_], k)
    return found


def _settled(screen: Screen, rows: Index, reach: Array, k: int) -> Array:
    """Return the k-th distances of some rows (ascending) that are known to be at most `reach`: all pairs within measured."""
    who, far = [], []
    for columns in spans(len(screen.y)):
        i, j = screen.near(screen.low(rows, columns), reach[:, None])
        i, j = rows[i], j + columns.start
        i, j = i[i != j], j[i != j]
        who.append(i)
        far.append(distances(screen.x, screen.y, i, j))
    i, d = np.concatenate(who), np.concatenate(far)
    order = np.lexsort((d, i))
    out: Array = d[order][np.searchsorted(i[order], rows) + k - 1]
    return out
