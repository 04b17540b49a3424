"""`latentshift refine`: seeds in, better samples out, with the record of what was done."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Interrupted, LatentshiftError, LatentshiftWarning, OutputError, RequestError, UsageError
from ..recipe import Recipe
from .budget import budget_options
from .common import (
    MODEL_KEYS,
    Progress,
    Talk,
    general,
    model_options,
    pair_of,
    seeds_of,
    start_options,
    work_options,
)
from .dry import dry, plan_line
from .guard import judge_of
from .honest import as_fitted, honest_options, told_of, wants_critic, with_critic
from .keep import keep_options
from .maps import noise_option, refuse_noise
from .method import method_options, recipe_of
from .reals import reals_of, reals_options
from .sharded import KEPT, record_at, refine_sharded, shard_options, wanted
from .speed import speed_options
from .start import space_of, start_file
from .summary import close

if TYPE_CHECKING:
    from ..engine.run import Engine
    from ..files.record import Recorder
    from ..model import Pair
    from ..space import Space


@click.command(short_help="refine samples")
@model_options
@start_options
@method_options
@budget_options
@keep_options
@reals_options
@honest_options
@work_options
@speed_options
@click.option(
    "--outdir", type=click.Path(path_type=Path), help="Where to write.  [default: the next latentshift-out/NNNNN-...]"
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="OUT", help="Go on with a run that was cut.")
@click.option("--overwrite", is_flag=True, help="Take the place of another run in --outdir.")
@click.option("--save-before", is_flag=True, help="Also write the unrefined images.")
@click.option("--grid", "tiles", default="8x8", show_default=True, metavar="WxH", help="Columns and rows of pairs in grid.png.")
@noise_option
@click.option("--no-metadata", is_flag=True, help="Leave the text chunks out of the PNG files.")
@click.option("--gif", is_flag=True, help="Also write the path of each sample as an animated picture (path/seed0000.gif).")
@click.option("--no-report", is_flag=True, help="Leave the page (report.html) out.")
@shard_options
@click.option("--dry-run", is_flag=True, help="Say what would be done and what it costs; write nothing.")
@general
def command(**typed: Any) -> None:
    """Refine samples of a model and write pictures, latents and a record of the run.

    With --reals an honest critic is fitted to them and climbed, or the samples are left alone. Without real images nothing is
    verified: a rising score of D is no proof of better images.

    \b
    Examples:
      latentshift refine
      latentshift refine --model ring --recipe advlatgan-z/toy --steps 100 --num 500
      latentshift refine --seeds 0-7,85 --strategy ifgsm --steps 20 --eps 0.3 --save-before
      latentshift refine --model ring --keep 0.5
      latentshift refine --model ring --strategy best-of-n --steps 4 --then ifgsm:steps=5,eps=0.1 --keep 0.5 --drop
      latentshift refine --model ring --strategy mh --steps 20 --reals ring
    """
    refine(**typed)


def refine(**typed: Any) -> None:
    """Do what `latentshift refine` does with these options."""
    from ..files.pictures import parse_grid

    talk = Talk(typed["quiet"], typed["as_json"])
    resume: Path | None = typed["resume"]
    record: dict[str, Any] = {}
    if resume is not None:
        from ..files.run import read_run

        if typed["outdir"] is not None and typed["outdir"] != resume:
            raise UsageError("--resume and --outdir name two folders", way_out="Give --resume alone.")
        record = record_at(resume) or read_run(resume)
        if record.get("status") == "complete" and "shards" not in record:
            talk.note(f"{resume} is complete: nothing is left to do")
            if talk.as_json:
                close(talk, resume, record, sorted(p.name for p in resume.iterdir() if p.suffix != ".png" and p.is_file()))
            return
        typed = _taken_up(typed, record)
    if wanted(typed, record):
        refuse_noise(typed, sharded=True)
        return refine_sharded(typed, talk, _KEPT, resume)
    seeds = seeds_of(typed["seeds"], typed["num"], typed["latents"], typed["projected_w"])
    recipe = recipe_of(typed)
    if typed["chunk"] is not None and typed["chunk"] < 1:
        raise UsageError(f"--chunk is at least 1, not {typed['chunk']}")
    tiles = parse_grid(typed["tiles"])
    caught: list[str] = []
    with _listening(caught):
        _work(typed, talk, seeds, recipe, tiles, resume, record, caught)


#: options that the record keeps, so that `--resume OUT` needs nothing else
_KEPT = (
    *(key for key in MODEL_KEYS if key != "device"),
    *("seeds", "num", "latents", "projected_w", "classes"),
    *(
        "recipe",
        "budget",
        "strategy",
        "steps",
        "step_size",
        "eps",
        "norm",
        "space",
        "objective",
        "target",
        "keep_best",
        "guard",
        "more",
        "then",
        "keep",
        "drop",
        "calibration",
        "reals",
        "honest",
    ),
    *("device", "chunk", "save_before", "tiles", "no_metadata", "gif", "no_report"),
    *KEPT,
    *("precision", "pad", "save_noise"),
)


def _taken_up(typed: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the run that was cut; what is typed anew must agree with it."""
    source = click.get_current_context().get_parameter_source
    then = record["request"]
    now = dict(typed)
    for key in _KEPT:
        old = then.get(key)
        old = tuple(old) if isinstance(old, list) else Path(old) if key in ("latents", "projected_w") and old else old
        new = typed[key]
        where = source(key)
        typed_now = where is not None and where.name in ("COMMANDLINE", "ENVIRONMENT")
        if typed_now and new != old and key not in ("device", "chunk"):
            name = f"--{key.replace('_', '-')}"
            raise RequestError(
                f"cannot go on with this run: {name} changed from {old!r} to {new!r}", way_out="Start a new run."
            )
        if not (typed_now and key in ("device", "chunk")):
            now[key] = old
    return now


@contextlib.contextmanager
def _listening(caught: list[str]) -> Iterator[None]:
    show = warnings.showwarning

    def keep(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, LatentshiftWarning):
            if str(message) in caught:
                return
            caught.append(str(message))
        show(message, category, *rest, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("always", LatentshiftWarning)
        warnings.showwarning = keep
        yield


def _work(
    typed: dict[str, Any],
    talk: Talk,
    seeds: list[int] | None,
    recipe: Recipe,
    tiles: tuple[int, int],
    resume: Path | None,
    record: dict[str, Any],
    caught: list[str],
) -> None:
    outdir: Path | None = typed["outdir"]
    if outdir is not None and resume is None and not typed["dry_run"]:
        _writable(outdir, typed["overwrite"])  # before anything slow
    from ..doctor.examine import quick
    from ..doctor.kin import warn_of_other_kind
    from ..engine.run import Engine, Settings
    from ..engine.threads import PAD
    from ..files.record import Recorder
    from ..files.run import lock, next_folder, refuse_changes
    from ..head import fit_head, wants_head

    pair = pair_of(**{k: typed[k] for k in MODEL_KEYS})
    for finding in quick(pair):
        warnings.warn(finding.line(), LatentshiftWarning, stacklevel=1)
    if typed["gif"] and len(pair.image_shape or ()) != 3:
        raise UsageError(f"{pair.name!r} makes points, not pictures", where="--gif", way_out="Leave --gif out.")
    told = told_of(typed["critic"])
    recipe = as_fitted(typed, recipe_of(typed, pair.image_shape), told)  # auto by the kind of pair
    space = space_of(typed, pair, recipe.space, asked=typed["space"] is not None)
    refuse_noise(typed, space=space)
    recipe = recipe if space.name == recipe.space else recipe.changed(space=space.name)
    z0, numbers, labels, names = _start(typed, pair, seeds, space)
    request = {k: str(typed[k]) if isinstance(typed[k], Path) else typed[k] for k in _KEPT}
    chunk = typed["chunk"] or record.get("chunk_asked")
    fits = wants_critic(typed, pair)
    reals = reals_of(typed["reals"], pair, talk) if fits else None
    if reals is not None:
        if resume is not None:
            refuse_changes(record, {"reals_sha256": reals.sha256}, resume)  # before anything is fitted
        asked = space.name if space.entered or typed["space"] is not None else None
        pair, recipe, told = with_critic(typed, pair, recipe, reals, talk, asked)
        space = space if space.name == recipe.space else pair.spaces[recipe.space]
    strategy = recipe.build(judge_of(recipe, pair))
    if typed["reals"] is not None and not fits:
        if not strategy.reads_reals:
            raise RequestError(f"'{recipe.strategy}' has no use for real images", where="--reals", way_out="Leave --reals out.")
        reals = reals_of(typed["reals"], pair, talk)
        if resume is not None:
            refuse_changes(record, {"reals_sha256": reals.sha256}, resume)  # before anything is fitted
    given = None if reals is None or fits else reals.for_critic(pair)
    if given is not None and reals is not None:
        warn_of_other_kind(pair, reals.images)
    if given is not None and wants_head(strategy):
        head = fit_head(pair, given)
        talk.note(f"note: a head on D's features was fitted: AUC {head.auc:.3f} on rows held out (Z {head.z:+.1f})")
        pair, given = pair.replaced(critic=head.critic), None
    engine = Engine(
        strategy,
        pair,
        objective=recipe.objective(),
        space=space,
        settings=Settings(
            chunk=chunk, pad=record.get("pad") or typed["pad"] or PAD, images=False, precision=typed["precision"] or "fp32"
        ),
        reals=given,
    )
    if labels is None:
        labels = engine.labels_of(numbers)
        if labels is not None:
            talk.note(
                f"note: no --class was given: each sample's class (0 to {(pair.classes or 1) - 1}) is drawn from its seed"
            )
    if typed["dry_run"]:
        return dry(talk, engine, recipe, pair, z0, numbers, labels, names, typed)
    folder = resume or outdir or next_folder(Path("latentshift-out"), f"{pair.name}-{recipe.strategy}")
    recorder = Recorder(
        folder,
        pair,
        recipe.as_dict(),
        numbers,
        names,
        labels,
        space=space,
        request=request,
        before=typed["save_before"],
        metadata=not typed["no_metadata"],
        tiles=tiles,
        noise=bool(typed["save_noise"]),
    )
    if resume is None:
        recorder.prepare(overwrite=typed["overwrite"])
    with lock(folder):
        todo = list(range(len(numbers)))
        if resume is not None:
            refuse_changes(
                record,
                {
                    "model_sha256": pair.sha256,
                    "recipe": recipe.as_dict(),
                    "latentshift": recorder.head()["latentshift"],
                },
                folder,
            )
            done = set(recorder.folder.rows_done())
            todo = [i for i in todo if i not in done]
            talk.note(f"going on with {folder}: {len(done)} of {len(numbers)} samples are there")
        recorder.more["reals_sha256"] = reals and reals.sha256
        recorder.more["honest"] = told
        recorder.begin(chunk_asked=chunk or engine.run_.chunk, pad=engine.settings.pad)
        talk.note(plan_line(pair, len(todo), recipe, engine))
        for note in engine.run_.notes:
            talk.note(f"note: {note}")
        _refine_into(folder, recorder, engine, z0, numbers, labels, todo, talk, caught, typed)


def _writable(outdir: Path, overwrite: bool) -> None:
    from ..files.run import RunFolder

    if overwrite:
        if outdir.exists() and not outdir.is_dir():
            raise OutputError("the output folder is a file", where=str(outdir), way_out="Give another --outdir.")
        return
    RunFolder.prepare(outdir)


def _start(
    typed: dict[str, Any], pair: Pair, seeds: list[int] | None, space: Space | None = None
) -> tuple[Any, list[int], Any, list[str]]:
    """Return latents (points of `space` where it is entered), seeds, labels and file stems of all rows."""
    import numpy as np
    import torch

    from .. import noise
    from ..files.latents import read_latents
    from ..model import check_finite
    from ..sampler import _labels, row_names

    labels: Any = None
    if seeds is None:
        path = start_file(typed)
        assert path is not None
        z, numbers, labels = read_latents(path, pair, space if space is not None and space.entered else None)
        by_seed = numbers is not None
        numbers = numbers if numbers is not None else noise.row_seeds(z)
    else:
        numbers, by_seed = seeds, True
        z = noise.latents(seeds, pair.space.shape, pair.space.prior)
    if typed["classes"]:
        labels = np.resize(np.array(typed["classes"]), len(numbers))
    z0 = torch.from_numpy(np.ascontiguousarray(z))
    check_finite(z0, "latents")
    return z0, numbers, _labels(labels, len(numbers), pair), row_names(numbers, by_seed)


def _refine_into(
    folder: Path,
    recorder: Recorder,
    engine: Engine,
    z0: Any,
    numbers: list[int],
    labels: Any,
    todo: list[int],
    talk: Talk,
    caught: list[str],
    typed: dict[str, Any],
) -> None:
    progress = Progress(len(numbers), len(numbers) - len(todo), talk)
    work, at = engine.run_.ledger.copy(), time.perf_counter()

    def put(chunk: Any) -> None:
        nonlocal work, at
        recorder.put(chunk, engine.run_.ledger - work, time.perf_counter() - at)
        work, at = engine.run_.ledger.copy(), time.perf_counter()

    from .dry import foretell

    again = f"latentshift refine --resume {folder}"
    try:
        if todo:
            rows = None if labels is None else labels[todo]
            engine.run(
                z0[todo],
                [numbers[i] for i in todo],
                rows,
                images0=True,
                on_chunk=put,
                progress=progress,
                ids=todo,
                foretell=lambda told: foretell(talk, told, engine),
            )
    except KeyboardInterrupt:
        progress.close()
        recorder.finish(engine.run_, status="interrupted", warnings=caught)
        done = len(recorder.folder.rows_done())
        raise Interrupted(
            f"interrupted: {done} of {len(numbers)} samples are finished", where=str(folder), way_out=f"Go on with: {again}"
        ) from None
    except LatentshiftError as error:
        progress.close()
        with contextlib.suppress(LatentshiftError, OSError):
            recorder.finish(engine.run_, status="failed", warnings=caught)
        if isinstance(error, OutputError):
            raise OutputError(
                error.what, where=error.where, way_out=f"What is finished is kept; then go on with: {again}"
            ) from error
        raise
    progress.close()
    record = recorder.finish(engine.run_, warnings=caught)
    close(talk, folder, record, _extras(folder, typed, talk, engine, z0, numbers, labels, recorder.names))


def _extras(
    folder: Path, typed: dict[str, Any], talk: Talk, engine: Engine, z0: Any, seeds: list[int], labels: Any, names: list[str]
) -> list[str]:
    """Write what was asked for beside the record, and return the names of all files."""
    files = [
        n
        for n in ("grid.png", "latents.npz", "projected_w.npz", "samples.jsonl", "run.json", "thumbs.npz")
        if (folder / n).is_file()
    ]
    if typed["gif"]:
        from ..report.path import write_gifs

        talk.note("walking the paths again for the animations")
        write_gifs(folder, engine, z0, seeds, labels, names)
        files.append("path/*.gif")
    if not typed["no_report"]:
        from ..report.page import write_report

        write_report(folder)
        files.insert(0, "report.html")
    return files
