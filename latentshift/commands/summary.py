"""The closing lines of a refine: what changed, by which judge, where it lies, what to try next. Ten lines at most."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .common import Talk


def close(talk: Talk, folder: Path, record: Mapping[str, Any], files: list[str]) -> None:
    """Print the closing summary, or the record as JSON."""
    if talk.as_json:
        kept = {k: v for k, v in record.items() if k != "request"}
        click.echo(json.dumps({"outdir": str(folder), "files": files, **kept}, indent=2, default=str))
        return
    stopped, ledger, seconds = record["stopped"], record["ledger"], record["seconds"]["refine"]
    mean = f"(mean gain {record['gain']:+.4g})"
    talk.fact(f"score     {record['score_before']:.4g} before, {record['score_after']:.4g} after {mean}")
    left = stopped.get("good_already", 0)
    rose = f"{record['raised']:.0%} of {record['rows']} samples rose"
    talk.fact(f"samples   {rose}" + (f"; {left} were left alone, good enough by their score" if left else ""))
    if "acceptance" in record:
        talk.fact(f"accepted  {_accepted(record)}")
    if honest := record.get("honest"):
        talk.fact(f"critic    honest ({honest['verdict']}): on held-out real images AUC {honest['auc_raw']:.2f} against raw")
        talk.fact(f"          samples, {honest['auc_refined']:.2f} against refined ones ('latentshift evaluate' judges)")
    else:
        why = "the real images calibrated it" if record.get("reals_sha256") else "no real images were given"
        talk.fact(f"judge     the critic that was climbed; unverified: {why}")
    rate = f" ({record['rows'] / seconds:.3g} samples/s)" if seconds else ""
    passes = f"{ledger['g_forward']} passes of G, {ledger['d_forward']} of D, {ledger['g_backward']} backward"
    talk.fact(f"cost      {passes}; {seconds:.1f} s{rate}")
    talk.fact(f"written   {folder}")
    for line in textwrap.wrap(", ".join(files), 70):
        talk.fact(f"          {line}")
    look = folder / ("report.html" if "report.html" in files else "grid.png")
    talk.fact(f"next      look at the pairs: {look}")
    talk.fact(f"          {_try(record)}")


def _accepted(record: Mapping[str, Any]) -> str:
    found = record["acceptance"]
    left = record["rows"] - found["accepted"]
    fate = "dropped" if found["dropped"] else "kept all the same, marked as rejected"
    tries = f" in {found['tries']} tries" if "tries" in found else ""
    return f"{found['accepted']} of {record['rows']} samples{tries}" + (f"; {left} {fate}" if left else "")


def _try(record: Mapping[str, Any]) -> str:
    if record.get("honest"):
        return "a judge that no critic used is the evidence: latentshift evaluate"
    if record["gain"] <= 0:
        return "the mean did not rise: try --recipe advlatgan-z/ball"
    if record["recipe"].get("lower_share"):
        return "--recipe advlatgan-z/ball moves all samples, and farther"
    return "where they get worse: a smaller --eps, or --recipe auto"
