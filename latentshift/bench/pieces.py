"""The overhead tables in pieces, each under some minutes: one run under one baseline, which may be cut and gone on with.

A result file says which pieces it has and on what machine; pieces of another machine, torch or width are refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..engine.threads import threads
from ..errors import RequestError
from ..files.write import plain, write_json
from . import growth, measure, methods, pairs, residual, trained
from .tables import machine

Say = Callable[[str], None]
TRAINED = ("faces32-lsgan", "fashion28-dcgan-bce", "mnist28-dcgan-bce", "mnist28-wgangp-bn", "sprites16-dcgan-bce")


def _table(name: str, rows: tuple[int, ...], o: Any, say: Say) -> dict[str, Any]:
    found = measure.compare(pairs.networks(name, shrink=o.shrink), rows, rounds=o.rounds, steps=0, say=say)
    return {"rows": [r.as_dict() for r in found]}


def _methods(name: str, o: Any, say: Say) -> dict[str, Any]:
    nets = pairs.networks(name, shrink=o.shrink)
    return {
        "step_to_ifgsm": methods.per_step(nets, rounds=o.rounds),
        "evolution": methods.evolution(nets, rounds=o.rounds),
        "published": methods.published_step(nets, rounds=o.rounds),
    }


def _bookkeeping(o: Any, say: Say) -> dict[str, Any]:
    return {str(rows): growth.bookkeeping(rows, rounds=o.rounds) for rows in (1, 16, 64)}


def _growth(o: Any, say: Say) -> dict[str, Any]:
    from ..sampler import load

    return growth.linear(load("fashion32"), rounds=2 if o.rounds >= 7 else 1)


def _trained(name: str, o: Any, say: Say) -> dict[str, Any]:
    from ..files.folder import read_pair
    from ..sampler import load

    return trained.kept(load(name) if name == "fashion32" else read_pair(Path(o.references) / name), rows=2048)


def pieces(o: Any) -> dict[str, Callable[[Any, Say], Any]]:
    """Return the pieces in order. `o`: pairs, rows, rounds, steps, shrink, references (a folder of trained pairs or None),
    only (beginnings of names; "" is all)."""
    out: dict[str, Callable[[Any, Say], Any]] = {}
    for name in o.pairs:
        for rows in o.rows:
            out[f"steps {name} {rows}"] = lambda o, say, n=name, r=rows: _table(n, (r,), o, say)  # type: ignore[misc]
        out[f"gains {name}"] = lambda o, say, n=name: measure.gains(pairs.networks(n, shrink=o.shrink), o.steps)  # type: ignore[misc]
        out[f"methods {name}"] = lambda o, say, n=name: _methods(n, o, say)  # type: ignore[misc]
    out["residual"] = lambda o, say: residual.rewritten(rounds=o.rounds, shrink=o.shrink)
    out["bookkeeping"] = _bookkeeping
    out["growth"] = _growth
    out["memory"] = lambda o, say: growth.memory("fashion32")
    for name in ("fashion32", *(TRAINED if o.references is not None else ())):
        out[f"trained {name}"] = lambda o, say, n=name: _trained(n, o, say)  # type: ignore[misc]
    for name in o.pairs:
        for method in methods.TABLE8:
            for precision in ("fp32", "bf16"):
                out[f"whole {name} {method} {precision}"] = (
                    lambda o, say, n=name, m=method, p=precision: methods.whole(pairs.networks(n, shrink=o.shrink), m, p)  # type: ignore[misc]
                )
    return out


def gone_on(path: Path | None, o: Any, *, minutes: float = 4.0, say: Say = print) -> tuple[dict[str, Any], list[str]]:
    """Run the pieces that the result file lacks, writing it after each, until `minutes` are over; return the result and the
    names of what is still to do. One thread; the setting is put back."""
    here = {**machine(), "shrink": o.shrink, "rounds": o.rounds, "steps": o.steps, "baseline": "zero_grad fills with zeros"}
    result: dict[str, Any] = {"run": here, "pieces": {}}
    if path is not None and path.exists():
        result = json.loads(path.read_text("utf-8"))
        if result.get("run") != here:
            raise RequestError(
                "the result file is of another machine, torch or size", where=str(path), way_out="Give another --out."
            )
    todo = pieces(o)
    began = time.monotonic()
    with threads(1):
        for name, work in todo.items():
            if name in result["pieces"] or not name.startswith(tuple(o.only)):
                continue
            if time.monotonic() - began > 60 * minutes:
                break
            say(name)
            before = time.process_time()
            found = plain(work(o, say))
            result["pieces"][name] = {"found": found, "cpu_seconds": round(time.process_time() - before, 1)}
            if path is not None:
                if path.exists():  # what another process has added meanwhile stays
                    result["pieces"] = json.loads(path.read_text("utf-8"))["pieces"] | result["pieces"]
                write_json(path, result)
    return result, [name for name in todo if name not in result["pieces"]]
