"""Checks of G: what it makes, of which latents, and whether a row stands for itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..space import Normal, Prior, Uniform
from .finding import Finding
from .probe import Probe, share

#: below this share of the (coarse) variance between samples, all samples look alike; pairs in order have .42 and more
ALIKE = 0.3

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def finite(probe: Probe) -> Iterator[Finding]:
    """NaN or infinite images."""
    bad = ~torch.isfinite(probe.images.flatten(1)).all(1)
    if bool(bad.any()):
        yield Finding(
            "not-finite",
            "broken",
            f"{int(bad.sum())} of {probe.rows} images hold NaN or infinite values",
            "such rows cannot be refined.",
            "Check the weights, and --prior.",
        )


def repeats(probe: Probe) -> Iterator[Finding]:
    """Another image for the same latent; an image that depends on its neighbours."""
    few = 16
    z, label = probe.z[:few], None if probe.labels is None else probe.labels[:few]
    with torch.no_grad():
        a, b = probe.pair.generate(z, label), probe.pair.generate(z, label)
        size = float(a.double().std()) + 1e-12
        noise = float((a - b).abs().max()) / size
        if noise > 1e-3:
            yield Finding(
                "G-random",
                "warning",
                f"G gives another image for the same latent (by up to {noise:.2g} of their spread)",
                "a step up may be chance, and a seed is no picture.",
                "Hold its noise inputs (noise mode const), and put dropout into evaluation mode.",
            )
            return
        try:
            alone = probe.pair.generate(z[:1], None if label is None else label[:1])
        except (RuntimeError, ValueError):  # as batch statistics of one row
            alone = torch.full_like(a[:1], torch.inf)
    apart = float((alone - a[:1]).abs().max()) / size
    if apart > 1e-3:
        yield Finding(
            "G-batch",
            "warning",
            f"an image changes by {apart:.2g} of the images' spread when it is made alone",
            "rows depend on their neighbours, so results depend on the batch.",
            "Put G into evaluation mode; normalisations without running statistics need some (track_running_stats).",
        )


def image_range(probe: Probe) -> Iterator[Finding]:
    """Values outside the range, or in 0..1 where -1..1 is said."""
    low, high = probe.pair.image_range
    x = probe.images.double()
    least, most = float(x.min()), float(x.max())
    width = high - low
    shape = probe.pair.image_shape or tuple(x.shape[1:])
    if len(shape) != 3:
        return
    fits_unit = least >= -1e-4 and most <= 1 + 1e-4
    if (low, high) == (-1.0, 1.0) and fits_unit and float(x.mean()) > 0:
        yield Finding(
            "range",
            "warning",
            f"all values lie in [{least:.2f}, {most:.2f}] where [{low:g}, {high:g}] is said",
            "pictures would come out pale, and a critic of other images would see them wrongly.",
            "--range 0,1",
        )
    elif (low, high) == (0.0, 1.0) and least < -0.05:
        yield Finding(
            "range",
            "warning",
            f"values go down to {least:.2f} where [0, 1] is said",
            "dark parts would be cut off.",
            "--range=-1,1" if least >= -1.05 and most <= 1.05 else f"--range={least:.3g},{most:.3g}",
        )
    elif least < low - 0.05 * width or most > high + 0.05 * width:
        outside = share((x < low) | (x > high))
        a, b = (float(v) for v in torch.quantile(x.flatten()[:1_000_000], torch.tensor([0.001, 0.999], dtype=x.dtype)))
        yield Finding(
            "unbounded",
            "warning",
            f"values lie in [{least:.3g}, {most:.3g}], {outside:.1%} of them outside [{low:g}, {high:g}]",
            "what lies outside is cut off in the pictures, though D sees it.",
            f"--range={a:.3g},{b:.3g}",
        )


def channels(probe: Probe) -> Iterator[Finding]:
    """Alpha channels and one-hot maps."""
    x = probe.images
    if x.ndim != 4 or x.shape[1] in (1, 3):
        return
    count = x.shape[1]
    total = x.double().sum(1)
    if count == 4:
        yield Finding(
            "alpha",
            "warning",
            "images have 4 channels (an alpha channel)",
            "pictures and judges take 1 or 3.",
            "Lay them on a background in --factory: rgb * a + (1 - a).",
        )
    elif float((total - total.mean()).abs().max()) < 1e-2 * max(1.0, float(total.abs().max())):
        yield Finding(
            "one-hot",
            "warning",
            f"images are maps of {count} classes (each pixel's values sum to {float(total.mean()):.2f})",
            "they are no pictures; D's score still guides.",
            "Turn them into colours in --factory.",
        )
    else:
        yield Finding(
            "channels", "warning", f"images have {count} channels", "pictures take 1 or 3.", "Choose some in --factory."
        )


def variety(probe: Probe) -> Iterator[Finding]:
    """G that ignores z, or makes the same again and again."""
    x = probe.pixels
    if x.ndim == 4:
        side = max(1, min(x.shape[2], x.shape[3]) // 4)
        x = F.adaptive_avg_pool2d(x, (side, side))
    flat = x.flatten(1)
    between = float(flat.var(0).sum())
    total = float(((flat - flat.mean()) ** 2).mean(0).sum())
    if between <= 1e-8 * max(total, 1e-12) or between == 0:
        yield Finding(
            "ignores-z",
            "broken",
            f"{probe.rows} latents give one and the same image",
            "moving z changes nothing: there is nothing to refine.",
            "Use another checkpoint.",
        )
    elif len(probe.pair.image_shape or ()) == 3 and between / total < ALIKE:
        yield Finding(
            "collapsed",
            "broken",
            f"all samples look alike: {between / total:.0%} of the variance lies between them (42 % and more in sound pairs)",
            "G has collapsed, and no move of z brings back what it lost.",
            "Use an earlier checkpoint.",
        )


def _mismatch(probe: Probe, z: Tensor) -> float | None:
    """Mean |log ratio| of the batch's variances to the running ones in G's first two normalisations; None without any."""
    norms = [m for _, m in probe.modules("G") if isinstance(m, NORMS) and m.running_var is not None][:2]
    if not norms:
        return None
    found: list[float] = []

    def look(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        x = given[0].double()
        variance = x.var([a for a in range(x.ndim) if a != 1])
        running = dict(module.named_buffers())["running_var"].double()
        found.append(float(((variance + 1e-8) / (running + 1e-8)).log().abs().median()))

    hooks = [m.register_forward_hook(look) for m in norms]
    try:
        with torch.no_grad():
            label = probe.labels
            probe.pair.generate(z, label)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(found) / len(found)


def _said(prior: Prior) -> str:
    if isinstance(prior, Uniform):
        return f"uniform:{prior.low:g},{prior.high:g}"
    return prior.kind


def latents(probe: Probe) -> Iterator[Finding]:
    """The wrong prior, or running statistics that fit none: read off G's own first normalisations."""
    mine = _mismatch(probe, probe.z)
    if mine is None or mine < 0.5:
        return
    others = {_said(p): p for p in (Normal(), Uniform(-1.0, 1.0), Uniform(0.0, 1.0))}
    fits = {name: _mismatch(probe, probe.latents(p)) or 0.0 for name, p in others.items()}
    best = min(fits, key=lambda name: fits[name])
    now = _said(probe.pair.space.prior)
    if best != now and fits[best] < 0.3 and fits[best] < 0.4 * mine:
        yield Finding(
            "prior",
            "broken",
            f"G was not trained on {now} latents: its first normalisations fit {best} (mean log ratio of variances "
            f"{fits[best]:.2f} against {mine:.2f})",
            "samples of the wrong prior are worse than any refinement can mend.",
            f"--prior {best}",
        )
    else:
        yield Finding(
            "batch-statistics",
            "broken",
            f"G's running statistics do not fit what it computes (mean log ratio of variances {mine:.2f})",
            "in evaluation mode it is not the G that was trained: it needs batch statistics to make sense.",
            "Run many samples through G in training mode once (momentum None), and save it.",
        )


CHECKS = (finite, repeats, image_range, channels, variety, latents)
