"""Features and statistics on the disk: pieces while work is on, reference statistics by the digest of what they are of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DamagedFileError, LatentshiftError, ShapeError
from ..files.cache import cache_folder
from ..files.npz import Npz
from ..files.run import npz_bytes
from ..files.write import output_errors, write_whole
from .arrays import Array, as_rows
from .distance import Moments
from .extractors import fingerprint
from .features import Extracted, Features, extract
from .inputs import Images
from .sample import Reference, Sample

Progress = Callable[[int, int], None]  # images done, images in all


class Store:
    """Where features lie between runs: `folder` None keeps nothing.

    A piece's file is named by the network's fingerprint and the piece's key; `drop` removes what a finished job no longer
    needs. Damaged files are made again.
    """

    def __init__(self, network: Features, folder: Path | None, device: str = "cpu") -> None:
        self.network, self.folder, self.device = network, folder, device
        self.fingerprint = fingerprint(network)
        self._used: list[Path] = []
        if device != "cpu" and hasattr(network, "net"):
            network.net.to(device)

    @classmethod
    def default(cls, network: Features, device: str = "cpu") -> Store:
        """Return the store in the user's cache (LATENTSHIFT_CACHE); the network works on `device`."""
        return cls(network, cache_folder(), device)

    def _piece(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / "features" / self.fingerprint[:16] / f"{key[:40]}.npz"

    def statistics_path(self, images: Images) -> Path | None:
        """Where the statistics of a set lie, or would lie."""
        if self.folder is None:
            return None
        return self.folder / "stats" / f"{images.sha256()[:24]}-{self.fingerprint[:16]}.npz"

    def features(self, images: Images, progress: Progress | None = None) -> Extracted:
        """Return features and logits of all images, piece by piece; what was there before is not computed again."""
        features, logits, done = [], [], 0
        for i in images:
            part = self._one(images, i)
            features.append(part.features)
            if part.logits is not None:
                logits.append(part.logits)
            done += len(part.features)
            if progress is not None:
                progress(done, images.count)
        return Extracted(torch.cat(features), torch.cat(logits) if logits else None)

    def _one(self, images: Images, i: int) -> Extracted:
        path = self._piece(images.key(i))
        if path is not None and path.is_file():
            self._used.append(path)
            with contextlib.suppress(LatentshiftError), Npz(path) as npz:
                logits = torch.from_numpy(npz["logits"]) if "logits" in npz else None
                return Extracted(torch.from_numpy(npz["features"]), logits)
        found = extract(self.network, images.piece(i), device=self.device)
        if path is not None:
            arrays = {"features": found.features.numpy()}
            if found.logits is not None:
                arrays["logits"] = found.logits.numpy()
            data = npz_bytes(arrays)
            with output_errors(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda stream: stream.write(data))
            self._used.append(path)
        return found

    def drop(self) -> None:
        """Remove the pieces that this job used."""
        for path in self._used:
            path.unlink(missing_ok=True)
        self._used.clear()

    def sample(self, images: Images, progress: Progress | None = None) -> Sample:
        """Return the sample of images."""
        found = self.features(images, progress)
        return Sample.of(
            found.features, self.network, name=images.name, labels=images.labels, seeds=images.seeds,
            logits=found.logits, z0=images.z0, z=images.z, notes=images.notes,
        )  # fmt: skip

    def reference(self, images: Images, progress: Progress | None = None) -> tuple[Reference, Path | None]:
        """Return the reference of real images, from the cache where it was made before, and its file."""
        path = self.statistics_path(images)
        if path is not None and path.is_file():
            with contextlib.suppress(LatentshiftError):
                found = load_statistics(path, self.network, name=images.name)
                self._used += [p for i in images if (p := self._piece(images.key(i))) is not None]
                return found, path
        reference = Reference.of(self.sample(images, progress))
        if path is not None:
            save_statistics(path, reference, self.fingerprint, images.sha256())
        return reference, path


def save_statistics(path: Path, reference: Reference, fingerprint: str, sha256: str, *, keep: int | None = None) -> None:
    """Write the statistics of real images as one npz of plain arrays.

    `mu`, `sigma` (pytorch-fid's keys), `count`, `network` and `fingerprint`; `features` (float32, the first `keep` of a
    fixed shuffle, all by default), their `logits` and `labels` where there are any; `sha256` of the images.
    """
    m = reference.moments
    arrays: dict[str, Any] = {"mu": m.mean, "sigma": m.cov, "count": np.int64(m.count), "network": np.str_(m.network)}
    arrays |= {"fingerprint": np.str_(fingerprint), "sha256": np.str_(sha256)}
    if reference.features is not None:
        rows = slice(None) if keep is None or keep >= len(reference.rows) else np.sort(reference.order[:keep])
        arrays["features"] = reference.rows[rows].astype(np.float32)
        if reference.logits is not None:
            arrays["logits"] = reference.logits[rows].astype(np.float32)
        if reference.labels is not None:
            arrays["labels"] = reference.labels[rows]
    data = npz_bytes(arrays)
    with output_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda stream: stream.write(data))


def is_statistics(path: Path) -> bool:
    """Whether a file is an npz of statistics (`mu` and `sigma`)."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    with Npz(path) as npz:
        return "mu" in npz and "sigma" in npz


def load_statistics(path: Path, network: Features, *, count: int | None = None, name: str = "") -> Reference:
    """Read statistics of `network`: what `save_statistics` wrote, or another tool's `mu` and `sigma` (`count` is needed).

    Raises ShapeError for another network, DamagedFileError for a file that contradicts itself.
    """
    moments = Moments.load(path, count=count)
    with Npz(path) as npz:
        found: dict[str, Array | None] = {}
        for key in ("features", "logits"):
            found[key] = as_rows(npz[key], key) if key in npz else None
        labels = npz["labels"].astype(np.int64) if "labels" in npz and npz["labels"].ndim == 1 else None
        stamp = str(npz["fingerprint"]) if "fingerprint" in npz else ""
    if (moments.network and moments.network != network.name) or (stamp and stamp != fingerprint(network)):
        what = moments.network if moments.network != network.name else f"another {moments.network} (other weights)"
        raise ShapeError(f"these are statistics of {what}, not of {network.name}", where=str(path))
    moments.network = network.name
    features = found["features"]
    if features is not None and features.shape[1] != moments.mean.size:
        raise DamagedFileError(f"features of size {features.shape[1]} beside {moments.mean.size}", where=str(path))
    for key, value in (("logits", found["logits"]), ("labels", labels)):
        if value is not None and (features is None or len(value) != len(features)):
            raise DamagedFileError(f"{len(value)} {key} beside the features of other rows", where=str(path))
    return Reference(moments, features, found["logits"], labels, name or path.name)
