"""Better samples from a pretrained GAN, after training.

    from latentshift import Sampler
    result = Sampler(G, D).refine(z)

The public names load on first use: `import latentshift` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Sampler": "latentshift.sampler",
    "Result": "latentshift.sampler",
    "load": "latentshift.sampler",
    "Pair": "latentshift.model",
    "LatentshiftError": "latentshift.errors",
}

__all__ = ["LatentshiftError", "Pair", "Result", "Sampler", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'latentshift' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
