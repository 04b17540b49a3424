"""Examine a pair: all checks in turn, what each 1,000 samples will cost, and what refining will do."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import registry
from ..errors import LatentshiftError, LatentshiftWarning, UsageError
from ..landscape import Landscape
from ..model import Pair, require
from ..space import Context
from . import critic, generator, with_reals
from .finding import Finding, worst_first
from .foretell import SETTINGS, Forecast, as_bytes, foretell, without_reals
from .probe import Probe


@dataclass
class Examination:
    """What the doctor says of a pair: findings from bad to good, forecasts per setting, figures, costs."""

    model: str
    findings: list[Finding]
    forecasts: list[Forecast] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)  # strategy -> "" or why it does not apply
    seconds: float = 0.0

    @property
    def broken(self) -> bool:
        """Whether something was found that no refinement can work with."""
        return any(f.level == "broken" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `doctor --json` prints them."""
        return {
            "model": self.model,
            "findings": [f.as_dict() for f in self.findings],
            "forecasts": [asdict(f) for f in self.forecasts],
            "figures": self.figures,
            "methods": self.methods,
            "seconds": round(self.seconds, 2),
        }


def quick(pair: Pair, rows: int = 32) -> list[Finding]:
    """Return what a few evaluations can show to be broken or misleading: what `refine` warns of.

    Nothing for large images (above 64 x 64 in colour), whose few evaluations cost as much as refining them.
    """
    if pair.image_shape is None or int(np.prod(pair.image_shape)) > 3 * 64 * 64:
        return []
    looks = (generator.finite, generator.image_range, generator.channels, generator.variety, generator.latents)
    checks = (*looks, critic.signal, critic.scale, critic.probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentshiftWarning)
        probe = Probe(pair, rows)
        found = [f for check in checks for f in check(probe)]
    return [f for f in worst_first(found) if f.level in ("broken", "warning")]


def applicable(pair: Pair) -> dict[str, str]:
    """Return every strategy with '' where it applies to `pair` as it stands, else with the reason why not."""
    seed = torch.zeros(1, dtype=torch.int64, device=pair.device)
    out = {}
    for name, made in registry.everything("strategies")[0].items():
        try:
            strategy = made()
            require(pair, strategy.needs, name)
            where = strategy.spaces[0] if strategy.spaces and strategy.spaces[0] in pair.spaces else pair.space.name
            strategy.check(Landscape(pair, Context(seed), space=pair.spaces[where]))
            out[name] = ""
        except UsageError as error:
            out[name] = f"needs options: {error.what}"
        except LatentshiftError as error:
            out[name] = error.what.partition(": ")[2] or error.what
    return out


def examine(
    pair: Pair,
    reals: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    rows: int = 256,
    pilots: int = 500,
    settings: tuple[str, ...] = tuple(SETTINGS),
    say: Callable[[str], None] = lambda text: None,
) -> Examination:
    """Examine `pair` with `rows` samples; with `reals`, images (n, C, H, W) in its range (and their labels), also by them.

    `pilots` samples are refined under each setting for the forecasts. Networks are used as they are and not changed.
    """
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentshiftWarning)
        say(f"making and scoring {rows} samples")
        probe = Probe(pair, rows)
        found = [f for check in generator.CHECKS for f in check(probe)]
        say("looking at the critic")
        found += [f for check in critic.CHECKS for f in check(probe)]
        figures = _figures(probe)
        value = None
        if reals is not None and len(reals):
            some = reals[:1000].to(pair.device, pair.compute_dtype)
            found += list(with_reals.kind(probe, reals))
            value, more = with_reals.knows(probe, some, None if labels is None else labels[:1000].to(pair.device))
            if any(f.topic == "turned-round" for f in found) and more and more[0].topic != "turned-round":
                found = [f for f in found if f.topic != "turned-round"]  # the real images settle it
            found += [f for f in more if not any(f.topic == g.topic for g in found)]
            figures["auc"] = value
        no_use = any(f.level == "broken" or f.topic == "other-kind" for f in found)
        if reals is not None and reals.ndim == 4 and not no_use and probe.able:
            forecasts = foretell(probe.pair, as_bytes(reals, pair), labels=labels, settings=settings, rows=pilots, say=say)
        else:
            forecasts = without_reals(probe, found, settings)
    return Examination(pair.name, worst_first(found), forecasts, figures, applicable(pair), time.perf_counter() - began)


def _figures(probe: Probe) -> dict[str, Any]:
    out: dict[str, Any] = {"rows": probe.rows, "image": list(probe.images.shape[1:])}
    if probe.able:
        s = probe.scores
        out["score"] = {"mean": float(s.mean()), "sd": probe.spread, "min": float(s.min()), "max": float(s.max())}
    if probe.climbs:
        n = probe.norms
        out["gradient"] = {"median": float(n.median()), "least": float(n.min()), "most": float(n.max())}
        if not probe.dead:
            out["steps"] = [{"size": s, "rose": r, "gain_sd": g} for s, r, g in probe.steps]
    each = probe.seconds
    forward = each.get("generate", 0.0) + each.get("score", 0.0)
    out["seconds_per_1000"] = {
        "images": round(1000 * each.get("generate", 0.0), 2),
        "one_score": round(1000 * forward, 2),
        "one_step": round(1000 * each.get("gradient", 0.0), 2),
    }
    return out
