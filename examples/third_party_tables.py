"""The tables of `third_party_pairs.py`, from its results: changes in standard errors, Holm's correction, the promise counted.

python examples/third_party_tables.py RESULTS                    # a folder, or a file that was published
python examples/third_party_tables.py RESULTS --publish FILE     # all results in one file, rounded
python examples/third_party_tables.py RESULTS --figure FILE      # the figure over the number of real images
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from latentshift.metrics.stats import holm

ARMS = (
    "auto, reals",
    "latents, reals",
    "auto",
    "paper",
    "best of N",
    "random",
    "random, layer",
    "reals 2",
    "reals 5",
    "two eyes",
    "own 4 x 0.05",
)
NAMES = {
    "auto, reals": "`auto` with real images: up an honest critic in G's first hidden layer, as far as held-out images allow",
    "latents, reals": "the same in the latents (`--space z`)",
    "auto": "`auto` without: two steps of 0.02 up the pair's own D, the lower half",
    "paper": "the paper's 20 steps of 0.05 up the pair's own D",
    "best of N": "the best of N draws by the pair's own D, in the time of the climb (N at most 64)",
    "random": "random steps in the latents (the null)",
}
LIMIT = math.erfc(3 / math.sqrt(2))  # three standard errors, two-sided
Record = dict[str, Any]


class Cell(NamedTuple):
    """A metric of one pair, judge and arm over the draws of latents: raw, value, change in standard errors, two-sided p."""

    raw: float
    value: float
    z: float
    p: float


def cell(draws: list[Record], metric: str = "FD") -> Cell:
    raw, value, change = (sum(d[metric][k] for d in draws) / len(draws) for k in ("raw", "value", "change"))
    error = math.sqrt(sum(d[metric]["error"] ** 2 for d in draws)) / len(draws)
    z = change / error if error > 0 else 0.0  # not value - raw, which are rounded
    return Cell(raw, value, z, math.erfc(abs(z) / math.sqrt(2)))


def read(path: Path) -> list[Record]:
    """Return all records of a folder of results or of a published file."""
    if path.is_dir():
        return [json.loads(p.read_text()) for p in sorted(path.glob("*.json"))]
    found: list[Record] = json.loads(path.read_text())
    return found


def full(records: list[Record], rows: int) -> list[Record]:
    """Return the records of `rows` samples, of each pair the one with most arms (the most real images among equals)."""
    best: dict[str, Record] = {}
    for r in sorted(records, key=lambda r: (len(r["arms"]), r["reals"])):
        if r["rows"] == rows:
            best[r["pair"]] = r
    return sorted(best.values(), key=lambda r: r["pair"])


def cells(records: list[Record], arm: str) -> dict[tuple[str, str], Cell]:
    """Return the distance of an arm per pair and judge."""
    return {(r["pair"], j): cell(d) for r in records if arm in r["arms"] for j, d in r["arms"][arm]["judges"].items()}


def verdicts(found: dict[tuple[str, str], Cell]) -> dict[tuple[str, str], str]:
    """Return better, worse or nothing per cell: three standard errors, Holm's correction over all cells of the arm."""
    adjusted = holm([c.p for c in found.values()])
    return {
        k: ("better" if c.z < 0 else "worse") if p < LIMIT else "" for (k, c), p in zip(found.items(), adjusted, strict=True)
    }


def distances(records: list[Record], arms: tuple[str, ...]) -> str:
    """Return the table of distances: value (change in standard errors), bold where worse, italic where better."""
    arms = tuple(a for a in arms if any(a in r["arms"] for r in records))
    told = {a: (cells(records, a), verdicts(cells(records, a))) for a in arms}
    lines = ["| pair | judge | raw | " + " | ".join(arms) + " |", "| --- " * (len(arms) + 3) + "|"]
    for r in records:
        for judge in next(iter(r["arms"].values()))["judges"]:
            key, row = (r["pair"], judge), []
            for arm in arms:
                found, verdict = told[arm]
                mark = {"better": "*", "worse": "**"}.get(verdict.get(key, ""), "")
                row.append(f"{mark}{found[key].value:.1f} ({found[key].z:+.1f}){mark}" if key in found else "-")
            raw = next(c[0][key].raw for c in told.values() if key in c[0])
            lines.append(f"| {r['pair']} | {judge} | {raw:.1f} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def promise(records: list[Record], arms: tuple[str, ...]) -> str:
    """Return how often each arm is better and worse, how far the distance falls, and what diversity it costs."""
    head = (
        "arm",
        "pairs",
        "better",
        "worse",
        "distance down by a fifth or more",
        "largest fall of recall",
        "of coverage",
        "ms a sample",
    )
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for arm in arms:
        found = cells(records, arm)
        if not found:
            continue
        verdict = verdicts(found)
        pairs = {p for p, _ in found}
        worse = {p for (p, _), v in verdict.items() if v == "worse"}
        better = {p for (p, _), v in verdict.items() if v == "better"} - worse
        fifth = {p for (p, _), c in found.items() if c.value <= 0.8 * c.raw}
        falls = [_fall(records, arm, m) for m in ("recall", "coverage")]
        ms = [r["arms"][arm]["cpu_ms"] for r in records if arm in r["arms"]]
        lines.append(
            f"| {arm} | {len(pairs)} | {len(better)} | {len(worse)} | {len(fifth)} | {falls[0]} | {falls[1]} "
            f"| {min(ms):.1f} to {max(ms):.1f} |"
        )
    return "\n".join(lines)


def short(records: list[Record]) -> str:
    """Return the README's table."""
    lines = ["| what is done | pairs | better | worse | largest fall of recall |", "| --- " * 5 + "|"]
    for arm, name in NAMES.items():
        found = cells(records, arm)
        verdict = verdicts(found)
        worse = {p for (p, _), v in verdict.items() if v == "worse"}
        better = {p for (p, _), v in verdict.items() if v == "better"} - worse
        fall = _fall(records, arm, "recall").partition(" (")[0]
        lines.append(f"| {name} | {len({p for p, _ in found})} | {len(better)} | {len(worse)} | {fall} |")
    return "\n".join(lines)


def _fall(records: list[Record], arm: str, metric: str) -> str:
    worst, where = 0.0, ""
    for r in records:
        for judge, draws in r["arms"].get(arm, {"judges": {}})["judges"].items():
            c = cell(draws, metric)
            if c.raw > 0 and 1 - c.value / c.raw > worst:
                worst, where = 1 - c.value / c.raw, f" ({r['pair']}, {judge})"
    return f"{worst:.0%}{where}"


def critics(records: list[Record]) -> str:
    """Return what the honest critics say of themselves, and how far they are climbed."""
    head = (
        "pair",
        "real images",
        "verdict",
        "climbed",
        "what ended it",
        "AUC against raw",
        "against refined",
        "memory",
        "fit, CPU s",
    )
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for r in records:
        c = r.get("critic")
        if c:
            over = c.get("overfitting") or {}
            ends = [t["against"] for t in c.get("tried") or () if t["against"]] or ["-"]
            length = f"{c['steps']} x {c['step_size']:g}" if c.get("steps") else "-"
            row = (r["pair"], r["reals"], c["verdict"], length, ends[-1], f"{c['auc_raw']:.2f}", f"{c['auc_refined']:.2f}")
            lines.append(f"| {' | '.join(map(str, row))} | {over.get('memory', float('nan')):.2f} | {c['seconds']:.0f} |")
    return "\n".join(lines)


def by_reals(records: list[Record], rows: int) -> str:
    """Return the distances over the number of real images, for pairs measured at several."""
    arms = ("auto, reals", "reals 2")  # in the layer; two steps in the latents
    mine = [r for r in records if r["rows"] == rows and any(a in r["arms"] for a in arms)]
    several = {r["pair"] for r in mine if any(q["pair"] == r["pair"] and q["reals"] != r["reals"] for q in mine)}
    lines = ["| pair | judge | real images | raw | `auto, reals` | `reals 2` |", "| --- " * 6 + "|"]
    for r in sorted(mine, key=lambda r: (r["pair"], r["reals"])):
        for judge in next(iter(r["arms"].values()))["judges"] if r["pair"] in several else ():
            found = [cell(r["arms"][a]["judges"][judge]) if a in r["arms"] else None for a in arms]
            told = ["-" if c is None else f"{c.value:.1f} ({c.z:+.1f})" for c in found]
            raw = next(c.raw for c in found if c is not None)
            lines.append(f"| {r['pair']} | {judge} | {r['reals']} | {raw:.1f} | {' | '.join(told)} |")
    return "\n".join(lines)


def figure(records: list[Record], rows: int) -> str:
    """Return an SVG: the distance after `auto, reals` over that of raw samples, per number of real images."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for r in sorted(records, key=lambda r: r["reals"]):
        for key, c in cells([r], "auto, reals").items() if r["rows"] == rows else ():
            lines.setdefault(key, []).append((r["reals"], c.value / c.raw))
    lines = {k: v for k, v in lines.items() if len(v) > 2}
    ticks = sorted({n for line in lines.values() for n, _ in line})
    left, top, width, height = 50, 30, 420, 220

    def x(n: int) -> float:
        return left + width * math.log(n / ticks[0]) / math.log(ticks[-1] / ticks[0])

    def y(share: float) -> float:
        return top + height * (1 - share)

    out = [f'<text x="{left}" y="18" font-weight="bold">Distance after over before, by the number of real images</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(f'<path d="M{left} {y(share):.1f}H{left + width}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    out += [f'<text x="{x(n):.1f}" y="{top + height + 18}" text-anchor="middle">{n}</text>' for n in ticks]
    for i, ((pair, judge), line) in enumerate(lines.items()):
        colour = ("#06c", "#c60", "#090", "#909", "#666", "#a00")[i % 6]
        points = " ".join(f"{x(n):.1f},{y(v):.1f}" for n, v in line)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(n):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>' for n, v in line]
        out.append(f'<text x="{left}" y="{top + height + 42 + 16 * i}" fill="{colour}">{pair}, {judge}</text>')
    size = f'width="{left + width + 30}" height="{top + height + 50 + 16 * len(lines)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return f'{head}<rect width="100%" height="100%" fill="white"/>{"".join(out)}</svg>\n'


def rounded(value: Any) -> Any:
    """Return plain values with four significant digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def page(records: list[Record], rows: int = 500) -> list[str]:
    """Return all tables, in the order of the page."""
    chosen = full(records, rows)
    return [distances(chosen, ARMS), promise(chosen, ARMS), critics(chosen), by_reals(records, rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--publish", type=Path)
    parser.add_argument("--figure", type=Path, help="write the figure over the number of real images, an SVG")
    parser.add_argument("--rows", type=int, default=500)
    args = parser.parse_args()
    records = [rounded(r) for r in read(args.results)]
    if args.publish:
        args.publish.write_text("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
    if args.figure:
        args.figure.write_text(figure(records, args.rows))
    print("\n\n".join(page(records, args.rows)))


if __name__ == "__main__":
    main()
