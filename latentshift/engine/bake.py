"""Weight norms multiplied into the weights of a frozen copy: spectral and weight norm, as hooks or as parametrizations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def baked(net: nn.Module) -> int:
    """Replace every computed weight of `net` (a copy in evaluation mode) by its value, in place; return how many.

    Only the modules of `net` change: the tensors that it shares with the original are read, never written.
    """
    count = 0
    for module in list(net.modules()):
        if parametrize.is_parametrized(module):
            names = list(module.parametrizations)  # type: ignore[arg-type]
            values = {name: getattr(module, name).detach().clone() for name in names}
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]  # the class was made for this module, and its copies share it
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))
            count += len(names)
        for key, hook in list(module._forward_pre_hooks.items()):
            value = _computed(module, hook)
            if value is None:
                continue
            name = hook.name  # type: ignore[attr-defined]
            for part in (f"{name}_orig", f"{name}_u", f"{name}_v", f"{name}_g"):
                module._parameters.pop(part, None)
                module._buffers.pop(part, None)
            vars(module).pop(name, None)
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
            del module._forward_pre_hooks[key]
            count += 1
    return count


def _computed(module: nn.Module, hook: Any) -> torch.Tensor | None:
    with torch.no_grad():
        if isinstance(hook, SpectralNorm):
            value = hook.compute_weight(module, do_power_iteration=False)
        elif isinstance(hook, WeightNorm):
            value = hook.compute_weight(module)
        else:
            return None
    return value.detach().clone()
