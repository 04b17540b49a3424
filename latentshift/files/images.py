"""Sets of images as people have them: a folder of pictures, a zip in StyleGAN's layout, npz or npy arrays, idx files.

    data = read_images("photos/", size=64, channels=3)
    data.images   uint8 (n, 3, 64, 64)        data.notes   what was converted, one line each, to be shown to the user

Every picture is used or the set is refused: one that cannot be read is named, never left out. Order: by path.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ..errors import DamagedFileError, FileError, RequestError
from .decode import EXTENSIONS, Pixels, read_picture
from .imageset import ImageSet, read_idx_set, read_npy_set, read_npz, to_channels
from .npz import check_archive

__all__ = ["ImageSet", "read_files", "read_images"]

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".npz")
Progress = Callable[[int, int], None]


def _collect(
    entries: Iterable[tuple[str, Callable[[], IO[bytes]]]],
    total: int,
    source: str,
    size: int | None,
    channels: int | None,
    progress: Progress | None,
) -> tuple[Pixels, list[str], list[str]]:
    """Read every picture; return (n, C, H, W), names and notes. All unreadable ones are counted in one message."""
    pixels: list[Pixels] = []
    names: list[str] = []
    changed: Counter[str] = Counter()
    broken: list[tuple[str, FileError]] = []
    for name, opener in entries:
        try:
            with opener() as stream:
                picture, notes = read_picture(stream, f"{source}/{name}", size=size)
        except FileError as error:
            broken.append((name, error))
            continue
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            broken.append((name, DamagedFileError(f"cannot be read ({error})", where=f"{source}/{name}")))
            continue
        pixels.append(picture)
        names.append(name)
        changed.update(notes)
        if progress:
            progress(len(pixels), total)
    if broken:
        name, first = broken[0]
        if len(broken) == 1:
            raise first
        raise type(first)(
            f"{len(broken)} of {total} pictures cannot be used, the first: {first.what}",
            where=f"{source}/{name}",
            way_out=first.way_out or "Mend them or take them out.",
        )
    sizes = Counter(p.shape[:2] for p in pixels)
    if len(sizes) > 1:
        (common, _), (other, _) = sizes.most_common(2)
        odd = next(n for n, p in zip(names, pixels) if p.shape[:2] == other)
        raise FileError(
            f"pictures of {len(sizes)} sizes (most are {common[1]}x{common[0]}, {odd} is {other[1]}x{other[0]})",
            where=source,
            way_out="State one size: each is then cropped to its centred square and resized.",
        )
    colours = sum(p.ndim == 3 for p in pixels)
    want = channels or (3 if colours else 1)
    if want == 3 and colours < len(pixels):
        changed["grey repeated to colour"] = len(pixels) - colours
    if want == 1 and colours:
        changed["colour turned to grey (0.299 R + 0.587 G + 0.114 B)"] = colours
    out = np.empty((len(pixels), want, *pixels[0].shape[:2]), np.uint8)
    for i, picture in enumerate(pixels):
        out[i] = to_channels(picture, want)
    return out, names, [f"{n} of {len(pixels)} pictures: {what}" for what, n in sorted(changed.items())]


def _labels(raw: bytes | None, names: list[str], where: str) -> tuple[npt.NDArray[np.int64] | None, list[str]]:
    """Labels of StyleGAN's dataset.json: {"labels": [[name, class], ...]}, or null for none."""
    if raw is None:
        return None, []
    try:
        table = json.loads(raw)["labels"]
        pairs = None if table is None else {str(name).replace("\\", "/"): label for name, label in table}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFileError(f"dataset.json does not hold [name, class] pairs ({error!r})", where=where) from None
    if pairs is None:
        return None, []
    missing = [n for n in names if n not in pairs]
    if missing:
        raise DamagedFileError(f"dataset.json has no label for {len(missing)} pictures, the first is {missing[0]}", where=where)
    values = [pairs[n] for n in names]
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**31 for v in values):
        return None, ["the labels in dataset.json are no class numbers and are not used"]
    return np.array(values, np.int64), []


def _read_folder(path: Path, size: int | None, channels: int | None, progress: Progress | None) -> ImageSet:
    files, ignored, archives = [], 0, []
    for file in sorted(p for p in path.rglob("*") if not any(s.startswith(".") for s in p.relative_to(path).parts)):
        if not file.is_file():
            continue  # folders, and pipes or devices, which would hang
        if file.suffix.lower() in EXTENSIONS:
            files.append(file)
        elif file.name != "dataset.json":
            ignored += 1
            archives += [file.name] if file.suffix.lower() in ARCHIVES else []
    if not files:
        hint = f"It holds {archives[0]}: give that file itself." if archives else f"Known: {', '.join(sorted(EXTENSIONS))}."
        raise FileError("a folder without pictures", where=str(path), way_out=hint)
    entries = ((f.relative_to(path).as_posix(), lambda f=f: f.open("rb")) for f in files)
    images, names, notes = _collect(entries, len(files), str(path), size, channels, progress)
    table = path / "dataset.json"
    labels, more = _labels(table.read_bytes() if table.is_file() else None, names, str(table))
    if ignored:
        notes.append(f"{ignored} files that are no pictures are ignored")
    return ImageSet(images, labels, tuple(names), tuple(notes + more), str(path))


def _read_zip(path: Path, size: int | None, channels: int | None, progress: Progress | None) -> ImageSet:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedFileError(f"not a readable zip: {error}", where=str(path)) from None
    with archive:
        check_archive(archive, str(path))
        members = [i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
        nested = [i.filename for i in members if i.filename.lower().endswith(ARCHIVES)]
        if nested:
            raise FileError(f"a zip that holds another archive ({nested[0]})", where=str(path), way_out="Unpack it first.")
        linked = [i.filename for i in members if (i.external_attr >> 16) & 0o170000 == 0o120000]
        if linked:
            raise FileError(f"a zip that holds a link ({linked[0]})", where=str(path))
        pictures = sorted((i for i in members if Path(i.filename).suffix.lower() in EXTENSIONS), key=lambda i: i.filename)
        if not pictures:
            raise FileError("a zip without pictures", where=str(path), way_out=f"Known: {', '.join(sorted(EXTENSIONS))}.")
        entries = ((i.filename, lambda i=i: io.BytesIO(archive.read(i))) for i in pictures)
        images, names, notes = _collect(entries, len(pictures), str(path), size, channels, progress)
        tables = [i for i in members if i.filename == "dataset.json"]
        labels, more = _labels(archive.read(tables[0]) if tables else None, names, f"{path}/dataset.json")
        ignored = len(members) - len(pictures) - len(tables)
        if ignored:
            notes.append(f"{ignored} files that are no pictures are ignored")
    return ImageSet(images, labels, tuple(names), tuple(notes + more), str(path))


def read_images(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    least: int = 1,
    key: str | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Read a set of images.

    `size`: side in pixels (None: as they are, then all must be equal); `channels`: 1 or 3 (None: 3 where any picture
    has colour); `least`: how many are needed. `key`: the array of an npz, also as `file.npz:KEY`. `progress(done, total)`.
    Raises FileError (exit status 4) with the name of what cannot be used, RequestError for a bad size or channels.
    """
    if channels not in (None, 1, 3) or (size is not None and not 1 <= size <= 8192):
        raise RequestError(f"images of {channels} channels and {size} pixels are not made here", way_out="Use 1 or 3 channels.")
    path = Path(path)
    if not path.exists() and ".npz:" in path.name:
        name, _, key = path.name.rpartition(":")
        path = path.with_name(name)
    if path.is_dir():
        data = _read_folder(path, size, channels, progress)
    elif not path.exists():
        raise FileError("no such file or folder", where=str(path))
    elif not path.is_file():
        raise FileError("neither a file nor a folder", where=str(path))
    else:
        data = _read_file(path, size, channels, key, progress)
    if len(data.images) < least:
        n = len(data.images)
        raise FileError(f"{n} image{'s' * (n != 1)} where {least} are needed", where=str(path), way_out="Give more images.")
    return data


def read_files(
    files: Sequence[Path],
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Read these picture files in this order, by the same rules; FileError names what is missing or cannot be used."""
    entries = ((f.name, lambda f=f: f.open("rb")) for f in files)
    images, names, notes = _collect(entries, len(files), source, size, channels, progress)
    return ImageSet(images, None, tuple(names), tuple(notes), source)


def _read_file(path: Path, size: int | None, channels: int | None, key: str | None, progress: Progress | None) -> ImageSet:
    suffix = path.suffix.lower()
    with path.open("rb") as stream:
        head = stream.read(4)
    if suffix == ".npz":
        return read_npz(path, key, size, channels)
    if suffix == ".npy":
        return read_npy_set(path, size, channels)
    if suffix == ".zip" or head == b"PK\x03\x04":
        return _read_zip(path, size, channels, progress)
    if "-idx" in path.name or head[:3] == b"\x00\x00\x08":
        return read_idx_set(path, size, channels)
    if suffix in EXTENSIONS:
        entry: Iterator[tuple[str, Callable[[], IO[bytes]]]] = iter([(path.name, lambda: path.open("rb"))])
        images, names, notes = _collect(entry, 1, str(path.parent), size, channels, progress)
        return ImageSet(images, None, tuple(names), tuple(notes), str(path))
    raise FileError(
        "not a set of images",
        where=str(path),
        way_out="Give a folder or zip of pictures, an npz or npy of uint8, or an idx file.",
    )
