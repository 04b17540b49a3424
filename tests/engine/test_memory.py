"""Rows at a time where memory is short: what a step holds is seen, fewer rows are taken, and a row has the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentshift import landscape
from latentshift.engine import memory
from latentshift.engine.memory import MARGIN, fitting, free_bytes, row_bytes
from latentshift.engine.run import Engine, Settings
from latentshift.model import Pair
from latentshift.noise import latents
from latentshift.strategies.chain import Chain
from latentshift.strategies.dot import DOT
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.guard import Guard
from latentshift.strategies.wrappers import LowerShare


class Wide(nn.Module):
    """Maps of 72 x 72, one after the other: (rows, 8) -> (rows, 3, 72, 72)."""

    def __init__(self) -> None:
        super().__init__()
        self.open = nn.Linear(8, 3 * 72 * 72)
        self.more = nn.Sequential(*[m for _ in range(4) for m in (nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())])

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.more(self.open(z).reshape(-1, 3, 72, 72) * 0.1)
        return images


def pair() -> Pair:
    torch.manual_seed(0)
    D = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 18 * 18, 1))
    return Pair.wrap(Wide().eval(), D.eval(), z_size=8, name="wide")


def test_what_is_alive_is_counted() -> None:
    x = torch.ones(1 << 20, requires_grad=True)
    deep = nn.Sequential(*[nn.Tanh() for _ in range(9)])
    size = x.numel() * 4 * MARGIN
    kept = row_bytes(lambda: torch.autograd.grad(deep(x).sum(), x)) / size
    assert 9 <= kept <= 12  # every layer's output, and a gradient or two

    def again() -> Any:
        y = x
        for i in range(0, 9, 3):
            y = checkpoint(deep[i : i + 3], y, use_reentrant=False)
        return torch.autograd.grad(y.sum(), x)

    assert row_bytes(again) / size < 8.5
    assert row_bytes(lambda: x.detach().mul(2).mul(3).mul(4)) / size == pytest.approx(2)


@pytest.mark.parametrize(
    ("free", "found"),
    [(100, (32, 8)), (45.8, (32, 8)), (45.6, (24, 8)), (12, (8, 8)), (11, (4, 4)), (3, (2, 2)), (0.5, (1, 1))],
)
def test_rows_that_fit(free: float, found: tuple[int, int]) -> None:
    assert fitting(1 << 30, int(free * 2**30), 32, 8) == found


def test_this_machine_says_what_is_free() -> None:
    free = free_bytes()
    assert free is None or free > 1 << 20


def test_a_large_network_takes_fewer_rows_and_rows_keep_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two runs in scarce memory agree to the bit, alone and among others, and with ample memory to rounding."""
    climb = IFGSM(steps=2, step_size=0.1)
    wide = pair()
    z, seeds = torch.from_numpy(latents(range(7), wide.space.shape, wide.space.prior)), list(range(7))
    usual = Engine(climb, wide).run(z, seeds)
    assert (usual.chunk, usual.notes) == (32, [])
    seen = {}

    def bytes_of(step: Any) -> int:
        seen["row"] = row_bytes(step)
        return seen["row"]

    monkeypatch.setattr(memory, "row_bytes", bytes_of)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 60)
    Engine(climb, wide)
    assert seen["row"] > 4 * 3 * 72 * 72 * 4
    monkeypatch.setattr(memory, "free_bytes", lambda: int(5.5 * seen["row"] / memory.SHARE))
    engine = Engine(climb, wide)
    run = engine.run(z, seeds)
    assert (run.chunk, engine.settings.pad) == (4, 4)
    assert [len(c.rows) for c in run.chunks] == [4, 3]
    assert "4 rows at a time in place of 32" in run.notes[0]
    point = np.concatenate([c.point for c in run.chunks])
    assert np.abs(point - np.concatenate([c.point for c in usual.chunks])).max() < 1e-5
    alone = Engine(climb, wide).run(z[5:6], [5])
    assert np.array_equal(alone.chunks[0].point[0], point[5])
    assert np.array_equal(alone.chunks[0].images[0], run.chunks[1].images[1])
    asked = Engine(climb, wide, settings=Settings(chunk=16))  # what was asked for stays
    assert (asked.run(z, seeds).chunk, asked.settings.pad) == (16, 8)


def test_small_networks_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(step: Any) -> int:
        raise AssertionError("watched")

    monkeypatch.setattr(memory, "row_bytes", never)
    small = Pair.wrap(nn.Linear(4, 6).eval(), nn.Linear(6, 1).eval(), z_size=4)
    assert len(Engine(IFGSM(steps=1), small).run(torch.zeros(2, 4), [0, 1]).chunks) == 1


@pytest.mark.parametrize(
    "strategy",
    [
        LowerShare(inner=IFGSM(steps=1), rows=24),
        Guard(inner=IFGSM(steps=1), rule="views"),
        DOT(steps=1),
        Chain(stages=(IFGSM(steps=1), LowerShare(inner=IFGSM(steps=1), rows=24))),
    ],
    ids=lambda s: s.name,
)
def test_a_pilot_of_large_images_goes_through_eight_at_a_time(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = pair()
    seen: list[int] = []
    real = Wide.forward
    monkeypatch.setattr(Wide, "forward", lambda self, z: (seen.append(len(z)), real(self, z))[1])
    few = Engine(strategy, wide, settings=Settings(plan=False)).strategy
    assert max(seen) <= 8
    seen.clear()
    monkeypatch.setattr(landscape, "LARGE", 1 << 30)
    assert Engine(strategy, wide, settings=Settings(plan=False)).strategy == few
    assert max(seen) > 8
