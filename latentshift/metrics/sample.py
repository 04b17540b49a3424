"""One side of an evaluation: feature rows with what belongs to them, and the real images that both sides stand against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError, ShapeError
from .arrays import Array, ArrayLike, as_rows, to_numpy
from .clusters import Clusters, cells_of
from .coverage import nearest_distances
from .distance import Moments, bias_of, root_of
from .features import Extracted, Features, extract
from .judge import Judge

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """`features` (n, size) float64; `logits` (n, classes), `labels` (n,) and `seeds` (n,) where there are any.

    `z0`, `z` (n, ...): the latents before and after, where the rows come from a run.
    """

    features: Array
    network: str = ""
    name: str = ""
    logits: Array | None = None
    labels: Ints | None = None
    seeds: Ints | None = None
    z0: Array | None = None
    z: Array | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        data: ArrayLike,
        network: Features | None = None,
        *,
        name: str = "",
        labels: ArrayLike | Sequence[int] | None = None,
        seeds: ArrayLike | Sequence[int] | None = None,
        logits: ArrayLike | None = None,
        **more: Any,
    ) -> Sample:
        """Make a sample of uint8 images (n, channels, H, W), which need a `network`, or of feature rows (n, size).

        Raises ShapeError for other shapes and for labels or seeds of another number, NumericError for NaN.
        """
        if data.ndim == 4:
            if network is None:
                raise RequestError("images need a feature network", way_out="Give network=, or feature rows (n, size).")
            out: Extracted = extract(network, data if hasattr(data, "detach") else to_numpy(data))
            data, logits = out.features, out.logits
        rows = as_rows(data)
        classes = None if logits is None else as_rows(logits, "logits")
        found = {}
        for key, values in (("labels", labels), ("seeds", seeds)):
            if values is not None:
                found[key] = np.asarray(values).astype(np.int64)
                if found[key].shape != (len(rows),):
                    raise ShapeError(f"{len(found[key])} {key} for {len(rows)} images")
        return cls(rows, network.name if network else "", name, classes, found.get("labels"), found.get("seeds"), **more)

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Any) -> Sample:
        """Return these rows of everything."""
        picked = {
            key: None if (x := getattr(self, key)) is None else x[rows] for key in ("logits", "labels", "seeds", "z0", "z")
        }
        return Sample(self.features[rows], self.network, self.name, notes=self.notes, **picked)


@dataclass(eq=False)
class Reference:
    """Real images as every metric needs them; what is costly (roots, radii, cells) is worked out once and kept.

    `moments` of all of them; `features` (m, size) of some or all, None where only statistics are at hand.
    """

    moments: Moments
    features: Array | None = None
    logits: Array | None = None
    labels: Ints | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    seed: int = 0
    _radii: dict[tuple[int, int], Array] = field(default_factory=dict, repr=False)
    _cells: dict[int, Clusters] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, reals: Reference | Sample | Judge | Moments | ArrayLike, network: Features | None = None) -> Reference:
        """Make a reference of a sample, a judge, moments, uint8 images (with `network`) or feature rows."""
        if isinstance(reals, Reference):
            return reals
        if isinstance(reals, Judge):
            return cls(reals.moments, reals.features, name=reals.network.name)
        if isinstance(reals, Moments):
            return cls(reals)
        sample = reals if isinstance(reals, Sample) else Sample.of(reals, network)
        if len(sample) < 2:
            raise ShapeError("one real image is no reference", way_out="Give more real images.")
        moments = Moments.of(sample.features, network=sample.network)
        return cls(moments, sample.features, sample.logits, sample.labels, sample.name, sample.notes)

    @property
    def rows(self) -> Array:
        """The features; raises RequestError where only statistics are at hand."""
        if self.features is None:
            raise RequestError("saved statistics without features", way_out="Make them again with 'latentshift stats'.")
        return self.features

    @cached_property
    def root(self) -> Array:
        """F with F^T F the covariance."""
        return root_of(self.moments.cov)

    @cached_property
    def values(self) -> Array:
        """Eigenvalues of the covariance above rounding, (rank,)."""
        return np.asarray((self.root**2).sum(1))

    def bias(self, count: int) -> float:
        """Expected Frechet distance of `count` samples to their own law, of the reference's own images added."""
        return bias_of(self.values, count) + bias_of(self.values, self.moments.count)

    @cached_property
    def order(self) -> Ints:
        """A fixed shuffle of the feature rows: a folder may be sorted by class."""
        return np.random.default_rng(self.seed).permutation(len(self.rows))

    def part(self, size: int) -> Array:
        """`size` feature rows, always the same ones; all of them where there are as many."""
        return self.rows if size >= len(self.rows) else self.rows[np.sort(self.order[:size])]

    def radii(self, size: int, k: int) -> Array:
        """Distance of the rows of `part(size)` to their k-th neighbours."""
        if (size, k) not in self._radii:
            self._radii[size, k] = nearest_distances(self.part(size), k)
        return self._radii[size, k]

    def cells(self, bins: int) -> Clusters:
        """k-means cells of the features, with the cell of every row."""
        if bins not in self._cells:
            self._cells[bins] = cells_of(self.rows, bins, seed=self.seed)
        return self._cells[bins]

    def of_class(self, label: int) -> Reference | None:
        """The real images of one class, None where there are none."""
        if self.labels is None or self.features is None or not (self.labels == label).any():
            return None
        rows = self.features[self.labels == label]
        return None if len(rows) < 2 else Reference(Moments.of(rows, network=self.moments.network), rows, name=self.name)
