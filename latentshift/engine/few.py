"""Calls of fewer than 8 rows in which a row keeps its bits.

A library chooses its kernel, and with it the order of a sum, by the shape of a call and not by its values: most operations give
a row the same bits in a call of 1, 2 or 4 rows as in one of 8, and a few (products with a thin side) do not. Which do is tried
once per shape, precision and number of threads, on a twin with weights of its own; the others are called with their first row
repeated, which costs little. Smooth activations have other last bits in whole vectors than in what is left over: operations
with one are called with fewer rows only where each row is a whole number of vectors.

The twin's channels come in pairs of equal weights, its inputs in pairs of opposite sign: every sum is zero but for rounding, so
that another order of summation shows in nearly every number, in bfloat16 too, whose rounding would hide it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..space import Space
from .threads import PAD

if TYPE_CHECKING:
    from ..model import Pair
    from .ops import Op

#: numbers of rows below `PAD` that a network is called with
FEW = (1, 2, 4)


def few_rows(pair: Pair, space: Space, pad: int = PAD) -> tuple[int, ...]:
    """Return the numbers of rows at which a form of a pair's networks gives a row the same bits, in order, as multiples of the
    last do; () on a card, and where rows are padded otherwise than by default."""
    from .plan import Plan

    if pad != PAD or pair.device.type != "cpu":
        return ()
    critic = pair.critic
    planned = isinstance(pair.G, Plan) and critic is not None and isinstance(critic.call, Plan)
    # the log of a probability has other last bits in a vector than in what is left over
    plain = type(space).decode is Space.decode and critic is not None and critic.returns != "probability"
    return (*FEW, PAD) if planned and plain else (PAD,)


def fitted(op: Op, rows: int) -> Op:
    """Return an operation for calls of `rows` rows (one of `FEW`) that gives a row the bits that it has in a call of 8."""
    from .ops import Filled

    if op.rowwise:
        return op
    need = PAD
    if op.made is not None:
        kind: Any = type(op)
        key = tuple((k, tuple(v) if isinstance(v, list | torch.Size) else v) for k, v in op.made.items())
        need = next((n for n in FEW if n >= rows and _alike(kind, key, n, torch.get_num_threads())), PAD)
    return op if need == rows else Filled(op, need)


@functools.cache
def _alike(kind: Any, made: tuple[tuple[str, Any], ...], rows: int, threads: int) -> bool:
    """Whether an operation of this kind and make gives rows of a call of `rows` the bits of a call of 8, both ways."""
    op, x, grad = _twin(kind, made)
    y, back = _both_ways(op, x, grad)
    for at in {0, PAD - rows}:
        part = slice(at, at + rows)
        mine = _both_ways(op, _own(x[part]), _own(grad[part]))
        if not (torch.equal(mine[0], y[part]) and torch.equal(mine[1], back[part])):
            return False
    return True


def _own(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)


def _both_ways(op: Op, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    y, kept = op.forward(x)
    return y, op.backward(grad, kept)


@functools.lru_cache(maxsize=1)
def _twin(kind: Any, made: tuple[tuple[str, Any], ...]) -> tuple[Op, Tensor, Tensor]:
    """Return an operation of the same shapes whose sums cancel, and inputs and gradients for it, `PAD` rows each."""
    options = dict(made)
    shape, dtype, transposed = options.pop("weight"), options.pop("dtype"), options.get("transposed", False)
    if options["act"] is not None and options["act"][0] == "sigmoid":
        options["act"] = None  # its 1/2 would hide what cancels
    draw = torch.Generator().manual_seed(0)
    more = options.get("more", 0)  # columns that are zero
    first, second = _Channels(shape[0], draw), _Channels(shape[1] - more, draw)  # (out, in), or (in, out) transposed
    base = torch.randn(len(first.pair), len(second.pair), *shape[2:], generator=draw) / shape[1] ** 0.5
    weight = base.index_select(1, second.pair).index_select(0, first.pair)  # in this order: the small pieces first, while few
    weight = torch.nn.functional.pad(weight, (0, more)) if more else weight
    op: Op = kind(weight.to(dtype), None, **options)
    into, out = (first, second) if transposed else (second, first)
    x = into.inputs(tuple(options.get("size", (shape[1] - more,)))[1:], draw).to(dtype)
    y, _ = op.forward(x)
    if (told := options.get("shape")) is not None:  # a linear layer that ends in a map: its rows are in the order (H, W, C)
        grad = out.inputs((), draw).view(PAD, *told[1:], told[0]).permute(0, 3, 1, 2)
    else:
        grad = out.inputs(tuple(y.shape[2:]), draw)
    return op, x, grad.to(dtype)


class _Channels:
    """Channels in pairs, mixed: `pair` (channels,) numbers them, one of each has the sign -1. One left over is zero."""

    def __init__(self, count: int, draw: torch.Generator) -> None:
        order = torch.randperm(count, generator=draw)
        at = torch.arange(count)
        self.pair, self.sign = torch.empty(count, dtype=torch.int64), torch.ones(count)
        self.pair[order] = at // 2
        self.sign[order] = 1.0 - 2.0 * (at % 2)
        if count % 2 and count > 1:
            self.sign[order[-1]] = 0.0

    def inputs(self, rest: tuple[int, ...], draw: torch.Generator) -> Tensor:
        """Return (PAD, channels, *rest), opposite in each pair, channels last."""
        x = torch.randn(PAD, len(self.pair), *rest, generator=draw)[:, self.pair]
        return _own(x * self.sign.reshape(-1, *[1] * len(rest)))
