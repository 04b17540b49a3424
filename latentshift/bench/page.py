"""The page of a result file of `pieces`: one table a section, put between the marks of docs/overhead.md."""

from __future__ import annotations

import re
from typing import Any

from .methods import TABLE8
from .tables import markdown


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of all step pieces as one result, as `figure` and `markdown` take it, gains put in."""
    found = {name: piece["found"] for name, piece in result["pieces"].items()}
    rows = []
    for name, piece in found.items():
        if not name.startswith("steps "):
            continue
        for row in piece["rows"]:
            gain = found.get(f"gains {row['pair']}", {}).get(row["variant"])
            rows.append({**row, **({} if gain is None else {"gain": gain[0], "gain_error": gain[1]})})
    rows.sort(key=lambda row: (row["pair"], row["rows"]))
    return {"rows": rows, "shrink": result["run"]["shrink"]}


def _spread(three: list[float]) -> str:
    return f"{three[0]:.2f} [{three[1]:.2f} .. {three[2]:.2f}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sections(result: dict[str, Any]) -> dict[str, str]:
    """Return each table of the page by the name of its marks; a piece that is not there has none."""
    found = {name: piece["found"] for name, piece in result["pieces"].items()}
    names = sorted({name.split()[1] for name in found if name.startswith("steps ")})
    out = {"steps": markdown(flat(result)).partition("\n\nPrinted")[0]}
    beside = [n for n in names if f"methods {n}" in found]
    if beside:
        rows = []
        for n in beside:
            mine = found[f"methods {n}"]
            rows.append([n, *(_spread(mine["step_to_ifgsm"][m]) for m in ("dot", "ddls", "mala")), _spread(mine["evolution"])])
        out["methods"] = _table(["pair", "DOT", "DDLS", "MALA, cached", "evolution"], rows)
    out["whole"] = _whole(found, names)
    if "residual" in found:
        r = found["residual"]
        out["residual"] = (
            f"{_spread(r['to_plain'])} of the plain form's time, {_spread(r['to_channels_last'])} of the plain\n"
            f"form's in channels-last; scores equal to {r['scores_differ']:.0e} of their scale."
        )
    if "bookkeeping" in found:
        out["bookkeeping"] = _bookkeeping(found, result)
    if "growth" in found:
        out["growth"] = _growth(found["growth"])
    if "memory" in found:
        out["memory"] = _memory(found["memory"])
    kept = [piece for name, piece in found.items() if name.startswith("trained ")]
    if kept:
        rows = [
            [r["pair"], str(r["rows"]), f"{r['gain_fp32']:.3f}",
             f"{100 * r['gain_share']:.1f} ± {100 * r['gain_share_error']:.1f} %", f"{100 * r['signs']:.1f} %"]
            for r in kept
        ]  # fmt: skip
        out["trained"] = _table(["pair", "rows", "gain in float32", "kept by bf16", "equal signs"], rows)
    return out


def _whole(found: dict[str, Any], names: list[str]) -> str:
    rows = []
    for n in names:
        pub = found.get(f"methods {n}", {}).get("published")
        for method, (strategy, printed) in TABLE8.items():
            both = [found.get(f"whole {n} {method} {p}", {}) for p in ("fp32", "bf16")]
            if pub is None or not all(both):
                continue
            loop = pub["one_image"] * both[0]["forward"] if not both[0]["backward"] else pub["step"] * strategy.steps
            rows.append([
                n, method, f"{both[0]['forward']:g} / {both[0]['backward']:g}", f"{loop:.0f}",
                *(f"{b['seconds_1000']:.0f}" for b in both),
                *(f"{b['gain']:.3g} ± {b['gain_error']:.1g}" for b in both),
                f"{printed[0]:g} / {printed[1]:g}",
            ])  # fmt: skip
    head = ["pair", "method", "forward / backward", "published-style", "fp32", "bf16", "gain fp32", "gain bf16", "printed"]
    return _table(head, rows)


def _bookkeeping(found: dict[str, Any], result: dict[str, Any]) -> str:
    steps = {(r["pair"], r["rows"], r["variant"]): r["seconds"] for r in flat(result)["rows"]}
    rows = []
    for n, seconds in found["bookkeeping"].items():
        line = [n, f"{1e3 * seconds:.2f}"]
        for pair in ("A", "B"):
            for precision in ("fp32", "bf16"):
                step = steps.get((pair, int(n), f"engine {precision}"))
                line.append("–" if step is None else f"{100 * seconds / step:.1f} %")
        rows.append(line)
    return _table(["rows", "ms a step", "of A fp32", "of A bf16", "of B fp32", "of B bf16"], rows)


def _growth(g: dict[str, Any]) -> str:
    lines = []
    for axis, other in (("samples", "20 steps each"), ("steps", "32 samples")):
        f = g[axis]
        seconds = ", ".join(f"{s:.2f}" for s in f["seconds"])
        lines.append(
            f"- {f['at']} {axis} ({other}): {seconds} s; the line {f['at_zero']:.3f} + {1e3 * f['each']:.3f} ms each misses "
            f"none by more than {100 * f['miss']:.1f} %."
        )
    return "\n".join(lines)


def _memory(found: list[dict[str, Any]]) -> str:
    told = "; ".join(f"{m['samples']} samples, {m['steps']} steps: {m['peak_mib']:.0f}" for m in found)
    return f"- Peak memory of fresh processes, MiB:\n  {told}."


def placed(text: str, result: dict[str, Any]) -> str:
    """Return the page with every section between its marks `<!-- name -->` and `<!-- end -->`."""
    for name, table in sections(result).items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        text = mark.sub(lambda m, t=table: m.group(1) + t + "\n" + m.group(2), text)  # type: ignore[misc]
    return text
