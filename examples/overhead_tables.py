"""The overhead tables, measured here: the published-style loop beside the engine, and methods beside each other.

    python examples/overhead_tables.py --out docs/overhead.json

Takes some minutes on one core (process CPU time, one thread). `--pairs` and `--rows` measure a part, which takes its place in
the result file. Expected on a CPU with native bfloat16, 16 rows: about 2.5 (float32) and 5 (bfloat16) times the published-style
loop on pair A, 1.9 and 3.8 on pair B, with gains within 3 % of each other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from latentshift.bench import methods, pairs
from latentshift.bench.tables import markdown, measured, merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", default="A,B")
    parser.add_argument("--rows", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--methods", action="store_true", help="also methods beside each other, and evolution")
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names = args.pairs.split(",")
    rows = [int(r) for r in args.rows.split(",")]
    result = measured(names, rows, rounds=args.rounds, steps=args.steps, shrink=args.shrink, say=print)
    if args.methods:
        for name in names:
            nets = pairs.networks(name, shrink=args.shrink)
            beside = methods.per_step(nets, rounds=args.rounds)
            result[f"methods {name}"] = {"step_to_ifgsm": beside, "evolution": methods.evolution(nets, rounds=args.rounds)}
    if args.out:
        old = json.loads(args.out.read_text()) if args.out.exists() else None
        result = merged(old, result)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
