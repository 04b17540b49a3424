"""The recipes of the other methods: MSGAN and -div (000), DAT, ASGAN, RobDis (002), AdvAs (003), AT-GAN's first stage (004)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .recipe import Piece, TrainRecipe
from .slots import ADVAS, DAT, DIV, GP, MSGAN


def recipes() -> Iterator[TrainRecipe]:
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
        name="advas-alone/mnist",
        line="paper 003 C.3: G follows AdvAs's gradient alone, D's weights are clipped",
        slots={"after_d": (("weight-clip", {"c": 0.05}),), "assistant": (("advas", {"scale": "alone"}),)},
        source="paper 003 (appendix C.3: 100,000 steps); its networks of E.1 stand for C.3's, the clip is ours",
        evidence="The paper sees digits in part; examples/papers/advas_mnist.py, docs/training-tables.md.",
        **{**mnist, "settings": {**mnist["settings"], "steps": 100_000}},
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
