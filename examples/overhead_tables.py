"""The overhead tables, measured here: the published-style loop beside the engine, and methods beside each other.

    python examples/overhead_tables.py --out docs/overhead.json --references FOLDER_OF_TRAINED_PAIRS
    python examples/overhead_tables.py --out docs/overhead.json --page docs/overhead.md

Twenty minutes on one core (process CPU time, one thread), in pieces: a call ends after `--minutes` and the next one goes on;
the result file says what is done. `--page` then puts the tables into the page and draws the figure. Expected on a CPU with
native bfloat16, 16 rows: about 2.5 (float32) and 5 (bfloat16) times the published-style loop on pair A, 1.9 and 3.8 on pair B,
with gains within 3 % of each other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latentshift.bench.figure import figure
from latentshift.bench.page import flat, placed, sections
from latentshift.bench.pieces import gone_on


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=lambda t: t.split(","), default=["A", "B"])
    parser.add_argument("--rows", type=lambda t: [int(n) for n in t.split(",")], default=[1, 16, 64, 128])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="sign steps for the gain of each variant")
    parser.add_argument("--shrink", type=int, default=1, help="divide every width (for a quick look)")
    parser.add_argument("--references", type=Path, help="a folder of trained pairs, for the table of precision")
    parser.add_argument("--only", nargs="+", default=[""], help="only pieces whose names begin so")
    parser.add_argument("--minutes", type=float, default=4.0, help="start no further piece after this long")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page, and the figure beside it")
    args = parser.parse_args()
    result, left = gone_on(args.out, args, minutes=0 if args.page else args.minutes)
    if args.page:
        args.page.write_text(placed(args.page.read_text("utf-8"), result), "utf-8")
        args.page.with_suffix(".svg").write_text(figure(flat(result)), "utf-8")
    else:
        for name, table in sections(result).items():
            print(f"\n{name}\n\n{table}")
    if left:
        print(f"\n{len(left)} pieces are left; call again: {', '.join(left[:4])} ...")
    return 3 if left and not args.page else 0


if __name__ == "__main__":
    sys.exit(main())
