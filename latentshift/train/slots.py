"""The methods of the papers as pieces in slots of the loop, by name and options: what `train/build.py` makes objects of."""

from __future__ import annotations

from .recipe import Piece


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
