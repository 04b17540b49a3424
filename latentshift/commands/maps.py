"""`--save-noise`: the noise maps behind each picture of a style model, kept beside its latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import RequestError, UsageError

if TYPE_CHECKING:
    from ..space import Space

noise_option = click.option(
    "--save-noise",
    is_flag=True,
    help="Also write the noise maps of a style model into latents.npz (`noise`, one row a sample, and `noise_shapes`).",
)


def refuse_noise(typed: dict[str, Any], *, sharded: bool = False, space: Space | None = None) -> None:
    """Raise where noise maps were asked for and there are none to keep."""
    if not typed.get("save_noise"):
        return
    if sharded:
        raise UsageError("shards hold no noise maps", where="--save-noise", way_out="Leave one of the two out.")
    if space is not None and not getattr(space, "noise_shapes", None):
        raise RequestError("this model has no noise maps", where="--save-noise", way_out="Leave it out.")
