"""Which signs of the reference implementation came out again on Ring and Grid: each said, and held or not.

    python examples/papers/toy_signs.py                       # the recorded table, docs/training-tables.json: at once
    python examples/papers/toy_signs.py table.json            # what toy_training.py --out wrote

A sign is a sentence about two rows of the table: a figure falls, rises, or stays within the spread. "Held" is the sign of the
difference of the means; "beyond the spread" says whether it is larger than the root of the two variances of the seeds.
Expected of the recorded table: 34 of 39 signs held.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RECORD = Path(__file__).parents[2] / "docs" / "training-tables.json"
#: (data, method, against, figure, what the reference saw); figures after "z:" are of AdvLatGAN-z, refined against raw
SIGNS: tuple[tuple[str, str, str, str, str], ...] = (
    ("ring", "BCE + qua 0.03", "BCE", "w1", "falls"),
    ("ring", "BCE + qua 0.03", "BCE", "jsd", "falls"),
    ("ring", "BCE + qua 0.03", "BCE", "near", "rises"),
    ("grid", "BCE + qua 0.03", "BCE", "w1", "stays"),
    ("grid", "BCE + qua 0.03", "BCE", "jsd", "stays"),
    ("ring", "BCE + qua 0.1", "BCE", "w1", "falls"),
    ("ring", "BCE + qua 0.1", "BCE", "jsd", "falls"),
    ("ring", "BCE + DAT batch 1", "BCE", "w1", "falls"),
    ("ring", "BCE + DAT batch 1", "BCE", "jsd", "falls"),
    ("grid", "BCE + DAT batch 1", "BCE", "w1", "falls"),
    ("grid", "BCE + DAT batch 1", "BCE", "jsd", "falls"),
    ("grid", "BCE + DAT batch 1", "BCE", "modes", "rises"),
    ("ring", "BCE + DAT row 0.1", "BCE", "w1", "falls"),
    ("grid", "BCE + DAT row 0.1", "BCE", "w1", "falls"),
    ("ring", "BCE + DAT row 0.1", "BCE + DAT batch 1", "near", "falls"),
    ("grid", "BCE + DAT row 0.1", "BCE + DAT batch 1", "near", "falls"),
    ("ring", "BCE + AdvAs", "BCE", "near", "falls"),
    ("ring", "BCE + AdvAs", "BCE", "w1", "falls"),
    ("grid", "BCE + AdvAs", "BCE", "modes", "falls"),
    ("grid", "BCE + AdvAs", "BCE", "jsd", "rises"),
    ("grid", "BCE + AdvAs", "BCE", "w1", "rises"),
    ("ring", "WGAN-GP", "BCE", "jsd", "falls"),
    ("ring", "WGAN-GP", "BCE", "near", "falls"),
    ("grid", "WGAN-GP", "BCE", "jsd", "falls"),
    ("grid", "WGAN-GP", "BCE", "near", "falls"),
    ("ring", "WGAN-GP + qua 0.015", "WGAN-GP", "w1", "stays"),
    ("ring", "WGAN-GP + qua 0.015", "WGAN-GP", "near", "stays"),
    ("grid", "WGAN-GP + qua 0.015", "WGAN-GP", "w1", "stays"),
    ("ring", "WGAN-GP + DAT batch 1", "WGAN-GP", "w1", "stays"),
    ("ring", "WGAN-GP + DAT batch 1", "WGAN-GP", "near", "stays"),
    ("grid", "WGAN-GP + DAT batch 1", "WGAN-GP", "w1", "rises"),
    ("ring", "WGAN-GP + AdvAs", "WGAN-GP", "w1", "does not fall"),
    ("grid", "WGAN-GP + AdvAs", "WGAN-GP", "jsd", "falls"),
    ("grid", "WGAN-GP + AdvAs", "WGAN-GP", "modes", "rises"),
    ("grid", "WGAN-GP + AdvAs", "WGAN-GP", "w1", "falls"),
    ("ring", "BCE + qua 0.03", "BCE", "z:near", "rises"),
    ("grid", "BCE + qua 0.03", "BCE", "z:near", "rises"),
    ("ring", "BCE + DAT batch 1", "BCE", "z:near", "rises"),
    ("grid", "BCE + DAT batch 1", "BCE", "z:near", "rises"),
)
WORDS = {"near": "share within 0.1", "jsd": "JSD", "w1": "W1", "modes": "modes", "z:near": "share within 0.1, refined"}
Spread = tuple[float, float]


class Verdict(NamedTuple):
    """A sign and how it came out; `beyond`: the difference is larger than the spread of the seeds."""

    text: str
    before: Spread
    after: Spread
    held: bool
    beyond: bool

    def line(self) -> str:
        said = " | ".join(f"{m:.3g} ± {s:.2g}" for m, s in (self.before, self.after))
        return f"| {self.text} | {said} | {'yes' if self.held else 'NO'} | {'yes' if self.beyond else 'no'} |"


def judged(text: str, before: Spread, after: Spread, sign: str) -> Verdict:
    """Return whether a figure falls, rises, or stays within the spread of the seeds."""
    apart, spread = after[0] - before[0], (before[1] ** 2 + after[1] ** 2) ** 0.5
    held = {"falls": apart < 0, "rises": apart > 0, "stays": abs(apart) <= spread, "does not fall": apart >= -spread}[sign]
    return Verdict(f"{text} {sign}", before, after, held, abs(apart) > spread)


def signs(rows: list[dict[str, Any]]) -> Iterator[Verdict]:
    """Yield every sign of `SIGNS` whose two rows are there."""
    of = {(r["data"], r["method"]): r for r in rows}

    def figure(data: str, method: str, name: str) -> Spread:
        row = of[data, method]
        mean, sd = row["z"]["refined"][name[2:]] if name.startswith("z:") else row["ours"][name]
        return mean, sd

    for data, method, base, name, sign in SIGNS:
        if (data, method) in of and (data, base) in of:
            words = f"{data}, {method} against {base}: {WORDS[name]}"
            yield judged(words, figure(data, base, name), figure(data, method, name), sign)


def refined(rows: list[dict[str, Any]], name: str, sign: str) -> list[Verdict]:
    """What AdvLatGAN-z does to a figure of every row."""
    before_after = [tuple(tuple(r["z"][when][name]) for when in ("raw", "refined")) for r in rows]
    return [judged(f"{r['data']}, {r['method']}", a, b, sign) for r, (a, b) in zip(rows, before_after, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, default=RECORD)
    args = parser.parse_args()
    read = json.loads(args.table.read_text())
    rows = read.get("toy", read)["rows"]
    seen = list(signs(rows))
    print("| sign | before | after | held | beyond the spread |\n|" + " --- |" * 5)
    for v in seen:
        print(v.line())
    print(f"\n{sum(v.held for v in seen)} of {len(seen)} signs held\n\nAdvLatGAN-z after training:")
    for name, sign in (("logit", "rises"), ("near", "rises"), ("w1", "stays"), ("jsd", "stays")):
        all_rows = refined(rows, name, sign)
        missed = "; not " + ", ".join(v.text.removesuffix(f" {sign}") for v in all_rows if not v.held)
        held = sum(v.held for v in all_rows)
        print(f"- {WORDS.get(name, 'mean D')} {sign}: {held} of {len(rows)} rows{missed if held < len(rows) else ''}")


if __name__ == "__main__":
    main()
