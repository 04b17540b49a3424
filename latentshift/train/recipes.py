"""Training recipes by name, as plain data (torch is not imported): `METHOD/DATA-BACKBONE`, with the papers' numbers and places.

    advlatgan-qua/cifar10-sngan, dat/cifar10-lsgan, ...: `latentshift train --recipes` lists all

A recipe says the networks, the loss, the settings and the pieces in their slots; `train/build.py` makes a Trainer of it. What
the papers print and what published code does is kept apart in `source` and `evidence`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UnknownNameError, UsageError

Piece = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """`settings`: fields of `latentshift.train.loop.Settings`; `slots`: slot -> pieces; `labels`: how labels are used.

    `labels`: "none"; "both" (G and D are conditional); "heads" (D's last layer gives classes too); "classifier" (a network of
    its own). `refine`: the refinement recipe that makes it a "+" recipe.
    """

    name: str
    line: str
    backbone: str = "small"
    z_size: int = 64
    size: int | None = None  # side of the images; None: as the data are
    channels: int | None = None
    labels: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    flip: bool = False
    pixels: int = 0  # augmentation: shifts by up to so many pixels, in D's and in G's step
    noise: float = 0.0  # uniform noise on real images, in units of [-1, 1]
    refine: str = ""
    source: str = ""
    evidence: str = ""

    def changed(self, options: Mapping[str, Any]) -> TrainRecipe:
        """Return this recipe with fields, settings or options of pieces changed: `z_size`, `batch`, `latent_shift.step_size`.

        Raises UsageError for a name that is none of them.
        """
        fields = {f.name for f in dataclasses.fields(self)} - {"name", "line", "settings", "slots", "source", "evidence"}
        mine = {k: v for k, v in options.items() if k in fields}
        settings, slots = dict(self.settings), dict(self.slots)
        for key, value in options.items():
            slot, dot, option = key.partition(".")
            if key in fields:
                continue
            if dot:
                if slot not in slots:
                    raise UsageError(f"{self.name} has no {slot!r}", where=f"--option {key}", way_out=_has(slots))
                slots[slot] = tuple((kind, {**kw, option: value}) for kind, kw in slots[slot])
            elif key in SETTINGS:
                settings[key] = value
            else:
                known = (*sorted(fields), *SETTINGS)
                raise UnknownNameError("option", key, known, where="--option", way_out=f"Known: {', '.join(known)}.")
        return dataclasses.replace(self, **mine, settings=settings, slots=slots)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        slots = {slot: [[kind, dict(kw)] for kind, kw in pieces] for slot, pieces in self.slots.items()}
        return {**dataclasses.asdict(dataclasses.replace(self, slots={})), "settings": dict(self.settings), "slots": slots}


def _has(slots: Mapping[str, Any]) -> str:
    return f"It has: {', '.join(slots) or 'no piece'}."


#: fields of the run's settings that a recipe or --option may set
SETTINGS = (
    "steps",
    "loss",
    "batch",
    "g_batch",
    "n_d",
    "lr_g",
    "lr_d",
    "betas",
    "decay_share",
    "ema",
    "spectral_norm",
    "ema_d",
    "train_g",
    "weight_decay",
    "pair_in_d",
    "precision",
)

QUA = "AdvLatGAN-qua (paper 000 Alg. 1)"


def climb(eps: float) -> tuple[Piece, ...]:
    """AdvLatGAN-qua's published step: one sign step of eps, no ball, no clamp."""
    return (("climb", {"strategy": "ifgsm", "steps": 1, "step_size": eps, "eps": None, "support": "free"}),)


GP: tuple[Piece, ...] = (("gradient-penalty", {"weight": 10.0}),)
CLIP: tuple[Piece, ...] = (("weight-clip", {"c": 0.1}),)
DAT: dict[str, tuple[Piece, ...]] = {"image_shift": (("towards-other", {"eps": 1.0}),)}
MSGAN: dict[str, tuple[Piece, ...]] = {"partner": (("random-partner", {}),), "terms": (("mode-seeking", {}),)}
DIV: dict[str, tuple[Piece, ...]] = {"partner": (("mine", {}),), "terms": (("mode-seeking", {}),)}
ADVAS: dict[str, tuple[Piece, ...]] = {"assistant": (("advas", {}),)}
ACGAN: dict[str, tuple[Piece, ...]] = {"penalties": (("class-loss", {}),), "terms": (("class-term", {}),)}

#: the backbones of paper 000: networks, settings, pieces
PAPER000: dict[str, dict[str, Any]] = {
    "dcgan": {"backbone": "dcgan", "settings": {"loss": "bce", "betas": (0.5, 0.9)}},
    "wgan": {"backbone": "sngan", "settings": {"loss": "wasserstein"}, "slots": {"after_d": CLIP}},
    "wgan-gp": {"backbone": "sngan", "settings": {"loss": "wasserstein"}, "slots": {"penalties": GP}},
    "sngan": {"backbone": "sngan", "settings": {"loss": "hinge", "spectral_norm": True}},
    "lsgan": {"backbone": "sngan", "settings": {"loss": "least-squares"}},
    "wgan-div": {"backbone": "sngan", "settings": {"loss": "wasserstein"}, "slots": {"penalties": (("wgan-div", {}),)}},
    "acgan": {"backbone": "sngan", "labels": "heads", "settings": {"loss": "bce"}, "slots": ACGAN},
}
EPS000: dict[tuple[str, int], dict[str, float]] = {
    ("cifar10", 32): {
        "dcgan": 0.03,
        "wgan": 0.01,
        "wgan-gp": 0.015,
        "sngan": 0.04,
        "lsgan": 0.01,
        "wgan-div": 0.03,
        "acgan": 0.03,
    },
    ("stl10", 48): {"dcgan": 0.04, "wgan": 0.02, "wgan-gp": 0.015, "sngan": 0.05, "lsgan": 0.03, "wgan-div": 0.03},
    ("lsun64", 64): {"sngan": 0.05, "wgan-gp": 0.015},
    ("lsun128", 128): {"sngan": 0.05, "wgan-gp": 0.015},
    ("celeba64", 64): {"sngan": 0.05, "wgan-gp": 0.02},
    ("celeba128", 128): {"sngan": 0.006, "wgan-gp": 0.015},
    ("imagenet128", 128): {"sngan": 0.05, "wgan-gp": 0.03},
}
STEPS000 = {"lsun128": 150_000, "celeba128": 300_000, "imagenet128": 500_000}
#: FID vanilla -> -qua -> -qua+ as paper 000 prints them
FID000 = {
    ("cifar10", "dcgan"): "46.4 -> 41.7 -> 40.1",
    ("cifar10", "wgan"): "32.8 -> 27.3 -> 27.2",
    ("cifar10", "wgan-gp"): "24.7 -> 22.6 -> 18.3",
    ("cifar10", "sngan"): "25.5 -> 22.3 -> 21.9",
    ("cifar10", "lsgan"): "49.3 -> 42.8 -> 41.0",
    ("cifar10", "wgan-div"): "23.8 -> 20.6 -> 16.0",
    ("cifar10", "acgan"): "59.5 -> 53.7 -> 53.1",
    ("stl10", "dcgan"): "61.2 -> 56.3 -> 54.6",
    ("stl10", "wgan"): "73.0 -> 51.0 -> 49.1",
    ("stl10", "wgan-gp"): "37.4 -> 34.2 -> 26.7",
    ("stl10", "sngan"): "36.8 -> 34.5 -> 30.9",
    ("stl10", "lsgan"): "62.9 -> 58.5 -> 57.1",
    ("stl10", "wgan-div"): "37.7 -> 32.0 -> 24.3",
}


def _paper000() -> Iterator[TrainRecipe]:
    for (data, size), eps in EPS000.items():
        for name, e in eps.items():
            base = PAPER000[name]
            small = data in ("cifar10", "stl10")
            settings = {
                "steps": STEPS000.get(data, 100_000),
                "batch": 128,
                "g_batch": 256,
                "n_d": 1,
                "lr_g": 2e-4,
                "lr_d": 2e-4,
                "betas": (0.0, 0.9),
                "decay_share": 1.0,
                "ema": 0.0,
                **base["settings"],
            }
            common: dict[str, Any] = {
                "backbone": base["backbone"],
                "z_size": 100,
                "size": size,
                "channels": 3,
                "labels": base.get("labels", "none"),
                "settings": settings,
                "flip": small and name != "sngan",
                "noise": 2 / 128 if name == "sngan" or not small else 0.0,
            }
            printed = FID000.get((data, name))
            told = f"FID vanilla -> qua -> qua+ as printed: {printed}." if printed else "No figure beside it here."
            source = "paper 000 H.3, T15, J.1; betas, decay, the doubled batch of G and the noise from its code"
            slots = dict(base.get("slots", {}))
            yield TrainRecipe(
                name=f"vanilla/{data}-{name}", line=f"{name} on {data}", slots=slots, source=source, evidence=told, **common
            )
            for plus in ("", "+"):
                if small:
                    refine = "advlatgan-z/cifar10" if data == "cifar10" else "advlatgan-z/stl10"
                else:
                    refine = "advlatgan-z/sngan-large" if name == "sngan" else "advlatgan-z/wgan-gp-large"
                yield TrainRecipe(
                    name=f"advlatgan-qua{plus}/{data}-{name}",
                    line=f"{name} on {data}, D's latents moved by {e:g}" + (", then AdvLatGAN-z" if plus else ""),
                    slots={**slots, "latent_shift": climb(e)},
                    refine=refine if plus else "",
                    source=f"{QUA}; {source}",
                    evidence=told,
                    **common,
                )


def _others() -> Iterator[TrainRecipe]:
    msgan: dict[str, Any] = {
        "backbone": "msgan",
        "z_size": 100,
        "size": 32,
        "channels": 3,
        "labels": "both",
        "settings": {
            "steps": 312_500,
            "loss": "bce",
            "batch": 32,
            "lr_g": 2e-4,
            "lr_d": 2e-4,
            "betas": (0.5, 0.999),
            "decay_share": 0.0,
            "ema": 0.0,
            "weight_decay": 1e-4,
            "pair_in_d": True,
        },
    }
    told = "FID MSGAN -> div+ as printed: 30.23 -> 26.76 (CIFAR-10), 67.85 -> 65.35 (STL-10); none printed without -z."
    place = "paper 000 J.2; mining 0.08 / 0.004 / 3 and both halves in D's step from its code (printed: 0.01 / 0.01 / 3)"
    for data in ("cifar10", "stl10"):
        yield TrainRecipe(
            name=f"msgan/{data}",
            line=f"MSGAN on {data}, conditional",
            slots=MSGAN,
            source="MSGAN's code",
            evidence=told,
            **msgan,
        )
        for plus in ("", "+"):
            yield TrainRecipe(
                name=f"advlatgan-div{plus}/{data}",
                line=f"MSGAN on {data} with hard pairs mined by Eq. 8" + (", then AdvLatGAN-z" if plus else ""),
                slots=DIV,
                refine="advlatgan-z/div" if plus else "",
                source=place,
                evidence=told,
                **msgan,
            )
    t3 = {"steps": 100_000, "batch": 64, "lr_g": 1e-4, "lr_d": 1e-4, "betas": (0.5, 0.999), "decay_share": 0.0, "ema": 0.0}
    cifar: dict[str, Any] = {"backbone": "sngan", "z_size": 128, "size": 32, "channels": 3}
    printed = {"bce": "30.20 -> 26.98", "least-squares": "25.20 -> 24.38", "wasserstein": "25.67 (GP 26.03)"}
    forms: tuple[tuple[str, str, dict[str, tuple[Piece, ...]]], ...] = (
        ("vanilla", "bce", {}),
        ("lsgan", "least-squares", {}),
        ("wgan-gp", "wasserstein", {"penalties": GP}),
    )
    for short, loss, slots in forms:
        common: dict[str, Any] = {
            **cifar,
            "settings": {**t3, "loss": loss},
            "evidence": f"FID none -> DAT as printed: {printed[loss]}.",
        }
        place = "paper 002 table 3; eps 1 belongs to the code's batch form; the networks of paper 000 stand for its own"
        yield TrainRecipe(
            name=f"dat/cifar10-{short}", line=f"DAT with the {short} loss", slots={**slots, **DAT}, source=place, **common
        )
        both: dict[str, tuple[Piece, ...]] = {"image_shift": (("both", {"shift": ("towards-other", {"eps": 1.0})}),)}
        yield TrainRecipe(
            name=f"datt/cifar10-{short}", line="DAT on clean and moved images", slots={**slots, **both}, source=place, **common
        )
        asgan: dict[str, tuple[Piece, ...]] = {"image_shift": (("against-loss", {"loss": loss, "eps": 2 / 255}),)}
        yield TrainRecipe(
            name=f"asgan/cifar10-{short}",
            line="ASGAN, eps 1/255 of [0, 1]",
            slots={**slots, **asgan},
            source="paper 002 table 3",
            **common,
        )
        rob: dict[str, tuple[Piece, ...]] = {"penalties": (*slots.get("penalties", ()), ("robdis", {}))}
        yield TrainRecipe(
            name=f"robdis/cifar10-{short}",
            line="robust feature matching",
            slots={**slots, **rob},
            source="paper 002 table 3",
            **common,
        )
    mnist: dict[str, Any] = {
        "backbone": "advas",
        "z_size": 128,
        "channels": 1,
        "settings": {
            "steps": 20_000,
            "batch": 256,
            "lr_g": 1e-3,
            "lr_d": 1e-3,
            "betas": (0.5, 0.999),
            "decay_share": 0.0,
            "ema": 0.0,
            "loss": "wasserstein",
        },
    }
    helped: tuple[tuple[str, dict[str, Any]], ...] = (("vanilla", {}), ("advas", ADVAS))
    for name, more in helped:
        yield TrainRecipe(
            name=f"{name}/mnist",
            line="paper 003's MNIST networks, WGAN-GP" + (", with AdvAs" if more else ""),
            slots={"penalties": GP, **more},
            source="paper 003 (appendix); steps are ours",
            evidence="Figures only: FID falls faster with AdvAs. It did not on 2-D data with BCE (docs/training-tables.md).",
            **mnist,
        )
    yield TrainRecipe(
        name="at-gan/ac-wgan-gp",
        line="AT-GAN stage 1: a conditional G by AC-WGAN-GP with table 5's networks",
        backbone="atgan",
        z_size=100,
        channels=1,
        labels="classifier",
        settings={
            "steps": 20_000,
            "batch": 64,
            "loss": "wasserstein",
            "betas": (0.5, 0.9),
            "lr_g": 1e-4,
            "lr_d": 1e-4,
            "n_d": 5,
            "decay_share": 0.0,
            "ema": 0.0,
        },
        slots={"penalties": (*GP, ("class-loss", {})), "terms": (("class-term", {}),)},
        source="paper 004 appendix B and table 5; optimiser and steps as WGAN-GP's",
        evidence="Stage 2, the transfer to a classifier, is examples/papers/at_gan.py.",
    )


def _machine_size() -> Iterator[TrainRecipe]:
    toy = {"steps": 2000, "batch": 50, "lr_g": 1e-3, "lr_d": 1e-3, "decay_share": 0.0, "ema": 0.0}
    gp1: tuple[Piece, ...] = (("gradient-penalty", {"weight": 1.0}),)
    bce = {**toy, "loss": "bce", "betas": (0.5, 0.9)}
    gp = {**toy, "loss": "wasserstein", "betas": (0.0, 0.9)}
    dat2: tuple[Piece, ...] = (("towards-other", {"eps": 1.0, "clamp": None}),)
    rows: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
        ("vanilla/toy-bce", "plain BCE", bce, {}),
        ("vanilla/toy-wgan-gp", "WGAN-GP", gp, {"penalties": gp1}),
        ("advlatgan-qua/toy-bce", "BCE, D's latents moved by 0.03", bce, {"latent_shift": climb(0.03)}),
        ("advlatgan-qua/toy-wgan-gp", "WGAN-GP, by 0.015", gp, {"penalties": gp1, "latent_shift": climb(0.015)}),
        ("dat/toy-bce", "BCE with direct adversarial training", bce, {"image_shift": dat2}),
        ("advas/toy-bce", "BCE with AdvAs", bce, ADVAS),
        ("advlatgan-div/toy-bce", "BCE with hard pairs", bce, DIV),
    )
    for name, line, settings, slots in rows:
        yield TrainRecipe(
            name=name,
            line=f"2-D points: {line}",
            backbone="mlp",
            z_size=2,
            settings=settings,
            slots=slots,
            refine="advlatgan-z/toy" if name.startswith("advlatgan-qua") else "",
            source="paper 000 H.1 (networks, data); it prints no optimiser: Adam 1e-3, batch 50, 2,000 steps are ours",
            evidence="docs/training-tables.md has every method's figures on Ring and Grid.",
        )
    small = {"steps": 16_000, "loss": "hinge", "spectral_norm": True, "decay_share": 0.25, "ema": 0.999}
    slots_of: dict[str, tuple[str, dict[str, Any]]] = {
        "vanilla": ("the bundled pair's settings", {}),
        "advlatgan-qua": ("D's latents moved by 0.04 (the paper's SNGAN value)", {"latent_shift": climb(0.04)}),
        "dat": ("direct adversarial training, batch form", DAT),
        "advas": ("AdvAs, scaled to G's own gradient at most", ADVAS),
        "msgan": ("MSGAN's mode-seeking term", MSGAN),
        "advlatgan-div": ("mode seeking with hard pairs", DIV),
    }
    for name, (line, slots) in slots_of.items():
        yield TrainRecipe(
            name=f"{name}/small",
            line=f"images of 16 to 64 px on a CPU: {line}",
            settings=small,
            slots=slots,
            flip=True,
            pixels=3,
            refine="advlatgan-z/ball" if name == "advlatgan-qua" else "",
            source="the bundled Fashion-MNIST pair (hinge, spectral norm, EMA, shifts and flips)",
            evidence="16,000 steps take about 35 minutes of one core at 32 px.",
        )


TRAINING: dict[str, TrainRecipe] = {r.name: r for make in (_machine_size, _paper000, _others) for r in make()}
DEFAULT = "vanilla/small"


def get_training_recipe(name: str) -> TrainRecipe:
    """Return a training recipe by name; raises UnknownNameError with near matches."""
    if name not in TRAINING:
        raise UnknownNameError("training recipe", name, TRAINING, way_out="'latentshift train --recipes' lists all.")
    return TRAINING[name]
