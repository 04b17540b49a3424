"""What refining will do to a pair: help, nothing or harm, by the change that a pilot of a few hundred samples shows.

With real images the doctor does not guess: it refines a pilot under each setting, a larger one where that leaves it open, and
looks at it with eyes that nothing climbed (a layer of a frozen SqueezeNet, which decides, and the pixels). The rule, and how
often it was right on pairs that others trained (each by a constant chosen on the others), stands in `docs/doctor.md`.
Without real images no sign can be foretold;
only what cannot work is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..files.pictures import to_planes
from ..model import Pair
from ..sampler import Sampler
from .eye import Change, Eye, pixels, squeezenet
from .finding import Finding
from .probe import Probe

Array = np.ndarray[Any, Any]

#: name -> (recipe, its changes, whether before and after share their seeds, words)
SETTINGS: dict[str, tuple[str, dict[str, Any], bool, str]] = {
    "paper": ("advlatgan-z/cifar10", {}, True, "the paper's setting (20 sign steps of 0.05)"),
    "auto": ("auto", {}, True, "auto without real images"),
    "picking": ("best-of-n/20", {"steps": 8}, False, "picking the best of 8 by D"),
}

FEW = 0.2  # density of the raw samples below which forecasts are little better than a guess

#: chance that an answer is wrong where samples lie among real images: the misses in docs/doctor.json, one added to each side so
#: that no chance is nil (3 of 20 help, 4 of 24 harm, 2 of 7 nothing)
WRONG = {"help": 0.18, "nothing": 0.33, "harm": 0.19, "unsure": 0.5}
WRONG_FAR = 0.36  # and where few do, whatever the answer (28 of 78)


def chance(answer: str, among: float) -> float:
    """Return the chance that an answer is wrong, where the density of the raw samples is `among`."""
    return WRONG[answer] if among >= FEW or answer == "unsure" else max(WRONG[answer], WRONG_FAR)


@dataclass(frozen=True)
class Forecast:
    """`answer` is help, nothing, harm or unsure; `wrong` the chance of being wrong; `evidence` what was seen."""

    setting: str
    words: str
    answer: str
    wrong: float
    evidence: str


SURE = 2.0  # sum of standard deviations that is an answer
CLEAR = 5.0  # sum from which on the first pilot is enough
LAYER = 5  # the fire of SqueezeNet whose means over place decide
LARGER = 3  # where it is less, the pilot in all is so many times as large


def total(changes: Sequence[Change]) -> float:
    """Return what distance, density and coverage have gained together, each in standard deviations.

    A sum and no vote, since one of them may speak far louder.
    """
    return sum(c.better for c in changes)


def verdict(found: float, sure: float = SURE) -> str:
    """Return the answer that a sum supports: `sure` for is help, against is harm, less is nothing."""
    return "nothing" if abs(found) < sure else "help" if found > 0 else "harm"


def above(scores: Array, real: Array) -> float:
    """Return the share of real images that D scores below the median sample: 0.5 where samples score as real images do."""
    return float((real < np.median(scores)).mean())


def eyes(reals: Array) -> list[Eye]:
    """Return the doctor's eyes on images (n, C, H, W) uint8: a layer of SqueezeNet, which decides, and pixels."""
    deciding = Eye(f"squeezenet-fire{LAYER}", squeezenet(max(reals.shape[2:]), LAYER), reals)
    return [deciding, Eye("pixels", pixels, reals)]


def as_bytes(x: Any, pair: Pair) -> Array:
    """Return images in the pair's range as uint8 (n, C, H, W)."""
    return to_planes(x, pair.image_range)


class Pilot(NamedTuple):
    """Images before and after a setting, uint8 (n, C, H, W), and the scores after it (n,)."""

    before: Array
    after: Array
    score: Array


def pilot(pair: Pair, setting: str, first: int, rows: int, start: int = 0) -> Pilot:
    """Return pilot samples `start` to `start + rows` before and after a setting; sample 0 has the seed `first`."""
    recipe, changes, _, _ = SETTINGS[setting]
    span = range(start, start + rows)
    labels = [i % pair.classes for i in span] if pair.classes else None
    result = Sampler(pair, recipe=recipe).refine(seeds=[first + i for i in span], labels=labels, before=True, **changes)
    return Pilot(as_bytes(result.images0, pair), as_bytes(result.images, pair), np.asarray(result.score, np.float64))


class Seen(NamedTuple):
    """What each eye saw of a setting's pilot of `rows` samples, and D's scores after it (rows,)."""

    changes: list[list[Change]]
    score: Array
    rows: int


@dataclass
class Watch:
    """Pilots under any setting, seen by `look`, whose first eye decides.

    `rows` samples, and `LARGER` times as many where these leave it open. `make` is `pilot` for a pair: (setting, seed of sample
    0, rows, start). What raw samples look like is seen once.
    """

    look: Sequence[Eye]
    make: Callable[[str, int, int, int], Pilot]
    rows: int = 500
    first: int = 710_000
    say: Callable[[str], None] = lambda text: None
    raw: dict[int, list[Array]] = field(default_factory=dict)

    def part(self, setting: str, start: int, rows: int) -> tuple[list[Array], Array]:
        """Return each eye's points of some pilot samples after the setting, and their scores."""
        made = self.make(setting, self.first, rows, start)
        if start not in self.raw:  # the same seeds under every setting
            self.raw[start] = [eye.see(made.before) for eye in self.look]
        return [eye.see(made.after) for eye in self.look], made.score

    def see(self, setting: str) -> Seen:
        """Return what is seen of a setting."""
        paired, words = SETTINGS[setting][2:]
        self.say(f"a pilot of {self.rows} samples: {words}")
        after, score = self.part(setting, 0, self.rows)
        changes = [eye.changes(a, b, paired=paired) for eye, a, b in zip(self.look, self.raw[0], after, strict=True)]
        if abs(total(changes[0])) >= CLEAR:
            return Seen(changes, score, self.rows)
        more = (LARGER - 1) * self.rows
        self.say(f"{more:,} more: these leave it open")
        rest, others = self.part(setting, self.rows, more)
        before = [np.concatenate(both) for both in zip(self.raw[0], self.raw[self.rows], strict=True)]
        after = [np.concatenate(both) for both in zip(after, rest, strict=True)]
        changes = [eye.changes(a, b, paired=paired) for eye, a, b in zip(self.look, before, after, strict=True)]
        return Seen(changes, np.concatenate([score, others]), self.rows + more)


def scores_of(pair: Pair, images: Array, labels: Tensor | None = None) -> Array | None:
    """Return D's scores of uint8 images; None where D wants labels and there are none."""
    critic = pair.need_critic()
    if critic.labels and labels is None:
        return None
    low, high = pair.image_range
    out = []
    with torch.no_grad():
        for at in range(0, len(images), 64):
            x = torch.from_numpy(images[at : at + 64].astype(np.float32)) / 255 * (high - low) + low
            some = None if labels is None else labels[at : at + 64].to(pair.device)
            out.append(pair.logit(x.to(pair.device, pair.compute_dtype), some).double().cpu().numpy())
    return np.concatenate(out)


def foretell(
    pair: Pair,
    reals: Array,
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    labels: Tensor | None = None,
    rows: int = 500,
    first: int = 710_000,
    say: Callable[[str], None] = lambda text: None,
) -> list[Forecast]:
    """Return a forecast per setting, from pilots judged against `reals` (uint8, of the pair's size; with their labels)."""
    say("looking at the real images")
    look, real = eyes(reals), scores_of(pair, reals[:1000], labels)
    watch = Watch(look, partial(pilot, pair), rows, first, say)
    out: list[Forecast] = []
    for name in settings:
        seen = watch.see(name)
        share = None if real is None else above(seen.score, real)
        answer, among = verdict(total(seen.changes[0])), seen.changes[0][1].before
        far = "" if among >= FEW else f"few samples lie among real images (density {among:.2g}), so take this for a guess; "
        told = f"{far}{seen.rows:,} samples; {_told(look, seen.changes)}" + (
            "" if share is None else f"; D scores the median sample above {share:.0%} of real images"
        )
        out.append(Forecast(name, SETTINGS[name][3], answer, chance(answer, among), told))
    return out


def _told(look: Sequence[Eye], changes: Sequence[Sequence[Change]]) -> str:
    return "; ".join(
        f"{eye.name}: " + ", ".join(f"{c.metric} {c.before:.3g} to {c.after:.3g} ({c.better:+.1f} sd)" for c in row)
        for eye, row in zip(look, changes, strict=True)
    )


def without_reals(probe: Probe, findings: Sequence[Finding], settings: Sequence[str]) -> list[Forecast]:
    """Return what can be said without real images: what cannot work; else 'unsure'."""
    topics = {f.topic for f in findings if f.level == "broken"}
    out = []
    for name in settings:
        words = SETTINGS[name][3]
        if not probe.able or probe.dead or topics & {"ignores-z", "no-slope"}:
            why = "there is no signal to climb" if probe.able else "there is no critic"
            out.append(Forecast(name, words, "nothing", 0.02, why))
        elif "turned-round" in topics:
            out.append(Forecast(name, words, "harm", 0.2, "D looks turned round"))
        elif topics:
            out.append(Forecast(name, words, "nothing", 0.2, f"the pair is broken ({', '.join(sorted(topics))})"))
        else:
            strange = any(f.topic == "other-kind" for f in findings)
            no = "no real images (--reals): D's own score is no evidence"
            why = "the real images look like another kind" if strange else no
            out.append(Forecast(name, words, "unsure", WRONG["unsure"], why))
    return out
