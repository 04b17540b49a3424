"""What `fit` learned, as a file that every shard uses: the fields in which the fitted strategy differs from the recipe's.

`fit.npz` holds each under its path (`inner.target`, `stages.1.log_c`), numbers in float64, tensors as they are; run.json holds
the kinds. A strategy that comes out of it is equal to the one that went in, to the bit.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import torch

from ..errors import DamagedFileError, RequestError
from ..files.run import npz_bytes
from ..strategies.base import Strategy, strategy_name

NAME = "fit.npz"
Array = np.ndarray[Any, Any]


def learned(before: Any, after: Any, path: str = "") -> dict[str, Any]:
    """Return the values in which two strategies of one structure differ, by path.

    Raises RequestError where they are of another structure: then a fit cannot be stored.
    """
    if isinstance(after, Strategy) and type(after) is type(before):
        out: dict[str, Any] = {}
        for f in dataclasses.fields(after):
            out |= learned(getattr(before, f.name), getattr(after, f.name), f"{path}.{f.name}".lstrip("."))
        return out
    if isinstance(after, tuple) and any(isinstance(v, Strategy) for v in after):
        if not isinstance(before, tuple) or len(before) != len(after):
            raise _no_file(after)
        return {k: v for i, (a, b) in enumerate(zip(before, after)) for k, v in learned(a, b, f"{path}.{i}").items()}
    if isinstance(after, Strategy):
        raise _no_file(after)
    return {} if _same(before, after) else {path: after}


def _no_file(value: Any) -> RequestError:
    name = strategy_name(value) if isinstance(value, Strategy) else "this method"
    return RequestError(f"what {name!r} learns in fit cannot be stored", way_out="Run it without shards.")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor | np.ndarray) or isinstance(b, torch.Tensor | np.ndarray):
        return a is b
    return type(a) is type(b) and (a == b or (a != a and b != b))


def pack(values: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return the kind of every value and an .npz of them."""
    kinds: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    for path, value in values.items():
        if isinstance(value, torch.Tensor):
            kinds[path], arrays[path] = "tensor", value.detach().cpu().numpy()
        elif isinstance(value, np.ndarray):
            kinds[path], arrays[path] = "array", value
        elif isinstance(value, tuple) and all(type(v) is float for v in value):
            kinds[path], arrays[path] = "floats", np.array(value, np.float64)
        elif type(value) in (bool, int, float, str):
            kinds[path], arrays[path] = type(value).__name__, np.array(value)
        else:
            raise RequestError(f"what fit learned as {path!r} ({type(value).__name__}) cannot be stored")
    return kinds, npz_bytes(arrays)


_BACK: dict[str, Any] = {
    "tensor": torch.from_numpy,
    "array": lambda a: a,
    "floats": lambda a: tuple(a.tolist()),
    **{name: lambda a: a.item() for name in ("bool", "int", "float", "str")},
}


def unpack(kinds: dict[str, str], data: bytes | None) -> dict[str, Any]:
    """Return the values of `pack`; raises DamagedFileError where file and record do not belong together."""
    if not kinds:
        return {}
    try:
        with np.load(io.BytesIO(data or b""), allow_pickle=False) as found:
            return {path: _BACK[kind](found[path]) for path, kind in kinds.items()}
    except Exception as error:
        raise DamagedFileError(
            f"what fit learned cannot be read ({type(error).__name__})", where=NAME, way_out="Start a new run."
        ) from None


def restored(strategy: Any, values: dict[str, Any]) -> Any:
    """Return the fitted strategy from the recipe's and the learned values."""
    for path, value in values.items():
        strategy = _put(strategy, path.split("."), value)
    return strategy


def _put(thing: Any, way: list[str], value: Any) -> Any:
    if not way:
        return value
    if isinstance(thing, tuple):
        i = int(way[0])
        return (*thing[:i], _put(thing[i], way[1:], value), *thing[i + 1 :])
    return dataclasses.replace(thing, **{way[0]: _put(getattr(thing, way[0]), way[1:], value)})
