"""`latentshift doctor`: what a pair is good for, before hours are spent on it."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from .common import MODEL_KEYS, Talk, general, model_options, pair_of
from .reals import reals_of, reals_options

if TYPE_CHECKING:
    from ..doctor.examine import Examination
    from ..model import Pair

SIGNS = {"broken": "broken ", "warning": "warning", "note": "note   ", "good": "good   "}


@click.command(short_help="examine a pair")
@model_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@reals_options
@click.option("--num", default=256, show_default=True, metavar="N", help="Samples to look at.")
@click.option(
    "--pilots",
    default=500,
    show_default=True,
    metavar="N",
    help="Samples refined per setting, with --reals; three times as many where these leave it open.",
)
@general
def command(**typed: Any) -> None:
    """Examine a pair: is it sound, which methods apply, what will it cost, and will refining help?

    Nothing of the card is trusted. With real images a pilot is refined under each setting and judged by networks that nothing
    climbed; without them no sign can be foretold, and it says so. Exit status 0 also where the pair is broken.

    \b
    Examples:
      latentshift doctor
      latentshift doctor --model ring --json
    """
    from ..doctor.examine import examine

    talk = Talk(typed["quiet"], typed["as_json"])
    if typed["num"] < 16 or typed["pilots"] < 50:
        from ..errors import UsageError

        raise UsageError("--num is at least 16, --pilots at least 50")
    pair = pair_of(**{k: typed[k] for k in MODEL_KEYS})
    reals = None if typed["reals"] is None else reals_of(typed["reals"], pair, talk, least=50)
    talk.note(_costs(pair, typed, reals))
    found = examine(
        pair,
        None if reals is None else reals.images,
        None if reals is None else reals.labels,
        rows=typed["num"],
        pilots=typed["pilots"],
        say=lambda text: talk.note(f"{text} ..."),
    )
    if typed["as_json"]:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found, talk)


def _costs(pair: Pair, typed: dict[str, Any], reals: Any) -> str:
    """Return what it will cost, timed on eight rows, before it is spent."""
    import time

    from ..doctor.foretell import LARGER, SETTINGS
    from ..doctor.probe import Probe
    from ..recipe import get_recipe

    few = Probe(pair, 8)
    began = time.perf_counter()
    per = 0.0
    if few.able:
        _ = few.scores, few.gradients
        per = (time.perf_counter() - began) / 8
    seconds = max(1.0, 4 * per * typed["num"])
    if reals is None:
        return f"{pair.name}: about {seconds:.0f} s (no real images)"
    passes = 0.0
    for recipe, changes, _, _ in SETTINGS.values():
        passes += get_recipe(recipe).changed(**changes).build().cost().g_forward + 2
    seconds += 0.004 * min(len(reals), 2000) + 10
    least = typed["pilots"] * (per * passes / 1.5 + 4 * 0.004)
    return f"{pair.name}: {seconds + least:.0f} to {seconds + LARGER * least:.0f} s, by how plain the pilots are"


def _wrapped(text: str, indent: int, first: str | None = None) -> list[str]:
    """Return text in lines that fit the terminal (80 where there is none), all but the first indented."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 120) - 1
    pad = " " * indent
    start = pad if first is None else first
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=pad, break_on_hyphens=False)


def _print(found: Examination, talk: Talk) -> None:
    def say(text: str, indent: int, first: str | None = None) -> None:
        for line in _wrapped(text, indent, first):
            talk.fact(line)

    for finding in found.findings:
        if talk.quiet and finding.level in ("broken", "warning"):
            print(f"{SIGNS[finding.level].strip()}: {finding.line()}", file=sys.stderr)
        say(finding.line(), 9, f"{SIGNS[finding.level]}  ")
    if found.forecasts:
        talk.fact("")
        talk.fact("will it help?")
        for f in found.forecasts:
            chance = "" if f.answer == "unsure" else f" (chance of being wrong {f.wrong:.0%})"
            say(f"{f.words}: {f.answer}{chance}", 4, "  ")
            say(f.evidence, 6)
    talk.fact("")
    cost = {k: max(v, 0.01) for k, v in found.figures["seconds_per_1000"].items()}
    if "one_step" in cost:
        say(
            f"1,000 samples on this machine: {cost['images']:.2g} s for the images, {cost['one_score']:.2g} s for one look, "
            f"{cost['one_step']:.2g} s for one step with a gradient",
            4,
            "",
        )
    able = [name for name, why in found.methods.items() if not why]
    say("methods that apply: " + ", ".join(able), 4, "")
    not_able: dict[str, list[str]] = {}
    for name, why in found.methods.items():
        if why:
            not_able.setdefault(why.partition(": ")[2] or why, []).append(name)
    for why, names in not_able.items():
        say(f"not ({why}): " + ", ".join(names), 4, "")
