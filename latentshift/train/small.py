"""Recipes of the size of a small machine: 2-D points (paper 000's Ring and Grid), and images of 16 to 64 px on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .recipe import Piece, TrainRecipe
from .slots import ADVAS, DAT, DIV, MSGAN, climb


def recipes() -> Iterator[TrainRecipe]:
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
