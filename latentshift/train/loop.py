"""The run about the steps: it checks their numbers, reports, writes checkpoints whole and goes on from them to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import NumericError
from . import checkpoint as disk
from .settings import Settings
from .steps import Steps

__all__ = ["Settings", "Trainer"]


@dataclass
class Trainer(Steps):
    """A training run that can stop after any step and go on to the bit; `log` has a row for every checkpoint."""

    log: list[dict[str, float]] = field(default_factory=list)
    kept_at: int | None = None  # the step of the checkpoint that was written or read last

    def run(
        self,
        *,
        checkpoint: Path | None = None,
        every: int = 1000,
        report: Callable[[Trainer, dict[str, float]], None] | None = None,
        after_step: Callable[[Trainer, dict[str, float]], None] | None = None,
    ) -> Trainer:
        """Train to `settings.steps`; write `checkpoint` whole every `every` steps and go on from it where it exists.

        `after_step` is called after every step, `report` before every checkpoint; what either adds to the row is logged.
        Raises NumericError at a NaN or infinite loss or weight (the last good checkpoint is intact).
        """
        if checkpoint and checkpoint.exists():
            self.restore(checkpoint)
        began = time.perf_counter()
        while self.step < self.settings.steps:
            row = self.one_step()
            saves = self.step % every == 0 or self.step == self.settings.steps
            # a finite loss may have a NaN gradient, seen in the losses one step later: too late for the step that saves
            if not all(abs(v) < float("inf") for v in row.values()) or (saves and not self._finite()):
                raise self.broken()
            if after_step:
                after_step(self, row)
            if saves:
                row["seconds"] = time.perf_counter() - began
                self.log.append(row)
                if report:
                    report(self, row)  # before saving: what it adds to the row belongs to the log
                if checkpoint:
                    self.save(checkpoint)
        return self

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(p).all()) for net in (self.G, self.scores) for p in net.parameters())

    def broken(self) -> NumericError:
        """Return the error of a run whose numbers broke."""
        kept = "There is no checkpoint yet" if self.kept_at is None else f"The checkpoint of step {self.kept_at} is intact"
        return NumericError(
            f"the loss or a weight is not finite at step {self.step}",
            way_out=f"{kept}; lower the learning rate.",
        )

    def check(self) -> None:
        """Raise NumericError where a weight is NaN or infinite."""
        if not self._finite():
            raise self.broken()

    def _state(self) -> dict[str, Any]:
        return disk.state_of(self)

    def save(self, path: Path) -> None:
        """Write all that a resume needs, whole or not at all."""
        disk.save(self, path)
        self.kept_at = self.step

    def restore(self, path: Path) -> None:
        """Take up the state of `save`; refuses a checkpoint of another run and names what changed."""
        disk.restore(self, path)
        self.kept_at = self.step
