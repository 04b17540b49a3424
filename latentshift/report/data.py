"""What the page shows, read from a run's folder alone; what is missing or cut is said and the rest is shown."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DamagedFileError, FileError, LatentshiftError
from ..files.pictures import Bytes, picture, png
from ..files.run import SCHEMA, read_npz
from ..files.thumbs import choose, read_thumbs, shrink, side_of

Array = np.ndarray[Any, Any]

_NUMBERS = (
    *("score_before", "score_after", "gain", "displacement_l2", "displacement_linf", "evaluations"),
    *("judge_before", "judge_after"),
)
_TEXT_BUDGET = 17 * 2**20  # bytes of pictures as text in the page
_LARGEST = 64 * 2**20  # pixels of a picture that is opened


@dataclass
class Pictures:
    """Pictures as base64 text by sample; those in `same` did not change and have one picture."""

    mime: str = "image/png"
    before: dict[int, str] = field(default_factory=dict)
    after: dict[int, str] = field(default_factory=dict)
    same: set[int] = field(default_factory=set)
    side: int = 0
    ratio: float = 1.0  # width by height


@dataclass
class RunView:
    """A run as its page sees it. `shown` are the samples with a card; totals count all of them."""

    path: Path
    record: dict[str, Any]
    samples: list[dict[str, Any]]
    shown: list[int]
    pictures: Pictures
    points: tuple[Array | None, Array] | None
    problems: list[str]

    def column(self, name: str) -> Array:
        """Return a number of every sample, NaN where there is none."""
        return np.array([s[name] if s[name] is not None else math.nan for s in self.samples], np.float64)

    @property
    def judged(self) -> bool:
        """Whether a judge that was not climbed scored the samples."""
        return any(s["judge_after"] is not None for s in self.samples)


def read_view(path: str | Path) -> RunView:
    """Return what can be shown of a run's folder.

    Raises FileError where the folder is no run, or where nothing of it can be read; everything less is told in `problems`.
    """
    path = Path(path)
    problems: list[str] = []
    record = _record(path, problems)
    samples = _samples(path, record, problems)
    gain = np.array([s["gain"] if s["gain"] is not None else math.nan for s in samples])
    pictures, shown, points = Pictures(), [int(i) for i in choose(gain)], _points(path, len(samples), problems)
    if points is None:
        pictures, shown = _pictures(path, samples, shown, gain, problems)
    status = str(record.get("status", "unknown"))
    if status != "complete":
        problems.append(f"this run is not complete (status: {status}); 'latentshift refine --resume' goes on with it")
    return RunView(path, record, samples, shown, pictures, points, problems)


def _record(path: Path, problems: list[str]) -> dict[str, Any]:
    file = path / "run.json"
    if not file.is_file():
        raise FileError("not a run: it has no run.json", where=str(path), way_out="Give the --outdir of a refine.")
    try:
        record = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"the record is no JSON: {error}", where=str(file)) from None
    if not isinstance(record, dict):
        raise DamagedFileError("the record is no JSON object", where=str(file))
    if record.get("schema") != SCHEMA:
        found = str(record.get("schema"))[:40]
        problems.append(f"this run has schema {found}, this version reads {SCHEMA}: some things may be missing or wrong here")
    return record


def _samples(path: Path, record: dict[str, Any], problems: list[str]) -> list[dict[str, Any]]:
    file = path / "samples.jsonl"
    if not file.is_file():
        raise FileError(
            "this run has no samples.jsonl (it was cut before the end)",
            where=str(path),
            way_out=f"Use latentshift refine --resume {path}.",
        )
    rows: list[dict[str, Any]] = []
    bad, first = 0, 0
    with file.open("r", encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                rows.append(_checked(row, len(rows)))
            else:
                bad, first = bad + 1, first or number
    if not rows:
        raise DamagedFileError("no readable line in samples.jsonl", where=str(file))
    promised = record.get("rows")
    if bad:
        problems.append(f"samples.jsonl is cut: {bad} of {len(rows) + bad} lines cannot be read, the first is line {first}")
    elif isinstance(promised, int) and promised != len(rows):
        problems.append(f"samples.jsonl has {len(rows)} lines, the record promises {promised}")
    return rows


def _checked(row: dict[str, Any], place: int) -> dict[str, Any]:
    out: dict[str, Any] = {name: _number(row.get(name)) for name in _NUMBERS}
    seed = row.get("seed")
    out["seed"] = seed if isinstance(seed, int) and not isinstance(seed, bool) else place
    out["label"] = row["label"] if isinstance(row.get("label"), int) else None
    out["stopped"] = str(row.get("stopped", ""))[:40]
    image = row.get("image")
    out["image"] = image if isinstance(image, str) and re.fullmatch(r"[\w-]{1,80}\.png", image) else None
    name = out["image"][:-4] if out["image"] else f"seed{out['seed']:04d}"
    extra = row.get("extra")
    out["guard"] = _number(extra.get("guard")) if isinstance(extra, dict) else None
    return {**out, "name": name}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _points(path: Path, rows: int, problems: list[str]) -> tuple[Array | None, Array] | None:
    file = path / "latents.npz"
    if not file.is_file():
        problems.append("latents.npz is missing")
        return None
    try:
        found = read_npz(file)
    except LatentshiftError as error:
        problems.append(str(error))
        return None
    x, x0 = found.get("x"), found.get("x0")
    if x is None or x.ndim != 2 or x.shape[1] != 2 or len(x) < rows:
        return None
    start = x0[:rows].astype(np.float64) if x0 is not None and x0.shape == x.shape else None
    return start, x[:rows].astype(np.float64)


def _pictures(
    path: Path, samples: list[dict[str, Any]], shown: list[int], gain: Array, problems: list[str]
) -> tuple[Pictures, list[int]]:
    try:
        thumbs = read_thumbs(path)
    except LatentshiftError as error:
        problems.append(f"{error} The pictures themselves are used in its place.")
        thumbs = None
    if thumbs is not None:
        index = thumbs["index"]
        ok = (index >= 0) & (index < len(samples))
        ok &= np.array([k and samples[int(i)]["seed"] == int(s) for i, s, k in zip(index, thumbs["seeds"], ok)], bool)
        if ok.any():
            if not ok.all():
                problems.append(f"{int((~ok).sum())} of {len(ok)} thumbnails belong to no line of samples.jsonl")
            shown = [int(i) for i in index[ok]]
            before = thumbs["before"][ok] if "before" in thumbs else None
            if before is None:
                problems.append("the pictures before refinement were not kept: only the refined ones are shown")
            return _encoded(shown, before, thumbs["after"][ok]), shown
        problems.append("thumbs.npz belongs to another run and is not used")
    return _from_files(path, samples, shown, problems), shown


def _from_files(path: Path, samples: list[dict[str, Any]], shown: list[int], problems: list[str]) -> Pictures:
    out = Pictures()
    missing, befores = 0, 0
    spent = 0
    for i in shown:
        name = samples[i]["image"]
        after = _open(path / name, len(shown)) if name else None
        missing += after is None
        before = _open(path / "before" / name, len(shown)) if name else None
        befores += before is not None
        for image, into in ((before, out.before), (after, out.after)):
            if image is not None and spent < _TEXT_BUDGET:
                into[i] = base64.b64encode(png(image)).decode()
                spent += len(into[i])
                out.side, out.ratio = max(out.side, *image.size), image.width / image.height
    if missing:
        problems.append(f"{missing} of {len(shown)} pictures are missing or cannot be read")
    if befores == 0:
        problems.append("the pictures before refinement were not kept (no thumbs.npz, no --save-before)")
    return out


def _open(path: Path, count: int) -> Image.Image | None:
    if not path.is_file() or path.is_symlink():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(path, formats=["PNG"]) as image:
                if image.width * image.height > _LARGEST or image.mode not in ("L", "RGB", "RGBA"):
                    return None
                pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Warning):
        return None
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return picture(shrink(pixels[None], side_of(count, *pixels.shape))[0])


def _encoded(shown: list[int], before: Bytes | None, after: Bytes) -> Pictures:
    side = max(after.shape[1:3])
    ways: list[tuple[str, int, int]] = [("PNG", 0, side)] if side <= 64 else []
    ways += [("WEBP", 92, side), ("WEBP", 80, side), ("WEBP", 70, max(24, side // 2)), ("WEBP", 60, max(16, side // 4))]
    for kind, quality, small in ways:
        out = Pictures("image/png" if kind == "PNG" else "image/webp", side=small, ratio=after.shape[2] / after.shape[1])
        spent = 0
        for images, into in ((before, out.before), (after, out.after)):
            if images is None:
                continue
            for place, i in enumerate(shown):
                if into is out.after and before is not None and np.array_equal(before[place], after[place]):
                    out.same.add(i)
                    continue
                into[i] = _text(shrink(images[place : place + 1], small)[0], kind, quality)
                spent += len(into[i])
            if spent > _TEXT_BUDGET:
                break
        if spent <= _TEXT_BUDGET:
            return out
    return Pictures()  # not even tiny ones fit: numbers only


def _text(pixels: Bytes, kind: str, quality: int) -> str:
    if kind == "PNG":
        return base64.b64encode(png(picture(pixels))).decode()
    stream = io.BytesIO()
    picture(pixels).save(stream, "WEBP", quality=quality, method=4)
    return base64.b64encode(stream.getvalue()).decode()
