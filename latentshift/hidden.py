"""Hidden layers of a generator as spaces: what moves is the input of one of its weighted layers (collaborative sampling).

For a generator that is a plain row of layers. Layers are counted by those that carry a weight matrix, so that a prepared copy
(batch norms folded, dropout gone) has the same spaces: `layer1` is the input of the second one, and so on. The unit of such a
space (`unit="prior"`) is the standard deviation of its coordinates over `ROWS` latents of fixed seeds, to three digits.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import RequestError
from .lazy import torch
from .noise import latents
from .space import Context, Flat, Prior, Space

if TYPE_CHECKING:
    from torch import Tensor

#: latents, and the first of their seeds (nobody's), from which the unit of a layer is read
ROWS, _SEED = 32, 3_100_000_000
_NO_LAW = Flat()
_found_before: weakref.WeakKeyDictionary[Any, tuple[Prior, dict[str, LayerSpace]]] = weakref.WeakKeyDictionary()


def row_of_layers(module: Any) -> list[Any] | None:
    """Return the layers of a network that is a plain row of layers (a LayerNet, a Sequential, a prepared one), else None."""
    nn = torch.nn
    if type(module) is nn.Sequential:
        out: list[Any] = []
        for part in module:
            inner = row_of_layers(part) if type(part) is nn.Sequential else [part]
            out += inner or []
        return out
    name = getattr(type(module), "plain_row", None)  # LayerNet and the engine's prepared form say where their layers are
    return list(getattr(module, name)) if name else None


def cuts(layers: list[Any]) -> list[int]:
    """Return the places of the weighted layers (a matrix or kernels of two axes or more, labels' tables aside)."""
    return [
        i
        for i, layer in enumerate(layers)
        if getattr(getattr(layer, "weight", None), "ndim", 0) >= 2 and not isinstance(layer, torch.nn.Embedding)
    ]


def _run(layers: list[Any], x: Tensor, label: Tensor | None) -> Tensor:
    for layer in layers:
        x = layer(x, label) if hasattr(layer, "embed") else layer(x)
    return x


@dataclass(frozen=True)
class LayerSpace(Space):
    """The input of G's weighted layer number `cut` (from 0). It has no law: methods that draw or weigh by a prior refuse it."""

    prior: Prior = _NO_LAW
    cut: int = 1

    def _split(self, pair: Any) -> tuple[list[Any], list[Any]]:
        layers = row_of_layers(pair.G)
        places = cuts(layers) if layers else []
        if layers is None or self.cut >= len(places):
            raise RequestError(f"{pair.name!r} has no hidden layer {self.name!r}", way_out="Use --space z.")
        at = places[self.cut]
        return layers[:at], layers[at:]

    def enter(self, pair: Any, z: Tensor, context: Context) -> Tensor:
        with torch.no_grad():
            return _run(self._split(pair)[0], z, context.label)

    def decode(self, pair: Any, point: Tensor, context: Context) -> Tensor:
        return _run(self._split(pair)[1], point, context.label)


def layer_spaces(G: Any, z: Space, classes: int | None) -> dict[str, LayerSpace]:
    """Return the spaces of G's hidden layers by name, in order; none where G is no plain row of layers. `z` is its own."""
    layers = row_of_layers(G) if isinstance(G, torch.nn.Module) else None
    if layers is None or not z.shape:
        return {}
    if G not in _found_before or _found_before[G][0] != z.prior:
        _found_before[G] = z.prior, _found(G, layers, z, classes)
    return _found_before[G][1]


def _found(G: Any, layers: list[Any], z: Space, classes: int | None) -> dict[str, LayerSpace]:
    places, like = cuts(layers), next(G.parameters(), None)
    if like is None or G.training:
        return {}
    rows = torch.from_numpy(latents(range(_SEED, _SEED + ROWS), z.shape, z.prior))
    x = rows.to(like.device, like.dtype)
    label = torch.arange(ROWS, device=like.device) % classes if classes else None
    spaces: dict[str, LayerSpace] = {}
    with torch.no_grad():
        try:
            for k, (a, b) in enumerate(zip([0, *places], places, strict=False)):
                x = _run(layers[a:b], x, label)
                if k:
                    spread = float(f"{float(x.float().std()):.3g}") or 1.0
                    name = f"layer{k}"
                    spaces[name] = LayerSpace(name=name, shape=tuple(x.shape[1:]), cut=k, prior=Flat(spread))
        except (RuntimeError, ValueError, TypeError):  # no row of layers after all: it has no such spaces
            return {}
    return spaces
