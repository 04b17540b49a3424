"""Score and gradient through two plans at once: the operations forward and back, without torch's differentiation between them.

Small networks and single rows take some ten milliseconds a step, of which the library's bookkeeping would be one part in fifty.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..landscape import Landscape
from ..model import Pair, per_row
from ..space import Space
from .few import few_rows
from .plan import Plan
from .threads import PAD

Both = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


def both_ways(pair: Pair, space: Space) -> Both | None:
    """Return `f(z, label) -> (score (rows,), gradient like z)` of a planned pair, with the bits that differentiation gives;
    None where a network is no plan, or something lies between."""
    G, critic = pair.G, pair.critic
    if not isinstance(G, Plan) or critic is None or not isinstance(critic.call, Plan) or type(space).decode is not Space.decode:
        return None
    if critic.returns == "probability":
        return None
    D, low = critic.call, critic.real_is == "low"

    def run(z: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            images, back_g = G.forth(z, label if pair.classes else None)
            out, back_d = D.forth(images, label if critic.labels else None)
            score = per_row(out, len(z), critic.name)
            grad = back_g(back_d(torch.full_like(out, -1.0 if low else 1.0)))
        return -score if low else score, grad

    return run


def readied(land: Landscape, pad: int = PAD) -> Landscape:
    """Return a landscape that knows what its pair's forms of networks can do: calls of few rows, score and gradient at once."""
    land.few = few_rows(land.pair, land.space, pad)
    land.both = both_ways(land.pair, land.space)
    return land
