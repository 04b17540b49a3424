"""The page's charts: small SVG drawings, coloured by the style sheet, each with a title and a description."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Return a number as people read it: three figures, a true minus sign, a dash for none.

    >>> number(-0.09273), number(1234567.0), number(0.5, sign=True), number(None)
    ('−0.0927', '1.23e6', '+0.5', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}g}" if sign else f"{value:.{digits}g}"
    if "e" in text:
        head, _, tail = text.partition("e")
        text = f"{head}e{int(tail)}"
    return text.replace("-", "−")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two values.

    >>> ticks(0, 1, 4)
    [0.0, 0.5, 1.0]
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(round(k * step, 12)) for k in range(first, last + 1)]


def _range(values: Array, include: Sequence[float] = (), room: float = 0.0) -> tuple[float, float]:
    finite = np.concatenate([values[np.isfinite(values)], np.array(list(include), float)])
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    pad = (high - low) * room
    return low - pad, high + pad


class _Frame:
    """A plot's frame: scales, grid lines and axis texts."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], x_name: str, y_name: str) -> None:
        self.x, self.y = x, y
        parts = []
        for v in ticks(*y, 4):
            at = self.py(v)
            parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(v)}</text>')
        for v in ticks(*x, 5):
            parts.append(
                f'<text class="tick" x="{self.px(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(v)}</text>'
            )
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_name)}</text>')
        if y_name:
            at = (TOP + HEIGHT - BOTTOM) / 2
            parts.append(
                f'<text class="name" x="12" y="{at}" text-anchor="middle" transform="rotate(-90 12 {at})">'
                f"{html.escape(y_name)}</text>"
            )
        self.parts = parts

    def px(self, v: float) -> float:
        """Return the pixel of an x value."""
        return LEFT + (v - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def py(self, v: float) -> float:
        """Return the pixel of a y value."""
        return HEIGHT - BOTTOM - (v - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - BOTTOM - TOP)

    def svg(self, name: str, title: str, text: str, more: Sequence[str]) -> str:
        """Return the drawing with its accessible name."""
        return (
            f'<svg id="{name}" class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{html.escape(title)}</title>'
            f'<desc id="{name}-d">{html.escape(text)}</desc>{"".join(self.parts)}{"".join(more)}</svg>'
        )


def histogram(series: Sequence[tuple[str, str, Array]], x_name: str) -> str:
    """Return the histogram of several sets of scores as steps over shared bins: (class, name, values)."""
    every = np.concatenate([v[np.isfinite(v)] for _, _, v in series])
    low, high = _range(every)
    if len(every) > 200:  # a few far ones would squeeze the rest
        a, b = np.quantile(every, [0.002, 0.998])
        low, high = (float(a), float(b)) if a < b else (low, high)
    most = max(len(v) for _, _, v in series)
    bins = int(np.clip(round(most**0.5) * 2, 6, 36))
    edges = np.linspace(low, high, bins + 1)
    shares = []
    for _, _, v in series:
        finite = np.clip(v[np.isfinite(v)], low, high)
        shares.append(np.histogram(finite, edges)[0] / max(len(finite), 1))
    top = max(float(s.max()) for s in shares) or 1.0
    frame = _Frame((low, high), (0.0, top * 1.05), x_name, "share of samples")
    base = frame.py(0.0)
    drawn = []
    for (kind, _, _), share in zip(series, shares, strict=True):
        path = [f"M{frame.px(low):.1f} {base:.1f}"]
        for k, s in enumerate(share):
            path.append(f"V{frame.py(float(s)):.1f}H{frame.px(float(edges[k + 1])):.1f}")
        drawn.append(f'<path class="area {kind}" d="{"".join(path)}V{base:.1f}Z"/>')
    means = "; ".join(f"{name}: mean {number(float(np.nanmean(v)))}, {len(v)} values" for _, name, v in series if len(v))
    return frame.svg("chart-scores", "Scores before and after", means, drawn)


def steps(values: Array, y_name: str) -> str:
    """Return the mean score per step as a line."""
    frame = _Frame((0.0, float(max(len(values) - 1, 1))), _range(values, room=0.06), "step", y_name)
    way = [(frame.px(k), frame.py(float(v))) for k, v in enumerate(values) if math.isfinite(v)]
    line = f'<polyline class="line" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in way)}"/>'
    dots = [f'<circle class="after" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in way] if len(way) <= 40 else []
    said = f"from {number(float(values[0]))} at the start to {number(float(values[-1]))} after {len(values) - 1} steps"
    return frame.svg("chart-steps", "Mean score per step", said, [line, *dots])


def displacement(moved: Array, gain: Array, shown: Sequence[int], place: str) -> str:
    """Return gain over distance moved in `place`, one dot a sample; those with a card carry their number."""
    few = set(shown)
    some = list(shown) if len(gain) > 4000 else range(len(gain))
    frame = _Frame(_range(moved, [0.0], 0.03), _range(gain, [0.0], 0.05), f"distance moved in {place} (l2)", "gain")
    drawn = []
    zero = frame.py(0.0)
    drawn.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    for i in some:
        if math.isfinite(moved[i]) and math.isfinite(gain[i]):
            kind = "gain" if gain[i] > 0 else "loss" if gain[i] < 0 else "same"
            mark = f' data-i="{i}"' if i in few else ""
            drawn.append(f'<circle class="dot {kind}"{mark} cx="{frame.px(moved[i]):.1f}" cy="{frame.py(gain[i]):.1f}" r="3"/>')
    still = int((moved == 0).sum())
    said = f"{len(gain)} samples, {still} did not move; distances up to {number(_range(moved)[1])}"
    return frame.svg("chart-moves", "Distance moved against gain", said, drawn)
