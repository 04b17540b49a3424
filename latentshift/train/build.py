"""From a training recipe to a Trainer: networks, or those of a pair to go on from, and the pieces by name."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import registry
from ..errors import RequestError, UnknownNameError, UsageError
from ..layers import LayerNet, output_shape
from ..model import Pair
from ..noise import Draw
from ..space import Normal, Prior
from .assistant import AdvAs
from .data import Data
from .loop import Settings, Trainer
from .networks import BACKBONES, atgan_classifier
from .penalties import ClassLoss, RobDis, WeightClip, WGANDiv
from .pieces import R1, GradientPenalty, ShiftAndFlip, baked, initialise
from .recipe import TrainRecipe
from .scores import one_head
from .shifts import AgainstLoss, Both, Climb, TowardsOther
from .terms import ClassTerm, Mine, ModeSeeking, RandomPartner


def _climb(strategy: str = "ifgsm", stats: Any = "batch", **options: Any) -> Climb:
    return Climb(registry.make_strategy(strategy, **options), stats)


def _mine(**options: Any) -> Mine:
    return Mine(dataclasses.replace(Mine().strategy, **options))


#: piece -> how it is made; the slots of a recipe name these
PIECES: dict[str, Callable[..., Any]] = {
    "climb": _climb,
    "towards-other": TowardsOther,
    "against-loss": AgainstLoss,
    "both": lambda shift: Both(PIECES[shift[0]](**shift[1])),
    "gradient-penalty": GradientPenalty,
    "r1": R1,
    "wgan-div": WGANDiv,
    "robdis": RobDis,
    "class-loss": ClassLoss,
    "weight-clip": WeightClip,
    "mine": _mine,
    "random-partner": RandomPartner,
    "mode-seeking": ModeSeeking,
    "class-term": ClassTerm,
    "advas": AdvAs,
}
MANY = ("penalties", "terms", "after_d")


def piece(kind: str, options: Mapping[str, Any]) -> Any:
    """Return a piece by name; raises UnknownNameError, or UsageError for an option that it does not have."""
    if kind not in PIECES:
        raise UnknownNameError("piece", kind, PIECES, way_out=f"Known: {', '.join(PIECES)}.")
    try:
        return PIECES[kind](**options)
    except TypeError as error:
        raise UsageError(f"{kind}: {str(error).rpartition('() ')[2]}", where="--option") from None


def drawn_from(prior: Prior, size: int) -> Callable[[int, torch.Generator], Tensor]:
    """Return what draws (rows, size) latents of a prior with a generator."""

    def normal(rows: int, generator: torch.Generator) -> Tensor:
        return torch.randn(rows, size, generator=generator)

    def other(rows: int, generator: torch.Generator) -> Tensor:
        seeds = torch.randint(2**62, (rows,), generator=generator)
        return prior.sample(Draw(seeds), 0, "training", (size,), torch.float32)

    return normal if isinstance(prior, Normal) else other


def networks_of(pair: Pair) -> tuple[LayerNet, LayerNet]:
    """Return trainable copies of a pair's networks; raises RequestError for a pair that is not made of layer lists."""
    critic = pair.need_critic()
    if not isinstance(pair.G, LayerNet) or not isinstance(critic.call, LayerNet):
        raise RequestError(
            f"{pair.name} is not made of layer lists, and only such pairs are trained here",
            where="--init-from",
            way_out="Pair folders with 'layers' in their card can go on; others have training code of their own.",
        )
    if critic.real_is != "high" or critic.returns == "probability":
        raise RequestError(
            f"D of {pair.name} gives {critic.returns}, {critic.real_is} for real images; training wants a raw score",
            where="--init-from",
            way_out="Give a pair whose card says real_is high and whose D gives a score before any sigmoid.",
        )

    def live(net: LayerNet) -> LayerNet:
        fresh = LayerNet(net.entries, where=net.where)
        return fresh.load({k: v.detach().clone() for k, v in net.tensors().items()}).requires_grad_(True)

    return live(pair.G), live(critic.call)


def fresh_networks(recipe: TrainRecipe, shape: tuple[int, ...], classes: int | None, seed: int) -> tuple[LayerNet, LayerNet]:
    """Return G and D of a recipe for images of `shape`, drawn from `seed`."""
    if recipe.backbone not in BACKBONES:
        raise UnknownNameError("backbone", recipe.backbone, BACKBONES, way_out=f"Known: {', '.join(BACKBONES)}.")
    backbone = BACKBONES[recipe.backbone]
    if (len(shape) == 1) != (recipe.backbone == "mlp"):
        raise RequestError(
            f"the backbone {recipe.backbone!r} does not make samples of {shape}",
            way_out="The backbone mlp (recipes */toy-*) is for 2-D points, the others are for images.",
        )
    known = classes if recipe.labels != "none" else None
    heads = 1 + (classes or 0) if recipe.labels == "heads" else 1
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        G = LayerNet(backbone.generator(recipe.z_size, shape, known), where="G")
        D = LayerNet(backbone.critic(shape, known if recipe.labels == "both" else None, heads), where="D")
    if backbone.std is not None:
        draw = torch.Generator().manual_seed(seed)
        initialise(G, backbone.std, draw)
        initialise(D, backbone.std, draw)
    if output_shape(G, (recipe.z_size,)) != shape:
        raise RequestError(f"{recipe.backbone} makes {output_shape(G, (recipe.z_size,))}, the data are {shape}")
    return G, D


def build(
    recipe: TrainRecipe,
    data: Data,
    *,
    seed: int = 0,
    device: Any = "cpu",
    pair: Pair | None = None,
) -> Trainer:
    """Return the run of a recipe on `data`, with fresh networks or with those of `pair`.

    Raises UsageError or RequestError with the reason where recipe, data and pair do not go together.
    """
    try:
        settings = Settings(
            **{**dict(recipe.settings), "betas": tuple(recipe.settings.get("betas", (0.5, 0.999))), "seed": seed}
        )
    except TypeError as error:
        raise UsageError(f"a setting is missing or unknown: {error}", where="--option") from None
    prior: Prior = Normal()
    size, classes = recipe.z_size, data.classes
    if pair is None:
        G, D = fresh_networks(recipe, data.shape, classes, seed)
    else:
        G, D = networks_of(pair)
        prior, size = pair.space.prior, pair.space.shape[0]
        if pair.image_shape != data.shape:
            raise RequestError(f"{pair.name} makes {pair.image_shape}, the data are {data.shape}", way_out="Give --size.")
        if recipe.labels in ("heads", "classifier"):
            raise RequestError(
                f"{recipe.name} adds class outputs that {pair.name} does not have", way_out="Train from scratch."
            )
        if pair.classes and (pair.classes < (classes or 0) or recipe.labels != "both"):
            raise RequestError(
                f"{pair.name} has {pair.classes} classes, and the recipe or the data do not use them",
                way_out="Give data with as many labels and --option labels=both.",
            )
    classifier = None
    if recipe.labels == "classifier":
        with torch.random.fork_rng([]):
            torch.manual_seed(seed + 1)
            classifier = LayerNet(atgan_classifier(data.shape, classes or 0), where="classifier").to(device)
    slots: dict[str, Any] = {}
    for slot, kinds in recipe.slots.items():
        made = [piece(kind, options) for kind, options in kinds]
        slots[slot] = made if slot in MANY else made[0]
    if len(data.shape) == 3 and (recipe.flip or recipe.pixels):
        slots["augment"] = ShiftAndFlip(pixels=recipe.pixels, flip=recipe.flip, fill=data.span[0])
    if data.span != (-1.0, 1.0):
        slots = {k: _in_range(v, data.span) for k, v in slots.items()}
    return Trainer(
        G.to(device),
        D.to(device),
        data,
        drawn_from(prior, size),
        settings,
        heads=1 + (classes or 0) if recipe.labels == "heads" else 1,
        classifier=classifier,
        **slots,
    )


def _in_range(thing: Any, span: tuple[float, float]) -> Any:
    """Image shifts clamp to the pair's own range."""
    return dataclasses.replace(thing, clamp=span) if isinstance(thing, TowardsOther | AgainstLoss) and thing.clamp else thing


def finished(t: Trainer) -> tuple[LayerNet, LayerNet]:
    """Return what a run hands over: G averaged, D as of the last step with spectral norms multiplied in and one output."""
    D, G = copy.deepcopy(t.D).cpu(), copy.deepcopy(t.average.net).cpu()
    assert isinstance(G, LayerNet)
    D = baked(D)
    return baked(G), one_head(D) if t.heads > 1 else D


RETURNS = {"bce": "logit", "least-squares": "least-squares"}


def card_of(t: Trainer, recipe: TrainRecipe, data: Data, name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of the finished pair; `told` are further fields (data, licence, metrics)."""
    card: dict[str, Any] = {
        "name": name,
        "loss": t.settings.loss,
        "training": {"recipe": recipe.as_dict(), "steps": t.step, "settings": dataclasses.asdict(t.settings)},
        "classes": data.classes if t.G.needs_label else None,
        "critic": {"returns": RETURNS.get(t.settings.loss, "critic"), "real_is": "high"},
        **told,
    }
    if len(data.shape) == 3:
        channels, height, width = data.shape
        card["image"] = {"channels": channels, "height": height, "width": width, "range": list(data.span)}
    return card
