"""What a family plug-in found in a file: networks with all that code cannot guess, ready to become a Pair or a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from latentshift.errors import RequestError
from latentshift.layers import LayerNet


@dataclass(frozen=True)
class Loaded:
    """A generator, its discriminator where there is one, and the facts of both.

    `image` is (channels, height, width), `image_range` what the generator gives. `returns` says what D's last layer gives
    (`logit`, `critic`, `least-squares`), higher for more real. `prior` has the form of a card's `z_prior`.
    `config` rebuilds residual networks; where both networks are layer lists it is empty.
    """

    family: str
    G: nn.Module
    D: nn.Module | None
    z_size: int
    image: tuple[int, int, int]
    prior: Mapping[str, Any] = field(default_factory=lambda: {"kind": "normal"})
    classes: int | None = None
    image_range: tuple[float, float] = (-1.0, 1.0)
    returns: str = "logit"
    loss: str = ""
    notes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def card(self) -> dict[str, Any]:
        """Return the fields of a pair folder's card."""
        channels, height, width = self.image
        low, high = self.image_range
        form: dict[str, Any]
        if isinstance(self.G, LayerNet) and (self.D is None or isinstance(self.D, LayerNet)):
            nets = {"G": self.G} | ({"D": self.D} if self.D is not None else {})
            form = {"layers": {name: [dict(e) for e in net.entries] for name, net in nets.items()}}
        else:
            form = {"family": self.family, "config": dict(self.config)}
        return {
            "schema": 1,
            "source": self.family,
            "loss": self.loss,
            **form,
            "z_size": self.z_size,
            "z_prior": dict(self.prior),
            "classes": self.classes,
            "image": {"channels": channels, "height": height, "width": width, "range": [low, high]},
            **({"critic": {"returns": self.returns, "real_is": "high"}} if self.D is not None else {}),
            "notes": list(self.notes),
        }

    def with_notes(self, *notes: str) -> Loaded:
        """Return this with further notes."""
        return replace(self, notes=(*self.notes, *notes))


def check_fit(family: str, g_size: int, d_size: int | None, g_classes: int | None, d_classes: int | None) -> None:
    """Raise RequestError where a discriminator is not for this generator's images or labels (`d_size` None: any size)."""
    if d_size is not None and d_size != g_size:
        raise RequestError(
            f"{family}: G makes images of {g_size} px, D is for {d_size} px", way_out="Give the D of the same run."
        )
    if g_classes != d_classes:
        told = [f"{who} has {'no classes' if n is None else f'{n} classes'}" for who, n in (("G", g_classes), ("D", d_classes))]
        raise RequestError(f"{family}: {' and '.join(told)}", way_out="Give the D of the same run.")
