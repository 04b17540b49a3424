"""What `latentshift evaluate` and `stats` are given, as images in pieces: a run, a set of pictures, a model with seeds.

A piece is known by a key (the digest of its bytes, or of model and seeds), so that its features can be kept: work that was
interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .. import noise
from ..engine.run import labels_from_seeds
from ..errors import DamagedFileError, FileError, RequestError
from ..files.images import read_files, read_images
from ..files.imageset import ImageSet
from ..files.latents import Array
from ..files.npz import Npz
from ..files.pictures import to_planes
from ..files.run import read_npz
from ..model import Pair
from .sample import Ints

PIECE = 256  # images: the unit of generating, extracting and keeping
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Images:
    """`count` images (channels, height, width) in pieces of PIECE; `piece(i)` gives (n, C, H, W) uint8, `key(i)` its digest."""

    name: str
    count: int
    shape: tuple[int, int, int]
    piece: Callable[[int], Pixels]
    key: Callable[[int], str]
    labels: Ints | None = None
    seeds: Ints | None = None
    z0: Array | None = None
    z: Array | None = None
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[int]:
        return iter(range(-(-self.count // PIECE)))

    def sha256(self) -> str:
        """A digest of all of it, labels too."""
        digest = hashlib.sha256(repr((self.count, self.shape)).encode())
        for i in self:
            digest.update(self.key(i).encode())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


def of_set(data: ImageSet, name: str = "") -> Images:
    """Images of a set that was read; seeds from names such as `seed0085.png`, if all of them are such."""
    found = [re.search(r"(?:^|/)seed(\d+)\.\w+$", n) for n in data.names]
    numbers = [int(m[1]) for m in found if m]
    seeds = np.array(numbers, np.int64) if numbers and len(numbers) == len(data.images) else None

    def piece(i: int) -> Pixels:
        return data.images[i * PIECE : (i + 1) * PIECE]

    def key(i: int) -> str:
        part = np.ascontiguousarray(piece(i))
        return hashlib.sha256(repr(part.shape).encode() + part.tobytes()).hexdigest()

    _, channels, height, width = data.images.shape
    shape = (channels, height, width)
    return Images(name or Path(data.source).name, len(data.images), shape, piece, key, data.labels, seeds, notes=data.notes)


def of_path(path: Path, *, size: int | None = None, like: Images | None = None, name: str = "") -> Images:
    """Read a folder, zip, npz, npy or idx file; `like`: brought to the size and channels of these images."""
    channels = None
    if like is not None:
        channels = like.shape[0] if like.shape[0] in (1, 3) else None
        if size is None and like.shape[1] == like.shape[2]:
            size = like.shape[1]
    found = of_set(read_images(path, size=size, channels=channels, least=2), name)
    if path.suffix == ".npz":
        with Npz(path) as npz:
            seeds = npz["seeds"] if "seeds" in npz else None  # noqa: SIM401 (get would not catch it)
        if seeds is not None and seeds.shape == (found.count,) and seeds.dtype.kind in "iu":
            found = replace(found, seeds=seeds.astype(np.int64))
    return found


def of_model(pair: Pair, seeds: Sequence[int], labels: Any = None, *, z: Any = None, name: str = "") -> Images:
    """Images that a model makes of seeds (or of latents `z`), piece by piece, rounded to bytes."""
    if pair.image_shape is None or len(pair.image_shape) != 3:
        raise RequestError(f"{pair.name!r} makes points, not pictures", way_out="'evaluate' compares pictures.")
    if labels is None:
        labels = labels_from_seeds(seeds, pair.classes)
    classes = None if labels is None else torch.as_tensor(np.asarray(labels), dtype=torch.long)

    def rows(i: int) -> slice:
        return slice(i * PIECE, (i + 1) * PIECE)

    def piece(i: int) -> Pixels:
        start = noise.latents(seeds[rows(i)], pair.space.shape, pair.space.prior) if z is None else np.asarray(z)[rows(i)]
        out, label = [], None if classes is None else classes[rows(i)]
        for j in range(0, len(start), 32):
            point = torch.from_numpy(np.ascontiguousarray(start[j : j + 32])).to(pair.device, pair.compute_dtype)
            part = None if label is None else label[j : j + 32].to(pair.device)
            with torch.no_grad():
                out.append(pair.generate(point, part).float().cpu().numpy())
        made = np.concatenate(out)
        if not np.isfinite(made).all():
            bad = int(np.argmin(np.isfinite(made).reshape(len(made), -1).all(1)))
            raise DamagedFileError(f"the model makes NaN of seed {seeds[rows(i)][bad]}", where=pair.name)
        return to_planes(made, pair.image_range)

    def key(i: int) -> str:
        start = None if z is None else np.asarray(z)[rows(i)].tobytes()
        label = None if classes is None else classes[rows(i)].tolist()
        told = repr((pair.sha256 or id(pair), pair.image_range, repr(pair.space), list(seeds[rows(i)]), label)).encode()
        return hashlib.sha256(told + (start or b"")).hexdigest()

    kept = None if classes is None else classes.numpy().astype(np.int64)
    c, h, w = (int(v) for v in pair.image_shape)
    return Images(name or pair.name, len(seeds), (c, h, w), piece, key, kept, np.array(seeds, np.int64))


def is_run(path: Path) -> bool:
    """Whether a folder holds a run of `refine`."""
    return (path / "run.json").is_file()


def of_run(folder: Path, load: Callable[[dict[str, Any]], Pair], *, raw: bool = True) -> tuple[Images | None, Images]:
    """(raw, refined) images of a run; the raw ones from `before/`, else made again by the model of its record.

    `load(record)` gives that model. Raises RequestError for a run of points, FileError for pictures that are missing.
    """
    if not (folder / "samples.jsonl").is_file():
        raise RequestError(
            "this run holds no pictures of its own (it was cut, or is in shards)",
            where=str(folder),
            way_out="Go on with it, or give the folder of its pictures.",
        )
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
        samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"not the record of a finished run: {error}", where=str(folder)) from None
    latents = read_npz(folder / "latents.npz")
    seeds, labels = latents["seeds"].astype(np.int64), latents.get("labels")
    if len(samples) != len(seeds) or not all(isinstance(s, dict) for s in samples):
        raise DamagedFileError(f"{len(samples)} samples and {len(seeds)} latents", where=str(folder))
    if not samples or not samples[0].get("image"):
        raise RequestError("a run of points has no pictures to compare", where=str(folder))
    names = [str(s["image"]) for s in samples]
    missing = [n for n in names if not (folder / n).is_file()]
    if missing:
        raise FileError(
            f"{len(missing)} of {len(names)} pictures of this run are gone, the first is {missing[0]}", where=str(folder)
        )
    about: dict[str, Any] = {"labels": None if labels is None else labels.astype(np.int64), "seeds": seeds}
    about |= {key: latents[key] for key in ("z0", "z") if key in latents}
    refined = replace(of_set(read_files([folder / n for n in names], str(folder)), "refined"), **about)
    if not raw:
        return None, replace(refined, name=folder.name)
    if all((folder / "before" / n).is_file() for n in names):
        before = of_set(read_files([folder / "before" / n for n in names], str(folder / "before")), "raw")
        return replace(before, **about), refined
    pair = load(record)
    if record.get("model_sha256") and pair.sha256 and pair.sha256 != record["model_sha256"]:
        raise RequestError(
            "the model is not the one of this run any more, and the run kept no unrefined images",
            where=str(folder),
            way_out="Refine again with --save-before.",
        )
    if "z0" not in latents:
        raise RequestError("a run of another space kept no z", where=str(folder), way_out="Refine again with --save-before.")
    again = of_model(pair, seeds.tolist(), about["labels"], z=latents["z0"], name="raw")
    return replace(again, **about), refined
