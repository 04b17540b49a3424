"""From finished chunks to a run's folder: what every way of running writes the same.

`Recorder.put` takes chunks as the engine ends them; `finish` merges what lies there, also what an earlier process left.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..engine.run import Chunk, Run
from ..engine.threads import PAD
from ..landscape import Ledger
from ..model import Pair
from ..space import Context, Space
from .pictures import Bytes, grid, save_png, to_bytes
from .run import Array, RunFolder, npz_bytes, reason
from .scatter import REFINED, Panel, before_after, scatter
from .thumbs import choose, shrink, side_of, wanted, write_thumbs
from .write import write_whole

_TILES = 64  # rows that the grid may show, kept in the parts


class Recorder:
    """Writes a run. `seeds`, `names`, `labels` are those of all rows of the run, in order."""

    def __init__(
        self,
        path: Path,
        pair: Pair,
        recipe: Mapping[str, Any],
        seeds: Sequence[int],
        names: Sequence[str],
        labels: Any,
        *,
        space: Space,
        request: Mapping[str, Any] | None = None,
        before: bool = False,
        metadata: bool = True,
        tiles: tuple[int, int] = (8, 8),
        noise: bool = False,
    ) -> None:
        self.pair, self.recipe, self.space = pair, dict(recipe), space
        self.seeds, self.names = list(seeds), list(names)
        self.labels = None if labels is None else np.asarray(torch.as_tensor(labels).cpu())
        self.tiles, self.noise = tiles, noise
        self.drop = bool(recipe.get("drop"))
        self.request = dict(request or {})
        self.more: dict[str, Any] = {}  # what else the record says from the start
        text = {"Software": f"latentshift {__version__}", "model": pair.name, "recipe": str(recipe.get("name", ""))}
        self.folder = RunFolder(path, span=pair.image_range, text=text if metadata else None, before=before)
        self.began = time.time()
        self.pictures = len(pair.image_shape or (1, 1, 1)) == 3

    def prepare(self, *, overwrite: bool = False) -> None:
        """Make the folder ready; raises OutputError where it cannot take a run."""
        RunFolder.prepare(self.folder.path, overwrite=overwrite)

    def head(self) -> dict[str, Any]:
        """Return the part of the record that is known before the work."""
        return {
            "latentshift": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "model": self.pair.name,
            "source": self.pair.source,
            "model_sha256": self.pair.sha256,
            "recipe": self.recipe,
            "space": self.space.name,
            "seeds": len(self.seeds),
            "request": self.request,
            **self.more,
        }

    def begin(self, **more: Any) -> None:
        """Write the record of a run under way."""
        self.folder.start({**self.head(), **more, "status": "running"})

    def put(self, chunk: Chunk, work: Ledger, seconds: float = 0.0) -> None:
        """Write a finished chunk; `work` and `seconds` are what it took."""
        names: list[str | None] = [self.names[i] for i in chunk.rows]
        if self.drop and chunk.accepted is not None:
            names = [name if kept else None for name, kept in zip(names, chunk.accepted, strict=True)]
        arrays: dict[str, Array] = {
            "z0": chunk.z0,
            "point0": chunk.point0,
            "point": chunk.point,
            "score0": chunk.score0.astype(np.float32),
            "score": chunk.score.astype(np.float32),
            "stopped": chunk.stopped,
            "evaluations": chunk.evaluations,
            "trace": chunk.trace.mean(1)[None].repeat(len(chunk.rows), 0),
            "work": np.array([[*work.as_tuple(), round(seconds * 1e6)]] + [[0] * 5] * (len(chunk.rows) - 1), np.int64),
        }
        if chunk.accepted is not None:
            arrays["accepted"] = chunk.accepted
        told = {k: v for k, v in (chunk.extra or {}).items() if v.shape == chunk.rows.shape}
        if "tries" in told:
            arrays["tries"] = told.pop("tries").astype(np.int64)
        arrays |= {f"extra_{k}": v for k, v in told.items()}
        if hasattr(self.space, "styles"):
            arrays["w"], maps = self._styles(chunk)
            if self.noise and maps is not None:
                arrays["noise"] = maps
        after = before = None
        if self.pictures:
            after = to_bytes(chunk.images, self.pair.image_range)
            before = None if chunk.images0 is None else to_bytes(chunk.images0, self.pair.image_range)
            shown = min(_TILES, self.tiles[0] * self.tiles[1])
            if int(chunk.rows[0]) < shown:
                # the parts of rows that the grid shows carry their pictures; all others an empty array of the same rank
                arrays["tile_after"] = after
                if before is not None:
                    arrays["tile_before"] = before
            keep = wanted(chunk.rows, chunk.score - chunk.score0, len(self.seeds))
            side = side_of(len(self.seeds), *after.shape[1:4])
            arrays |= {"thumb_rows": chunk.rows[keep], "thumb_after": shrink(after[keep], side)}
            if before is not None:
                arrays["thumb_before"] = shrink(before[keep], side)
        else:
            arrays["x"] = chunk.images
            if chunk.images0 is not None:
                arrays["x0"] = chunk.images0
        self.folder.put(chunk.rows, arrays, names, after, before)

    def _styles(self, chunk: Chunk) -> tuple[Array, Array | None]:
        """Return the w of all layers behind the chunk's points, the same bits for a row in any chunk, and the noise maps
        (rows, total) where they are asked for and there are any."""
        index = torch.arange(-(-len(chunk.rows) // PAD) * PAD).clamp_max(len(chunk.rows) - 1)
        device, dtype = self.pair.device, self.pair.compute_dtype
        numbers = torch.tensor([self.seeds[i] for i in chunk.rows], device=device)[index]
        label = None if self.labels is None else torch.from_numpy(self.labels[chunk.rows]).to(device)[index]
        point, point0 = (torch.from_numpy(p).to(device, dtype)[index] for p in (chunk.point, chunk.point0))
        space: Any = self.space
        context = Context(seed=numbers, label=label, point0=point0)
        with torch.no_grad():
            w = space.styles(self.pair, point, context)
            noise = space.maps(self.pair, point, context) if self.noise else None

        def kept(x: torch.Tensor) -> Array:
            return x[: len(chunk.rows)].float().cpu().numpy()

        return kept(w), None if noise is None else kept(noise)

    def finish(self, run: Run, *, status: str = "complete", ledger: Ledger | None = None, **more: Any) -> dict[str, Any]:
        """Merge what is finished, draw the grid, write the last record, and return it."""
        done = self.folder.finished()
        record = {**self.head(), **more, "status": status}
        if done:
            rows = done["rows"].astype(int)
            self.folder.merge(
                {
                    "seeds": np.array([self.seeds[i] for i in rows], np.int64),
                    "space": np.array(self.space.name),
                    "model_sha256": np.array(self.pair.sha256),
                },
                self._samples(done, rows),
                self._latents(done, rows),
            )
            if "w" in done:
                data = npz_bytes({"w": done["w"].astype(np.float32)})
                write_whole(self.folder.path / "projected_w.npz", lambda stream: stream.write(data))
            work = done["work"].sum(0)
            ledger = ledger or Ledger(*(int(v) for v in work[:4]))
            gain = done["score"] - done["score0"]
            trace_weights = done["trace"]
            record |= {
                "rows": len(rows),
                "ledger": ledger.as_dict(),
                "seconds": {**run.seconds, "refine": float(work[4]) / 1e6 or run.seconds.get("refine", 0.0)},
                "score_before": float(np.nanmean(done["score0"])),
                "score_after": float(np.nanmean(done["score"])),
                "gain": float(np.nanmean(gain)),
                "raised": float(np.nanmean(gain > 0)),
                "score_per_step": [float(v) for v in np.nanmean(trace_weights, 0)],
                **self._acceptance(done),
                "stopped": {reason(c): int((done["stopped"] == c).sum()) for c in np.unique(done["stopped"])},
            }
            spent = record["seconds"]["refine"]
            record["samples_per_second"] = len(rows) / spent if spent else None
            self._grid(done, rows)
            self._thumbs(rows, gain)
        record |= {
            "fit": {"ledger": run.fit_ledger.as_dict(), "pilot_seeds": run.pilot_seeds, "found": _found(run)},
            "plan": run.plan,
            "chunk": run.chunk,
            "precision": run.precision,
            "device": str(self.pair.device),
            "peak_memory_mb": _peak_memory(),
            "warnings": list(run.notes) + list(more.get("warnings", [])),
        }
        self.folder.end(record)
        return record

    def _latents(self, done: Mapping[str, Array], rows: Array) -> dict[str, Array]:
        plain_space = self.space.name == "z"
        out: dict[str, Array] = {} if self.space.entered else {"z0": done["z0"].astype(np.float32)}
        if plain_space:
            out["z"] = done["point"].astype(np.float32)
        else:
            out |= {"point0": done["point0"].astype(np.float32), "point": done["point"].astype(np.float32)}
        if self.labels is not None:
            out["labels"] = self.labels[rows].astype(np.int64)
        out |= {"score0": done["score0"], "score": done["score"]}
        if "noise" in done:
            out |= {"noise": done["noise"], "noise_shapes": np.array(self.space.noise_shapes, np.int64)}  # type: ignore[attr-defined]
        return out | {k: done[k] for k in ("accepted", "tries", "x0", "x") if k in done}

    def _dropped(self, done: Mapping[str, Array]) -> Array:
        """Return which rows were dropped."""
        kept = done.get("accepted")
        return ~kept if self.drop and kept is not None else np.zeros(len(done["rows"]), bool)

    def _acceptance(self, done: Mapping[str, Array]) -> dict[str, Any]:
        if "accepted" not in done:
            return {}
        told = {"accepted": int(done["accepted"].sum()), "dropped": int(self._dropped(done).sum())}
        return {"acceptance": told | ({"tries": int(done["tries"].sum())} if "tries" in done else {})}

    def _samples(self, done: Mapping[str, Array], rows: Array) -> list[dict[str, Any]]:
        d = (done["point"] - done["point0"]).reshape(len(rows), -1)
        dropped = self._dropped(done)
        told = [k for k in ("accepted", "tries") if k in done]
        extra = [k for k in done if k.startswith("extra_")]  # one number per row that the method told beyond
        return [
            {
                "seed": self.seeds[i],
                "label": None if self.labels is None else int(self.labels[i]),
                "score_before": done["score0"][k],
                "score_after": done["score"][k],
                "gain": done["score"][k] - done["score0"][k],
                "displacement_l2": float(np.sqrt((d[k].astype(np.float64) ** 2).sum())),
                "displacement_linf": float(np.abs(d[k]).max()),
                "evaluations": int(done["evaluations"][k]),
                "stopped": reason(done["stopped"][k]),
                "image": f"{self.names[i]}.png" if self.pictures and not dropped[k] else None,
                "judge_before": None,
                "judge_after": None,
                **{name: done[name][k] for name in told},
                **({"extra": {key.removeprefix("extra_"): float(done[key][k]) for key in extra}} if extra else {}),
            }
            for k, i in enumerate(rows)
        ]

    def _thumbs(self, rows: Array, gain: Array) -> None:
        found = self.folder.thumbs()
        if not found:
            return
        place = np.searchsorted(rows, found["thumb_rows"])  # lines of samples.jsonl
        kept = choose(gain, place)
        at = np.searchsorted(place, kept)
        seeds = np.array([self.seeds[i] for i in rows[kept]], np.int64)
        before = found["thumb_before"][at] if "thumb_before" in found else None
        write_thumbs(self.folder.path, kept, seeds, found["thumb_after"][at], before)

    def _grid(self, done: Mapping[str, Array], rows: Array) -> None:
        columns, lines = self.tiles
        shown = min(columns * lines, len(rows), _TILES if self.pictures else 10**6)
        kept = np.flatnonzero(~self._dropped(done))
        gain = done["score"] - done["score0"]
        what = "before above after, gain in the critic's score" if self.pictures else "mean gain"
        title = f"{self.pair.name}, {self.recipe.get('name', '')}: {what} (mean {np.nanmean(gain):+.3f})"
        if self.pictures:
            tiles = self.folder.tiles()
            after: Bytes | None = tiles.get("tile_after")
            if after is None:
                return
            before = tiles.get("tile_before")
            kept = kept[kept < shown]
            labels = [self.names[i] if self.labels is None else f"{self.names[i]} · {self.labels[i]}" for i in rows[kept]]
            if not labels:
                return
            image = grid(
                None if before is None else before[kept],
                after[kept],
                labels,
                gain[kept].tolist(),
                columns=columns,
                title=title,
            )
        else:
            if done["x"].ndim != 2 or done["x"].shape[1] != 2:
                return
            marks = self.pair.card.get("modes")
            means = (float(np.nanmean(done[k])) for k in ("score0", "score"))
            notes = [
                f"mean score {m:.3g}{tail}" for m, tail in zip(means, ("", f", {self.recipe.get('name', '')}"), strict=True)
            ]
            if "x0" in done:
                image = before_after(done["x0"][kept], done["x"][kept], marks, notes=(notes[0], notes[1]))
            else:
                image = scatter([Panel("refined", done["x"][kept], colour=REFINED)], marks=marks)
        save_png(self.folder.path / "grid.png", image)


def _found(run: Run) -> dict[str, Any]:
    from ..strategies.base import options

    return {"strategy": type(run.strategy).__name__, **options(run.strategy)}


def _peak_memory() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
