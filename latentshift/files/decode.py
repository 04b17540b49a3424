"""One picture file to uint8 pixels, by stated rules. What is changed on the way is named, so that it can be reported.

    orientation   the EXIF orientation is applied
    palette       through its colours                        16 bits   the high byte
    alpha         over white, where it is not opaque         CMYK, ... to RGB
    animation     the first frame
    another size  the centred square of the shorter side, resized by Pillow's Lanczos filter to the size asked for
    channels      grey repeated to colour; colour to grey by 0.299 R + 0.587 G + 0.114 B

32-bit and float pictures have no stated range and are refused, and so is a picture that would be enlarged more than
four times: nothing could be said about details that are not there.
"""

from __future__ import annotations

import warnings
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ..errors import DamagedFileError, FileError, UnsafeFileError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_PIXELS = 10**8
MAX_ENLARGEMENT = 4

Pixels = npt.NDArray[np.uint8]


def what_it_is(head: bytes) -> str:
    """Name what a file that is no picture looks like, from its first bytes."""
    kinds = {
        b"version https://git-lfs": "a git-LFS pointer (run 'git lfs pull')",
        b"<!DOCTYPE": "an HTML page",
        b"<html": "an HTML page",
        b"PK\x03\x04": "a zip archive",
        b"\x1f\x8b": "a gzip file",
        b"{": "a JSON document",
        b"": "an empty file",
    }
    for magic, kind in kinds.items():
        if (magic and head.lstrip().startswith(magic)) or (not magic and not head):
            return kind
    return "not a picture"


def _plain(image: Image.Image, where: str, notes: set[str]) -> Image.Image:
    """Return the picture in mode L or RGB."""
    if getattr(image, "is_animated", False):
        notes.add("animations: only the first frame is used")
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.add("turned as their EXIF orientation says")
    if image.mode in ("I", "F"):
        raise FileError(f"a picture of mode {image.mode} has no stated range", where=where, way_out="Save it with 8 bits.")
    if image.mode.startswith("I;16"):
        notes.add("16 bits reduced to 8")
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P":
        notes.add("palette pictures converted by their colours")
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        solid = image.convert("RGBA")
        grey = image.mode.startswith("L")
        alpha = solid.getchannel("A")
        if alpha.getextrema() != (255, 255):
            notes.add("transparent pixels laid over white")
            solid = Image.alpha_composite(Image.new("RGBA", solid.size, (255, 255, 255, 255)), solid)
        return solid.convert("RGB").convert("L") if grey else solid.convert("RGB")
    if image.mode not in ("L", "RGB"):
        notes.add(f"{image.mode} converted to RGB")
        return image.convert("RGB")
    return image


def fit(image: Image.Image, size: int, where: str, notes: set[str]) -> Image.Image:
    """Bring a picture to `size` x `size`: the centred square, then Lanczos."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    side = min(width, height)
    if side * MAX_ENLARGEMENT < size:
        raise FileError(
            f"a picture of {width}x{height} is too small for {size}x{size}",
            where=where,
            way_out=f"Leave it out, or work at {side * MAX_ENLARGEMENT} pixels or less.",
        )
    if width != height:
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        notes.add("cropped to the centred square")
    if side != size:
        notes.add("enlarged (Lanczos)" if side < size else "reduced (Lanczos)")
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return image


def read_picture(stream: IO[bytes], where: str, *, size: int | None = None) -> tuple[Pixels, set[str]]:
    """Return pixels (H, W) or (H, W, 3) of one picture, and what was changed.

    Raises DamagedFileError for what is cut or no picture, UnsafeFileError above 100 million pixels, FileError for a
    picture that no rule covers.
    """
    notes: set[str] = set()
    head = stream.read(64)
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream)
    except Image.DecompressionBombError as error:
        raise UnsafeFileError(str(error), where=where) from None
    except Exception:  # decoders raise whatever they stumble over
        raise DamagedFileError(f"cannot be read as a picture: it is {what_it_is(head)}", where=where) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnsafeFileError(f"a picture of {image.width}x{image.height} pixels", where=where)
    try:
        image.load()
    except Exception as error:
        raise DamagedFileError(f"a damaged picture ({error})", where=where) from None
    plain = _plain(image, where, notes)
    if size is not None:
        plain = fit(plain, size, where, notes)
    return np.asarray(plain), notes
