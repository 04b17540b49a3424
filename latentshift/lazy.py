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
        mine = self.__dict__
        if "_module" not in mine:  # a step asks some twenty times: an import each time would be a third of its bookkeeping
            mine["_module"] = importlib.import_module(mine["_name"])
        return getattr(mine["_module"], attribute)


if TYPE_CHECKING:
    import numpy as numpy
    import torch as torch
else:
    torch = LazyModule("torch")
    numpy = LazyModule("numpy")
