"""`latentshift critic`: fit an honest critic to real images for a frozen G; the result is a folder that --critic takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from .common import MODEL_KEYS, Talk, general, model_options, options, pair_of
from .reals import reals_of, reals_options

fit_options = options(
    click.option(
        "--kind",
        type=click.Choice(["both", "features", "pixel", "own"]),
        default="both",
        show_default=True,
        help="What learns: a head on a frozen network's features, a small pixel network, both, or D's own weights.",
    ),
    click.option("--updates", type=int, metavar="N", help="Updates of each part.  [default: 60 on features, 240 else]"),
    click.option(
        "--bound",
        type=click.Choice(["r1", "gradient-penalty", "spectral-norm", "dat"]),
        default="r1",
        show_default=True,
        help="What keeps its slope in bounds.",
    ),
    click.option(
        "--trunk", default="squeezenet", show_default=True, metavar="NAME", help="The frozen network (a plug-in may add one)."
    ),
    click.option("--mirror/--no-mirror", default=None, help="Add mirrored images.  [default: for colour images]"),
    click.option(
        "--held-out", type=float, default=0.2, show_default=True, help="Share of the images that it never learns from."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the split, the weights and the batches."),
)


@click.command(short_help="fit an honest critic")
@model_options
@reals_options
@fit_options
@click.option(
    "--strategy", metavar="NAME", help="How it will be climbed, by a gradient method.  [default: ifgsm, up to 10 steps of 0.05]"
)
@click.option("--option", "more", multiple=True, metavar="KEY=VALUE", help="An option of that method (repeatable).")
@click.option(
    "--space",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Where it will be climbed: z, a hidden layer (layer1), or auto: the first layer where there is one.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--outdir", type=click.Path(path_type=Path), required=True, metavar="OUT", help="Where to write the folder.")
@click.option("--overwrite", is_flag=True, help="Take the place of a critic in --outdir.")
@general
def command(**typed: Any) -> None:
    """Fit a critic to real images for a frozen G, one that has met the samples which climbing it produces.

    A fifth of the images is held out and decides: climb it, pick by it, or neither. A pair of 32 pixels takes about a minute
    on one core. What the critic looks through (SqueezeNet) may not judge what it improved.

    \b
    Examples:
      latentshift critic --reals photos.npz --kind pixel --updates 24 --outdir my-critic
      latentshift refine --critic my-critic --recipe auto/reals --num 8
    """
    talk = Talk(typed["quiet"], typed["as_json"])
    outdir: Path = typed["outdir"]
    if not typed["overwrite"] and outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise UsageError("the output folder is not empty", where=str(outdir), way_out="Give another --outdir, or --overwrite.")
    if typed["reals"] is None:
        raise UsageError("a critic is fitted to real images", where="--reals", way_out="Give --reals DATA.")
    check_fit(typed)
    from ..files.write import plain
    from ..train.honest import fit_critic

    pair = pair_of(**{k: typed[k] for k in MODEL_KEYS})
    fitted = fit_critic(pair, reals_of(typed["reals"], pair, talk), report=talk.note, **fit_arguments(typed))
    fitted.save(outdir)
    card = fitted.card()
    told = {
        **{k: v for k, v in card["honest"].items() if k != "parts"},
        "outdir": str(outdir),
        "files": ["D.safetensors", "card.json"],
    }
    told["parts"] = [{k: v for k, v in p.items() if k != "history"} for p in card["honest"]["parts"]]
    if talk.as_json:
        click.echo(json.dumps(plain(told), indent=2))
        return
    for line in tell(card["honest"]):
        talk.fact(line)
    climb = f": latentshift refine --critic {outdir} --recipe auto/reals --steps {fitted.steps}"
    size = getattr(fitted.strategy, "step_size", None)
    climb += "" if size is None else f" --step-size {size:g}"
    climb += "" if fitted.space == "z" else f" --space {fitted.space}"
    talk.fact(f"wrote {outdir}{climb if fitted.verdict == 'climb' else ''}")


def check_fit(typed: dict[str, Any]) -> None:
    """Refuse wrong numbers before anything is loaded."""
    if typed["updates"] is not None and typed["updates"] < 1:
        raise UsageError(f"--updates is at least 1, not {typed['updates']}")
    if not 0.05 <= typed["held_out"] <= 0.5:
        raise UsageError(f"--held-out lies between 0.05 and 0.5, not {typed['held_out']}")


def fit_arguments(typed: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit_critic` for typed options."""
    from ..recipe import parse_option
    from ..registry import make_strategy

    found = {k: typed[k] for k in ("kind", "updates", "bound", "trunk", "mirror", "seed", "space")}
    found["held"] = typed["held_out"]
    more = dict(parse_option(text) for text in typed["more"])
    if typed["strategy"] is not None:
        found["strategy"] = make_strategy(typed["strategy"], **more)
    elif more:
        raise UsageError("--option belongs to a --strategy", way_out="Give --strategy NAME too.")
    return found


def tell(honest: dict[str, Any]) -> list[str]:
    """Return the lines that say what a critic is good for."""
    over = honest["overfitting"]
    lines = [
        f"verdict: {honest['verdict']}: {honest['why']}",
        f"AUC on held-out real images: {honest['auc_raw']:.3f} against raw samples, {honest['auc_refined']:.3f} against those "
        f"that it refined by {honest['steps']} steps; {honest['reals']} images, {honest['seconds']:.0f} s",
    ]
    if over is not None:
        lines.append(
            f"overfitting: it ranks training above held-out images with AUC {over['memory']:.2f} (0.5: it remembers nothing); "
            f"refined samples are nearest to a training image in {over['nearer']:.0%} (raw {over['nearer_raw']:.0%}, +- "
            f"{over['error']:.0%})" + ("; they move TOWARDS training images" if over["copies"] else "")
        )
    if honest["may_not_judge"]:
        lines.append(f"may not judge what it improved: {', '.join(honest['may_not_judge'])}")
    return lines
