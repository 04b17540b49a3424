"""`latentshift convert MODEL FOLDER`: any readable model as a pair folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .common import Talk, general
from .listing import _tree
from .own import model_option, options_of_typed


@click.command(short_help="any readable model to a pair folder")
@click.argument("model", metavar="MODEL")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--critic", type=click.Path(path_type=Path), metavar="FILE", help="The file of D, where it is another one.")
@model_option
@click.option("--overwrite", is_flag=True, help="Take the place of a pair that lies in FOLDER.")
@general
def command(model: str, folder: Path, critic: Path | None, overwrite: bool, **typed: Any) -> None:
    """Write a model (a name, an address, a file, a run's folder) as a pair folder: tensors in safetensors and a card.

    Nothing in it is code. It loads in a fraction of the time, with the same bits, wherever a model is taken.

    \b
    Examples:
      latentshift convert fashion32 garments
      latentshift refine --model garments --num 4
    """
    from ..files.convert import convert
    from ..files.inspect import inspect_path

    talk = Talk(typed["quiet"], typed["as_json"])
    made = convert(model, folder, critic=critic, options=options_of_typed(typed["model_options"]), overwrite=overwrite)
    told = inspect_path(made)
    if talk.as_json:
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif not talk.quiet:
        _tree({k: v for k, v in told.items() if v is not None})
