"""`--precision`: how exactly the networks compute while samples move."""

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
)
