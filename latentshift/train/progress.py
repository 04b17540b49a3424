"""What a run shows on its way: D on images that it never saw, the samples of the averaged G, pictures of fixed latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files.pictures import grid, to_bytes, to_planes
from ..files.scatter import RAW, REAL, Panel, scatter
from ..metrics.distance import Moments, frechet_moments
from ..metrics.judge import Judge
from ..metrics.toy import coverage
from .build import finished
from .data import Data, Images, Points
from .loop import Trainer
from .pieces import LOSSES


def auc(real: Tensor, fake: Tensor) -> float:
    """Return how often a real image scores above a generated one; ties count half."""
    both = torch.cat([real, fake]).double().cpu()
    values, index = torch.unique(both, sorted=True, return_inverse=True)
    count = torch.bincount(index, minlength=len(values)).double()
    rank = (count.cumsum(0) - (count - 1) / 2)[index]
    n, m = len(real), len(fake)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


def accuracy(real: Tensor, fake: Tensor, middle: float | None) -> float:
    """Return D's share of right answers at the loss's own middle, or at the median of all scores where it has none."""
    at = float(torch.cat([real, fake]).median()) if middle is None else middle
    return float(((real > at).float().mean() + (fake <= at).float().mean()) / 2)


def samples(t: Trainer, rows: int, seed: int = 1) -> tuple[Tensor, Tensor | None]:
    """Return images of the averaged G for the same latents every time, and their labels (0, 1, 2, ... in turn)."""
    G, _ = finished(t)
    g = torch.Generator().manual_seed(seed)
    z = t.prior(rows, g)
    classes = getattr(t.data, "classes", None)
    label = torch.arange(rows) % classes if classes and G.needs_label else None
    with torch.no_grad():
        parts = [G(z[a : a + 250], None if label is None else label[a : a + 250]) for a in range(0, rows, 250)]
    return torch.cat(parts), label


def critic_figures(t: Trainer, held: Data, rows: int = 512) -> dict[str, float]:
    """Return D's AUC and accuracy on held-out real against generated images, and its mean scores."""
    _, D = finished(t)
    fake, label = samples(t, rows, seed=2)
    train, held_out = t.data.first(rows), held.first(rows)  # type: ignore[attr-defined]
    with torch.no_grad():
        scores = [D(x.cpu(), y).flatten() for x, y in (train, held_out, (fake, label))]
    middle = LOSSES[t.settings.loss].middle
    return {
        "auc_held_out": round(auc(scores[1], scores[2]), 4),
        "accuracy_held_out": round(accuracy(scores[1], scores[2], middle), 4),
        "accuracy_train": round(accuracy(scores[0], scores[2], middle), 4),
        "mean_train": round(float(scores[0].mean()), 4),
        "mean_held_out": round(float(scores[1].mean()), 4),
        "mean_generated": round(float(scores[2].mean()), 4),
    }


def sample_figures(t: Trainer, held: Data, judge: Any | None, rows: int = 2000) -> dict[str, float]:
    """Return what the samples are worth: coverage of a mixture, or a judge network's Fréchet distance to held-out images."""
    images, _ = samples(t, rows, seed=3)
    if isinstance(held, Points):
        return {k: round(float(v), 4) for k, v in coverage(images, held.mixture.means).items()}
    if judge is None:
        return {}
    fake = to_planes(images.numpy(), held.span)
    real = held.pixels[:rows].cpu().numpy()
    a, b = (Moments.of(_features(judge, np.ascontiguousarray(x))) for x in (fake, real))
    return {f"FD-{judge.network.name}": round(frechet_moments(a, b), 4)}


def _features(judge: Judge, images: Any) -> Any:
    return judge.see(images)


def picture(t: Trainer, data: Data, seeds: int = 64) -> Image.Image:
    """Return the samples of fixed latents: a grid of images, or a cloud of points beside real ones."""
    if isinstance(data, Points):
        points, _ = samples(t, 1000)
        real, _ = data.first(1000)
        return scatter(
            [Panel("real data", real, colour=REAL), Panel(f"step {t.step}", points, colour=RAW)], marks=data.mixture.means
        )
    assert isinstance(data, Images)
    images, label = samples(t, seeds)
    names = [""] * seeds if label is None else [str(int(y)) for y in label]
    return grid(None, to_bytes(images.numpy(), data.span), names, columns=8, title=f"step {t.step}")
