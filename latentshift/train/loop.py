"""One loop for every training method: it knows slots, not methods.

    for each step:
        n_d times:   x, y = data;  z = prior;  z = latent_shift(z);  f = G(z) without graph;  x, f = image_shift(x, f)
                     D descends  loss.d(D(x), D(f)) + sum of penalties
        G descends   loss.g(D(G(z)));  averaging, schedule

Gradients are returned values (`torch.autograd.grad`), never `.backward()`, so that no piece leaks into another's `.grad`.
All randomness comes from the run's own generator: the global random state neither matters nor changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DamagedFileError, NumericError, UsageError
from ..files.write import write_whole
from ..layers import LayerNet
from .pieces import LOSSES, Average, add_spectral_norm, baked
from .shifts import has_dropout

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
    ema_d: float = 0.0  # above 0: also average D's weights (with spectral norms multiplied in), as `Trainer.average_d`
    train_g: bool = True  # False: G stays frozen in evaluation mode and D alone learns (an honest critic)
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
            add_spectral_norm(self.D, s.seed)
        self.average = Average(self.G, s.ema)
        self.average_d = Average(baked(self.D), s.ema_d) if s.ema_d else None
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
        before = [p.grad for p in params]
        try:
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimiser.step()
        finally:
            for p, old in zip(params, before, strict=True):
                p.grad = old

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        if not has_dropout(self.G, self.D):
            yield
            return
        devices = sorted({p.get_device() for net in (self.G, self.D) for p in net.parameters() if p.is_cuda})
        with torch.random.fork_rng(devices):  # dropout draws from the global state: lend it one made from ours
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=self.generator)))
            yield

    def _seen(self, x: Tensor) -> Tensor:
        return self.augment(x, self.generator) if self.augment else x

    def one_step(self) -> dict[str, float]:
        """Do one generator step with its n_d critic steps; return the losses and mean logits."""
        with self._own_randomness():
            return self._one_step()

    def _one_step(self) -> dict[str, float]:
        s, loss = self.settings, LOSSES[self.settings.loss]
        self.G.train(s.train_g)
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
                x, f = self.image_shift(self.D, x, f, label)
            real, fake = self._critic(x, label), self._critic(f, label)
            loss_d = loss.d(real, fake)
            for penalty in self.penalties:
                loss_d = loss_d + penalty(self._critic, x, f, label, self.generator)
            self._apply(self.opt_d, loss_d)
        if self.average_d:
            self.average_d.update(baked(self.D), self.step)
        loss_g = torch.zeros(())
        if s.train_g:
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

        Raises NumericError at a NaN or infinite loss or weight (the last good checkpoint is intact).
        """
        if checkpoint and checkpoint.exists():
            self.restore(checkpoint)
        began = time.perf_counter()
        while self.step < self.settings.steps:
            row = self.one_step()
            saves = self.step % every == 0 or self.step == self.settings.steps
            # a finite loss may have a NaN gradient, seen in the losses one step later: too late for the step that saves
            sound = all(abs(v) < float("inf") for v in row.values()) and (not saves or self._finite())
            if not sound:
                raise NumericError(
                    f"the loss or a weight is not finite at step {self.step}",
                    way_out="The last checkpoint is intact; lower the learning rate.",
                )
            if saves:
                row["seconds"] = time.perf_counter() - began
                self.log.append(row)
                if report:
                    report(self, row)  # before saving: what it adds to the row belongs to the log
                if checkpoint:
                    self.save(checkpoint)
        return self

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(p).all()) for net in (self.G, self.D) for p in net.parameters())

    def _state(self) -> dict[str, Any]:
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "average": self.average.net.state_dict(),
            "average_d": self.average_d.net.state_dict() if self.average_d else {},
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "made_of": json.dumps(self._made_of()),
            "log": json.dumps(self.log),
        }

    def _made_of(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on, as plain values: settings, pieces, layers."""
        return {
            **asdict(self.settings),
            "betas": list(self.settings.betas),
            "penalties": [_told(p) for p in self.penalties],
            **{name: _told(getattr(self, name)) for name in ("augment", "latent_shift", "image_shift")},
            "layers of G": list(self.G.entries),
            "layers of D": list(self.D.entries),
        }

    def save(self, path: Path) -> None:
        """Write all that a resume needs, whole or not at all."""
        write_whole(path, lambda stream: torch.save(self._state(), stream))

    def restore(self, path: Path) -> None:
        """Take up the state of `save`; refuses a checkpoint of another run and names what changed."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            theirs = json.loads(state["made_of"])
            log = json.loads(state["log"])
            missing = [k for k in self._state() if k not in state]
        except Exception as error:
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise DamagedFileError(f"not a training checkpoint: {text}", where=str(path)) from None
        if missing:
            raise DamagedFileError(f"a training checkpoint without {missing[0]!r}", where=str(path))
        mine = json.loads(json.dumps(self._made_of()))
        for k in mine:
            if mine[k] != theirs.get(k):
                raise UsageError(
                    f"the checkpoint was made with {k} = {theirs.get(k)!r}, not {mine[k]!r}",
                    where=str(path),
                    way_out="Give the same settings, or another file.",
                )
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        self.average.net.load_state_dict(state["average"])
        if self.average_d:
            self.average_d.net.load_state_dict(state["average_d"])
        self.opt_g.load_state_dict(state["opt_g"])
        self.opt_d.load_state_dict(state["opt_d"])
        self.generator.set_state(state["generator"])
        self.step, self.log = state["step"], log


def _told(piece: Any) -> str | None:
    """Return a piece in words that are the same in every process: its options, or a function's name."""
    if piece is None or dataclasses.is_dataclass(piece):
        return None if piece is None else repr(piece)
    name = getattr(piece, "__qualname__", type(piece).__qualname__)
    return f"{getattr(piece, '__module__', '')}.{name}"
