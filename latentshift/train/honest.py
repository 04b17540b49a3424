"""Fit an honest critic to a frozen G and a user's real images, and say what it is good for: climb it, pick by it, or neither.

    critic = fit_critic(pair, "photos/")          # an HonestCritic; Sampler(pair, critic=critic.critic)
    critic.verdict, critic.auc_raw, critic.auc_refined
    critic.save("my-critic")                      # a folder that --critic takes

A fifth of the images is held out: it decides when to stop, calibrates the score, and gives every number that is told. Source:
AdvLatGAN-qua's D step (paper 000 Alg. 1) with G frozen.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import __version__
from ..calibration import auc, fit_logistic
from ..errors import FileError, LatentshiftError, LatentshiftWarning, RequestError
from ..files.folder import write_pair
from ..files.imageset import ImageSet
from ..files.reals import Reals, read_reals
from ..head import features_of
from ..layers import LayerNet
from ..model import Capability, Critic, Pair, require
from ..strategies.base import Strategy
from ..strategies.gradient import IFGSM
from .critic import Frozen, honest_trainer
from .depth import Eye, depth
from .ground import Ground, batches
from .kinds import Part, bound_of, make_part, parts_of
from .loop import Trainer
from .overfit import Overfit, kinship, overfitting, small

#: fewer images than this fit no critic that can be trusted; from WANTED on more change little (docs/third-party.md)
LEAST, WANTED = 100, 250
#: the score must tell held-out reals from raw samples this well
SEES = 0.6
#: how the critic is climbed at most (`depth` says how far), how it is looked at while it learns, and how its negatives are made
UPTO = IFGSM(steps=10, step_size=0.05, eps=None, support="auto", unit="prior")
USE = IFGSM(steps=2, step_size=0.05, eps=None, support="auto", unit="prior")
BEYOND = IFGSM(steps=5, step_size=0.1, eps=None, support="auto", unit="prior")
PILOTS = 256
CACHED = 2000  # real images whose features are kept (50 kB each at 64 pixels); of more they are made batch by batch


@dataclass(frozen=True, kw_only=True)
class HonestCritic:
    """A fitted critic and what was measured on held-out images.

    `verdict` is "climb", "pick" or "neither", `strategy` and `steps` how far to climb, `tried` what was asked of each length
    (see `depth`), `space` where. `auc_raw`, `auc_refined`: held-out reals against raw and against refined samples. `networks`
    may not judge what this critic improved.
    """

    critic: Critic
    net: nn.Module = field(repr=False)
    verdict: str
    why: str
    auc_raw: float
    auc_refined: float
    steps: int
    strategy: Strategy
    space: str
    parts: tuple[dict[str, Any], ...]
    networks: tuple[str, ...]
    calibrated: bool
    overfit: Overfit | None
    reals: int
    reals_sha256: str
    tried: tuple[dict[str, Any], ...] = ()
    plugin: str = ""
    image: dict[str, Any] = field(default_factory=dict)
    pair: str = ""
    pair_sha256: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def card(self) -> dict[str, Any]:
        """Return the card of the folder."""
        return {
            "name": f"honest critic for {self.pair}",
            "source": f"latentshift {__version__}: latentshift critic",
            "licence": "that of the real images it was fitted to",
            "data": f"{self.reals} real images, a fifth of them held out",
            "loss": "logistic, G frozen; negatives raw, refined on the fly and refined earlier",
            "image": self.image,
            "critic": {
                "returns": "logit" if self.calibrated else "critic",
                "real_is": "high",
                "calibrated": self.calibrated,
                **({"trunk": self.plugin} if self.plugin else {}),
            },
            "honest": {
                "verdict": self.verdict,
                "why": self.why,
                "steps": self.steps,
                "step_size": getattr(self.strategy, "step_size", None),
                "space": self.space,
                "tried": list(self.tried),
                "auc_raw": self.auc_raw,
                "auc_refined": self.auc_refined,
                "reals": self.reals,
                "reals_sha256": self.reals_sha256,
                "pair": self.pair,
                "pair_sha256": self.pair_sha256,
                "parts": list(self.parts),
                "may_not_judge": list(self.networks),
                "overfitting": None if self.overfit is None else self.overfit.as_dict(),
                "seconds": round(self.seconds, 1),
            },
            "notes": list(self.notes),
        }

    def save(self, folder: str | Path) -> Path:
        """Write the folder, D.safetensors and card.json, and return it."""
        net = self.net
        if self.plugin:
            assert isinstance(net, nn.Sequential)
            head = net[-1]
            assert isinstance(head, LayerNet)
            return write_pair(folder, self.card(), D=head)
        assert isinstance(net, LayerNet)
        return write_pair(folder, self.card(), D=net)


def real_images(reals: Any, pair: Pair) -> Reals:
    """Return real images for a pair: of a path, of what was read before, of an array (n, C, H, W), or (images, labels)."""
    if pair.image_shape is None or len(pair.image_shape) != 3:
        raise RequestError(f"{pair.name!r} makes no images: a critic is fitted to images")
    if isinstance(reals, str | Path):
        found = read_reals(reals, pair)
    elif isinstance(reals, Reals):
        found = reals
    else:
        found = _array(reals[0] if isinstance(reals, tuple) else reals, pair)
    if tuple(found.images.shape[1:]) != pair.image_shape:
        raise RequestError(
            f"real images of {tuple(found.images.shape[1:])}, where {pair.name!r} makes {pair.image_shape}",
            way_out="Give a path, or bring them to that size.",
        )
    return found


def _array(reals: Any, pair: Pair) -> Reals:
    """Bytes are brought to the pair's range, floats are in it already; anything else is refused."""
    low, high = pair.image_range
    array = np.ascontiguousarray(reals.detach().cpu().numpy() if isinstance(reals, Tensor) else reals)
    if array.ndim != 4 or array.dtype not in (np.uint8, np.float32, np.float64):
        raise RequestError(
            f"real images are (n, channels, height, width) of uint8 or of floats, not {array.dtype} {array.shape}",
            way_out="Give such an array, or a path.",
        )
    if array.dtype == np.uint8:
        data = ImageSet(array)
        return Reals(torch.from_numpy(data.images).float() * ((high - low) / 255) + low, None, data.sha256())
    x = torch.from_numpy(array.astype(np.float32))
    slack = 0.01 * (high - low)
    if not bool(torch.isfinite(x).all()) or float(x.min()) < low - slack or float(x.max()) > high + slack:
        raise RequestError(
            f"real images run from {float(x.min()):.3g} to {float(x.max()):.3g}, {pair.name!r} makes {low:g} to {high:g}",
            way_out="Bring them to that range, or give bytes.",
        )
    return Reals(x, None, hashlib.sha256(repr(array.shape).encode() + x.numpy().tobytes()).hexdigest())


def fit_critic(
    pair: Pair,
    reals: Any,
    *,
    kind: str = "both",
    updates: int | None = None,
    strategy: Strategy = UPTO,
    space: str = "auto",
    negatives: Strategy | None = None,
    bound: str = "r1",
    trunk: str = "squeezenet",
    mirror: bool | None = None,
    held: float = 0.2,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> HonestCritic:
    """Fit an honest critic of `kind` ("both", "pixel", "features", "own") to `reals` for the frozen G of `pair`.

    `strategy` is how it will be climbed at most; how far, held-out images say (`depth`). `space` is where: "z", a layer, or
    "auto" (the first hidden layer where G is a row of layers: docs/third-party.md). `negatives` is how samples are refined
    while it learns (None: for the default strategy up to five steps of twice the length, else `strategy` itself). `mirror`: add
    mirrored images (None: for colour images).
    Raises FileError for fewer than 100 images, RequestError for images of another kind than G's.
    """
    began = _clock()
    data = real_images(reals, pair)
    x = data.images
    if len(x) < LEAST:
        raise FileError(
            f"{len(x)} real image{'s' * (len(x) != 1)}: an honest critic wants {WANTED} or more and is fitted from {LEAST} on",
            way_out="Give more; without them refine as without real images (leave --reals out).",
        )
    require(pair, Capability.NONE, "critic")
    mirror = pair.image_shape is not None and pair.image_shape[0] == 3 if mirror is None else mirror
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    count = max(LEAST // 4, round(held * len(x)))
    val, train = x[order[:count]], x[order[count:]]
    if len(x) < WANTED:
        warnings.warn(
            f"{len(x)} real images: an honest critic wants {WANTED} or more, so expect little", LatentshiftWarning, stacklevel=2
        )
    ground = Ground.of(pair, space)
    z, label = ground.pilots(PILOTS)
    raw = ground.images(z, label)
    _of_one_kind(pair, raw, x)
    learn = negatives or (BEYOND if strategy is UPTO else strategy)
    if learn.pilot:
        raise RequestError("the strategy learns from pilots and cannot refine inside a fit", way_out="Use a gradient method.")
    every: list[tuple[Part, nn.Module]] = []
    told: list[dict[str, Any]] = []
    for name in parts_of(kind):
        part = make_part(name, pair, train, trunk=trunk, mirror=mirror, updates=updates, seed=seed)
        net, facts = _fit(part, ground, train, val, raw, learn, strategy, bound, mirror, seed, report)
        told.append(facts)
        every.append((part, net))
    # a part that sees nothing only adds noise to the sum; where none does, the sum may still
    fitted = [e for e, facts in zip(every, told, strict=True) if facts["auc_raw"] >= SEES] or every
    made = _joined(pair, fitted, val, raw)
    trunks = {p.network or p.plugin: p.look for p, _ in fitted if p.look is not None}
    out = _judged(ground, made, train, val, raw, z, label, strategy, trunks)
    networks = tuple(sorted({p.network for p, _ in fitted if p.network}))
    image = dict(zip(("channels", "height", "width"), pair.image_shape or (), strict=True), range=list(pair.image_range))
    return HonestCritic(
        **out,
        parts=tuple(told),
        networks=networks,
        reals=len(x),
        reals_sha256=data.sha256,
        plugin=next((p.plugin for p, _ in fitted if p.plugin), ""),
        image=image,
        pair=pair.name,
        pair_sha256=pair.sha256,
        seconds=_clock() - began,
        notes=data.notes,
    )


def _of_one_kind(pair: Pair, raw: Tensor, reals: Tensor) -> None:
    own, pairs = kinship(raw, reals)
    if own <= 1.75:
        return
    text = (
        f"samples of {pair.name!r} lie {own:.1f} times as far from the real images as these from each other: images of "
        "another kind?"
    )
    way_out = "Check contents, crop, colours, and black against white."
    if pairs > 0.65:
        raise RequestError(text, way_out=way_out)
    warnings.warn(f"{text} {way_out}", LatentshiftWarning, stacklevel=3)


def _clock() -> float:
    import time

    return time.perf_counter()


def _scores(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([net(x[s]).flatten() for s in batches(len(x))])


def _fit(
    part: Part,
    ground: Ground,
    train: Tensor,
    val: Tensor,
    raw: Tensor,
    negatives: Strategy,
    strategy: Strategy,
    bound: str,
    mirror: bool,
    seed: int,
    report: Callable[[str], None] | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Run one part through the training loop; return it whole, at the look where held-out images liked it best."""
    pair, device = ground.pair, ground.pair.device
    see = (lambda x: x) if part.look is None else (lambda x: _seen(part.look, x))
    held, fakes = see(val.to(device)), see(raw)
    data = train.to(device)
    if part.look is not None and mirror:
        data = torch.cat([data, data.flip(3)])
    early = part.look is not None and len(data) <= CACHED
    if early:
        data = see(data)

    def batch(rows: int, g: torch.Generator) -> tuple[Tensor, Tensor | None]:
        pick = torch.randint(0, len(data), (rows,), generator=g).to(device)
        label = torch.randint(0, pair.classes, (rows,), generator=g).to(device) if pair.classes else None
        return data[pick] if early or part.look is None else see(data[pick]), label

    assert pair.image_shape is not None
    look = nn.Sequential(part.look) if part.look is not None else None
    trainer = honest_trainer(
        Frozen(pair, look, ground.space),
        batch,
        ground.prior,
        image=(pair.image_shape[0], pair.image_shape[1], pair.image_shape[2]),
        D=part.net.to(device),
        climb=negatives,
        ground=ground,
        updates=part.updates,
        augment=part.augment,
        average=0.98,
        seed=seed,
        **bound_of(bound, part.kind, pair.image_range),
    )
    best: list[tuple[float, int, dict[str, Tensor]]] = []
    history: list[dict[str, float]] = []
    z, label = ground.pilots(64)
    short = replace(strategy, steps=min(strategy.steps, USE.steps))

    def look_at(t: Trainer, row: dict[str, float]) -> None:
        assert t.average_d is not None
        net = t.average_d.net.eval()
        critic = Critic(nn.Sequential(*(m for m in (part.look, net) if m is not None)))
        moved = _scores(net, see(ground.images(ground.refined(z, label, short, critic), label)))
        real, fake = _scores(net, held), _scores(net, fakes)
        loss = float(F.softplus(-real).mean() + 0.5 * F.softplus(fake).mean() + 0.5 * F.softplus(moved).mean())
        history.append({"update": t.step, "held_out_loss": loss, "auc_raw": auc(real, fake), "auc_refined": auc(real, moved)})
        best.append((loss, t.step, {k: v.clone() for k, v in net.state_dict().items()}))
        best.sort(key=lambda b: b[:2])
        del best[1:]
        if report:
            report(
                f"{part.kind}: update {t.step} of {part.updates}, AUC on held-out reals {history[-1]['auc_raw']:.2f} (raw), "
                f"{history[-1]['auc_refined']:.2f} (refined)"
            )

    trainer.run(every=max(1, part.updates // 6), report=look_at)
    assert trainer.average_d is not None
    net = trainer.average_d.net
    assert isinstance(net, LayerNet)
    net.load_state_dict(best[0][2])
    row = next(h for h in history if h["update"] == best[0][1])
    return part.whole(net.eval()), {"kind": part.kind, "bound": bound, "network": part.network, **row, "history": history}


def _seen(look: nn.Module | None, x: Tensor) -> Tensor:
    assert look is not None
    with torch.no_grad():
        return torch.cat([look(x[s]) for s in batches(len(x))])


def spread_of(scores: Tensor) -> float:
    """Return the standard deviation that the middle half of `scores` would have if they were normal: one wild score in a
    hundred, which can make the plain one a thousand times as large, does not decide the weights of a sum."""
    low, high = scores.float().quantile(torch.tensor([0.25, 0.75], device=scores.device))
    return max(float(high - low) / 1.349, 1e-6)


@dataclass(frozen=True)
class _Made:
    critic: Critic
    net: nn.Module
    calibrated: bool


def _joined(pair: Pair, fitted: Sequence[tuple[Part, nn.Module]], val: Tensor, raw: Tensor) -> _Made:
    """Return the sum of the parts, each by its spread on held-out reals, scaled to a log odds where a calibration exists."""
    val = val.to(pair.device)
    spread = [spread_of(_scores(net, val)) for _, net in fitted]
    real = sum((_scores(net, val) / s for (_, net), s in zip(fitted, spread, strict=True)), torch.zeros(len(val)))
    fake = sum((_scores(net, raw) / s for (_, net), s in zip(fitted, spread, strict=True)), torch.zeros(len(raw)))
    a, b, calibrated = 1.0, 0.0, True
    try:
        line = fit_logistic(real, fake)
        a, b = line.a, line.b
    except LatentshiftError:  # it separates perfectly, or the wrong way round: no finite log odds
        calibrated = False
    if any(p.plugin for p, _ in fitted):
        if len(fitted) > 1:
            raise RequestError("a trunk that is no layer network cannot be part of a sum", way_out="Use --kind features.")
        net = fitted[0][1]
        return _Made(Critic(net, "honest", "critic"), net, False)
    branches = [[dict(e) for e in net.entries] for _, net in fitted if isinstance(net, LayerNet)]
    entry = {"op": "Branches", "key": "sum", "branches": branches, "weights": [a / s for s in spread], "bias": b}
    net = LayerNet([entry], where="D", meta=True)
    tensors = {f"sum.parts.{i}.{k}": v for i, (_, part) in enumerate(fitted) for k, v in part.state_dict().items()}
    net = net.load(tensors).eval().requires_grad_(False)
    return _Made(Critic(net, "honest", "logit" if calibrated else "critic", calibrated=calibrated), net, calibrated)


def _judged(
    ground: Ground,
    made: _Made,
    train: Tensor,
    val: Tensor,
    raw: Tensor,
    z: Tensor,
    label: Tensor | None,
    strategy: Strategy,
    trunks: dict[str, nn.Module],
) -> dict[str, Any]:
    """Return verdict, AUCs, steps and the overfitting of the joined critic; `trunks` are what its parts look through."""
    pair = ground.pair
    base: dict[str, Any] = {"critic": made.critic, "net": made.net, "calibrated": made.calibrated}
    base["space"] = ground.space.name
    held = val.to(pair.device)
    real, fake = _scores(made.net, held), _scores(made.net, raw)
    a_raw = auc(real, fake)
    found: dict[str, Any] = {**base, "auc_raw": a_raw, "auc_refined": a_raw, "steps": 0, "strategy": strategy, "overfit": None}
    if a_raw < SEES:
        why = f"its AUC on held-out real images is {a_raw:.2f}, below {SEES:.2f}: the samples are better left alone"
        return {**found, "verdict": "neither", "why": why}

    def score(x: Tensor) -> Tensor:
        return _scores(made.net, x.to(pair.device))

    @functools.cache
    def climb(use: Strategy) -> tuple[Tensor, Tensor]:
        end = ground.refined(z, label, use, made.critic)
        return end, ground.images(end, label)

    looks = {"pixels": small, **{name: _pooled(look, pair) for name, look in trunks.items()}}
    own = features_of(pair)
    looks |= {} if own is None else {"own D": own}
    eyes = [Eye(name, look, train[:CACHED], val, raw) for name, look in looks.items()]
    found_ = depth(strategy, z, climb, lambda x: auc(real, score(x)), eyes)
    found |= {"auc_refined": found_.auc, "tried": tuple(t.as_dict() for t in found_.tried)}
    if found_.strategy is None:
        return {**found, "verdict": "pick", "why": found_.why}
    over = overfitting(climb(found_.strategy)[1], raw, train, val, score)
    why = f"it tells held-out real images from raw samples (AUC {a_raw:.2f}) and from those it refined: {found_.why}"
    used = {"steps": found_.strategy.steps, "strategy": found_.strategy, "overfit": over}
    return {**found, **used, "verdict": "climb", "why": why}


def _pooled(look: nn.Module, pair: Pair) -> Callable[[Tensor], Tensor]:
    """Return what a frozen network sees of images, averaged over places."""

    def see(x: Tensor) -> Tensor:
        rows = _seen(look, x.to(pair.device))
        return rows.flatten(2).mean(2) if rows.ndim > 2 else rows

    return see
