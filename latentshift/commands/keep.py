"""`--then`, `--keep` and `--drop`: what comes after the method, and what becomes of the samples that are not good enough."""

from __future__ import annotations

import click

from .common import known, options

keep_options = options(
    click.option(
        "--then",
        multiple=True,
        metavar="NAME[:KEY=VALUE,...]",
        shell_complete=known("strategies"),
        help="A method that goes on from there (repeatable), as in --then ifgsm:steps=5,eps=0.1 or --then obrs:budget=4.",
    ),
    click.option(
        "--keep",
        type=float,
        metavar="SHARE",
        help="Accept this share of samples, the best by score (obrs: its budget); rejected ones are drawn again.",
    ),
    click.option("--drop", is_flag=True, help="Drop what is rejected instead of drawing it again."),
)
