"""The figure of a result file: milliseconds a row and step over the batch size, one panel a pair, as a small SVG."""

from __future__ import annotations

import math
from typing import Any

_COLOURS = {"published-style loop": "#888", "eager, z alone": "#c80", "engine fp32": "#06c", "engine bf16": "#090"}
_WIDTH, _HEIGHT, _LEFT, _TOP = 380, 260, 56, 30


def figure(result: dict[str, Any]) -> str:
    """Return the SVG text; axes are logarithmic."""
    names = sorted({r["pair"] for r in result["rows"]})
    parts = [_panel(name, [r for r in result["rows"] if r["pair"] == name], i) for i, name in enumerate(names)]
    key = "".join(
        f'<text x="{_LEFT + 190 * i}" y="{_HEIGHT + 30}" fill="{colour}">{name}</text>'
        for i, (name, colour) in enumerate(_COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH * max(2, len(names))}" height="{_HEIGHT + 40}" '
        f'font-family="sans-serif" font-size="12"><title>Milliseconds a row and step over rows a batch</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}{key}</svg>\n'
    )


def _panel(name: str, rows: list[dict[str, Any]], number: int) -> str:
    batches = sorted({r["rows"] for r in rows})
    values = {(r["variant"], r["rows"]): 1e3 * r["seconds"] / r["rows"] for r in rows}
    low, high = (f(math.log2(v) for v in values.values()) for f in (min, max))
    low, high = math.floor(low), math.ceil(high)

    def x(batch: int) -> float:
        span = math.log2(batches[-1] / batches[0]) or 1.0
        return number * _WIDTH + _LEFT + math.log2(batch / batches[0]) / span * (_WIDTH - _LEFT - 30)

    def y(ms: float) -> float:
        return _TOP + (high - math.log2(ms)) / max(high - low, 1) * (_HEIGHT - _TOP - 40)

    out = [f'<text x="{number * _WIDTH + _LEFT}" y="18" font-weight="bold">Pair {name}: ms a row and step</text>']
    for power in range(low, high + 1):
        out.append(f'<path d="M{x(batches[0]):.1f} {y(2**power):.1f}H{x(batches[-1]):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x(batches[0]) - 8:.1f}" y="{y(2**power) + 4:.1f}" text-anchor="end">{2**power}</text>')
    for batch in batches:
        out.append(f'<text x="{x(batch):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{batch}</text>')
    for variant, colour in _COLOURS.items():
        points = [(x(b), y(values[variant, b])) for b in batches if (variant, b) in values]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
    return "".join(out)
