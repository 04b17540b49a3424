"""The CPU plan: networks that are a row of layers become a row of operations with packed weights and no autograd; of others
that can be traced, the convolutions are rewritten and packed (`rewrite.py`).

`planned(pair)` takes prepared networks (see `prepare.py`) and gives their planned form, checked once against them. What it
cannot plan stays in the prepared form, and one line says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import LabelJoin, Reshape
from ..model import Pair
from . import matrix, ops, packed, thin
from .acts import Act, act_of
from .plan import Plan
from .prepare import PaddedLinear, Stack, probe_rows, scale_shift
from .rewrite import traced


def _nhwc(size: torch.Size | tuple[int, ...]) -> Tensor:
    """Return where element (h, w, c) of a channels-last map lies in the (c, h, w) order."""
    c, h, w = size
    return torch.arange(c * h * w).reshape(c, h, w).permute(1, 2, 0).reshape(-1)


class _Lowering:
    """Turns layers into operations one by one, following one zero row through them to know the sizes."""

    def __init__(self, dtype: torch.dtype, rows: int) -> None:
        self.dtype, self.rows = dtype, rows
        self.ops: list[ops.Op] = []
        self.eager: list[str] = []

    def _cast(self, x: Tensor | None) -> Tensor | None:
        return None if x is None else x.detach().to(self.dtype).contiguous()

    def run(self, layers: list[nn.Module], x: Tensor, label: Tensor | None) -> list[ops.Op]:
        at = 0
        while at < len(layers):
            used = self._one(layers, at, x)
            for layer in layers[at : at + used]:
                x = layer(x, label) if isinstance(layer, LabelJoin) else layer(x)
            at += used
        return self.ops

    def _one(self, layers: list[nn.Module], at: int, x: Tensor) -> int:
        """Append the operation of the layers from `at` on; return how many it took in."""
        layer, size = layers[at], x.shape[1:]
        shift = None
        first = at
        if isinstance(layer, nn.BatchNorm2d) and (parts := scale_shift(layer)) is not None:
            target = _next_weighted(layers, at)
            if target is None or x.ndim != 4:
                return self._eager(layer)
            shift, at = parts, target
            layer = layers[at]
        if isinstance(layer, nn.Flatten) and x.ndim == 4:
            nxt = layers[at + 1] if at + 1 < len(layers) else None
            if isinstance(nxt, nn.Linear | PaddedLinear) and layer.start_dim == 1 and layer.end_dim == -1:
                self.ops.append(ops.Flatten())
                return self._linear(layers, at + 1, columns=tuple(size), shift=shift) - first
            return self._eager(layer)
        if type(layer) in (nn.Conv2d, nn.ConvTranspose2d):
            return self._conv(layers, at, x, shift) - first
        if isinstance(layer, nn.Linear | PaddedLinear) and x.ndim == 2:
            return self._linear(layers, at) - first
        if isinstance(layer, Reshape) and layer.shape[1:] == (1, 1) and x.ndim == 2 and at + 1 < len(layers):
            nxt = layers[at + 1]
            if type(nxt) is nn.ConvTranspose2d and _opens_a_map(nxt):
                return self._opening(layers, at + 1) - first
        if (act := act_of(layer)) is not None:
            self.ops.append(ops.Activation(act))
            return 1
        return self._eager(layer)

    def _eager(self, layer: nn.Module) -> int:
        moved = layer if self.dtype == torch.float32 else copy.deepcopy(layer).to(self.dtype)
        self.ops.append(ops.Eager(moved, self.dtype))
        if any(True for _ in layer.parameters()) or any(True for _ in layer.buffers()):
            self.eager.append(type(layer).__name__)
        return 1

    def _act(self, layers: list[nn.Module], at: int) -> tuple[Act, int]:
        act = act_of(layers[at]) if at < len(layers) else None
        return act, at + (act is not None)

    def _conv(self, layers: list[nn.Module], at: int, x: Tensor, shift: tuple[Tensor, Tensor] | None) -> int:
        layer: Any = layers[at]
        transposed = isinstance(layer, nn.ConvTranspose2d)
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return at + self._eager(layer)
        weight, bias_map = layer.weight.detach(), None
        if shift is not None:
            scale, offset = shift
            bare = copy.deepcopy(layer).double()
            bare.bias = None
            flat = offset.reshape(1, -1, 1, 1).expand(1, -1, *x.shape[2:])
            bias_map = bare(flat).to(self.dtype).contiguous(memory_format=torch.channels_last)
            weight = weight.double()
            if transposed or layer.groups == 1:
                weight = weight * scale.reshape((-1, 1, 1, 1) if transposed else (1, -1, 1, 1))
            else:
                per = scale.reshape(layer.groups, 1, -1).expand(-1, weight.shape[0] // layer.groups, -1)
                weight = weight * per.reshape(weight.shape[0], -1, 1, 1)
        act, end = self._act(layers, at + 1)
        with torch.no_grad():
            out = layer(x).shape[2:]
        size, bias, small = tuple(x.shape[1:]), self._cast(layer.bias), x.shape[2:] if transposed else out
        common: Any = {"stride": layer.stride, "padding": layer.padding, "transposed": transposed, "act": act, "size": size}
        common |= {"bias_map": bias_map, "rows": self.rows}
        simple = layer.groups == 1 and tuple(layer.dilation) == (1, 1)
        weight = weight.to(self.dtype).contiguous()
        if simple and matrix.pays(weight, small[0] * small[1]) and packed.can_pack_linear():
            self.ops.append(matrix.MatrixConv(weight, bias, out=tuple(out), **common))
            return end
        more = tuple(layer.output_padding) if transposed else (0, 0)
        self.ops.append(packed.Conv(weight, bias, dilation=layer.dilation, groups=layer.groups, output_padding=more, **common))
        return end

    def _linear(
        self,
        layers: list[nn.Module],
        at: int,
        columns: tuple[int, ...] | None = None,
        shift: tuple[Tensor, Tensor] | None = None,
    ) -> int:
        layer: Any = layers[at]
        more = layer.more if isinstance(layer, PaddedLinear) else 0
        weight, bias = layer.weight.detach(), layer.bias
        if columns is not None:
            order = _nhwc(columns)
            head, tail = weight[:, : len(order)], weight[:, len(order) :]
            if shift is not None:
                scale, offset = (v.repeat(columns[1] * columns[2]) for v in shift)
                wide = head[:, order].double()
                extra = wide @ offset
                bias = extra if bias is None else bias.detach().double() + extra
                weight = torch.cat([wide * scale, tail.double()], 1)
            else:
                weight = torch.cat([head[:, order], tail], 1)
        act, end = self._act(layers, at + 1)
        shape = None
        nxt = layers[end] if end < len(layers) else None
        if isinstance(nxt, Reshape | nn.Unflatten):
            told: Any = getattr(nxt, "shape", None) or getattr(nxt, "unflattened_size", ())
            wanted = tuple(told) if isinstance(told, list | tuple) else ()
            if len(wanted) == 3:
                order, shape, end = _nhwc(wanted), wanted, end + 1
                weight = weight[order]
                bias = None if bias is None else bias[order]
                if act is None:
                    act, end = self._act(layers, end)
        cast: Any = self._cast(weight)
        if len(cast) == 1 and not more:
            self.ops.append(thin.Dot(cast, self._cast(bias), act=act))
            return end
        self.ops.append(packed.Linear(cast, self._cast(bias), act=act, more=more, shape=shape, rows=self.rows))
        return end

    def _opening(self, layers: list[nn.Module], at: int) -> int:
        """A transposed convolution of a 1x1 map is a linear layer."""
        layer: Any = layers[at]
        a, b, h, w = layer.weight.shape
        weight = layer.weight.detach().permute(2, 3, 1, 0).reshape(h * w * b, a)
        bias = None if layer.bias is None else layer.bias.detach().repeat(h * w)
        act, end = self._act(layers, at + 1)
        more = -a % 16 if a >= 4 and (a % 4 or 4 < a < 16) else 0
        wide: Any = self._cast(torch.nn.functional.pad(weight, (0, more)))
        self.ops.append(packed.Linear(wide, self._cast(bias), act=act, more=more, shape=(b, h, w), rows=self.rows))
        return end


def _opens_a_map(layer: nn.ConvTranspose2d) -> bool:
    return (
        layer.groups == 1
        and tuple(layer.padding) == (0, 0)
        and tuple(layer.output_padding) == (0, 0)
        and tuple(layer.dilation) == (1, 1)
    )


def _next_weighted(layers: list[nn.Module], at: int) -> int | None:
    """Return where the layer stands that can take a batch norm at `at` into its weights, else None."""
    nxt = layers[at + 1] if at + 1 < len(layers) else None
    if type(nxt) in (nn.Conv2d, nn.ConvTranspose2d) and getattr(nxt, "padding_mode", "") == "zeros":
        return None if isinstance(nxt.padding, str) else at + 1  # type: ignore[union-attr]
    after = layers[at + 2] if at + 2 < len(layers) else None
    return at + 1 if isinstance(nxt, nn.Flatten) and isinstance(after, nn.Linear | PaddedLinear) else None


def plan_of(net: Stack, x: Tensor, label: Tensor | None, dtype: torch.dtype, rows: int = 16) -> tuple[Plan, list[str]]:
    """Return the plan of a row of layers for inputs like x (a few rows), and the names of layers that stay with autograd."""
    lowering = _Lowering(dtype, rows)
    with torch.no_grad():
        made = lowering.run(list(net.layers), x[:2], None if label is None else label[:2])
    return Plan(made, net, dtype), lowering.eager


def planned(pair: Pair, dtype: torch.dtype = torch.float32) -> tuple[Pair, str]:
    """Return the pair with its networks planned in `dtype` where that is possible, and a note.

    The planned form is checked against the given one on a few rows: images, scores and the gradient to z.
    """
    missing = packed.can_pack()
    if missing:
        return pair, f"no CPU plan: {missing}"
    z, label = probe_rows(pair)
    critic = pair.critic
    with torch.no_grad():
        images = pair.generate(z, label)
    G, note_g = _planned_net(pair.G, z, label if pair.classes else None, dtype)
    D: Callable[..., Any] | None = None
    note_d = ""
    if critic is not None:
        D, note_d = _planned_net(critic.call, images, label if critic.labels else None, dtype)
        critic = replace(critic, call=D)
    if G is pair.G and (pair.critic is None or D is pair.critic.call):
        return pair, f"no CPU plan (G {note_g}; D {note_d})" if critic else f"no CPU plan (G {note_g})"
    ready = replace(pair, G=G, critic=critic, dtype=pair.compute_dtype)
    try:
        wrong = disagreement(pair, ready, z, label, dtype)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        wrong = str(error).splitlines()[0][:80]
    if wrong:
        return pair, f"no CPU plan: {wrong}"
    return ready, f"CPU plan (G {note_g}; D {note_d})" if pair.critic else f"CPU plan (G {note_g})"


def _planned_net(call: Any, x: Tensor, label: Tensor | None, dtype: torch.dtype) -> tuple[Any, str]:
    if not isinstance(call, nn.Module):
        return call, "as given: no module"
    if any(p.dtype != torch.float32 for p in call.parameters()):
        return call, "as prepared: not in float32"
    try:
        if isinstance(call, Stack):
            plan, eager = plan_of(call, x, label, dtype)
            return plan, "packed" + (f", {', '.join(sorted(set(eager)))} by autograd" if eager else "")
        made = traced(call, (x[:2],) if label is None else (x[:2], label[:2]), dtype)
    except Exception as error:  # what a stranger's network may raise while it is traced is anybody's guess
        return call, f"as prepared: {(str(error) or type(error).__name__).splitlines()[0][:80]}"
    if made is None:
        return call, "as prepared: nothing in it to pack"
    return made, made.told


def disagreement(given: Pair, mine: Pair, z: Tensor, label: Tensor | None, dtype: torch.dtype) -> str:
    """Return how a planned pair differs from the given one by more than its precision explains, or ""."""
    loose = 1e-4 if dtype == torch.float32 else 0.1

    def seen(pair: Pair) -> list[Tensor]:
        q = z.clone().requires_grad_(True)
        with torch.enable_grad():
            images = pair.generate(q, label)
            out = pair.logit(images, label) if pair.critic else images.flatten(1).mean(1)
            grads = torch.autograd.grad(out.sum(), q, allow_unused=True)[0] if out.requires_grad else None
        return [images.detach(), out.detach(), *([] if grads is None else [grads])]

    for what, a, b in zip(("images", "scores", "gradients"), seen(given), seen(mine), strict=False):
        if not bool((torch.isfinite(a) == torch.isfinite(b)).all()):
            return f"its {what} are not finite where they should be"
        theirs, ours = a.nan_to_num(0, 0, 0).double(), b.nan_to_num(0, 0, 0).double()
        size = float(theirs.norm().clamp_min(1e-12))
        allowed = {"images": loose, "scores": loose, "gradients": 0.02 if dtype == torch.float32 else 0.5}[what]
        if what == "scores" and dtype != torch.float32:  # a bias may dwarf what the images change
            continue
        if (far := float((theirs - ours).norm()) / size) > allowed:
            return f"its {what} differed by {far:.1e}"
    return ""
