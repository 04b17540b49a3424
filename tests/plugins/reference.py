"""Where the reference files lie, and how their digests are checked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def folder(kind: str) -> Path:
    """Return `shared/reference/<kind>` beside the checkout (or under LATENTSHIFT_SHARED), or skip."""
    told = os.environ.get("LATENTSHIFT_SHARED")
    places = [Path(told)] if told else [p / "shared" for p in Path(__file__).resolve().parents]
    for place in places:
        if (place / "reference" / kind).is_dir():
            return place / "reference" / kind
    pytest.skip("the reference files are not beside this checkout (set LATENTSHIFT_SHARED)", allow_module_level=True)


def digest(tensor: torch.Tensor) -> dict[str, Any]:
    """Return shape, dtype and the first 16 hex digits of the SHA-256 of the little-endian C-order bytes."""
    array = tensor.detach().cpu().contiguous().numpy()
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "sha": hashlib.sha256(raw).hexdigest()[:16],
    }


def expected(case: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (expected.json, arrays of expected.npz)."""
    with np.load(case / "expected.npz", allow_pickle=False) as arrays:
        return json.loads((case / "expected.json").read_text()), {k: arrays[k] for k in arrays.files}
