"""The results as data and as tables."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..engine.threads import threads
from ..files.write import plain
from . import measure, pairs

#: the papers' seconds for 1,000 samples (Table 8: SNGAN, WGAN-GP on one RTX 3090): another machine, so no ratio to them
PRINTED = {"EvolGAN": (628.7, 630.6), "DDLS": (267.4, 749.9), "DOT": (68.2, 69.8), "AdvLatGAN-z, 100 steps": (34.1, 42.0),
           "AdvLatGAN-z, 20 steps": (7.0, 8.4)}  # fmt: skip


def measured(
    names: Sequence[str],
    rows: Sequence[int],
    *,
    rounds: int,
    steps: int,
    shrink: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return the comparison of every pair at every number of rows. Runs on one thread; the setting is put back."""
    with threads(1):
        found = []
        for name in names:
            nets = pairs.networks(name, shrink=shrink)
            found += measure.compare(nets, tuple(rows), rounds=rounds, steps=steps, say=say)
    rows_found = plain([r.as_dict() for r in found])
    return {"machine": machine(), "rounds": rounds, "shrink": shrink, "rows": rows_found}


def machine() -> dict[str, Any]:
    """Return what figures of time belong to."""
    return {"cpu": _cpu(), "torch": torch.__version__, "threads": 1, "clock": "process CPU time"}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return a result file with the rows of `new` in the place of those that it had for the same pair, rows and variant."""
    if old is None or old.get("shrink") != new["shrink"]:
        return new

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["pair"], row["rows"], row["variant"]

    rows = {key(r): r for r in old["rows"]} | {key(r): r for r in new["rows"]}
    return {**old, **new, "rows": sorted(rows.values(), key=lambda r: (r["pair"], r["rows"]))}


def markdown(result: dict[str, Any]) -> str:
    """Return the table; the printed seconds of the paper stand below it."""
    head = "| pair | rows | variant | ms a step | ratio [min .. max] | dropped | of the floor | gain | signs |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in result["rows"]:
        gain = "–" if r["gain"] is None else f"{r['gain']:.4g} ± {r['gain_error']:.1g}"
        dropped = "–" if r.get("dropped") is None else f"{r['dropped']:.2f}"
        lines.append(
            f"| {r['pair']} | {r['rows']} | {r['variant']} | {1e3 * r['seconds']:.1f} | {r['ratio']:.2f} "
            f"[{r['low']:.2f} .. {r['high']:.2f}] | {dropped} | {r['floor']:.2f} | {gain} | {100 * r['signs']:.1f} % |"
        )
    printed = "; ".join(f"{k} {a:g} / {b:g}" for k, (a, b) in PRINTED.items())
    lines += ["", "Printed for 1,000 samples on one RTX 3090 (SNGAN / WGAN-GP), in seconds:", f"{printed}."]
    return "\n".join(lines)
