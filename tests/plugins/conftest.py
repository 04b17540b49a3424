"""Where the reference files lie, how their digests are checked, and how random networks are drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


@pytest.fixture
def reference(reference: Callable[..., Path]) -> Callable[[str], Path]:
    """`reference("biggan/bgp-32-plain")`: that folder of reference files, or a skip."""
    return lambda name: reference("reference", *name.split("/"))


@pytest.fixture
def expected() -> Callable[[Path], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """`expected(case)`: what expected.json and expected.npz hold."""

    def read(case: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with np.load(case / "expected.npz", allow_pickle=False) as arrays:
            return json.loads((case / "expected.json").read_text()), {k: arrays[k] for k in arrays.files}

    return read


@pytest.fixture
def check_digests() -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    """`check_digests(tensors, stated)`: same names, shapes, dtypes and bytes."""

    def check(tensors: dict[str, Tensor], stated: dict[str, Any]) -> None:
        assert list(tensors) == list(stated)
        for name, want in stated.items():
            array = tensors[name].detach().cpu().contiguous().numpy()
            raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
            # a number without axes is listed as one of one axis
            got = (list(array.shape) or [1], str(array.dtype), hashlib.sha256(raw).hexdigest()[:16])
            assert got == (want["shape"], want["dtype"], want["sha256"]), name

    return check


@pytest.fixture
def close() -> Callable[..., None]:
    """`close(got, want, tolerance)`: largest difference at most tolerance times the largest number expected (or as it stands,
    with `absolute`)."""

    def check(got: Tensor, want: Any, tolerance: float, absolute: bool = False) -> None:
        got, want = got.detach(), torch.as_tensor(want).to(got.dtype)
        assert got.shape == want.shape
        assert float((got - want).abs().max()) <= tolerance * (1 if absolute else float(want.abs().max()))

    return check
