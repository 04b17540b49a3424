"""Classic checkpoints to networks: recognise the parts of a file, put G and D together, refuse what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentshift.errors import DamagedFileError, FileError, RequestError
from latentshift.files.statedict import Part, Unwrapped, bake, describe_unknown, unwrap
from latentshift.layers import LayerNet

from .. import residual as shared
from ..loaded import Loaded, check_fit
from . import feedforward, residual
from .halves import Half, layer_net

#: what D's last layer gives, by the loss it was trained with
RETURNS = {"bce": "logit", "hinge": "critic", "wasserstein": "critic", "": "logit"}
_SPECTRAL = ("weight_orig", "parametrizations.weight.original", "sn_u", "weight_bar")
# keys by which the families are known, for the text that names the nearest one
_SIGNS = {
    "pytorch-gan-collections CNN": ("linear.weight", "main.0.weight", "main.2.weight"),
    "pytorch-gan-collections ResNet G": ("linear.weight", "blocks.0.residual.3.weight", "blocks.0.shortcut.1.weight"),
    "pytorch-gan-collections ResNet D": ("model.0.residual.0.weight", "model.1.residual.1.weight", "linear.weight"),
    "mimicry G": ("l1.weight", "block2.c1.weight", "block2.b1.weight"),
    "mimicry D": ("block1.c1.weight", "block2.c1.weight", "l5.weight"),
    "DCGAN of the PyTorch examples": ("main.0.weight", "main.3.weight", "main.6.weight"),
    "DCGAN of PyTorch-GAN": ("l1.0.weight", "conv_blocks.0.running_mean", "conv_blocks.2.weight"),
}


@dataclass(frozen=True)
class Options:
    """Choices of a user where the weights cannot tell.

    `pool`: the last pooling of mimicry's DCGAN ("sum") and WGAN-GP ("mean"). `image_range` (0, 1): G ends in a sigmoid
    instead of tanh. `returns`: what D's last layer gives.
    """

    pool: Literal["sum", "mean"] | None = None
    image_range: tuple[float, float] | None = None
    returns: str | None = None
    ema: bool = True
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.pool not in (None, "sum", "mean"):
            raise RequestError(f"pool is 'sum' or 'mean', not {self.pool!r}")
        if self.image_range not in (None, (-1.0, 1.0), (0.0, 1.0)):
            raise RequestError(f"these families make images in -1,1 or 0,1, not {self.image_range}", where="--range")


def half_of(part: Part, dtype: torch.dtype = torch.float32) -> Half | None:
    """Return the network that a part is, or None where no family here knows it.

    Raises RequestError or DamagedFileError where a family knows it and its shapes contradict that family.
    """
    spectral = any(key.endswith(_SPECTRAL) for key in part.tensors)
    plain, notes = bake(part.tensors, dtype)
    half = residual.recognise(plain, spectral) or feedforward.recognise(plain, spectral)
    if half is None:
        return None
    return replace(half, notes=(*part.notes, *(f"{half.role}: {n}" for n in (*notes, *half.notes))))


def recognise(tree: Mapping[str, Any]) -> str | None:
    """Return the family of the first part that is known, or None."""
    try:
        found = unwrap(tree)
    except FileError:
        return None
    for part in found.parts:
        try:
            half = half_of(part)
        except (RequestError, FileError):
            continue
        if half is not None:
            return half.family
    return None


def _ordered(found: Unwrapped, role: str, ema: bool) -> list[Part]:
    """Parts in the order in which they are tried: averaged copies first for G (unless not wanted), last for D."""
    want_ema = role == "G" and ema
    named = sorted((p for p in found.parts if p.role == role), key=lambda p: p.ema != want_ema)
    return [*named, *found.unnamed(), *(p for p in found.parts if p.role and p.role != role)]


def find_half(found: Unwrapped, role: str, options: Options) -> Half | None:
    for part in _ordered(found, role, options.ema):
        half = half_of(part, options.dtype)
        if half is not None and half.role == role:
            named = f"{role} is {part.path!r}" + (", an averaged copy" if part.ema else "")
            return replace(half, notes=((named,) if part.path else ()) + half.notes)
    return None


def _unknown(found: Unwrapped, where: str) -> FileError:
    tensors = next(iter(found.parts)).tensors
    scores = {name: [k for k in keys if k in tensors] for name, keys in _SIGNS.items()}
    near = max(scores, key=lambda name: len(scores[name]))
    text = ""
    if scores[near]:
        lacking = next((k for k in _SIGNS[near] if k not in tensors), "nothing of its signs; its shapes do not fit")
        text = f"nearest family: {near} (has {scores[near][0]!r}, lacks {lacking})"
    return FileError(
        f"no known family of networks ({describe_unknown(tensors, [text] if text else [])})",
        where=where,
        way_out="Name its class with --factory module:function, or write a pair folder with a layer list.",
    )


def load_tree(
    tree: Mapping[str, Any],
    d_tree: Mapping[str, Any] | None = None,
    *,
    options: Options = Options(),
    where: str = "",
    d_where: str = "",
) -> Loaded:
    """Return the pair in a tree of tensors, or in two (G's and D's file).

    Raises FileError (status 4) for an unknown family or damaged tensors, RequestError (status 3) where G or D is missing or
    one does not fit the other.
    """
    found = unwrap(tree, where=where)
    d_found = unwrap(d_tree, where=d_where or where) if d_tree is not None else found
    G, D = find_half(found, "G", options), find_half(d_found, "D", options)
    if G is None:
        if D is not None or find_half(found, "D", options) is not None:
            raise RequestError("only a discriminator is in this file", where=where, way_out="Give its generator's file too.")
        raise _unknown(found, where)
    if D is None and d_tree is not None:
        if find_half(d_found, "G", options) is not None:
            raise RequestError("the file given as D holds a generator", where=d_where or where)
        raise _unknown(d_found, d_where or where)
    return together(G, D, options, where)


def together(G: Half, D: Half | None, options: Options = Options(), where: str = "") -> Loaded:
    """Return the pair of two halves; raises RequestError where they do not fit."""
    side = G.sides[0]
    if D is not None:
        # some facts of D only its G tells; what was noted when it was read stays
        D = replace(D.settle(G), notes=D.notes) if D.settle is not None else D
        if G.family != D.family and {G.family, D.family} & {residual.MIMICRY, residual.COLLECTIONS}:
            raise RequestError(f"G is of {G.family}, D of {D.family}", where=where, way_out="Give the D of the same run.")
        check_fit(G.family, side, side if not D.sides or side in D.sides else D.sides[0], G.classes, D.classes)
        if G.colours != D.colours:
            raise RequestError(f"G makes images of {G.colours} channels, D takes {D.colours}", where=where)
        if options.pool is not None:
            D = _pooled(D, options.pool)
    net, span = _ranged(G, options.image_range)
    loss = (D.loss if D is not None else "") or G.loss
    config = {**G.config, **(D.config if D is not None else {"D": None})} if G.config or (D and D.config) else {}
    return Loaded(
        family="classic",
        G=net,
        D=D.net if D is not None else None,
        z_size=G.z_size,
        image=(G.colours, side, side),
        classes=G.classes,
        d_classes=D.classes if D is not None else None,
        source=G.family,
        image_range=span,
        returns=options.returns or RETURNS[loss],
        loss=loss,
        notes=(f"family: {G.family}", *G.notes, *(D.notes if D is not None else ())),
        config=config,
    )


def _pooled(D: Half, pool: Literal["sum", "mean"]) -> Half:
    if not isinstance(D.net, shared.ResidualD):
        raise RequestError(f"pool={pool!r} is for residual discriminators, this one is of {D.family}")
    config = replace(D.net.config, reduce=pool)
    net = residual.build_d(config, D.net.state_dict(), f"{D.family} D")
    # among the networks that leave this open, DCGAN sums and WGAN-GP averages
    loss = D.loss if D.loss != "wasserstein" or pool == "mean" else "bce"
    return replace(D, net=net, config={"D": config.json()}, loss=loss)


def _ranged(G: Half, span: tuple[float, float] | None) -> tuple[nn.Module, tuple[float, float]]:
    if span != (0.0, 1.0):
        return G.net, (-1.0, 1.0)
    if isinstance(G.net, residual.ResidualG):
        made = residual.build_g(replace(G.net.config, sigmoid=True), G.net.state_dict(), f"{G.family} G")
        return made, span
    assert isinstance(G.net, LayerNet)
    return layer_net([*G.net.entries[:-1], {"op": "Sigmoid"}], G.net.tensors(), G.net.where), span


def critic_of(tree: Mapping[str, Any], where: str = "") -> tuple[nn.Module, int | None, str]:
    """Return (network, classes, what it returns) of the discriminator in a tree; raises RequestError where there is none."""
    D = find_half(unwrap(tree, where=where), "D", Options())
    if D is None:
        raise RequestError("no discriminator in this file", where=where, way_out="Give the file of D.")
    return D.net, D.classes, RETURNS[D.loss]


def rebuild(config: Mapping[str, Any], G: Mapping[str, Tensor], D: Mapping[str, Tensor] | None) -> Loaded:
    """Return the networks of a pair folder's card (`Loaded.config`) with their tensors under our names."""
    g_config = residual.GConfig.from_json(config["G"])
    d_config = shared.DConfig.from_json(config["D"]) if D is not None else None
    side = g_config.bottom << len(g_config.blocks)
    if max(len(g_config.blocks), len(d_config.blocks) if d_config else 0) > 64 or side > 8192:
        raise DamagedFileError(f"a network of {len(g_config.blocks)} blocks and {side} px is none of this family")
    return Loaded(
        family="classic",
        G=residual.build_g(g_config, G, "G"),
        D=residual.build_d(d_config, D, "D") if d_config and D is not None else None,
        z_size=g_config.z_size,
        image=(g_config.colours, side, side),
        classes=g_config.classes,
        d_classes=d_config.classes if d_config else None,
        config=config,
    )
