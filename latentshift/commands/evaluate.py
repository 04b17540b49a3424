"""`latentshift evaluate`: raw against refined, or any two sets of images, by a network that nothing climbed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Interrupted, RequestError, UsageError
from .common import MODEL_KEYS, Talk, device_of, general, options, pair_of, seeds_of

if TYPE_CHECKING:
    from ..metrics.evaluation import Evaluation
    from ..metrics.features import Features
    from ..metrics.inputs import Images
    from ..metrics.sample import Reference
    from ..metrics.store import Store

SEEDS = "0-999"
NO_FEATURES = "Give --features inception (95 MB, fetched once), a network file, pixels:32, or a judge such as fashion32-judge."

feature_options = options(
    click.option(
        "--features",
        metavar="NAME",
        help="What looks at the images: inception, inception:FILE, pixels:32, dinov2, a network file, a judge, a plug-in.",
    ),
    click.option("--size", type=int, metavar="N", help="Bring pictures to N x N (centred square, Lanczos)."),
    click.option("--seeds", metavar="LIST", help=f"Seeds where a model is given.  [default: {SEEDS}]"),
    click.option("--num", type=int, metavar="N", help="So many seeds from 0 on, in place of --seeds."),
    click.option("--class", "classes", type=int, multiple=True, metavar="N", help="A class for all, or one after the other."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1."),
    click.option("--no-cache", is_flag=True, help="Keep no features and no statistics on the disk."),
)


@click.command(short_help="raw against refined, or any two sets")
@click.argument("a", metavar="INPUT1")
@click.argument("b", metavar="[INPUT2]", required=False)
@click.option("--reals", metavar="DATA", help="Real images: pictures, saved statistics (npz), a judge, or a model.")
@click.option("--reals-count", type=int, metavar="N", help="Of how many images another tool's statistics are.")
@feature_options
@click.option("--k", type=int, default=5, show_default=True, help="Neighbours of precision, recall, density, coverage.")
@click.option("--bins", type=int, default=100, show_default=True, help="Cells of JSD and NDB.")
@click.option("--metrics", metavar="LIST", help="Some of fd,kid,is,prdc,cells.  [default: all]")
@click.option("--draws", type=int, default=200, show_default=True, help="Draws of the bootstrap.")
@click.option("--outdir", type=click.Path(path_type=Path), help="Where metric-*.jsonl go.  [default: INPUT1, if it is a run]")
@general
def command(**typed: Any) -> None:
    """Raw against refined of a run with the same seeds, or any two inputs, against real images.

    An input is the folder of a run, a folder, zip, npz or idx file of pictures, or a model with seeds. Without --reals,
    INPUT1 is measured against INPUT2. Work that was interrupted goes on where it was when the same is run again.

    \b
    Examples:
      latentshift evaluate fashion32 --num 100 --reals fashion32-judge
      latentshift evaluate latentshift-out/00000-fashion32-ifgsm --reals fashion32-judge
    """
    groups = groups_of(typed["metrics"])
    if typed["k"] < 1 or typed["bins"] < 2 or typed["draws"] < 10:
        raise UsageError("--k is at least 1, --bins at least 2, --draws at least 10")
    talk = Talk(typed["quiet"], typed["as_json"])
    try:
        found, source, seconds = evaluate(typed, groups, talk)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted", way_out="Run the same again: it goes on where it was." if not typed["no_cache"] else ""
        ) from None
    report(found, source, typed, talk, seconds)


def groups_of(text: str | None) -> list[str] | None:
    """Return the groups of metrics that --metrics names; None for all."""
    if text is None:
        return None
    known = {"fd": "distance", "fid": "distance", "kid": "kernel", "is": "score", "prdc": "neighbours", "cells": "cells"}
    known |= {name: "neighbours" for name in ("precision", "recall", "density", "coverage")}
    known |= {"jsd": "cells", "ndb": "cells"}
    words = [w.strip().lower() for w in text.split(",") if w.strip()]
    for word in words:
        if word not in known:
            raise UsageError(f"unknown metric {word!r}", where="--metrics", way_out=f"Known: {', '.join(known)}.")
    return list(dict.fromkeys(known[w] for w in words)) or None


class Steps:
    """Says every ten seconds how far a stage of the work is."""

    def __init__(self, talk: Talk) -> None:
        self.talk, self.last, self.began, self.what = talk, time.monotonic(), time.monotonic(), ""

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.last = what, now, now
        elif now - self.last >= 10 and done:
            left = (now - self.began) / done * (total - done)
            self.talk.note(f"{what}: {done} of {total}, {left:.0f} s left")
            self.last = now

    def features(self, name: str) -> Any:
        """Return the progress of one set's features."""
        return lambda done, total: self(f"features of {name}", done, total)

    def metrics(self, what: str, done: int, total: int) -> None:
        """Progress of the metrics: each group is said when the one before took long."""
        now = time.monotonic()
        if what and now - self.last >= 10:
            self.talk.note(f"metrics: {what} ({done} of {total} groups done)")
            self.last = now


def evaluate(typed: dict[str, Any], groups: list[str] | None, talk: Talk) -> tuple[Evaluation, str, float]:
    """Return the evaluation that was asked for, what was evaluated, and the seconds it took."""
    from ..metrics import evaluate as work
    from ..metrics.measures import Setting
    from ..metrics.store import Store

    began = time.perf_counter()
    network = network_of(typed["features"], typed["reals"])
    independent(network.name, (typed["a"], typed["b"]))
    left, right = inputs_of(typed, talk)
    device = str(device_of(typed["device"]))
    store = Store(network, None, device) if typed["no_cache"] else Store.default(network, device)
    steps = Steps(talk)
    if typed["reals"] is None:
        if right is None:
            raise UsageError("nothing to measure against", where="--reals", way_out="Give --reals DATA, or a second input.")
        reals, right = right, None
        reference = store.reference(reals, steps.features(reals.name))[0]
    else:
        reference = reference_of(typed, left, network, store, talk, steps)
    for images in (left, right):
        for note in images.notes if images is not None else ():
            talk.note(f"note: {images.name if images else ''}: {note}")
    a = store.sample(left, steps.features(left.name))
    b = None if right is None else store.sample(right, steps.features(right.name))
    setting = Setting(k=typed["k"], bins=typed["bins"])
    found = work.evaluate(a, b, reals=reference, groups=groups, setting=setting, draws=typed["draws"], progress=steps.metrics)
    store.drop()
    return found, typed["a"], time.perf_counter() - began


def independent(network: str, inputs: tuple[str | None, ...]) -> None:
    """Refuse a network as the judge of a run whose honest critic looked through it."""
    from ..metrics.independence import may_not_judge, refuse_partial
    from ..metrics.inputs import is_run

    for text in inputs:
        if text is not None and is_run(Path(text)):
            try:
                record = json.loads((Path(text) / "run.json").read_text("utf-8"))
            except (OSError, ValueError):
                continue  # what reads the run says what is wrong with it
            refuse_partial(network, may_not_judge(record), text)


def network_of(features: str | None, reals: str | None) -> Features:
    """Return the extractor; that of the judge where the real images are one's."""
    from ..metrics.extractors import load_extractor
    from ..metrics.judge import bundled_judges

    if features is not None:
        return load_extractor(features)
    if reals is not None and (reals in bundled_judges() or (Path(reals) / "judge.safetensors").is_file()):
        return load_extractor(reals)
    raise UsageError("which features?", where="--features", way_out=NO_FEATURES)


def inputs_of(typed: dict[str, Any], talk: Talk) -> tuple[Images, Images | None]:
    """Return the two sides: raw and refined of a run, else the inputs as they were given."""
    from ..metrics.inputs import is_run, of_run

    a = Path(typed["a"])
    if is_run(a) and typed["b"] is None:
        raw, refined = of_run(a, _model_of_record)
        assert raw is not None
        return raw, refined
    left = images_of(typed["a"], typed)
    right = None if typed["b"] is None else images_of(typed["b"], typed, like=left)
    if right is not None and right.name == left.name:
        left, right = replace(left, name=typed["a"]), replace(right, name=typed["b"])
    return left, right


def _model_of_record(record: dict[str, Any]) -> Any:
    request = record.get("request") or {}
    given = {k: request.get(k) for k in MODEL_KEYS if request.get(k) is not None}
    if "model" not in given and "factory" not in given:
        raise RequestError(
            "this run kept no unrefined images and does not say which model made it",
            way_out="Give the unrefined images as a first input, or refine with --save-before.",
        )
    options: dict[str, Any] = {"model": "", **given, "device": "auto"}
    return pair_of(**options)


def images_of(text: str, typed: dict[str, Any], *, like: Images | None = None) -> Images:
    """Return the images of one input: a run's refined ones, pictures, or a model's of the seeds."""
    import numpy as np

    from ..files.decode import EXTENSIONS
    from ..files.folder import is_pair_folder
    from ..metrics.inputs import is_run, of_model, of_path, of_run

    path = Path(text)
    sets = {".npz", ".npy", ".zip", ".gz", ".xz", *EXTENSIONS}
    if path.is_dir() and is_run(path):
        return of_run(path, _model_of_record, raw=False)[1]
    if (path.is_dir() and not is_pair_folder(path)) or (path.is_file() and (path.suffix in sets or "-idx" in path.name)):
        return of_path(path, size=typed["size"], like=like)
    pair = pair_of(model=text, device=typed["device"])
    asked = typed["seeds"] if typed["seeds"] or typed["num"] else SEEDS
    seeds = seeds_of(asked, typed["num"], None) or []
    labels = np.resize(np.array(typed["classes"]), len(seeds)) if typed["classes"] else None
    if labels is not None:
        from ..sampler import _labels

        _labels(labels, len(seeds), pair)  # refuses
    return of_model(pair, seeds, labels)


def reference_of(
    typed: dict[str, Any], like: Images | None, network: Features, store: Store, talk: Talk, steps: Steps
) -> Reference:
    """Return the real images that --reals names: a judge's, saved statistics, or pictures brought to G's size."""
    from ..metrics.judge import bundled_judges, load_judge
    from ..metrics.sample import Reference
    from ..metrics.store import is_statistics, load_statistics

    text, path = typed["reals"], Path(typed["reals"])
    if text in bundled_judges() or (path / "judge.safetensors").is_file():
        judge = load_judge(text)
        if judge.network.name != network.name:
            raise RequestError(
                f"{text} holds statistics of its own network, not of {network.name}",
                where="--reals",
                way_out="Leave --features out, or give pictures.",
            )
        return replace(Reference.of(judge), name=text)
    if is_statistics(path):
        return load_statistics(path, network, count=typed["reals_count"])
    images = images_of(text, typed, like=like)
    for note in images.notes:
        talk.note(f"note: {images.name}: {note}")
    return store.reference(images, steps.features(images.name))[0]


def report(found: Evaluation, source: str, typed: dict[str, Any], talk: Talk, seconds: float) -> None:
    """Print the table or the JSON document, and append to metric-*.jsonl."""
    import shutil

    from ..files.write import plain
    from ..metrics.inputs import is_run
    from ..metrics.table import append_lines

    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    outdir = typed["outdir"] or (Path(typed["a"]) if is_run(Path(typed["a"])) else None)
    files = [] if outdir is None else append_lines(found, outdir, source)
    if talk.as_json:
        told = {**found.as_dict(), "files": [str(f) for f in files], "seconds": seconds}
        click.echo(json.dumps(plain(told), indent=2, allow_nan=False))
        return
    talk.fact(found.table(min(shutil.get_terminal_size((80, 24)).columns, 120)))
    if files:
        talk.note(f"added a line each to {len(files)} files {outdir}/metric-*.jsonl")
