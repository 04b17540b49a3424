"""Training recipes by name: `METHOD/DATA-BACKBONE`, with the papers' numbers and places.

    advlatgan-qua/cifar10-sngan, dat/cifar10-lsgan, ...: `latentshift train --recipes` lists all

A recipe says the networks, the loss, the settings and the pieces in their slots; `train/build.py` makes a Trainer of it. What
the papers print and what published code does is kept apart in `source` and `evidence`.
"""

from __future__ import annotations

from ..errors import UnknownNameError
from . import paper000, papers, small
from .recipe import TrainRecipe

TRAINING: dict[str, TrainRecipe] = {r.name: r for made in (small, paper000, papers) for r in made.recipes()}
DEFAULT = "vanilla/small"


def get_training_recipe(name: str) -> TrainRecipe:
    """Return a training recipe by name; raises UnknownNameError with near matches."""
    if name not in TRAINING:
        raise UnknownNameError("training recipe", name, TRAINING, way_out="'latentshift train --recipes' lists all.")
    return TRAINING[name]
