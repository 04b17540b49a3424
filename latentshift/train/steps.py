"""One step for every training method: it knows slots, not methods; `loop.py` runs it.

    for each step:
        n_d times:   x, y = data;  z = prior;  z = latent_shift(z);  f = G(z) without graph;  x, f = image_shift(x, f)
                     D descends  loss.d(D(x), D(f)) + sum of penalties;  after_d
        z = prior;  z = g_shift(z);  z2 = partner(z)
        G descends   loss.g(D(G(z))) + sum of terms, its gradient completed by the assistant;  averaging, schedule

Gradients are returned values (`torch.autograd.grad`), never `.backward()`, so that no piece leaks into another's `.grad`.
All randomness comes from the run's own generator: the global random state neither matters nor changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..layers import LayerNet
from . import compose
from .assistant import AdvAs
from .pieces import LOSSES, Average, add_spectral_norm, baked
from .scores import Scores
from .settings import Settings
from .shifts import has_dropout, still
from .terms import Step

Penalty = Callable[[Any, Tensor, Tensor, Tensor | None, torch.Generator], Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]
LatentShift = Callable[[Tensor, Tensor | None, Any, Any], Tensor]
ImageShift = Callable[[Any, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
Partner = Callable[[Tensor, Tensor | None, Any, Callable[[int], Tensor]], Tensor]
Term = Callable[[Step], Tensor]


@dataclass
class Steps:
    """One generator step with its n_d critic steps, made of pieces in slots.

    `data(rows, generator) -> (images, labels or None)` draws a batch; `prior(rows, generator) -> z`.
    `G(z, label)`, `D(images, label)` are layer networks. Pieces, each identity when absent: in D's step `latent_shift`
    (AdvLatGAN-qua), `image_shift` (DAT), `penalties`, `after_d` (weight clip); in G's step `g_shift`, `partner` and `terms`
    (MSGAN, AdvLatGAN-div, ACGAN, AT-GAN), `assistant` (AdvAs); in both `augment`. `heads` is 1 + classes where D's last layer
    gives class logits too; a separate `classifier` learns in D's step in their place. Raises UsageError for pieces that do
    not go together.
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
    g_shift: LatentShift | None = None
    partner: Partner | None = None
    terms: Sequence[Term] = ()
    assistant: AdvAs | None = None
    after_d: Sequence[Callable[[LayerNet], None]] = ()
    heads: int = 1
    classifier: LayerNet | None = None
    step: int = 0

    def __post_init__(self) -> None:
        compose.check(self)
        s = self.settings
        self.generator = torch.Generator().manual_seed(s.seed)
        if s.spectral_norm:
            add_spectral_norm(self.D, s.seed)
        self.scores = Scores(self.D, self.heads, self.classifier)
        self.device = next(self.G.parameters()).device
        self.average = Average(self.G, s.ema)
        self.average_d = Average(baked(self.D), s.ema_d) if s.ema_d else None
        self.opt_g = torch.optim.Adam(self.G.parameters(), s.lr_g, s.betas, weight_decay=s.weight_decay)
        self.opt_d = torch.optim.Adam(self.scores.parameters(), s.lr_d, s.betas, weight_decay=s.weight_decay)

    def _draw(self, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
        x, label = self.data(rows, self.generator)
        return x.to(self.device), self._latents(rows), None if label is None else label.to(self.device)

    def _latents(self, rows: int) -> Tensor:
        return self.prior(rows, self.generator).to(self.device)

    def _cast(self) -> contextlib.AbstractContextManager[object]:
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        # no cache of rounded weights: it would outlive a change of mode (no graph, then a graph) within one step
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def _apply(self, optimiser: torch.optim.Optimizer, grads: Sequence[Tensor]) -> None:
        params = _parameters(optimiser)
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
        if not has_dropout(self.G, self.scores):
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
        s = self.settings
        self.G.train(s.train_g)
        self.scores.train()
        for optimiser, rate in ((self.opt_g, s.lr_g), (self.opt_d, s.lr_d)):
            for group in optimiser.param_groups:
                group["lr"] = rate * s.rate(self.step)
        row = {"step": self.step + 1, "loss_d": 0.0, "loss_g": 0.0, "real": 0.0, "fake": 0.0}
        for _ in range(s.n_d):
            row |= self._critic_step()
        if self.average_d:
            self.average_d.update(baked(self.D), self.step)
        if s.train_g:
            row["loss_g"] = self._generator_step()
            self.average.update(self.G, self.step)
        self.step += 1
        return row

    def _critic_step(self) -> dict[str, float]:
        s = self.settings
        x, z, label = self._draw(s.batch)
        with self._cast():
            if self.latent_shift:
                z = self.latent_shift(z, label, self.G, self.scores)
            if s.pair_in_d and self.partner:
                z, x = torch.cat([z, self.partner(z, label, self.G, self._latents)]), torch.cat([x, x])
                label = _repeated(label, len(z))
            with torch.no_grad():
                f = self.G(z, label)
            x, f = self._seen(x), self._seen(f)
            if self.image_shift:
                x, f = self.image_shift(self.scores, x, f, label)
                label = _repeated(label, len(x))
            loss_d, real, fake = self._critic_loss(x, f, label)
        self._apply(self.opt_d, torch.autograd.grad(loss_d, _parameters(self.opt_d)))
        self.scores.forget()
        for change in self.after_d:
            change(self.D)
        return {"loss_d": loss_d.item(), "real": real.mean().item(), "fake": fake.mean().item()}

    def _critic_loss(self, x: Tensor, f: Tensor, label: Tensor | None, penalties: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        pair = LOSSES[self.settings.loss]
        assert pair.d is not None
        real, fake = self.scores(x, label), self.scores(f, label)
        loss = pair.d(real, fake)
        for penalty in self.penalties if penalties else ():
            loss = loss + penalty(self.scores, x, f, label, self.generator)
        return loss, real, fake

    def _generator_step(self) -> float:
        s, pair = self.settings, LOSSES[self.settings.loss]
        x, z, label = self._draw(s.g_batch or s.batch)
        theta, rows = _parameters(self.opt_g), len(z)
        with self._cast():
            if self.g_shift:
                z = self.g_shift(z, label, self.G, self.scores)
            z2 = self.partner(z, label, self.G, self._latents) if self.partner else None
            twice = z if z2 is None else torch.cat([z, z2])
            labels = _repeated(label, len(twice))
            f = self._seen(self.G(twice, labels))
            loss = torch.zeros((), device=self.device)
            if pair.g:
                against = (self._seen(x).repeat(len(twice) // rows, *[1] * (x.ndim - 1)),) if pair.relative else ()
                loss = pair.g(self.scores(f, labels), *(self.scores(a, labels) for a in against))
            own = f if z2 is None else f[:rows]
            step = Step(z, z2, own, None if z2 is None else f[rows:], label, self.scores, self.generator)
            for term in self.terms:
                loss = loss + term(step)
        grads = torch.autograd.grad(loss, theta, retain_graph=self.assistant is not None)
        if self.assistant:
            real = self._seen(x)

            def adversary(part: slice, penalties: bool) -> Tensor:
                with self._cast(), still(self.scores):
                    y = None if label is None else label[part]
                    return self._critic_loss(real[part], own[part], y, penalties)[0]

            grads = tuple(self.assistant(grads, adversary, theta, list(self.D.parameters()), rows))
        self._apply(self.opt_g, grads)
        self.scores.forget()
        return loss.item()


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def _repeated(label: Tensor | None, rows: int) -> Tensor | None:
    return label if label is None or len(label) == rows else label.repeat(rows // len(label))
