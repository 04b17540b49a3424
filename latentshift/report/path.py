"""The path of each sample as an animated picture. The steps are walked again: the strategy and the engine need not know."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import RequestError
from ..files.pictures import Bytes, picture, to_bytes
from ..files.write import output_errors, write_whole
from ..landscape import Landscape
from ..noise import Draw
from ..space import Context
from ..strategies.base import where_rows

if TYPE_CHECKING:
    from ..engine.run import Engine

_ROWS, _SIDE = 32, 128


def paths(engine: Engine, z0: Any, seeds: Sequence[int], labels: Any, frames: int = 24) -> Iterator[tuple[int, Bytes]]:
    """Yield (row, pictures (frames, H, W, C)) of every row: the start, points on the way, and the end.

    Costs the steps of the run once more, and one picture a frame. Raises RequestError for a method whose state has no point.
    """
    strategy, pair = engine.strategy, engine.pair
    at = set(np.unique(np.linspace(0, strategy.steps, min(frames, strategy.steps + 1)).round().astype(int)).tolist())
    for begin in range(0, len(seeds), _ROWS):
        rows = min(_ROWS, len(seeds) - begin)
        index = torch.arange(begin, begin + -(-rows // 8) * 8).clamp_max(begin + rows - 1)
        seed = torch.tensor([seeds[int(i)] for i in index], dtype=torch.int64, device=engine.device)
        context = Context(seed=seed, label=None if labels is None else labels.to(engine.device)[index.to(labels.device)])
        with torch.no_grad():
            point0 = engine.space.start(pair, z0[index].to(engine.device, pair.compute_dtype), context)
        land = Landscape(pair, context._replace(point0=point0), space=engine.space, objective=engine.objective)
        land.with_start_images(point0)
        draw, state = Draw(seed), strategy.init(point0, land, Draw(seed))
        if not hasattr(state, "point"):
            raise RequestError(f"{type(strategy).__name__} has no path to draw", way_out="Leave --gif out.")
        seen = [land.images(point0)]
        for t in range(strategy.steps):
            fresh, _ = strategy.step(state, t, land, draw)
            state = where_rows(state.done, state, fresh)
            if t + 1 in at and t + 1 < strategy.steps:
                seen.append(land.images(state.point))
        seen.append(land.images(strategy.finish(state, land).point))
        stack = torch.stack(seen)[:, :rows].detach().float().cpu().numpy()
        for k in range(rows):
            yield begin + k, to_bytes(stack[:, k], pair.image_range)


def gif(frames: Bytes, milliseconds: int = 120) -> bytes:
    """Return an endless animation of pictures (frames, H, W, C), at least 128 pixels large, that rests at both ends."""
    height, width = frames.shape[1:3]
    factor = max(1, -(-_SIDE // max(height, width)))
    drawn = [picture(f).convert("RGB").resize((width * factor, height * factor), 0) for f in frames]
    times = [900, *[milliseconds] * (len(drawn) - 2), 1400][: len(drawn)]
    stream = io.BytesIO()
    drawn[0].save(stream, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=False)
    return stream.getvalue()


def write_gifs(folder: Path, engine: Engine, z0: Any, seeds: Sequence[int], labels: Any, names: Sequence[str]) -> int:
    """Write `path/NAME.gif` for every row and return their number; raises RequestError for a pair without pictures."""
    if len(engine.pair.image_shape or ()) != 3:
        raise RequestError(f"{engine.pair.name!r} makes points, not pictures", way_out="Leave --gif out.")
    with output_errors(folder):
        (folder / "path").mkdir(exist_ok=True)
    for row, frames in paths(engine, z0, seeds, labels):
        data = gif(frames)
        write_whole(folder / "path" / f"{names[row]}.gif", lambda stream, data=data: stream.write(data))  # type: ignore[misc]
    return len(seeds)
