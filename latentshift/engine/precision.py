"""Which form of the networks does the work: prepared, planned, and in which precision while rows move.

State, update and the scores that are reported stay in float32 whatever moves the rows.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..model import Pair, frozen_copy
from .cpu import disagreement, planned
from .prepare import prepare, probe_rows
from .signs import with_signs

PRECISIONS = ("fp32", "tf32", "bf16", "auto")
WORTH = 1.3  # how much faster a product must be in bfloat16 before `auto` takes it


class _Wanted(Protocol):
    @property
    def prepare(self) -> bool: ...
    @property
    def plan(self) -> bool: ...
    @property
    def precision(self) -> str: ...


@dataclass
class Networks:
    """`pair` looks at rows (float32), `moving` moves them; `note` says what they are, `lost` what could not be had."""

    pair: Pair
    moving: Pair
    note: str
    lost: list[str] = field(default_factory=list)
    precision: str = "fp32"


class Cast(nn.Module):
    """A network in another precision: input cast there, output cast back."""

    def __init__(self, plain: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.plain, self.dtype = plain, dtype
        self.inner = frozen_copy(plain).to(dtype)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        y: Tensor = self.inner(x.to(self.dtype), *rest)
        return y.to(x.dtype)


@functools.cache
def bf16_gain(device: str) -> float:
    """Return how many times faster a 512^3 product is in bfloat16 than in float32 on this device, measured once."""
    kind = torch.device(device)
    took = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(512, 512, dtype=dtype, device=kind)
        times = []
        for _ in range(5):
            before = time.perf_counter()
            y = x @ x
            float(y[0, 0])
            times.append(time.perf_counter() - before)
        took[dtype] = min(times)
    return took[torch.float32] / took[torch.bfloat16]


def has_bf16() -> bool:
    """Whether the card computes in bfloat16 itself."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def chosen(precision: str, device: torch.device) -> tuple[str, str]:
    """Return the precision that `precision` means on a device, and why where that is not plain.

    Raises UsageError for a name that is none, and for float16.
    """
    if precision in ("fp16", "half", "float16"):
        raise UsageError(
            "float16 is emulated on CPUs and overflows in these networks",
            way_out="Use --precision bf16 (fast where the CPU has it), or fp32.",
        )
    if precision not in PRECISIONS:
        raise UsageError(f"a precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        return "fp32", f"tf32 is a mode of NVIDIA cards: fp32 on {device}"
    if precision == "bf16" and device.type == "cpu" and (gain := bf16_gain(str(device))) < 1:
        return "bf16", f"this device emulates bfloat16 ({gain:.1f} times as fast as float32): fp32 is faster here"
    if precision in ("bf16", "auto") and device.type == "cuda" and not has_bf16():
        return "fp32", "this card has no bfloat16: fp32 instead"
    if precision == "auto":
        gain = bf16_gain(str(device))
        return ("bf16", "") if gain >= WORTH else ("fp32", f"auto: bf16 is {gain:.1f} times as fast here, not worth it")
    return precision, ""


def networks(pair: Pair, wanted: _Wanted) -> Networks:
    """Return the forms of a pair's networks that a run uses."""
    device = pair.device
    precision, why = chosen(wanted.precision, device)
    lost = [why] if why else []
    if not wanted.prepare:
        return Networks(pair, pair, "as given", lost)
    ready, note = prepare(pair)
    if note.startswith("as given:"):
        lost.append(f"the networks run {note}")
    look = ready
    if wanted.plan and device.type == "cpu":
        look, told = planned(ready)
        note = told if look is not ready else f"{note}; {told}"
    moving = look
    if precision == "bf16":
        moving, told = _reduced(ready, wanted.plan)
        if moving is ready:
            lost.append(f"no bfloat16: {told}; going on in float32")
            moving, precision = look, "fp32"
        else:
            moving, told = _kept(look, moving, told, wanted.precision, lost)
            note, precision = (told, "bf16") if moving is not look else (note, "fp32")
    return Networks(look, moving, f"{note}, {precision}", lost, precision)


def _kept(look: Pair, low: Pair, told: str, asked: str, lost: list[str]) -> tuple[Pair, str]:
    """Return the reduced pair with as much in float32 as the gradient's signs need, and a note; `look` itself where no more
    than that was asked for and it is not enough."""
    made, what, enough = with_signs(look, low)
    if enough:
        return made, f"{told}, {what}" if what else told
    if asked == "auto":
        lost.append(f"auto: bf16 {what}: fp32 instead")
        return look, ""
    lost.append(f"bf16 {what}: --precision fp32 (or auto) keeps them")
    return made, told


@contextlib.contextmanager
def working(precision: str) -> Iterator[None]:
    """Let a card multiply in TF32 where that was asked for, and in float32 where not; the caller's setting comes back."""
    if not torch.cuda.is_available():
        yield
        return
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [b.allow_tf32 for b in backends]
    try:
        for b in backends:
            b.allow_tf32 = precision == "tf32"
        yield
    finally:
        for b, old in zip(backends, before, strict=True):
            b.allow_tf32 = old


def _reduced(ready: Pair, plan: bool) -> tuple[Pair, str]:
    """Return the pair in bfloat16, planned where that can be done, and a note; `ready` itself where it cannot be had."""
    if plan and ready.device.type == "cpu":
        made, told = planned(ready, torch.bfloat16)
        if made is not ready:
            return made, told
    z, label = probe_rows(ready)
    try:
        critic = ready.critic
        if critic is not None:
            critic = replace(critic, call=_cast(critic.call))
        made = replace(ready, G=_cast(ready.G), critic=critic, dtype=ready.compute_dtype)
        wrong = disagreement(ready, made, z, label, torch.bfloat16)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        wrong = str(error).splitlines()[0][:80]
    return (ready, wrong) if wrong else (made, "prepared")


def _cast(call: Any) -> Any:
    """Return a network in bfloat16 that takes and gives float32: its own `reduced` form where it has one (a network whose
    spaces call more than `forward`, or parts of which must stay in float32), else all of it, cast."""
    if hasattr(call, "reduced"):
        return call.reduced(torch.bfloat16)
    return Cast(call, torch.bfloat16) if isinstance(call, nn.Module) else call
