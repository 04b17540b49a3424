"""Modules that load when they are first used, so that listings and `--help` never pay for torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class LazyModule:
    """Stands for a module until the first attribute is asked for.

    >>> math = LazyModule("math")
    >>> math.floor(2.5)
    2
    """

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__dict__["_name"]), attribute)


if TYPE_CHECKING:
    import numpy as numpy
    import torch as torch
else:
    torch = LazyModule("torch")
    numpy = LazyModule("numpy")
