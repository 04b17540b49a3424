"""Where an honest critic is fitted and climbed: the latents of a pair, or a hidden layer of its generator.

A layer's points are many more numbers than a latent: what G makes of them lies off its own images, so a critic that has not met
samples from there is fooled at once, and an honest one has room to mend what no latent can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import RequestError
from ..landscape import Landscape
from ..model import Critic, Pair
from ..noise import Draw, latents
from ..space import Context, Space
from ..strategies.base import Strategy, where_rows

_PILOT_SEED = 3_000_000_000  # pilots and training latents stay away from the seeds that people use
#: where `auto` climbs: the first hidden layer where G is a row of layers, else its own latents (docs/third-party.md)
AUTO_SPACE = "layer1"


def batches(rows: int, size: int = 64) -> list[slice]:
    """Return the slices of `rows` rows, `size` at a time."""
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


@dataclass(frozen=True)
class Ground:
    """A pair and the space that moves. Points are (rows, *space.shape), labels (rows,) or None."""

    pair: Pair
    space: Space

    @classmethod
    def of(cls, pair: Pair, space: str = "auto") -> Ground:
        """Return the ground named `space`; "auto" is `AUTO_SPACE` where the pair has it. Raises RequestError."""
        found = pair.spaces
        name = space if space != "auto" else AUTO_SPACE if AUTO_SPACE in found else pair.space.name
        if name not in found or not found[name].runs_generator:
            can = [n for n, s in found.items() if s.runs_generator]
            raise RequestError(f"{pair.name!r} has no space {name!r} to climb in", way_out=f"It has: {', '.join(can)}.")
        return cls(pair, found[name])

    @property
    def plain(self) -> Space:
        """The same points for a network that takes them as they are."""
        return Space(self.space.name, self.space.shape, self.space.prior)

    def _context(self, rows: Tensor, label: Tensor | None, first: int = 0) -> Context:
        seed = torch.arange(first, first + len(rows), dtype=torch.int64, device=rows.device)
        return Context(seed=seed, label=label, point0=rows)

    def enter(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Return the points that stand for prior latents."""
        return self.space.enter(self.pair, z, self._context(z, label))

    def decode(self, point: Tensor, label: Tensor | None) -> Tensor:
        """Return the images of points, with a graph where one is wanted."""
        return self.space.decode(self.pair, point, self._context(point, label))

    def pilots(self, rows: int) -> tuple[Tensor, Tensor | None]:
        """Return the points of seeds that nobody uses, and their labels, each class in turn."""
        seeds = [_PILOT_SEED + i for i in range(rows)]
        z = torch.from_numpy(latents(seeds, self.pair.space.shape, self.pair.space.prior))
        z = z.to(self.pair.device, self.pair.compute_dtype)
        label = torch.arange(rows, device=z.device) % self.pair.classes if self.pair.classes else None
        with torch.no_grad():
            return torch.cat([self.enter(z[s], _part(label, s)) for s in batches(rows)]), label

    def prior(self, rows: int, g: torch.Generator) -> Tensor:
        """Return prior latents (not points) drawn with a torch generator."""
        random = np.random.RandomState(int(torch.randint(2**31, (1,), generator=g)))
        z = np.asarray(self.pair.space.prior.draw(random, (rows, *self.pair.space.shape)), np.float32)
        return torch.from_numpy(z).to(self.pair.device, self.pair.compute_dtype)

    def images(self, point: Tensor, label: Tensor | None) -> Tensor:
        """Return the images of points, float32, no graph."""
        with torch.no_grad():
            return torch.cat([self.decode(point[s], _part(label, s)) for s in batches(len(point))]).float()

    def refined(self, point: Tensor, label: Tensor | None, strategy: Strategy, critic: Critic) -> Tensor:
        """Return points after `strategy` on a critic, as the engine would move them, in batches of 64."""
        pair, out = replace(self.pair, critic=critic), []
        for s in batches(len(point)):
            context = self._context(point[s], _part(label, s), s.start)
            land, draw = Landscape(pair, context, space=self.space), Draw(context.seed)
            state = strategy.init(point[s], land, draw)
            for t in range(strategy.steps):
                fresh, _ = strategy.step(state, t, land, draw)
                state = where_rows(state.done, state, fresh)
            out.append(strategy.finish(state, land).point.detach())
        return torch.cat(out)


def _part(label: Tensor | None, s: slice) -> Tensor | None:
    return None if label is None else label[s]
