"""Checks of D on G's own samples: whether it says anything, on which scale, per image, and which way."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from ..model import frozen_copy
from .finding import Finding
from .generator import NORMS
from .probe import Probe, share

HUGE = 50.0  # a spread of scores beyond which exp and sigmoid of them mean nothing


def readable(probe: Probe) -> Iterator[Finding]:
    """No critic, one that fails, several numbers per image, NaN."""
    if probe.pair.critic is None:
        yield Finding(
            "no-critic",
            "warning",
            "there is no critic in this model",
            "methods that climb or pick need one.",
            "--critic FOLDER, or fit one to your images: latentshift critic.",
        )
    elif probe.failed:
        yield Finding("D-fails", "broken", f"D cannot be read: {probe.failed}", "nothing can be climbed.", "See --critic.")
    else:
        if probe.numbers > 1:
            yield Finding(
                "several-numbers",
                "warning",
                f"D gives {probe.numbers} numbers per image (a map of patches, or several heads)",
                "one number per image is needed; their mean is looked at here.",
                "In --factory: lambda x: D(x).flatten(1).mean(1).",
            )
        bad = ~torch.isfinite(probe.scores)
        if bool(bad.any()):
            yield Finding(
                "D-not-finite",
                "broken",
                f"{int(bad.sum())} of {probe.rows} scores are NaN or infinite",
                "such rows cannot be refined.",
                "Check the weights and --range.",
            )


def signal(probe: Probe) -> Iterator[Finding]:
    """A constant score, a gradient that is zero."""
    if not probe.able:
        return
    if probe.dead:
        yield Finding(
            "dead",
            "broken",
            f"D gives every sample the same score ({float(probe.scores[0]):.4g})",
            "there is no signal: climbing and picking by it do nothing.",
            "--critic another one, or fit one: latentshift critic.",
        )
        return
    if not probe.climbs:
        yield Finding(
            "no-gradient",
            "note",
            "the score is not differentiable",
            "methods without a gradient remain (evolution, selection).",
        )
        return
    zero = share(probe.norms == 0)
    if zero > 0.05:
        yield Finding(
            "no-slope",
            "broken" if zero > 0.9 else "warning",
            f"{zero:.0%} of the samples have a gradient of exactly zero",
            "climbing leaves them where they are (a saturated last layer, as a rule).",
            "Read D before its last layer (--returns logit), or select in place of climbing.",
        )
    bad = share(~torch.isfinite(probe.norms))
    if bad:
        yield Finding(
            "gradient-not-finite", "warning", f"{bad:.0%} of the gradients are NaN or infinite", "such rows stay as they are."
        )


def per_image(probe: Probe) -> Iterator[Finding]:
    """A score that is random, or looks at the batch."""
    if not probe.able or probe.dead:
        return
    few = 16
    label = None if probe.labels is None else probe.labels[:few]
    x = probe.images[:few]
    with torch.no_grad():
        a, b = (probe.pair.logit(x, label).double() for _ in range(2))
        if float((a - b).abs().max()) > 1e-3 * probe.spread:
            yield Finding(
                "D-random",
                "warning",
                "D gives another score for the same image"
                f" (by up to {float((a - b).abs().max()) / probe.spread:.2g} of the scores' spread)",
                "a rise may be chance: dropout or noise is at work inside.",
                "Put D into evaluation mode.",
            )
            return
        try:
            alone = torch.cat([probe.pair.logit(x[i : i + 1], None if label is None else label[i : i + 1]) for i in range(4)])
        except (RuntimeError, ValueError):  # as batch statistics of one row
            alone = torch.full_like(a[:4], math.inf)
    apart = float((alone.double() - a[:4]).abs().max())
    if apart > 0.01 * probe.spread:
        yield Finding(
            "D-batch",
            "warning",
            f"the score of an image changes by {apart / probe.spread:.2g} of the scores' spread when it is scored alone",
            "D looks at the whole batch, so results depend on which rows are beside.",
            "Put D into evaluation mode; for minibatch statistics use a family's own reader.",
        )


def scale(probe: Probe) -> Iterator[Finding]:
    """A scale on which thresholds and probabilities mean nothing."""
    if not probe.able or probe.dead or not math.isfinite(probe.spread):
        return
    mean = float(probe.scores.mean())
    if probe.spread > HUGE or abs(mean) > 20 * HUGE:
        yield Finding(
            "huge-scale",
            "warning",
            f"scores lie at {mean:.3g} with a spread of {probe.spread:.3g}",
            "sigmoid and exp of them overflow: Langevin, rejection and step sizes in the score's unit do nothing useful.",
            "Use sign steps, or calibrate on real images (--reals).",
        )


def probabilities(probe: Probe) -> Iterator[Finding]:
    """A D that ends in a sigmoid though the card says otherwise; one that was trained the other way round."""
    critic = probe.pair.critic
    if critic is None or not probe.able or probe.dead:
        return
    sign = -1.0 if critic.real_is == "low" else 1.0
    raw = sign * probe.scores
    last = [m for _, m in probe.modules("D") if not list(m.children())][-1:]
    sigmoid = bool(last and isinstance(last[0], nn.Sigmoid))
    inside = float(raw.min()) >= 0 and float(raw.max()) <= 1
    if critic.returns != "probability" and inside and (sigmoid or _stays_inside(probe, sign)):
        yield Finding(
            "probability",
            "warning",
            f"D's values are probabilities ({float(raw.min()):.3g} to {float(raw.max()):.3g}), {critic.returns!r} is said",
            "their gradient vanishes near 0 and 1.",
            "--returns probability",
        )
        raw = torch.logit(raw.clamp(1e-12, 1 - 1e-12))
        odds = True
    else:
        odds = critic.returns in ("logit", "probability")
    if odds and share(raw > 1.5) > 0.9:
        if sign > 0:
            yield Finding(
                "turned-round",
                "broken",
                f"D calls {share(raw > 1.5):.0%} of G's samples real (mean log odds {float(raw.mean()):+.2f})",
                "a trained D hardly ever does: it was trained the other way round, and climbing makes samples worse.",
                "--critic-sign low (real images settle it: --reals)",
            )
        else:
            yield Finding(
                "low-is-real",
                "note",
                f"low values mean real here (mean log odds of being generated {float(raw.mean()):+.2f})",
                "the sign is turned before climbing.",
            )


def _stays_inside(probe: Probe, sign: float) -> bool:
    """Whether D's raw values stay in 0..1 on images of noise and on flat ones too."""
    low, high = probe.pair.image_range
    like = probe.images[:16]
    generator = torch.Generator().manual_seed(0)
    noise = low + (high - low) * torch.rand(like.shape, generator=generator).to(like)
    odd = torch.cat([noise, torch.full_like(like[:8], low), torch.full_like(like[:8], high), 3 * like])
    with torch.no_grad():
        raw = sign * probe.scored(odd)
    return float(raw.min()) >= 0 and float(raw.max()) <= 1


def inside(probe: Probe) -> Iterator[Finding]:
    """Dropout and batch normalisation inside D: harmless in evaluation mode, and what they would do outside it."""
    modules = probe.modules("D")
    if any(isinstance(m, nn.Dropout | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout) for _, m in modules):
        yield Finding("dropout", "note", "D holds dropout", "it is off in evaluation mode, which is used.")
    norms = [m for _, m in modules if isinstance(m, NORMS)]
    if not norms or not probe.able or probe.dead or probe.pair.critic is None:
        return
    twin = frozen_copy(probe.pair.critic.call)
    for module in twin.modules():
        if isinstance(module, NORMS):  # without them it takes the batch's; in training mode it would write the shared ones
            module.running_mean = module.running_var = None
    with torch.no_grad():
        args = (probe.images[:128],) + ((probe.labels[:128],) if probe.pair.critic.labels and probe.labels is not None else ())
        other = twin(*args).double().reshape(len(args[0]), -1).mean(1)
    own = probe.scores[:128] * (-1.0 if probe.pair.critic.real_is == "low" else 1.0)
    both = float(np.corrcoef(own.cpu().numpy(), other.cpu().numpy())[0, 1]) if float(other.std()) > 0 else 0.0
    if both < 0.5:
        yield Finding(
            "training-mode-turns",
            "note",
            f"in training mode D ranks the same samples otherwise (correlation {both:+.2f} with evaluation mode)",
            "batch statistics give a batch away and can even turn D round. Evaluation mode is used.",
        )


def slope(probe: Probe) -> Iterator[Finding]:
    """Step sizes: where one sign step raises nearly all rows, and where it overshoots."""
    if not probe.climbs or probe.dead or share(probe.norms > 0) < 0.1:
        return
    good = [s for s, rose, _ in probe.steps if rose >= 0.9]
    words = ", ".join(f"{s:g}: {rose:.0%}" for s, rose, _ in probe.steps)
    if good:
        yield Finding(
            "step-size",
            "good",
            f"one sign step raises the score of (size in prior sd: share of rows) {words}",
            "larger steps overshoot." if len(good) < len(probe.steps) else "none of these overshoots.",
            f"--step-size {max(good):g} or less.",
        )
    else:
        yield Finding(
            "step-size",
            "warning",
            f"one sign step raises the score of (size in prior sd: share of rows) {words}",
            "the score is rough at every size tried.",
            "Keep the best (--keep-best) with --step-size 0.005 or less, or select in place of climbing.",
        )


def views(probe: Probe) -> Iterator[Finding]:
    """Whether D says the same of an image moved by a pixel."""
    if not probe.able or probe.dead or probe.images.ndim != 4:
        return
    moved = probe.scored(torch.roll(probe.images, 1, 3))
    both = float(np.corrcoef(probe.scores.cpu().numpy(), moved.cpu().numpy())[0, 1])
    if both < 0.2:
        yield Finding(
            "views",
            "note",
            f"D's score of an image moved by one pixel agrees little with that of the image (correlation {both:+.2f})",
            "it looks at traces rather than at content (on the measured pairs this alone told nothing about harm).",
        )


CHECKS = (readable, signal, per_image, scale, probabilities, inside, slope, views)
