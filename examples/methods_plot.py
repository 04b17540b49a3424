"""Quality against cost as a picture: exact W1 over passes per sample, one numbered disc a method, drawn with pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SHARP = 2  # drawn this many times larger, then reduced
WIDTH, HEIGHT, KEY = 980, 720, 640  # of the plot, and of the list beside it, in pixels
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 44, 56
COLOURS = {"": (0, 92, 175), "uneven": (214, 137, 16), "loses modes": (192, 28, 40)}
INK, FAINT, RULE = (34, 34, 34), (110, 110, 110), (228, 228, 228)
DISC = 10.0  # radius of a disc


@dataclass(frozen=True)
class Point:
    """A method: its name, passes per sample (0 for raw samples), W1 x 1e3, HQ in percent, and what it does to the modes."""

    name: str
    cost: float
    w1: float
    hq: float
    mark: str


def round_numbers(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10, ... between two values.

    >>> round_numbers(3, 60)
    [5.0, 10.0, 20.0, 50.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1.0, 2.0, 5.0) if low <= m * 10.0**p <= high]


def free_place(x: float, y: float, taken: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the nearest place to (x, y), on a flat spiral, where a disc touches none of `taken`."""
    for k in range(4000):
        angle, reach = 2.0 * k**0.5, 0.55 * DISC * (k**0.5)
        at = (x + 1.8 * reach * math.cos(angle), y + 0.4 * reach * math.sin(angle))  # height is what is read
        inside = LEFT + DISC < at[0] < WIDTH - RIGHT - DISC and TOP + DISC < at[1] < HEIGHT - BOTTOM - DISC
        if inside and all(math.hypot(at[0] - a, at[1] - b) >= 2 * DISC + 1 for a, b in taken):
            return at
    return x, y


def draw(points: list[Point], *, floor: float | None = None, raw: float | None = None) -> Image.Image:
    """Return the picture; `floor`: W1 of fresh data whose modes are drawn at random, `raw`: W1 of the raw samples."""
    points = sorted(points, key=lambda p: p.w1)
    costs, far = [max(p.cost, 1.0) for p in points], [p.w1 for p in points]
    low, high = min([*far, floor or 1e9]) / 1.15, max(far) * 1.15
    left, right = math.log(min(costs) / 1.3), math.log(max(costs) * 1.3)
    page = Image.new("RGB", ((WIDTH + KEY) * SHARP, HEIGHT * SHARP), "white")
    pen = ImageDraw.Draw(page)
    title, plain, small = (ImageFont.load_default(size * SHARP) for size in (16, 12, 11))

    def place(cost: float, w1: float) -> tuple[float, float]:
        x = LEFT + (math.log(max(cost, 1.0)) - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return x, TOP + math.log(high / w1) / math.log(high / low) * (HEIGHT - TOP - BOTTOM)

    def text(x: float, y: float, words: str, font: ImageFont.FreeTypeFont, fill: tuple[int, int, int], anchor: str) -> None:
        pen.text((x * SHARP, y * SHARP), words, fill=fill, font=font, anchor=anchor)

    def rule(a: tuple[float, float], b: tuple[float, float], fill: tuple[int, int, int]) -> None:
        pen.line((a[0] * SHARP, a[1] * SHARP, b[0] * SHARP, b[1] * SHARP), fill=fill, width=SHARP)

    text(LEFT, TOP - 16, "W1 to fresh data x 1e3 over passes per sample, 25 Gaussians (lower is better)", title, INK, "ls")
    for value in round_numbers(low, high):
        y = place(1, value)[1]
        rule((LEFT, y), (WIDTH - RIGHT, y), RULE)
        text(LEFT - 8, y, f"{value:g}", plain, FAINT, "rm")
    for value in round_numbers(math.exp(left), math.exp(right)):
        x = place(value, high)[0]
        rule((x, TOP), (x, HEIGHT - BOTTOM), RULE)
        text(x, HEIGHT - BOTTOM + 8, f"{value:g}", plain, FAINT, "mt")
    text((LEFT + WIDTH) / 2, HEIGHT - 14, "passes per sample, forward + backward (raw samples: at 1)", plain, FAINT, "mm")
    for value, words in ((floor, "fresh data, modes drawn at random"), (raw, "raw samples")):
        if value is not None:
            y = place(1, value)[1]
            rule((LEFT, y), (WIDTH - RIGHT, y), (120, 160, 120))
            text(WIDTH - RIGHT - 4, y - 4, words, small, (80, 120, 80), "rs")
    taken: list[tuple[float, float]] = []
    for p in points:
        true = place(p.cost, p.w1)
        taken.append(free_place(*true, taken))
        rule(true, taken[-1], COLOURS[p.mark])
    for i, (p, at) in enumerate(zip(points, taken, strict=True)):
        colour = COLOURS[p.mark]
        box = [(at[0] - DISC) * SHARP, (at[1] - DISC) * SHARP, (at[0] + DISC) * SHARP, (at[1] + DISC) * SHARP]
        pen.ellipse(box, fill=colour if p.mark else "white", outline=colour, width=2 * SHARP)
        text(*at, str(i + 1), small, (255, 255, 255) if p.mark else colour, "mm")
        rows = math.ceil(len(points) / 2)
        column, line = divmod(i, rows)
        where = WIDTH + 8 + column * (KEY - 8) / 2, TOP + (line + 0.5) * (HEIGHT - TOP - 64) / max(rows, 24)
        text(*where, f"{i + 1}  {p.name.rstrip('*')}  ({p.hq:.0f} %)", small, colour, "lm")
    foot = HEIGHT - 38
    for words, colour in zip(("modes kept", "uneven", "loses modes"), COLOURS.values(), strict=True):
        pen.ellipse([(WIDTH + 8) * SHARP, (foot - 5) * SHARP, (WIDTH + 18) * SHARP, (foot + 5) * SHARP], fill=colour)
        text(WIDTH + 24, foot, words, small, INK, "lm")
        foot += 14
    text(WIDTH + 130, HEIGHT - 38, "in brackets: share of high-quality samples", small, FAINT, "lm")
    return page.resize((WIDTH + KEY, HEIGHT), Image.Resampling.LANCZOS)
