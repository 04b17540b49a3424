"""Files that are programs: TorchScript, torch.export archives, whole modules. Run only where the user says so.

Loading one runs what its author wrote. Every other reader of this package refuses them; the command line asks for
`--trust-code` first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DamagedFileError, FileError


def program_kind(path: Path) -> str:
    """Return 'TorchScript', 'torch.export' or 'module' for a file that is a program, else an empty text. Nothing is run."""
    from ..errors import LatentshiftError, UnsafeFileError
    from .checkpoint import read_tensors

    if not path.is_file():
        return ""
    try:
        read_tensors(path)
    except UnsafeFileError as error:
        signs = {"TorchScript": "TorchScript", "torch.export": "torch.export", "whole module": "module"}
        return next((kind for sign, kind in signs.items() if sign in error.what), "")
    except LatentshiftError:
        return ""
    return ""


class Program:
    """A loaded program, called without its weights being asked for gradients."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self.call, self.name = call, name

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)


def run_program(path: Path) -> Program:
    """Load a program, which runs its code, and return what it computes. Raises DamagedFileError where it does not load."""
    import torch

    kind = program_kind(path)
    if not kind:
        raise FileError("no program in this file", where=str(path), way_out="Leave --trust-code out.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "TorchScript":
                module: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            elif kind == "torch.export":
                module = torch.export.load(str(path)).module()
            else:
                module = torch.load(str(path), map_location="cpu", weights_only=False).eval()
    except Exception as error:
        text = str(error).strip().splitlines()
        what = f"this {kind} program does not load: {type(error).__name__} {text[0] if text else ''}"
        raise DamagedFileError(what[:300], where=str(path)) from None
    if not callable(module):
        raise FileError(f"the program is {type(module).__name__}, nothing that can be called", where=str(path))
    for weight in module.parameters():
        weight.requires_grad_(False)
    return Program(module, path.stem)
