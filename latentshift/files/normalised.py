"""Normalised weights made plain: spectral norm in all its forms, weight norm, half precision.

Spectral norm divides a weight by an estimate sigma of its largest singular value. What the estimate is differs: torch takes
stored vectors u and v as they are, BigGAN-PyTorch and mimicry do one power step from a stored u in every forward, so neither
the true singular value nor a stored `sv0` may stand in for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import DamagedFileError

Tensors = dict[str, Tensor]

_BIGGAN_SV = re.compile(r"(u|sv)\d+")
_HALF = (torch.float16, torch.bfloat16)


def as_float(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> tuple[Tensors, tuple[str, ...]]:
    """Return floating tensors in `dtype`, with a note where half precision was widened and where numbers are not finite."""
    half = sum(t.dtype in _HALF for t in tensors.values())
    notes = [f"{half} tensors in half precision were widened to {str(dtype).removeprefix('torch.')}"] if half else []
    out = {k: t.to(dtype) if t.dtype.is_floating_point else t for k, t in tensors.items()}
    bad = {k: int((~torch.isfinite(t)).sum()) for k, t in out.items() if t.dtype.is_floating_point}
    bad = {k: n for k, n in bad.items() if n}
    if bad:
        first = next(iter(bad))
        notes.append(f"{sum(bad.values())} weights in {len(bad)} tensors are NaN or infinite (first: {first!r})")
    return out, tuple(notes)


def _unit(x: Tensor, eps: float = 1e-12) -> Tensor:
    out: Tensor = x / x.norm().clamp_min(eps)
    return out


def _check(weight: Tensor, key: str) -> None:
    if weight.ndim < 2 or not weight.numel():
        raise DamagedFileError(f"{key!r} has a spectral norm and shape {tuple(weight.shape)}, which is no matrix")


def _matrix(weight: Tensor, dim: int) -> Tensor:
    return weight.movedim(dim, 0).reshape(weight.shape[dim], -1)


def _settled(u: Tensor, v: Tensor, key: str, notes: list[str]) -> tuple[Tensor, Tensor]:
    """Bring averaged singular vectors back to length 1: an average is shorter and would inflate the weight."""
    if abs(float(u.norm()) - 1) > 1e-3 or abs(float(v.norm()) - 1) > 1e-3:
        lengths = f"{float(u.norm()):.3g}, {float(v.norm()):.3g}"
        notes.append(f"{key}: averaged singular vectors (lengths {lengths}) were renormalised")
        return _unit(u), _unit(v)
    return u, v


def _power_pair(weight: Tensor, u: Tensor, v: Tensor, key: str, notes: list[str]) -> Tensor:
    """weight / (u^T W v) with stored u and v (torch, evaluation mode: no iteration).

    A transposed convolution is normalised along axis 1. The lengths of u and v tell the axis; where both fit, the one along
    which u is nearer to W v, as the last power step left it.
    """
    _check(weight, key)
    fits = [
        d for d in (0, 1)
        if d < weight.ndim and u.numel() == weight.shape[d] and v.numel() == weight.numel() // max(1, weight.shape[d])
    ]  # fmt: skip
    if not fits:
        raise DamagedFileError(
            f"the spectral norm of {key!r} does not fit: weight {tuple(weight.shape)}, u {tuple(u.shape)}, v {tuple(v.shape)}"
        )
    u, v = _settled(u.flatten(), v.flatten(), key, notes)
    gap = {d: float((u - _unit(_matrix(weight, d) @ v)).norm()) for d in fits}
    sigma = torch.dot(u, _matrix(weight, min(fits, key=lambda d: gap[d])) @ v)
    return weight / sigma


def _one_step(weight: Tensor, u: Tensor, key: str) -> Tensor:
    """weight / sigma after one power step from `u` along axis 0, as BigGAN-PyTorch and mimicry do in every forward."""
    _check(weight, key)
    matrix = _matrix(weight, 0)
    if u.numel() != matrix.shape[0]:
        raise DamagedFileError(f"the spectral norm of {key!r} does not fit: weight {tuple(weight.shape)}, u {tuple(u.shape)}")
    v = _unit(matrix.T @ u.flatten(), 1e-8)
    out: Tensor = weight / (matrix @ v).norm()
    return out


def _weight_norm(g: Tensor, v: Tensor, key: str) -> Tensor:
    """g v / |v|, the norm over all axes along which g has length 1."""
    if g.ndim not in (0, v.ndim) or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=False)):
        raise DamagedFileError(f"the weight norm of {key!r} does not fit: g {tuple(g.shape)}, v {tuple(v.shape)}")
    axes = [i for i in range(v.ndim) if g.ndim == 0 or g.shape[i] == 1]
    return g * v / (v.square().sum(axes, keepdim=True).sqrt() if axes else v.abs())


def _plain_owner(owner: str) -> str:
    """`layer.module` -> `layer` (a wrapper class around the normalised layer)."""
    return owner.removesuffix(".module")


def bake(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> tuple[Tensors, tuple[str, ...]]:
    """Return (plain tensors, notes): every known form of normalised weight multiplied into `X.weight`.

    | form | keys |
    | --- | --- |
    | torch spectral norm | `X.weight_orig, _u, _v`; `X.parametrizations.weight.original, .0._u, .0._v` |
    | torch 0.4 | `X.weight_orig, _u, X.weight`: the stored `weight` is the normalised one |
    | BigGAN-PyTorch | `X.weight, u0, sv0` (further singular vectors are of no use): one power step |
    | mimicry | `X.weight, sn_u, sn_sigma`: one power step |
    | third-party wrapper | `X.module.weight_bar, _u, _v`: one power step |
    | weight norm | `X.weight_g, weight_v`; `X.parametrizations.weight.original0, original1` |

    Norms are computed in `dtype` (float32 or float64). Raises DamagedFileError where the pieces do not fit.
    """
    out: Tensors = {}
    notes: list[str] = []
    counts: dict[str, int] = {}
    done: set[str] = set()
    first: dict[str, int] = {}
    index = 0

    def part(key: str) -> Tensor:
        done.add(key)
        if key not in tensors:
            raise DamagedFileError(f"tensor {key!r} is missing beside its normalised weight")
        return tensors[key].detach().to(dtype)

    def give(key: str, weight: Tensor, form: str) -> None:
        out[key] = weight.to(dtype)
        first[key] = index
        counts[form] = counts.get(form, 0) + 1

    for index, key in enumerate(tensors):  # noqa: B007 (read by `give`)
        owner, _, leaf = key.rpartition(".")
        base = f"{owner}.weight" if owner else "weight"
        stem = f"{owner}." if owner else ""
        if leaf == "weight_orig":
            if f"{stem}weight_v" in tensors:
                give(base, _power_pair(part(key), part(f"{stem}weight_u"), part(f"{stem}weight_v"), base, notes), "torch")
            elif base in tensors:
                done.update((key, f"{stem}weight_u"))
                give(base, part(base), "torch 0.4 (its stored weight)")
            else:
                give(base, _one_step(part(key), part(f"{stem}weight_u"), base), "torch 0.4")
        elif key.endswith("parametrizations.weight.original"):
            inner = key.removesuffix(".original")
            target = f"{key.removesuffix('parametrizations.weight.original')}weight"
            u, v = part(f"{inner}.0._u"), part(f"{inner}.0._v")
            give(target, _power_pair(part(key), u, v, target, notes), "torch")
        elif key.endswith("parametrizations.weight.original0"):
            target = f"{key.removesuffix('parametrizations.weight.original0')}weight"
            give(target, _weight_norm(part(key), part(f"{key[:-1]}1"), target), "weight norm")
        elif leaf == "weight_g" and f"{stem}weight_v" in tensors:
            give(base, _weight_norm(part(key), part(f"{stem}weight_v"), base), "weight norm")
        elif leaf == "u0" and f"{stem}sv0" in tensors:
            done.update(k for k in tensors if k.startswith(stem) and _BIGGAN_SV.fullmatch(k[len(stem) :]))
            give(base, _one_step(part(base), part(key), base), "one power step")
        elif leaf == "sn_u":
            done.add(f"{stem}sn_sigma")
            give(base, _one_step(part(base), part(key), base), "one power step")
        elif leaf == "weight_bar":
            plain = _plain_owner(owner)
            done.update((f"{stem}weight_v", key))
            target = f"{plain}.weight" if plain else "weight"
            give(target, _one_step(part(key), part(f"{stem}weight_u"), target), "third-party wrapper")
            if f"{stem}bias" in tensors:
                out[f"{plain}.bias" if plain else "bias"] = part(f"{stem}bias").to(dtype)
    rest, more = as_float({k: v for k, v in tensors.items() if k not in done}, dtype)
    place = {key: i for i, key in enumerate(tensors)}
    # the file's order is kept: it is what tells the layers of a network whose names say nothing
    baked = dict(sorted({**rest, **out}.items(), key=lambda item: first.get(item[0], place.get(item[0], 0))))
    notes += [f"multiplied {n} spectral or weight norms into the weights ({form})" for form, n in counts.items()]
    return baked, (*notes, *more)


def bake_spectral_norm(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return `bake(tensors)` without its notes."""
    return bake(tensors)[0]
