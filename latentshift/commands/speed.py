"""`--precision` and `--pad`: how exactly the networks compute, and in calls of which sizes."""

from __future__ import annotations

import click

from .common import options

speed_options = options(
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        metavar="NAME",
        help="Of the networks while samples move: fp32, tf32 (NVIDIA cards), bf16, or auto (bf16 where this device is faster "
        "with it). Final scores and images are float32.",
    ),
    click.option(
        "--pad",
        type=click.IntRange(min=1),
        metavar="N",
        help="On a CPU samples move in multiples of N rows [default: 8, so that a sample's bits are the same in any batch; "
        "the networks are asked for fewer where that changes no bit]. 1 is faster for a single picture on networks that "
        "cannot be planned (run.json says so); its numbers then hold to 1e-5 only.",
    ),
)
