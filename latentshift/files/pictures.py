"""Pictures: bytes from floats, PNG files with their origin in text chunks, and the grid of before above after."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ..errors import ShapeError, UsageError
from .write import write_whole

Bytes = npt.NDArray[np.uint8]


def to_planes(images: Any, span: tuple[float, float] = (-1.0, 1.0)) -> Bytes:
    """Return float images (rows, C, H, W) in `span` as uint8 (rows, C, H, W), as feature networks and judges take them.

    0.5 is rounded up, as StyleGAN does; NaN becomes 0.
    """
    x = np.asarray(images, np.float32)
    if x.ndim != 4:
        raise ShapeError(f"images have shape {x.shape}, not (rows, channels, height, width)")
    low, high = span
    scaled = np.clip(np.nan_to_num((x - low) * np.float32(255.0 / (high - low)), nan=0.0) + np.float32(0.5), 0, 255)
    planes: Bytes = scaled.astype(np.uint8)
    return planes


def to_bytes(images: Any, span: tuple[float, float] = (-1.0, 1.0)) -> Bytes:
    """Return float images (rows, C, H, W) in `span` as uint8 (rows, H, W, C), as pictures are written."""
    return np.ascontiguousarray(to_planes(images, span).transpose(0, 2, 3, 1))


def picture(row: Bytes) -> Image.Image:
    """Return one image (H, W, C) as a picture: grey, RGB or RGBA; other channel counts show the first three, or the first."""
    channels = row.shape[2]
    if channels in (1, 2):
        return Image.fromarray(np.ascontiguousarray(row[:, :, 0]))
    return Image.fromarray(np.ascontiguousarray(row[:, :, : 4 if channels == 4 else 3]))


def png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """Return a picture as PNG bytes with text chunks; the same picture and text give the same bytes."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info, compress_level=6)
    return stream.getvalue()


def save_png(path: Path, image: Image.Image, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG whole or not at all."""
    data = png(image, text)
    write_whole(path, lambda stream: stream.write(data))


def parse_grid(text: str) -> tuple[int, int]:
    """Return (columns, pairs of rows) of 'WxH'.

    >>> parse_grid("8x4")
    (8, 4)
    """
    w, x, h = text.lower().partition("x")
    if not (x and w.isdigit() and h.isdigit() and 0 < int(w) <= 64 and 0 < int(h) <= 64):
        raise UsageError(
            f"cannot read the grid {text!r}", where="--grid", way_out="Write columns x rows, as in 8x4 (1 to 64 each)."
        )
    return int(w), int(h)


def grid(
    before: Bytes | None,
    after: Bytes,
    labels: Sequence[str],
    gains: Sequence[float] | None = None,
    *,
    columns: int = 8,
    title: str = "",
) -> Image.Image:
    """Return one picture of samples, before above after, each pair under its label and gain.

    `before`, `after`: (rows, H, W, C) uint8. Small images are enlarged by a whole factor so that a tile is 64 pixels or more.
    """
    rows, height, width = after.shape[:3]
    columns = min(columns, rows)
    factor = max(1, -(-96 // max(height, width)))
    if max(height, width) > 256:
        factor = 1
    tile_w, tile_h = width * factor, height * factor
    if max(height, width) > 256:  # large pictures are shown at 256
        share = 256 / max(height, width)
        tile_w, tile_h = round(width * share), round(height * share)
    gap, pad, text_h, stack = 2, 10, 16, 1 if before is None else 2
    lines = -(-rows // columns)
    cell_w, cell_h = tile_w + pad, text_h + stack * tile_h + (stack - 1) * gap + pad
    head = 26 if title else 6
    canvas = Image.new("RGB", (columns * cell_w + pad, lines * cell_h + head + 6), "white")
    pen = ImageDraw.Draw(canvas)
    small, large = _font(11), _font(14)
    if title:
        pen.text((pad, 6), _fit(title, large, canvas.width - 2 * pad), "black", large)
    for i in range(rows):
        x, y = pad + i % columns * cell_w, head + i // columns * cell_h
        gain = "" if gains is None or not np.isfinite(gains[i]) else f"{gains[i]:+.2f}"
        pen.text((x, y + 1), _fit(labels[i], small, tile_w - small.getlength(gain) - 4), "#222222", small)
        colour = (
            "#0a6b2d"
            if gain.startswith("+") and gains is not None and gains[i] > 0
            else "#8a1c1c"
            if gain.startswith("-")
            else "#666666"
        )
        pen.text((x + tile_w - small.getlength(gain), y + 1), gain, colour, small)
        parts = [after[i]] if before is None else [before[i], after[i]]
        for k, part in enumerate(parts):
            tile = picture(part).convert("RGB")
            method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
            if tile.size != (tile_w, tile_h):
                tile = tile.resize((tile_w, tile_h), method)
            canvas.paste(tile, (x, y + text_h + k * (tile_h + gap)))
    return canvas


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _fit(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…" if text else ""
