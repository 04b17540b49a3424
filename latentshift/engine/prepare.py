"""Networks made ready once: frozen copies, batch norm folded, channels last. The caller's modules stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..hidden import row_of_layers
from ..landscape import LARGE
from ..layers import Reshape
from ..model import Pair, frozen_copy
from .bake import baked

#: layers that a batch norm behind them can be folded into
_FOLDABLE = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Stack(nn.Module):
    """Layers in a row, as `nn.Sequential`, with the labels passed to those that take them."""

    plain_row = "layers"

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, label) if hasattr(layer, "embed") else layer(x)
        return x


def scale_shift(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return a batch norm in evaluation form as y = scale x + shift, in float64; None where it has no running statistics."""
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


def _folded(layer: nn.Module, scale: Tensor, shift: Tensor) -> nn.Module | None:
    """Return `layer` followed by y = scale x + shift (per output channel) as one layer, computed in float64."""
    assert isinstance(layer, _FOLDABLE)
    out = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if out % len(scale):
        return None
    scale, shift = scale.repeat_interleave(out // len(scale)), shift.repeat_interleave(out // len(scale))
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.ConvTranspose2d):
        per_group = weight.shape[1]
        factor = scale.reshape(layer.groups, 1, per_group).expand(-1, weight.shape[0] // layer.groups, -1)
        weight = weight * factor.reshape(weight.shape[0], per_group)[..., None, None]
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
    fused = frozen_copy(layer)
    fused.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
    fused.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)
    return fused  # type: ignore[no-any-return]


def folded_layers(layers: list[nn.Module]) -> tuple[list[nn.Module], int]:
    """Return layers with every batch norm that directly follows a weighted layer (a reshape may stand between) folded into
    it, dropout and identity left out, and how many norms went."""
    out: list[nn.Module] = []
    count = 0
    for layer in layers:
        if isinstance(layer, nn.Dropout | nn.Dropout2d | nn.Identity):
            continue
        parts = scale_shift(layer)
        at = len(out) - 1
        if at >= 1 and isinstance(out[at], Reshape | nn.Unflatten):
            at -= 1
        fused = _folded(out[at], *parts) if parts and at >= 0 and isinstance(out[at], _FOLDABLE) else None
        if parts and fused is not None and (at == len(out) - 1 or _channels_first(out[at], out[-1], parts)):
            out[at] = fused
            count += 1
        else:
            out.append(layer)
    return out, count


def _channels_first(linear: nn.Module, reshape: nn.Module, parts: tuple[Tensor, Tensor]) -> bool:
    """Whether a reshape after a linear layer makes its first axis the channels of the norm that follows."""
    shape: Any = getattr(reshape, "shape", None) or getattr(reshape, "unflattened_size", ())
    return isinstance(linear, nn.Linear) and len(shape) == 3 and shape[0] == len(parts[0])


class PaddedLinear(nn.Module):
    """A linear layer whose input is padded with zeros to a multiple of 16.

    On CPUs the matrix product of a row has other bits at other places of the batch where the inner size is no multiple of 4,
    or where the gradient has 5 to 11 columns (measured for all sizes up to 33); padded, it has the same ones.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.more = -layer.in_features % 16
        self.weight = nn.Parameter(F.pad(layer.weight.detach(), (0, self.more)), requires_grad=False)
        self.bias = layer.bias

    @staticmethod
    def helps(layer: nn.Module) -> bool:
        """Whether a layer is a linear one of an awkward width."""
        if type(layer) is not nn.Linear or layer.in_features < 4:
            return False
        return layer.in_features % 4 != 0 or 4 < layer.in_features < 16

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.pad(x, (0, self.more)), self.weight, self.bias)


def _with_padded_linears(net: nn.Module) -> nn.Module:
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if PaddedLinear.helps(child):
                setattr(parent, name, PaddedLinear(child))  # type: ignore[arg-type]
    return PaddedLinear(net) if PaddedLinear.helps(net) else net  # type: ignore[arg-type]


def _ready(call: Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    if not isinstance(call, nn.Module):
        return call, ""
    copy = frozen_copy(call)
    norms = baked(copy)
    layers = row_of_layers(copy)
    note = f"frozen, {norms} weight norms baked in" if norms else "frozen"
    if layers is not None:
        layers, count = folded_layers(layers)
        copy = Stack(layers).eval()
        note += f", {count} batch norms folded" if count else ""
    copy = _with_padded_linears(copy.requires_grad_(False))
    if any(p.ndim == 4 for p in copy.parameters()):
        copy = copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        note += ", channels last"
    return copy, note


def probe_rows(pair: Pair, rows: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Return a few latents of a pair, and labels where it has classes: what prepared and planned forms are checked on.

    8 rows, and 2 of large images, which have as much to compare and cost seconds and gigabytes a row.
    """
    rows = rows or (8 if math.prod(pair.image_shape or ()) <= LARGE else 2)
    draw = torch.Generator().manual_seed(0)
    z = pair.space.prior.scale() * torch.randn(rows, *pair.space.shape, generator=draw)
    z = pair.space.clamp(z).to(pair.device, pair.compute_dtype)
    return z, torch.arange(rows, device=z.device) % pair.classes if pair.classes else None


def prepare(pair: Pair, *, rows: int | None = None) -> tuple[Pair, str]:
    """Return a pair of prepared networks and a note, checked against the original on a few rows; the original pair and the
    reason where they differ by more than 1e-4 of the scale."""
    call = pair.critic.call if pair.critic else None
    G, note_g = _ready(pair.G)
    D, note_d = _ready(call) if call is not None else (None, "")
    if not note_g and not note_d:
        return pair, "plain callables"
    assert pair.critic is not None or D is None
    critic = replace(pair.critic, call=D) if pair.critic is not None and D is not None else pair.critic
    ready = replace(pair, G=G, critic=critic)
    z, label = probe_rows(pair, rows)
    with torch.no_grad():
        theirs, mine = pair.generate(z, label), ready.generate(z, label)
        worst = _relative(theirs, mine)
        if pair.critic is not None:
            worst = max(worst, _relative(pair.logit(theirs, label), ready.logit(theirs, label)))
    if not worst < 1e-4 and _restless(pair, z, label):
        return pair, "as given: its scores change from call to call (dropout left on, or noise drawn inside)"
    if not worst < 1e-4:
        return pair, f"as given: the prepared form differed by {worst:.1e}"
    return ready, f"G {note_g or 'callable'}; D {note_d or 'callable'}"


def _restless(pair: Pair, z: Tensor, label: Tensor | None) -> bool:
    """Whether the networks give other numbers for the same rows each time."""
    with torch.no_grad():
        images = [pair.generate(z, label) for _ in range(2)]
        scores = [pair.logit(images[0], label) for _ in range(2)] if pair.critic is not None else [images[0]]
    return not all(torch.equal(x.nan_to_num(0), xs[0].nan_to_num(0)) for xs in (images, scores) for x in xs)


def _relative(a: Tensor, b: Tensor) -> float:
    same = torch.isfinite(a) == torch.isfinite(b)
    if not bool(same.all()):
        return float("inf")
    return float((a - b).abs().nan_to_num(0).max() / a.abs().nan_to_num(0).max().clamp_min(1e-6))
