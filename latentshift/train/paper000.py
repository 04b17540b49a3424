"""The recipes of AdvLatGAN-qua (paper 000): seven backbones on seven sets, vanilla, -qua and -qua+."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .recipe import TrainRecipe
from .slots import ACGAN, CLIP, GP, climb

QUA = "AdvLatGAN-qua (paper 000 Alg. 1)"

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


def recipes() -> Iterator[TrainRecipe]:
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
