"""Clouds of 2-D points as a picture: panels side by side on one scale, with mode marks and arrows, drawn by pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError

Box = tuple[float, float, float, float]  # left, bottom, right, top, in units of the plane

REAL, RAW, REFINED = (90, 90, 90), (213, 94, 0), (0, 92, 175)  # told apart by people who see no red or green too
_INK, _FAINT, _FRAME, _MARK = (34, 34, 34), (110, 110, 110), (190, 190, 190), (60, 150, 60)
_SHARP = 3  # drawn this many times larger, then reduced: smooth edges
_TOP, _SIDE, _FOOT = 34, 36, 44  # pixels around a panel


@dataclass(frozen=True)
class Panel:
    """One cloud: `points` (rows, 2), a title above it and a note below; `start` (rows, 2) draws an arrow to every point."""

    title: str
    points: Any
    note: str = ""
    start: Any = None
    colour: tuple[int, int, int] = RAW


def before_after(
    before: Any, after: Any, marks: Any = None, *, arrows: int = 100, notes: tuple[str, str] = ("", "")
) -> Image.Image:
    """Return raw beside refined points (both (rows, 2)); up to `arrows` rows get an arrow from where they were."""
    few = len(before) <= arrows
    return scatter(
        [
            Panel("raw", before, notes[0]),
            Panel("refined", after, notes[1], start=before if few and arrows else None, colour=REFINED),
        ],
        marks=marks,
    )


def scatter(
    panels: Sequence[Panel], *, marks: Any = None, radius: float = 0.1, size: int = 420, box: Box | None = None
) -> Image.Image:
    """Return an RGB image of `panels` side by side, each `size` pixels wide, all on the same scale.

    `marks` (modes, 2) are drawn as circles of `radius` units (four pixels at least). `box` (left, bottom, right, top) is
    what is shown; left out, a square that holds all marks and all but the outermost 1 % of the points. Points outside and
    points that are not finite are counted in the panel's note. Raises UsageError for points that are not (rows, 2).
    """
    clouds = [_plane(p.points, p.title) for p in panels]
    starts = [None if p.start is None else _plane(p.start, p.title) for p in panels]
    if not clouds:
        raise UsageError("a scatter plot needs one panel at least")
    for panel, cloud, start in zip(panels, clouds, starts, strict=True):
        if start is not None and len(start) != len(cloud):
            raise UsageError(f"{len(start)} starts for {len(cloud)} points: {panel.title}")
    centres = None if marks is None else _plane(marks, "marks")
    view = box or _box([*clouds, *(s for s in starts if s is not None)], centres)
    if not (view[0] < view[2] and view[1] < view[3]):
        raise UsageError(f"a box is (left, bottom, right, top), not {view}")
    height = max(1, round(size * (view[3] - view[1]) / (view[2] - view[0])))
    page = Image.new("RGB", (_SIDE + len(panels) * (size + _SIDE), _TOP + height + _FOOT), "white")
    for i, (panel, cloud, start) in enumerate(zip(panels, clouds, starts, strict=True)):
        x, y = _SIDE + i * (size + _SIDE), _TOP
        page.paste(_cloud(cloud, start, centres, radius, panel.colour, view, (size, height)), (x, y))
        _labels(page, panel, cloud, view, (x, y, size, height), first=i == 0)
    return page


def _plane(points: Any, what: str) -> np.ndarray[Any, Any]:
    p = np.asarray(points, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != 2:
        raise UsageError(f"points in the plane are (rows, 2), not {p.shape}: {what}")
    return p


def _box(clouds: list[np.ndarray[Any, Any]], marks: np.ndarray[Any, Any] | None) -> Box:
    corners = [] if marks is None else [marks]
    for cloud in clouds:
        finite = cloud[np.isfinite(cloud).all(1)]
        if len(finite):
            corners.append(np.quantile(finite, [0.005, 0.995], axis=0))
    every = np.concatenate(corners) if corners else np.zeros((1, 2))
    low, high = every.min(0), every.max(0)
    half = 0.56 * max(float((high - low).max()), 1e-6)  # a margin of 6 % on each side
    x, y = (low + high) / 2
    return float(x - half), float(y - half), float(x + half), float(y + half)


def _inside(points: np.ndarray[Any, Any], view: Box) -> np.ndarray[Any, Any]:
    x, y = points[:, 0], points[:, 1]
    ok: np.ndarray[Any, Any] = (x >= view[0]) & (x <= view[2]) & (y >= view[1]) & (y <= view[3])  # False for NaN
    return ok


def _cloud(
    points: np.ndarray[Any, Any],
    start: np.ndarray[Any, Any] | None,
    marks: np.ndarray[Any, Any] | None,
    radius: float,
    colour: tuple[int, int, int],
    view: Box,
    size: tuple[int, int],
) -> Image.Image:
    width, height = size[0] * _SHARP, size[1] * _SHARP
    scale = width / (view[2] - view[0])

    def pixels(p: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.stack([(p[:, 0] - view[0]) * scale, (view[3] - p[:, 1]) * scale], 1)

    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    step = _tick(view)
    for axis, (low, high) in enumerate(((view[0], view[2]), (view[1], view[3]))):
        for k in range(math.ceil(low / step), math.floor(high / step) + 1):
            at = (k * step - low) * scale if axis == 0 else (high - k * step) * scale
            ends = (at, 0, at, height) if axis == 0 else (0, at, width, at)
            pen.line(ends, fill=(238, 238, 238), width=_SHARP)
    shown = _inside(points, view)
    if start is not None:
        for a, b in zip(pixels(start[shown]), pixels(points[shown]), strict=True):
            _arrow(pen, a, b)
    # dots are translucent, so that a dense place is darker: paint each pixel by the number of dots that cover it
    count = np.zeros((height, width), np.int32)
    dot = _SHARP * (2.4 if len(points) <= 300 else 1.7 if len(points) <= 3000 else 1.3)
    reach = int(dot) + 1
    place = np.floor(pixels(points[shown])).astype(int)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= dot * dot:
                x, y = place[:, 0] + dx, place[:, 1] + dy
                ok = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                np.add.at(count, (y[ok], x[ok]), 1)
    opacity = 0.85 if len(points) <= 300 else 0.5
    cover = (1 - (1 - opacity) ** count)[:, :, None]
    canvas = np.asarray(image, np.float64) * (1 - cover) + np.asarray(colour, np.float64) * cover
    image = Image.fromarray(canvas.round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    if marks is not None:
        r = max(radius * scale, 4 * _SHARP)
        for x, y in pixels(marks):
            pen.ellipse((x - r, y - r, x + r, y + r), outline=_MARK, width=_SHARP)
    image = image.resize(size, Image.Resampling.LANCZOS)
    ImageDraw.Draw(image).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=_FRAME)
    return image


def _arrow(pen: ImageDraw.ImageDraw, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
    way = b - a
    length = float(np.hypot(*way))
    if not length > 4 * _SHARP:  # too short to be read
        return
    u = way / length
    across = np.array([-u[1], u[0]])
    head = min(6.0 * _SHARP, 0.5 * length)
    back = b - head * u
    pen.line((*a, *back), fill=(150, 150, 150), width=_SHARP)
    pen.polygon([tuple(b), tuple(back + 0.4 * head * across), tuple(back - 0.4 * head * across)], fill=(150, 150, 150))


def _tick(view: Box) -> float:
    span = max(view[2] - view[0], view[3] - view[1])
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if span / (m * power) <= 6)


def _labels(
    page: Image.Image, panel: Panel, cloud: np.ndarray[Any, Any], view: Box, place: tuple[int, int, int, int], *, first: bool
) -> None:
    x, y, width, height = place
    pen = ImageDraw.Draw(page)
    title, small = ImageFont.load_default(17), ImageFont.load_default(12)
    pen.text((x, y - 9), panel.title, fill=_INK, font=title, anchor="ls")
    step = _tick(view)
    for k in range(math.ceil(view[0] / step), math.floor(view[2] / step) + 1):
        at = x + (k * step - view[0]) / (view[2] - view[0]) * width
        pen.text((at, y + height + 4), f"{k * step:g}", fill=_FAINT, font=small, anchor="mt")
    for k in range(math.ceil(view[1] / step), math.floor(view[3] / step) + 1) if first else ():
        at = y + (view[3] - k * step) / (view[3] - view[1]) * height
        pen.text((x - 5, at), f"{k * step:g}", fill=_FAINT, font=small, anchor="rm")
    outside = len(cloud) - int(_inside(cloud, view).sum())
    note = ", ".join([t for t in (panel.note, f"{outside} of {len(cloud)} outside" if outside else "") if t])
    pen.text((x, y + height + 38), note, fill=_INK, font=ImageFont.load_default(13), anchor="ls")
