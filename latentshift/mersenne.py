"""First draws of many `RandomState(seed)` at once, equal to the bit: one state costs 0.1 ms, ten million of them 20 minutes.

The generator is MT19937 (Matsumoto and Nishimura 1998) with `init_genrand`; doubles take 53 bits of two words; normals are
numpy's legacy ones: Marsaglia's polar method, the second of a pair first. Where this machine's arithmetic gives other bits
than numpy's own (`agrees`), callers go on with one state a seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from .lazy import numpy as np

N, M = 624, 397
WORK = 1 << 18  # numbers that a block of seeds draws: what fits into a cache
#: priors whose draw is one call of `randn` or `uniform`, element by element or row by row
KINDS = ("normal", "uniform", "truncated-normal", "sphere")


def block(count: int) -> int:
    """Return how many seeds are drawn at a time where each draws `count` numbers."""
    return max(128, min(2048, WORK // max(count, 1)))


class ManyStates:
    """Stands for one fresh `RandomState` per seed. `randn` and `uniform` give (seeds, ...); each call draws afresh."""

    def __init__(self, seeds: Any) -> None:
        self.seeds = np.asarray(seeds).astype(np.uint32)

    def randn(self, rows: int, *shape: int) -> Any:
        """Return float64 (seeds, *shape), each row as `RandomState(seed).randn(1, *shape)`."""
        return _normals(self.seeds, math.prod(shape)).reshape(rows, *shape)

    def uniform(self, low: float, high: float, size: Sequence[int]) -> Any:
        """Return float64 of `size` (seeds first), each row as `RandomState(seed).uniform(low, high, (1, ...))`."""
        count = math.prod(size[1:])
        return low + (high - low) * _doubles(_words(self.seeds, 2 * count)).T.reshape(tuple(size))


def _words(seeds: Any, count: int) -> Any:
    """Return the first `count` words (count, seeds) of every generator."""
    key = np.empty((N, len(seeds)), np.uint32)
    key[0] = seeds
    mix = np.empty_like(key[0])
    for i in range(1, N):
        np.right_shift(key[i - 1], 30, out=mix)
        mix ^= key[i - 1]
        mix *= np.uint32(1812433253)
        np.add(mix, np.uint32(i), out=key[i])
    parts = []
    while count > 0:
        _twist(key)
        parts.append(_temper(key[: min(count, N)]))
        count -= N
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _twist(key: Any) -> None:
    def mixed(begin: int, end: int) -> Any:
        y = (key[begin:end] & np.uint32(0x80000000)) | (key[begin + 1 : end + 1] & np.uint32(0x7FFFFFFF))
        return (y >> 1) ^ ((y & np.uint32(1)) * np.uint32(0x9908B0DF))

    key[: N - M] = key[M:] ^ mixed(0, N - M)
    key[N - M : 2 * (N - M)] = key[: N - M] ^ mixed(N - M, 2 * (N - M))
    key[2 * (N - M) : N - 1] = key[N - M : M - 1] ^ mixed(2 * (N - M), N - 1)
    y = (key[N - 1] & np.uint32(0x80000000)) | (key[0] & np.uint32(0x7FFFFFFF))
    key[N - 1] = key[M - 1] ^ (y >> 1) ^ ((y & np.uint32(1)) * np.uint32(0x9908B0DF))


def _temper(key: Any) -> Any:
    y = key ^ (key >> 11)
    y ^= (y << 7) & np.uint32(0x9D2C5680)
    y ^= (y << 15) & np.uint32(0xEFC60000)
    y ^= y >> 18
    return y


def _doubles(words: Any) -> Any:
    """Return doubles in [0, 1) of 53 bits, one per two words along the first axis."""
    return ((words[0::2] >> 5) * 67108864.0 + (words[1::2] >> 6)) / 9007199254740992.0


def _normals(seeds: Any, count: int, tries: int = 0) -> Any:
    pairs = -(-count // 2)
    tries = tries or pairs + pairs // 2 + 10  # a pair is taken with probability pi / 4
    x = 2.0 * _doubles(_words(seeds, 4 * tries)) - 1.0
    x1, x2 = x[0::2].T, x[1::2].T
    r2 = x1 * x1 + x2 * x2
    taken = (r2 < 1.0) & (r2 != 0.0)
    rank = taken.cumsum(1)
    enough = rank[:, -1] >= pairs
    out = np.empty((len(seeds), 2 * pairs))
    pick = taken & (rank <= pairs) & enough[:, None]
    r = r2[pick]
    # numpy's vector log may differ from the C library's in the last bit; RandomState uses the latter
    f = np.sqrt(-2.0 * np.array(list(map(math.log, r.tolist()))) / r)
    good = np.empty((len(r), 2))
    good[:, 0], good[:, 1] = f * x2[pick], f * x1[pick]
    out[enough] = good.reshape(-1, 2 * pairs)
    if not enough.all():
        out[~enough] = _normals(seeds[~enough], 2 * pairs, 2 * tries)
    return out[:, :count]


@functools.cache
def agrees() -> bool:
    """Whether a few draws are equal to numpy's own on this machine (contracted multiplications would change them)."""
    seeds = [0, 1, 85, 2**31, 2**32 - 1, 123456789, 4000000000, 7]
    many = ManyStates(seeds)
    normal, flat = many.randn(len(seeds), 96), many.uniform(-1.5, 2.0, (len(seeds), 96))
    return all(
        np.array_equal(normal[i], np.random.RandomState(s).randn(96))
        and np.array_equal(flat[i], np.random.RandomState(s).uniform(-1.5, 2.0, 96))
        for i, s in enumerate(seeds)
    )
