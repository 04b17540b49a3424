"""Randomness that belongs to a row: latents from seeds, and counter-based noise for (seed, step, purpose).

Latents follow StyleGAN's `generate.py` (`RandomState(seed).randn(1, z_dim)`), so seed 85 is the same picture there and here.
All other noise is Philox4x32-10 (Salmon et al., 2011) with the row's seed as key and (block, step, purpose) as counter: no
state, no order, the same numbers alone or in any batch, on any device.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import mersenne
from .errors import UsageError
from .lazy import numpy as np
from .lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SEED_LIMIT = 2**32


def check_seeds(seeds: Iterable[int]) -> list[int]:
    """Return `seeds` as a list of integers in [0, 2^32 - 1]; raises UsageError for any other value or none at all."""
    out = []
    for seed in seeds:
        if isinstance(seed, bool) or int(seed) != seed or not 0 <= int(seed) < SEED_LIMIT:
            raise UsageError(f"seed {seed!r} is not a whole number from 0 to {SEED_LIMIT - 1}")
        out.append(int(seed))
    if not out:
        raise UsageError("no seeds were given", way_out="Write --seeds 0-63,85.")
    return out


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a list such as '0-63,85,100-109', in the order written; doubles are an error.

    >>> parse_seeds("0-3,85")
    [0, 1, 2, 3, 85]
    """
    seeds: list[int] = []
    hint = "Write numbers and ranges, as in 0-63,85,100-109."
    for part in text.split(","):
        low, dash, high = (p.strip() for p in part.strip().partition("-"))
        if not low.isdigit() or (dash and not high.isdigit()):
            raise UsageError(f"cannot read the seeds {text!r}", where=f"at {part.strip()!r}", way_out=hint)
        first, last = int(low), int(high) if dash else int(low)
        if last < first:
            raise UsageError(f"the seed range {part.strip()!r} runs backwards", way_out=f"Write {last}-{first}.")
        if last >= SEED_LIMIT:
            raise UsageError(f"seed {last} is above {SEED_LIMIT - 1}")
        if last - first >= 10**8:
            raise UsageError(
                f"the seed range {part.strip()!r} names {last - first + 1} seeds", way_out="At most 10^8 in one range."
            )
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        seen: set[int] = set()
        double = next(s for s in seeds if s in seen or seen.add(s))  # type: ignore[func-returns-value]
        raise UsageError(f"seed {double} is named twice in {text!r}")
    return seeds


def row_seeds(z: Any) -> list[int]:
    """Return one seed per row, a hash of the row's float32 bytes: rows without a seed keep their promise too."""
    rows = np.ascontiguousarray(np.asarray(z, dtype=np.float32))
    return [int.from_bytes(hashlib.blake2b(r.tobytes(), digest_size=4).digest(), "little") for r in rows]


def latents(seeds: Sequence[int], shape: Sequence[int], prior: Any) -> Any:
    """Return float32 latents (rows, *shape), one `RandomState` per seed, drawn as `prior` draws."""
    out = np.empty((len(seeds), *shape), np.float32)
    if len(seeds) >= 64 and prior.kind in mersenne.KINDS and mersenne.agrees():
        block = mersenne.block(_count(shape))
        for at in range(0, len(seeds), block):
            some = seeds[at : at + block]
            out[at : at + len(some)] = prior.draw(mersenne.ManyStates(some), (len(some), *shape))
        return out
    for i, seed in enumerate(seeds):
        out[i] = prior.draw(np.random.RandomState(seed), (1, *shape))[0]
    return out


_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


def philox(key: tuple[Tensor, Tensor], counter: Sequence[Tensor]) -> list[Tensor]:
    """Return the four 32-bit words of Philox4x32-10 as int64 tensors; key and counter words are int64 in [0, 2^32)."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + _W0 & _MASK, k1 + _W1 & _MASK
    return [c0, c1, c2, c3]


def purpose_number(purpose: str) -> int:
    """Return the 32-bit number that stands for a purpose word."""
    return zlib.crc32(purpose.encode())


@dataclass(frozen=True)
class Draw:
    """Noise for rows with given seeds. `seeds`: (rows,) int64 tensor. `t` is a step number or a tensor of one."""

    seeds: Tensor

    def bits(self, t: Tensor | int, purpose: str, count: int) -> Tensor:
        """Return (rows, count) int64 words in [0, 2^32)."""
        rows, blocks = self.seeds.shape[0], -(-count // 4)
        seeds = self.seeds.unsqueeze(1)
        block = torch.arange(blocks, device=seeds.device).unsqueeze(0).expand(rows, blocks)
        step = torch.as_tensor(t, device=seeds.device, dtype=torch.int64) & _MASK
        words = philox(
            ((seeds & _MASK).expand(rows, blocks), (seeds >> 32 & _MASK).expand(rows, blocks)),
            (
                block,
                step.expand(rows, blocks),
                torch.full_like(block, purpose_number(purpose)),
                torch.zeros_like(block),
            ),
        )
        return torch.stack(words, 2).reshape(rows, 4 * blocks)[:, :count]

    def uniform(self, t: Tensor | int, purpose: str, shape: Sequence[int] = (), dtype: Any = None) -> Tensor:
        """Return (rows, *shape) numbers in the open interval (0, 1)."""
        count = _count(shape)
        u = (self.bits(t, purpose, count).to(torch.float64) + 0.5) * 2.0**-32
        return u.reshape(-1, *shape).to(dtype or torch.float32).clamp(max=1 - 2.0**-24)

    def normal(self, t: Tensor | int, purpose: str, shape: Sequence[int] = (), dtype: Any = None) -> Tensor:
        """Return (rows, *shape) standard normal numbers (Box and Muller, in float64)."""
        count = _count(shape)
        half = -(-count // 2)
        u = (self.bits(t, purpose, 2 * half).to(torch.float64) + 0.5) * 2.0**-32
        radius, angle = _polar(u[:, :half], u[:, half:])
        n = torch.cat([radius * angle[0], radius * angle[1]], 1)[:, :count]
        return n.reshape(-1, *shape).to(dtype or torch.float32)


def _polar(a: Tensor, b: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if a.device.type == "cpu":  # numpy treats an array's tail as its middle; torch does not, and bits would depend on the batch
        x, turn = a.numpy(), b.numpy() * (2 * np.pi)
        return torch.from_numpy(np.sqrt(-2 * np.log(x))), (torch.from_numpy(np.cos(turn)), torch.from_numpy(np.sin(turn)))
    angle = b * (2 * torch.pi)
    return (-2 * a.log()).sqrt(), (angle.cos(), angle.sin())


def _count(shape: Sequence[int]) -> int:
    count = 1
    for n in shape:
        count *= int(n)
    return count
