"""What reduced precision keeps on trained pairs: signs at the first step, and the gain after some steps, read in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.run import Engine, Settings
from ..landscape import Landscape
from ..model import Pair
from ..noise import latents
from ..space import Context
from ..strategies.gradient import IFGSM

CHUNK = 32


def kept(pair: Pair, *, rows: int = 256, steps: int = 20, precision: str = "bf16") -> dict[str, Any]:
    """Return the share of float32's gain that `precision` keeps after sign steps of 0.05, and the share of equal signs.

    The gain is that of the score, both ends in float32; `gain_share_error` is the standard error of the paired difference over
    float32's gain. Signs are those of the gradient at the start, where neither is 0.
    """
    seeds = list(range(rows))
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    climb = IFGSM(steps=steps, eps=None, step_size=0.05, support="free")
    gains, signs, told = [], [], ""
    for name in ("fp32", precision):
        engine = Engine(climb, pair, settings=Settings(precision=name, chunk=CHUNK, images=False))
        run = engine.run(z, seeds)
        gains.append(np.concatenate([c.score.astype(np.float64) - c.score0 for c in run.chunks]))
        signs.append(_signs(engine, z, seeds))
        told = engine.precision
    both = (signs[0] != 0) & (signs[1] != 0)
    mean = float(gains[0].mean())
    return {
        "pair": pair.name,
        "rows": rows,
        "steps": steps,
        "precision": told,
        "gain_fp32": mean,
        "gain_share": float(gains[1].mean()) / mean,
        "gain_share_error": float((gains[1] - gains[0]).std(ddof=1) / rows**0.5) / abs(mean),
        "signs": float((signs[0] == signs[1])[both].float().mean()),
    }


def _signs(engine: Engine, z: Tensor, seeds: list[int]) -> Tensor:
    labels, out = engine.labels_of(seeds), []
    for at in range(0, len(z), CHUNK):
        part = slice(at, at + CHUNK)
        context = Context(torch.tensor(seeds[part]), label=None if labels is None else labels[part], point0=z[part])
        out.append(Landscape(engine.moving, context).ascent(z[part])[1].sign())
    return torch.cat(out)
