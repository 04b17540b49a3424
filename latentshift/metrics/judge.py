"""A judge: a feature network, the statistics of real images, and what every number means at the size it was taken at.

    judge = load_judge("fashion32-judge")                         # bundled: 32x32 grey
    judge = Judge.of(load_network("resnet20.safetensors"), reals)  # your own network and real images
    judge.distance(images)              # FD with the floor (real against real at the same size) and the bias to expect
    judge.change(before, after)         # paired: the same seeds before and after

A judge must be a network that nothing climbed, with real images that nothing was fitted to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DamagedFileError, RequestError, ShapeError, UnknownNameError
from ..files.npz import Npz
from ..layers import LayerNet
from .arrays import Array, ArrayLike, as_rows, to_numpy
from .clusters import inception_score
from .coverage import prdc, prdc_rows
from .distance import Moments, expected_bias, frechet_gaussian, frechet_moments, kid
from .features import Features, Network, extract, to_size
from .networks import read_tensors
from .stats import Interval, bootstrap_change

BUNDLED = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Reading:
    """One number with what it takes to read it.

    `metric` carries the network's name. `error`: standard error, where known. `floor`: the same metric of real
    images against the reference at the same size (mean), `floor_sd` its spread. `bias`: what
    sampling alone is expected to add.
    `count` images against `reference` real ones. `note`: what to beware of, or empty.
    """

    metric: str
    value: float
    count: int
    reference: int
    error: float | None = None
    floor: float | None = None
    floor_sd: float | None = None
    bias: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Judge:
    """`network` with the `moments` of real images; `features` (rows, size) of some of them for KID and coverage."""

    network: Features
    moments: Moments
    features: Array | None = None

    @classmethod
    def of(cls, network: Features, reals: ArrayLike, *, batch: int = 250) -> Judge:
        """Make a judge of real uint8 images (n, channels, height, width)."""
        rows = as_rows(extract(network, _images(reals), batch=batch).features, least=2)
        return cls(network, Moments.of(rows, network=network.name), rows)

    @classmethod
    def load(cls, network: Features, path: str | Path) -> Judge:
        """Make a judge of saved statistics (`save`, or an npz of mu, sigma, count); ShapeError for another network."""
        moments = Moments.load(path)
        if moments.network and moments.network != network.name:
            raise ShapeError(f"these are statistics of {moments.network}, not of {network.name}", where=str(path))
        with Npz(path) as npz:
            features = as_rows(npz["features"]) if "features" in npz else None
        if features is not None and features.shape[1] != moments.mean.size:
            raise DamagedFileError(f"features of size {features.shape[1]} beside {moments.mean.size}", where=str(path))
        return cls(network, moments, features)

    def save(self, path: str | Path, *, keep: int = 10_000) -> None:
        """Write the statistics and the first `keep` feature rows (float32) as an npz."""
        m = self.moments
        more: dict[str, Any] = {} if self.features is None else {"features": self.features[:keep].astype(np.float32)}
        np.savez(Path(path), mu=m.mean, sigma=m.cov, count=np.int64(m.count), network=np.str_(self.network.name), **more)

    def see(self, images: ArrayLike) -> Array:
        """Return features (n, size) of uint8 images; feature rows are passed through."""
        rows = as_rows(images) if images.ndim == 2 else as_rows(extract(self.network, _images(images)).features)
        if rows.shape[1] != self.moments.mean.size:
            raise ShapeError(f"features of size {rows.shape[1]}, the reference has {self.moments.mean.size}")
        return rows

    def floor(self, count: int, *, draws: int = 4, seed: int = 0) -> tuple[float, float]:
        """Mean and spread of FD(`count` real images, the other real images) over `draws`.

        With fewer than twice as many stored features (draws would be nearly the same images again) the images are
        replaced by draws of a Gaussian with the reference's moments.
        """
        if count < 2:
            raise ShapeError(f"a covariance needs 2 images or more, got {count}")
        draw, m, values = np.random.default_rng(seed), self.moments, []
        enough = self.features is not None and 2 * count <= len(self.features)
        root = np.zeros((0, 0)) if enough else _factor(m.cov)
        for _ in range(draws):
            if enough and self.features is not None:
                rows = self.features[draw.choice(len(self.features), count, replace=False)]
                values.append(frechet_moments(Moments.of(rows, network=m.network), m.without(rows)))
            else:
                fresh = Moments.of(draw.normal(size=(count, len(root))) @ root + m.mean)
                values.append(frechet_gaussian(fresh.mean, fresh.cov, m.mean, m.cov))
        return float(np.mean(values)), float(np.std(values, ddof=1)) if draws > 1 else 0.0

    def distance(self, images: ArrayLike, *, floor_draws: int = 4) -> Reading:
        """FD of images (uint8) or feature rows to the reference. Raises ShapeError for a single image."""
        rows = self.see(images)
        if len(rows) < 2:
            raise ShapeError("a distance needs 2 images or more, got 1", way_out="Give more images.")
        value = frechet_moments(Moments.of(rows, network=self.moments.network), self.moments)
        floor, spread = self.floor(len(rows), draws=floor_draws) if floor_draws else (None, None)
        bias = expected_bias(self.moments.cov, len(rows)) + expected_bias(self.moments.cov, self.moments.count)
        notes = []
        if len(rows) <= rows.shape[1]:
            notes.append(f"fewer images ({len(rows)}) than features ({rows.shape[1]}): read it beside the floor only")
        elif bias > 0.1 * value:
            notes.append(f"about {bias:.3g} of it is the bias of {len(rows)} images")
        return Reading(
            f"FD-{self.network.name}", value, len(rows), self.moments.count, None, floor, spread, bias, "; ".join(notes)
        )

    def readings(self, images: ArrayLike, *, k: int = 5, seed: int = 0) -> list[Reading]:
        """FD; with stored reference features KID, precision, recall, density, coverage; with logits IS."""
        logits = None
        if images.ndim == 4:
            out = extract(self.network, _images(images))
            images, logits = out.features, out.logits
        rows = self.see(images)
        readings, name, n = [self.distance(rows)], self.network.name, len(rows)
        if self.features is not None:
            ref = self.features
            if min(n, len(ref)) >= 3:
                kernel = kid(rows, ref)
                note = f"{kernel.subsets} subsets of {kernel.subset_size}"
                readings.append(Reading(f"KID-{name}", kernel.value, n, len(ref), kernel.error, 0.0, note=note))
            if min(n, len(ref)) > k:
                readings += self._coverage(rows, k, seed)
        if logits is not None and n >= 10:
            score = inception_score(logits)
            note = f"{score.splits} splits, spread {score.std:.3g}"
            readings.append(Reading(f"IS-{name}", score.value, n, 0, note=note))
        return readings

    def _coverage(self, rows: Array, k: int, seed: int) -> list[Reading]:
        """The four values at equal sizes (they depend on both), the floor from two halves of the real features."""
        assert self.features is not None
        draw = np.random.default_rng(seed)
        real = self.features[draw.permutation(len(self.features))]
        size = min(len(rows), len(real))
        picked = rows if len(rows) == size else rows[np.sort(draw.choice(len(rows), size, replace=False))]
        values = prdc(real[:size], picked, k=k)
        half = min(size, len(real) // 2)
        floors = prdc(real[:half], real[half : 2 * half], k=k) if half > k else None
        note = "" if half == size else f"the floor is taken at {half} images"
        if values.density < 0.01 and floors and floors.density > 0.5:
            note = "hardly one image lies near a real one: are both of the same kind, size and range?"
        return [
            Reading(f"{metric}-{self.network.name}", values[i], size, size, None, floors[i] if floors else None, note=note)
            for i, metric in enumerate(("precision", "recall", "density", "coverage"))
        ]

    def change(
        self, before: ArrayLike, after: ArrayLike, *, k: int = 5, draws: int = 100, seed: int = 0
    ) -> dict[str, Interval]:
        """Paired change (after - before, row i of both from one seed) of FD, precision and density with intervals.

        The reference is fixed. Raises ShapeError where the rows do not match.
        """
        a, b = self.see(before), self.see(after)
        if len(a) != len(b):
            raise ShapeError(f"a paired comparison needs the same rows on both sides, got {len(a)} and {len(b)}")
        name, m = self.network.name, self.moments

        def fd(rows: Any) -> float:
            return frechet_moments(Moments.of(rows), m)

        out = {f"FD-{name}": bootstrap_change(fd, a, b, draws=draws, seed=seed)}
        if self.features is not None and min(len(a), len(self.features)) > k:
            balls = [prdc_rows(self.features, x, k=k).balls for x in (a, b)]
            for metric, per_row in (
                ("precision", [(x > 0).astype(np.float64) for x in balls]),
                ("density", [x / k for x in balls]),
            ):
                out[f"{metric}-{name}"] = bootstrap_change(_mean, per_row[0], per_row[1], draws=draws, seed=seed)
        return out


def _images(images: ArrayLike) -> Any:
    return images if isinstance(images, torch.Tensor) else to_numpy(images)


def _mean(x: Any) -> float:
    return float(np.mean(x))


def _factor(cov: Array) -> Array:
    values, vectors = np.linalg.eigh(cov)
    factor: Array = (vectors * np.sqrt(values.clip(0))).T
    return factor


class Tapped(nn.Module):
    """A layer network that also gives the output of layer `tap`, flattened."""

    def __init__(self, net: LayerNet, tap: int) -> None:
        super().__init__()
        self.net, self.tap = net, tap

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = x
        for i, module in enumerate(self.net.stack):
            x = module(x)
            if i == self.tap:
                features = x.flatten(1)
        return features, x


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"no readable card.json: {error}", where=str(folder)) from None
    if not isinstance(card, dict) or card.get("kind") != "judge" or card.get("schema") != 1:
        raise DamagedFileError("not the card of a judge (kind 'judge', schema 1)", where=str(path))
    layers, tap, image = card.get("layers"), card.get("feature_layer"), card.get("image")
    if not isinstance(layers, list) or not isinstance(tap, int) or not 0 <= tap < len(layers):
        raise DamagedFileError(f"feature_layer {tap!r} names no layer of the card", where=str(path))
    if not isinstance(image, dict) or not all(isinstance(image.get(k), int) for k in ("channels", "height", "width")):
        raise DamagedFileError("the card does not say channels, height and width of its images", where=str(path))
    if image["height"] != image["width"] or image.get("range") != [-1, 1]:
        raise RequestError("a judge takes square images in [-1, 1]", where=str(path))
    return card


def bundled_judges() -> list[str]:
    """Names of the judges that come with the package."""
    return sorted(p.parent.name for p in BUNDLED.glob("*/judge.safetensors"))


def load_judge(path_or_name: str | Path) -> Judge:
    """Load a judge folder (card.json, judge.safetensors, reference.npz) by path, or a bundled one by name.

    Raises UnknownNameError for a name that nothing carries, DamagedFileError for a folder that contradicts itself.
    """
    folder = Path(path_or_name)
    if not folder.is_dir():
        if str(path_or_name) not in bundled_judges():
            raise UnknownNameError(
                "judge", str(path_or_name), bundled_judges(), way_out=f"Known: {', '.join(bundled_judges())}."
            )
        folder = BUNDLED / str(path_or_name)
    card = _card(folder)
    net = LayerNet(card["layers"], where=str(folder / "card.json"), meta=True).load(read_tensors(folder / "judge.safetensors"))
    size, channels = card["image"]["height"], card["image"]["channels"]
    network = Network(
        str(card.get("name", folder.name)),
        Tapped(net.eval().requires_grad_(False), card["feature_layer"]),
        lambda x: to_size(x, size).float() / 127.5 - 1,
        channels,
        size,
    )
    return Judge.load(network, folder / "reference.npz")
