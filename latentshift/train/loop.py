"""One loop for every training method: it knows slots, not methods.

    for each step:
        n_d times:   x, y = data;  z = prior;  z = latent_shift(z);  f = G(z) without graph;  x, f = image_shift(x, f)
                     D descends  loss.d(D(x), D(f)) + sum of penalties
        G descends   loss.g(D(G(z)));  averaging, schedule

Gradients are returned values (`torch.autograd.grad`), never `.backward()`, so that no piece leaks into another's `.grad`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DamagedFileError, NumericError, UsageError
from ..layers import LayerNet
from .pieces import LOSSES, Average, add_spectral_norm

Penalty = Callable[[Any, Tensor, Tensor, Tensor | None, torch.Generator], Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]
LatentShift = Callable[[Tensor, Tensor | None, LayerNet, LayerNet], Tensor]
ImageShift = Callable[[Any, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is made of, apart from its pieces. Times are counted in generator steps."""

    steps: int
    loss: str = "hinge"
    batch: int = 64
    g_batch: int | None = None  # None: as batch
    n_d: int = 1
    lr_g: float = 2e-4
    lr_d: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay_share: float = 0.25  # the learning rate falls linearly to 0 over this last share of the steps
    ema: float = 0.999
    spectral_norm: bool = False  # on every weighted layer of D
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the factor on the learning rates at `step`."""
        start = self.steps * (1 - self.decay_share)
        return 1.0 if step < start else max(0.0, (self.steps - step) / max(1.0, self.steps - start))


@dataclass
class Trainer:
    """A training run that can stop after any step and go on to the bit.

    `data(rows, generator) -> (images, labels or None)` draws a batch; `prior(rows, generator) -> z`.
    `G(z, label)`, `D(images, label)` are layer networks. Pieces: `penalties` on D, `augment`, `latent_shift`
    (AdvLatGAN-qua's slot), `image_shift` (DAT's slot); each identity when absent.
    """

    G: LayerNet
    D: LayerNet
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]
    prior: Callable[[int, torch.Generator], Tensor]
    settings: Settings
    penalties: Sequence[Penalty] = ()
    augment: Augment | None = None
    latent_shift: LatentShift | None = None
    image_shift: ImageShift | None = None
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        s = self.settings
        if s.loss not in LOSSES:
            raise UsageError(f"unknown loss {s.loss!r}", way_out=f"Known: {', '.join(LOSSES)}.")
        self.generator = torch.Generator().manual_seed(s.seed)
        if s.spectral_norm:
            add_spectral_norm(self.D)
        self.average = Average(self.G, s.ema)
        self.opt_g = torch.optim.Adam(self.G.parameters(), s.lr_g, s.betas)
        self.opt_d = torch.optim.Adam(self.D.parameters(), s.lr_d, s.betas)

    def _draw(self, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
        x, label = self.data(rows, self.generator)
        return x, self.prior(rows, self.generator), label

    def _critic(self, x: Tensor, label: Tensor | None) -> Tensor:
        d: Tensor = self.D(x, label)
        return d.flatten()

    def _apply(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        params = [p for group in optimiser.param_groups for p in group["params"]]
        grads = torch.autograd.grad(loss, params)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def _seen(self, x: Tensor) -> Tensor:
        return self.augment(x, self.generator) if self.augment else x

    def one_step(self) -> dict[str, float]:
        """Do one generator step with its n_d critic steps; return the losses and mean logits."""
        s, loss = self.settings, LOSSES[self.settings.loss]
        self.G.train()
        self.D.train()
        for optimiser, rate in ((self.opt_g, s.lr_g), (self.opt_d, s.lr_d)):
            for group in optimiser.param_groups:
                group["lr"] = rate * s.rate(self.step)
        for _ in range(s.n_d):
            x, z, label = self._draw(s.batch)
            if self.latent_shift:
                z = self.latent_shift(z, label, self.G, self.D)
            with torch.no_grad():
                f = self.G(z, label)
            x, f = self._seen(x), self._seen(f)
            if self.image_shift:
                x, f = self.image_shift(self._critic, x, f, label)
            real, fake = self._critic(x, label), self._critic(f, label)
            loss_d = loss.d(real, fake)
            for penalty in self.penalties:
                loss_d = loss_d + penalty(self._critic, x, f, label, self.generator)
            self._apply(self.opt_d, loss_d)
        _, z, label = self._draw(s.g_batch or s.batch)
        loss_g = loss.g(self._critic(self._seen(self.G(z, label)), label))
        self._apply(self.opt_g, loss_g)
        self.average.update(self.G, self.step)
        self.step += 1
        return {
            "step": self.step,
            "loss_d": loss_d.item(),
            "loss_g": loss_g.item(),
            "real": real.mean().item(),
            "fake": fake.mean().item(),
        }

    def run(
        self,
        *,
        checkpoint: Path | None = None,
        every: int = 1000,
        report: Callable[[Trainer, dict[str, float]], None] | None = None,
    ) -> Trainer:
        """Train to `settings.steps`; write `checkpoint` whole every `every` steps and go on from it where it exists.

        Raises NumericError at a NaN loss (the last good checkpoint is intact).
        """
        if checkpoint and checkpoint.exists():
            self.restore(checkpoint)
        began = time.perf_counter()
        while self.step < self.settings.steps:
            row = self.one_step()
            if not all(abs(v) < float("inf") for v in row.values()):
                raise NumericError(
                    f"the loss is not finite at step {self.step}",
                    way_out="The last checkpoint is intact; lower the learning rate.",
                )
            if self.step % every == 0 or self.step == self.settings.steps:
                row["seconds"] = time.perf_counter() - began
                self.log.append(row)
                if checkpoint:
                    self.save(checkpoint)
                if report:
                    report(self, row)
        return self

    def _state(self) -> dict[str, Any]:
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "average": self.average.net.state_dict(),
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "settings": json.dumps(asdict(self.settings)),
            "log": json.dumps(self.log),
        }

    def save(self, path: Path) -> None:
        """Write all that a resume needs, whole or not at all."""
        part = path.with_name(path.name + ".part")
        torch.save(self._state(), part)
        os.replace(part, path)

    def restore(self, path: Path) -> None:
        """Take up the state of `save`; refuses a checkpoint of other settings and names what changed."""
        try:
            state = torch.load(path, weights_only=True)
            theirs, mine = json.loads(state["settings"]), json.loads(json.dumps(asdict(self.settings)))
        except Exception as error:
            raise DamagedFileError(f"not a training checkpoint: {str(error).splitlines()[0]}", where=str(path)) from None
        changed = [k for k in mine if mine[k] != theirs.get(k)]
        if changed:
            k = changed[0]
            raise UsageError(f"the checkpoint was made with {k} = {theirs.get(k)!r}, not {mine[k]!r}", where=str(path))
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        self.average.net.load_state_dict(state["average"])
        self.opt_g.load_state_dict(state["opt_g"])
        self.opt_d.load_state_dict(state["opt_d"])
        self.generator.set_state(state["generator"])
        self.step, self.log = state["step"], json.loads(state["log"])
