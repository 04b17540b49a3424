"""`latentshift score`: score and rank seeds or saved latents, as CSV or JSON, with a grid from worst to best."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import click

from .common import MODEL_KEYS, Talk, general, model_options, pair_of, seeds_of, start_options, work_options
from .refine import _start
from .start import space_of


@click.command(short_help="score samples")
@model_options
@start_options
@work_options
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table to a .csv or .json file in place of stdout."
)
@click.option(
    "--grid", "picture", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw a grid from worst to best."
)
@general
def command(**typed: Any) -> None:
    """Score samples as they are and rank them, best first.

    \b
    Examples:
      latentshift score --seeds 0-15
      latentshift score --num 64 --grid ranked.png --out scores.csv
    """
    talk = Talk(typed["quiet"], typed["as_json"])
    seeds = seeds_of(typed["seeds"], typed["num"], typed["latents"], typed["projected_w"])
    import numpy as np

    from ..files.pictures import grid, save_png, to_bytes
    from ..files.write import plain, write_whole
    from ..sampler import Sampler
    from ..strategies.base import Stay

    pair = pair_of(**{k: typed[k] for k in MODEL_KEYS})
    pair.need_critic()
    space = space_of(typed, pair, pair.space.name, asked=False)
    z0, numbers, labels, names = _start(typed, pair, seeds, space)
    result = Sampler(pair, chunk=typed["chunk"], space=space).refine(z0, seeds=numbers, labels=labels, strategy=Stay())
    score = np.asarray(result.score, np.float64)
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    rows = [
        {
            "rank": rank + 1,
            "name": names[i],
            "seed": numbers[i],
            "label": None if result.labels is None else int(result.labels[i]),
            "score": float(score[i]),
        }
        for rank, i in enumerate(order)
    ]
    if picture := typed["picture"]:
        worst_first = order[::-1]
        images = to_bytes(np.asarray(result.images)[worst_first], pair.image_range)
        title = f"{pair.name}: from the worst score to the best"
        save_png(picture, grid(None, images, [f"{names[i]} {score[i]:.2f}" for i in worst_first], columns=8, title=title))
        talk.note(f"drew {picture}")
    as_json = typed["as_json"] or (typed["out"] is not None and typed["out"].suffix == ".json")
    if as_json:
        text = json.dumps(plain({"model": pair.name, "critic": pair.need_critic().name, "samples": rows}), indent=2) + "\n"
    else:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    if typed["out"] is not None:
        data = text.encode()
        write_whole(typed["out"], lambda s: s.write(data))
        talk.note(f"wrote {typed['out']}")
    else:
        click.echo(text, nl=False)
