"""Exact rewrites of residual networks, on a trace of the network: fewer multiply-adds for the same numbers.

    nearest x2, then 3x3 pad 1      ->  one transposed 4x4, stride 2, pad 1, whose taps are sums of the 3x3 taps   (4/9)
    3x3 pad 1, then 2x2 mean        ->  one 4x4, stride 2, pad 1, with averaged taps                               (4/9)
    1x1, then 2x2 mean              ->  the mean first                                                             (1/4)

Convolutions (with the ReLU that alone follows them, and the batch norm between) become packed operations. A network that cannot
be traced (control flow that depends on data), or whose rewritten form differs, stays as it is, and one line says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..model import frozen_copy
from .packed import Conv
from .plan import Plan
from .prepare import folded_layers


def doubled(weight: Tensor) -> Tensor:
    """Return the transposed 4x4 kernel (in, out, 4, 4) of nearest x2 followed by the 3x3 `weight` (out, in, 3, 3)."""
    # output pixel 2i + a sees input pixel i + d through the taps u with floor((a + u - 1) / 2) == d
    spread = weight.new_zeros(4, 3)
    for a in (0, 1):
        for u in range(3):
            d = (a + u - 1) // 2
            spread[a + 1 - 2 * d, u] += 1  # kernel place of a transposed stride-2 pad-1: k = (2i + a) - 2(i + d) + 1
    return torch.einsum("ku,lv,oiuv->iokl", spread, spread, weight)


def halved(weight: Tensor) -> Tensor:
    """Return the 4x4 kernel (out, in, 4, 4), stride 2, pad 1, of the 3x3 `weight` followed by a 2x2 mean."""
    spread = weight.new_zeros(4, 3)
    for a in (0, 1):
        for u in range(3):
            spread[a + u, u] += 0.5
    return torch.einsum("ku,lv,oiuv->oikl", spread, spread, weight)


def _is_double(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is not F.interpolate:
        return False
    kw = node.kwargs
    return kw.get("mode", "nearest") == "nearest" and kw.get("scale_factor") in (2, 2.0, (2, 2)) and kw.get("size") is None


def _is_mean(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is not F.avg_pool2d:
        return False
    size = node.args[1] if len(node.args) > 1 else node.kwargs.get("kernel_size")
    rest = {k: v for k, v in node.kwargs.items() if k != "kernel_size"}
    return size in (2, (2, 2)) and not rest and len(node.args) <= 2


def _conv(graph: fx.GraphModule, node: Any, kernel: int) -> nn.Conv2d | None:
    """Return the plain kernel x kernel convolution that a node calls, else None."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    m = graph.get_submodule(str(node.target))
    if type(m) is not nn.Conv2d or m.kernel_size != (kernel, kernel) or m.stride != (1, 1) or m.padding_mode != "zeros":
        return None
    if m.groups != 1 or m.dilation != (1, 1) or m.padding != (kernel // 2, kernel // 2):
        return None
    return m


def rewritten(net: nn.Module) -> tuple[fx.GraphModule, int]:
    """Return the rewritten trace of a network and how many rewrites were made. Raises where it cannot be traced."""
    graph = fx.symbolic_trace(net)
    count = 0
    for node in list(graph.graph.nodes):
        if (conv := _conv(graph, node, 3)) is not None:
            before = node.args[0]
            if isinstance(before, fx.Node) and _is_double(before):
                a, b = conv.in_channels, conv.out_channels
                new: nn.Module = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=conv.bias is not None)
                _fill(new, doubled(conv.weight.detach().double()), conv)
                node.args = (before.args[0],)
                _put(graph, node, new)
                count += 1
        if _is_mean(node) and len(node.args[0].users) == 1:
            source = node.args[0]
            if (conv := _conv(graph, source, 3)) is not None:
                new = nn.Conv2d(conv.in_channels, conv.out_channels, 4, 2, 1, bias=conv.bias is not None)
                _fill(new, halved(conv.weight.detach().double()), conv)
                _put(graph, source, new)
                node.replace_all_uses_with(source)
                count += 1
            elif _conv(graph, source, 1) is not None:
                inner = source.args[0]
                with graph.graph.inserting_before(source):
                    mean = graph.graph.call_function(F.avg_pool2d, (inner, 2))
                source.args = (mean,)
                node.replace_all_uses_with(source)
                count += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, count


def _fill(new: nn.Module, weight: Tensor, old: nn.Conv2d) -> None:
    new.weight = nn.Parameter(weight.to(old.weight.dtype).contiguous(), requires_grad=False)
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias.detach(), requires_grad=False)


def _put(graph: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    name = f"rewritten_{node.name}"
    graph.add_submodule(name, module)
    node.target = name


def _relu(node: fx.Node, graph: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return type(graph.get_submodule(str(node.target))) is nn.ReLU
    return node.op == "call_function" and node.target in (F.relu, torch.relu)


def packed(graph: fx.GraphModule, inputs: tuple[Any, ...], dtype: torch.dtype, rows: int = 16) -> int:
    """Pack the convolutions of a trace in place, batch norm and ReLU behind them taken in; return how many."""
    sizes: dict[str, Any] = {}

    class Look(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.op == "call_module":
                args, _ = self.fetch_args_kwargs_from_env(n)
                sizes[n.name] = tuple(args[0].shape[1:]) if args and isinstance(args[0], Tensor) else None
            return super().run_node(n)

    with torch.no_grad():
        Look(graph).run(*inputs)
    count = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_module":
            continue
        module: Any = graph.get_submodule(str(node.target))
        size = sizes.get(node.name)
        if type(module) not in (nn.Conv2d, nn.ConvTranspose2d) or size is None or module.padding_mode != "zeros":
            continue
        if isinstance(module.padding, str) or min(module.in_channels, module.out_channels) < 1:
            continue
        last, act = node, None
        follower = next(iter(last.users)) if len(last.users) == 1 else None
        if follower is not None and follower.op == "call_module":
            norm = graph.get_submodule(str(follower.target))
            if isinstance(norm, nn.BatchNorm2d):
                layers, folded = folded_layers([module, norm])
                if folded:
                    module, last = layers[0], follower
                    follower = next(iter(last.users)) if len(last.users) == 1 else None
        if follower is not None and _relu(follower, graph):
            last, act = follower, ("relu", 0.0)
        transposed = isinstance(module, nn.ConvTranspose2d)
        bias = None if module.bias is None else module.bias.detach().to(dtype)
        op = Conv(
            module.weight.detach().to(dtype).contiguous(), bias, stride=module.stride, padding=module.padding,
            dilation=module.dilation, groups=module.groups, transposed=transposed, act=act, size=size, rows=rows,
            output_padding=tuple(module.output_padding) if transposed else (0, 0),
        )  # fmt: skip
        _put(graph, node, Plan([op], module, dtype))
        if last is not node:
            last.replace_all_uses_with(node)
        count += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return count


class Traced(nn.Module):
    """A rewritten, packed trace in `dtype`; `plain` is the network that it stands for, `told` what was done."""

    def __init__(self, graph: fx.GraphModule, plain: nn.Module, dtype: torch.dtype, told: str) -> None:
        super().__init__()
        self.graph_module, self.plain, self.dtype, self.told = graph, plain, dtype, told

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        y: Tensor = self.graph_module(x.to(self.dtype), *rest)
        return y.to(x.dtype)


def traced(net: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Traced | None:
    """Return the rewritten and packed form of a prepared network, None where it has no convolution to pack.

    Raises whatever torch's tracer raises where the network cannot be traced.
    """
    graph, rewrites = rewritten(net)
    graph = frozen_copy(graph).to(dtype)
    count = packed(graph, (inputs[0].to(dtype), *inputs[1:]), dtype)
    if not count:
        return None
    graph = graph.to(memory_format=torch.channels_last)
    return Traced(graph, net, dtype, f"{count} convolutions packed" + (f", {rewrites} rewrites" if rewrites else ""))
