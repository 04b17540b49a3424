"""StyleGAN3, configurations T and R: network pickles as pairs."""

from __future__ import annotations

from ..stylegan2 import StyleGAN

FAMILY = StyleGAN("stylegan3", "StyleGAN3 network pickles (.pkl), T and R: z, w and w+, with their D")
