"""A training run in a folder: plan, log, grids, checkpoint, and at the end a pair folder. One process writes it; any may go on.

OUT/train.json        what was asked for, the plan, status            OUT/log.jsonl        losses and figures
OUT/checkpoint.pt     all that a resume needs, whole or not at all    OUT/grids/step-N.png fixed latents through the averaged G
OUT/pair/             the result: G.safetensors, D.safetensors, card.json, grid.png
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import DamagedFileError, FileError, OutputError, RequestError
from ..files.folder import write_pair
from ..files.pictures import save_png
from ..files.write import output_errors, plain, write_json, write_whole
from .build import card_of, finished
from .data import Data
from .loop import Trainer
from .progress import critic_figures, picture, sample_figures
from .recipe import TrainRecipe

SCHEMA = 1
PARTS = ("train.json", "log.jsonl", "checkpoint.pt")


@dataclass(frozen=True)
class Cadence:
    """How often: checkpoints, grids and evaluations, in generator steps; 0 is never (the last checkpoint is always written)."""

    checkpoint: int
    grid: int
    evaluate: int

    def due(self, step: int, steps: int) -> tuple[bool, bool]:
        """Return whether a grid and an evaluation are due after `step`; both are at the end."""
        last = step == steps
        return (
            bool(self.grid) and (last or step % self.grid == 0),
            bool(self.evaluate) and (last or step % self.evaluate == 0),
        )


def read_record(out: Path) -> dict[str, Any]:
    """Return OUT/train.json; raises FileError where there is none, DamagedFileError where it is none of ours."""
    path = out / "train.json"
    if not path.is_file():
        raise FileError("not a training run: it has no train.json", where=str(out))
    try:
        record = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DamagedFileError(f"the record is no JSON: {error}", where=str(path)) from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("typed"), dict):
        raise DamagedFileError(f"not the record of a training run of schema {SCHEMA}", where=str(path))
    return record


def prepare(out: Path, overwrite: bool) -> None:
    """Make OUT fit for a new run; raises OutputError where it holds something else."""
    with output_errors(out):
        if out.exists() and not out.is_dir():
            raise OutputError("the output folder is a file", where=str(out), way_out="Give another --outdir.")
        if out.is_dir() and (out / "train.json").exists():
            if not overwrite:
                raise OutputError(
                    "this folder holds another training run",
                    where=str(out),
                    way_out=f"Use --resume {out}, --overwrite, or another --outdir.",
                )
            for name in PARTS:
                (out / name).unlink(missing_ok=True)
            for name in ("grids", "pair"):
                shutil.rmtree(out / name, ignore_errors=True)
        elif out.is_dir() and any(p.name != ".lock" for p in out.iterdir()) and not overwrite:
            raise OutputError(
                "the output folder is not empty and holds no run", where=str(out), way_out="Give another --outdir."
            )
        out.mkdir(parents=True, exist_ok=True)


@dataclass
class Session:
    """A Trainer with its data and its folder."""

    trainer: Trainer
    recipe: TrainRecipe
    data: Data
    held: Data
    out: Path
    cadence: Cadence
    record: dict[str, Any]
    card: Mapping[str, Any] = field(default_factory=dict)
    judge: Any | None = None
    tell: Callable[[str], None] = lambda text: None

    def _status(self, status: str, **more: Any) -> None:
        self.record |= {"schema": SCHEMA, "status": status, **more}
        write_json(self.out / "train.json", self.record)

    def _log(self) -> None:
        text = "".join(json.dumps(plain(row)) + "\n" for row in self.trainer.log)
        write_whole(self.out / "log.jsonl", lambda stream: stream.write(text.encode()))

    def start(self) -> None:
        """Go on from the checkpoint where there is one, else write the record of a run that begins."""
        theirs = self.record.get("data_sha256")
        if theirs not in (None, self.data.sha256):
            raise RequestError("cannot go on with this run: the data changed", where=str(self.out), way_out="Start a new run.")
        path = self.out / "checkpoint.pt"
        if path.exists():
            self.trainer.restore(path)
            self.tell(f"goes on after step {self.trainer.step} of {self.trainer.settings.steps}")
        with output_errors(self.out):
            (self.out / "grids").mkdir(parents=True, exist_ok=True)
        self._status("running", data_sha256=self.data.sha256, version=_version(), torch=torch.__version__)

    def _after_step(self, t: Trainer, row: dict[str, float]) -> None:
        draws, evaluates = self.cadence.due(t.step, t.settings.steps)
        if not draws and not evaluates:
            return
        t.check()
        if draws:
            save_png(self.out / "grids" / f"step-{t.step:08d}.png", picture(t, self.data))
        if evaluates:
            row |= critic_figures(t, self.held) | sample_figures(t, self.held, self.judge)
            self.tell(_line(row, t.settings.steps))

    def _report(self, t: Trainer, row: dict[str, float]) -> None:
        self._log()
        if "auc_held_out" not in row:
            self.tell(_line(row, t.settings.steps))

    def run(self) -> dict[str, Any]:
        """Train to the end and write the pair; return the last figures. On an error the last checkpoint stays as it is."""
        began = time.perf_counter()
        t, path = self.trainer, self.out / "checkpoint.pt"
        every = self.cadence.checkpoint or max(1, t.settings.steps)
        try:
            t.run(checkpoint=path, every=every, report=self._report, after_step=self._after_step)
        except BaseException as error:
            stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._status(stopped, reason=str(error).splitlines()[0] if str(error) else "")
            raise
        figures = critic_figures(t, self.held) | sample_figures(t, self.held, self.judge)
        G, D = finished(t)
        name = f"{self.recipe.name}".replace("/", "-")
        card = card_of(t, self.recipe, self.data, name, {**self.card, "metrics": figures})
        write_pair(self.out / "pair", card, G, D)
        save_png(self.out / "pair" / "grid.png", picture(t, self.data))
        self._log()
        self._status("complete", figures=figures, seconds=round(time.perf_counter() - began, 2))
        return figures


def _version() -> str:
    from .. import __version__

    return __version__


def _line(row: Mapping[str, float], steps: int) -> str:
    shown = {k: v for k, v in row.items() if k not in ("step", "seconds", "real", "fake")}
    return f"step {int(row['step'])} of {steps}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown.items())
