"""`latentshift train`: train a pair with a method of the papers, or go on with a pair that exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import Interrupted, RequestError, UsageError
from ..train.recipes import DEFAULT, TRAINING, get_training_recipe
from .common import Talk, device_of, general

#: what a run is made of: kept in OUT/train.json, so that --resume needs nothing but the folder
KEPT = (
    "data",
    "recipe",
    "held_out",
    "steps",
    "batch",
    "size",
    "channels",
    "init_from",
    "freeze_g",
    "option",
    "seed",
    "judge",
    "checkpoint_every",
    "grid_every",
    "eval_every",
)


@click.command(short_help="train a pair")
@click.argument("data", required=False)
@click.option("--recipe", default=DEFAULT, show_default=True, metavar="NAME", help="A training recipe (--recipes lists them).")
@click.option("--recipes", "listing", is_flag=True, help="List the training recipes, or with --recipe show one, and stop.")
@click.option("--held-out", metavar="DATA", help="Images that are never trained on.  [default: every tenth of DATA]")
@click.option("--init-from", metavar="REF", help="Go on with the networks of this pair (a name, or a pair folder).")
@click.option("--freeze-g", is_flag=True, help="Train D alone.")
@click.option("--steps", type=int, metavar="N", help="Generator steps.  [default: the recipe's]")
@click.option("--batch", type=int, metavar="N", help="Rows in a step.  [default: the recipe's]")
@click.option("--size", type=int, metavar="N", help="Side of the images: centred square, resized.")
@click.option("--channels", type=click.Choice(["1", "3"]), help="Grey or colour.")
@click.option(
    "--option", multiple=True, metavar="KEY=VALUE", help="Any part of the recipe: lr_g=1e-4, latent_shift.step_size=0.02."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Of networks, latents and the order of the data."
)
@click.option("--judge", metavar="REF", help="A judge for the samples: a bundled one, or a judge folder.  [default: by size]")
@click.option("--checkpoint-every", type=int, metavar="N", help="Steps between checkpoints.  [default: a twentieth of all]")
@click.option("--grid-every", type=int, metavar="N", help="Steps between pictures, 0 none.  [default: a tenth of all]")
@click.option("--eval-every", type=int, metavar="N", help="Steps between evaluations, 0 none.  [default: a tenth of all]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="bf16: networks in bfloat16, weights in float32.")
@click.option("--outdir", type=click.Path(path_type=Path), metavar="OUT", help="[default: latentshift-out/NNNNN-train-RECIPE]")
@click.option("--resume", type=click.Path(path_type=Path), metavar="OUT", help="Go on with a run that was cut.")
@click.option("--overwrite", is_flag=True, help="Replace a run in OUT.")
@click.option("--dry-run", is_flag=True, help="Print the plan, write nothing.")
@general
@click.pass_context
def command(ctx: click.Context, /, **typed: Any) -> None:
    """Train G and D on DATA: a folder or zip of pictures, an npz, an idx file, or ring, grid, dot25 (2-D points).

    The result is OUT/pair, a folder that every command takes as --model. A run that is cut goes on with --resume OUT and ends
    in the same weights, to the bit on a CPU.

    \b
    Examples:
      latentshift train --recipes
      latentshift train ring --recipe advlatgan-qua/toy-bce --steps 40 --eval-every 20 --grid-every 0 --outdir ring-run
      latentshift train grid --recipe dat/toy-bce --dry-run
    """
    talk = Talk(typed["quiet"], typed["as_json"])
    if typed["listing"]:
        asked = ctx.get_parameter_source("recipe") is not click.core.ParameterSource.DEFAULT
        return _list(typed["recipe"] if asked else None, typed["as_json"])
    if typed["resume"] is not None:
        out = typed["resume"]
        from ..train.session import read_record

        record = read_record(out)
        changed = [n for n in KEPT if ctx.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE]
        if changed:
            raise UsageError(
                f"--resume goes on as the run began; {', '.join(changed)} cannot change",
                where=str(out),
                way_out="Leave them out, or start a new run.",
            )
        typed = {**typed, **{k: v for k, v in record["typed"].items() if k in KEPT}, "precision": record["typed"]["precision"]}
        if record["status"] == "complete":
            return _told(talk, out, record, "already complete")
    if typed["data"] is None:
        raise UsageError("no data", way_out="Give a folder, a zip, an npz, an idx file, or ring, grid, dot25.")
    recipe = _recipe(typed)
    if typed["dry_run"]:
        return _plan(talk, typed, recipe)
    _run(talk, typed, recipe)


def _list(name: str | None, as_json: bool) -> None:
    from .listing import _show, _tree, _wrapped

    if name is None:
        return _show([(n, r.line) for n, r in TRAINING.items()], as_json)
    recipe = get_training_recipe(name)
    if as_json:
        click.echo(json.dumps(recipe.as_dict(), indent=2))
        return None
    click.echo(_wrapped(f"{recipe.name}: {recipe.line}") + "\n")
    _tree({k: v for k, v in recipe.as_dict().items() if k not in ("name", "line") and v not in ("", None)})
    return None


def _recipe(typed: dict[str, Any]) -> Any:
    from ..recipe import parse_option

    options: dict[str, Any] = {k: typed[k] for k in ("steps", "batch", "size", "precision") if typed[k] is not None}
    if typed["channels"] is not None:
        options["channels"] = int(typed["channels"])
    if typed["freeze_g"]:
        options["train_g"] = False
    options |= dict(parse_option(text) for text in typed["option"])
    return get_training_recipe(typed["recipe"]).changed(options)


def _cadence(typed: dict[str, Any], steps: int) -> Any:
    from ..train.session import Cadence

    for name in ("checkpoint_every", "grid_every", "eval_every"):
        if typed[name] is not None and typed[name] < 0:
            raise UsageError(f"--{name.replace('_', '-')} is 0 or more, not {typed[name]}")
    tenth = max(1, steps // 10)
    checkpoint = max(1, steps // 20) if typed["checkpoint_every"] is None else typed["checkpoint_every"]
    return Cadence(
        checkpoint,
        tenth if typed["grid_every"] is None else typed["grid_every"],
        tenth if typed["eval_every"] is None else typed["eval_every"],
    )


def _made(typed: dict[str, Any], recipe: Any, talk: Talk) -> tuple[Any, Any, Any, Any]:
    """Return the Trainer, data, held-out data and the pair to go on from (or None)."""
    from ..files.names import resolve
    from ..train.build import build
    from ..train.data import read_data

    device = device_of(typed["device"])
    pair = resolve(typed["init_from"]) if typed["init_from"] else None
    size, channels = recipe.size, recipe.channels
    if pair is not None and pair.image_shape is not None and len(pair.image_shape) == 3:
        channels, size = pair.image_shape[0], pair.image_shape[1]
    data, held = read_data(
        typed["data"],
        size=size,
        channels=channels,
        held_out=typed["held_out"],
        labels=recipe.labels != "none",
        span=pair.image_range if pair is not None else (-1.0, 1.0),
        noise=recipe.noise,
        device=device,
        note=lambda text: talk.note(f"note: {text}"),
    )
    return build(recipe, data, seed=typed["seed"], device=device, pair=pair), data, held, pair


def _plan(talk: Talk, typed: dict[str, Any], recipe: Any) -> None:
    trainer, data, held, pair = _made(typed, recipe, talk)
    cadence = _cadence(typed, trainer.settings.steps)
    plan = {
        "data": typed["data"],
        "recipe": recipe.as_dict(),
        "init_from": pair.name if pair else None,
        "shape": list(data.shape),
        "classes": data.classes,
        "parameters": {n: sum(p.numel() for p in net.parameters()) for n, net in (("G", trainer.G), ("D", trainer.D))},
        "steps": trainer.settings.steps,
        "checkpoint_every": cadence.checkpoint,
        "grid_every": cadence.grid,
        "eval_every": cadence.evaluate,
        "device": str(trainer.device),
    }
    if talk.as_json:
        click.echo(json.dumps(plan, indent=2))
        return
    talk.fact(f"{recipe.name}: {recipe.line}")
    talk.fact(
        f"{typed['data']}: samples of {'x'.join(map(str, data.shape))}, {data.classes or 'no'} classes; held out: {_size(held)}"
    )
    talk.fact(
        f"G {plan['parameters']['G']} and D {plan['parameters']['D']} parameters, {plan['steps']} steps, {plan['device']}"
    )
    talk.fact("nothing was written")


def _size(held: Any) -> str:
    return f"{len(held.pixels)} images" if hasattr(held, "pixels") else "points drawn afresh"


def _judge(reference: str | None, shape: tuple[int, ...]) -> Any:
    if len(shape) != 3:
        if reference is not None:
            raise RequestError("a judge looks at images, and these are points", way_out="Leave --judge out.")
        return None
    if reference is None and shape != (1, 32, 32):
        return None
    from ..metrics.judge import load_judge

    return load_judge(reference or "fashion32-judge")


def _run(talk: Talk, typed: dict[str, Any], recipe: Any) -> None:
    from ..files.run import lock, next_folder
    from ..train.session import Session, prepare, read_record

    resumed = typed["resume"] is not None
    out = typed["resume"] or typed["outdir"] or next_folder(Path("latentshift-out"), f"train-{recipe.name}")
    trainer, data, held, pair = _made(typed, recipe, talk)
    judge = _judge(typed["judge"], data.shape)
    if judge is not None and typed["judge"] is None:
        talk.note("note: samples are judged by fashion32-judge, which knows garments; --judge names another")
    cadence = _cadence(typed, trainer.settings.steps)
    if resumed:
        record = read_record(out)
    else:
        prepare(out, typed["overwrite"])
        kept = {**{k: list(v) if isinstance(v := typed[k], tuple) else v for k in KEPT}, "precision": typed["precision"]}
        record = {"typed": kept, "recipe": recipe.as_dict()}
    card = {
        "data": f"{Path(typed['data']).name}, sha256 {data.sha256[:16]}",
        "z_size": recipe.z_size if pair is None else pair.space.shape[0],
        "z_prior": {"kind": "normal"} if pair is None else pair.space.prior.card(),
        "source": f"latentshift train, recipe {recipe.name}" + (f", from {pair.name}" if pair else ""),
        "licence": "that of the data and of the pair it went on from" if pair else "that of the data",
    }
    with lock(out):
        session = Session(trainer, recipe, data, held, out, cadence, record, card, judge, talk.note)
        session.start()
        try:
            session.run()
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted at step {trainer.step}", way_out=f"'latentshift train --resume {out}' goes on."
            ) from None
    _told(talk, out, session.record, "done")


def _told(talk: Talk, out: Path, record: dict[str, Any], how: str) -> None:
    told = {
        "outdir": str(out),
        "pair": str(out / "pair"),
        "recipe": record["recipe"]["name"],
        "status": record["status"],
        "figures": record.get("figures", {}),
        "seconds": record.get("seconds"),
    }
    if talk.as_json:
        click.echo(json.dumps(told, indent=2))
        return
    talk.fact(f"{how}: {out / 'pair'}")
    for name, value in told["figures"].items():
        talk.fact(f"  {name} {value:.4g}")
    refine = record["recipe"].get("refine")
    if refine:
        talk.fact(f"next: latentshift refine --model {out / 'pair'} --recipe {refine}")
