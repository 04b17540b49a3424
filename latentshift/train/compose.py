"""Which pieces go together: a combination that makes no sense is refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import parametrizations

from ..errors import UsageError
from .assistant import AdvAs
from .penalties import ClassLoss, RobDis, WeightClip, WGANDiv
from .pieces import LOSSES, R1, GradientPenalty
from .shifts import AgainstLoss, Both
from .terms import ClassTerm, ModeSeeking

if TYPE_CHECKING:
    from .steps import Steps

#: pieces that look at D's gradient row by row
PER_ROW = (GradientPenalty, R1, WGANDiv, RobDis)


def check(t: Steps) -> None:
    """Raise UsageError with the first reason why the pieces of a run do not go together."""
    for reason, way_out in _reasons(t):
        raise UsageError(reason, where="training", way_out=way_out)


def _reasons(t: Steps) -> Iterator[tuple[str, str]]:
    s = t.settings
    if s.loss not in LOSSES:
        yield f"unknown loss {s.loss!r}", f"Known: {', '.join(LOSSES)}."
    if s.precision not in ("fp32", "bf16"):
        yield f"unknown precision {s.precision!r}", "Known: fp32, bf16."
    if s.steps < 0 or s.batch < 1 or s.n_d < 0:
        yield f"steps {s.steps}, batch {s.batch} and n_d {s.n_d} are no sizes of a run", "Give 0 or more, 1 or more, 0 or more."
    normalised = any(isinstance(m, parametrizations._SpectralNorm) for m in t.D.modules()) or s.spectral_norm
    bounded = normalised or bool(t.after_d) or any(isinstance(p, (GradientPenalty, WGANDiv, R1)) for p in t.penalties)
    coupled = [type(m).__name__ for m in t.D.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    in_g = [type(p).__name__ for p in (*t.terms, t.partner, t.assistant, t.g_shift) if p is not None]
    in_d = [type(p).__name__ for p in (*t.penalties, *t.after_d, t.latent_shift, t.image_shift) if p is not None]
    for piece in (*t.penalties, t.assistant):
        if coupled and isinstance(piece, (*PER_ROW, AdvAs)):
            yield (
                f"{type(piece).__name__} asks for the gradient of each row, and {coupled[0]} in D couples the rows of a batch",
                "Use a D without batch norm (instance norm, spectral norm), or leave the piece out.",
            )
    if normalised and any(isinstance(p, WeightClip) for p in t.after_d):
        yield "a weight clip on a D with spectral norm clips what is divided out again", "Use one of the two."
    if LOSSES[s.loss].d is not None and s.loss == "wasserstein" and not bounded and s.n_d:
        yield "a Wasserstein critic without any bound has no optimum", "Add a gradient penalty, a weight clip or spectral norm."
    if LOSSES[s.loss].d is None and (s.n_d or in_d or t.assistant):
        yield "the loss 'none' trains no D", "Set n_d to 0 and leave the pieces of D's step out."
    if s.n_d == 0 and in_d:
        yield f"{in_d[0]} belongs to D's step, and n_d is 0", "Take more steps of D, or leave it out."
    if LOSSES[s.loss].g is None and s.train_g and not t.terms:
        yield "G has neither a loss nor a term", "Give a loss, or a term of G."
    if not s.train_g and in_g:
        yield f"{in_g[0]} belongs to G's step, and G is frozen", "Train G, or leave it out."
    seeking = [p for p in t.terms if isinstance(p, ModeSeeking)]
    if bool(seeking) != (t.partner is not None):
        yield (
            "a mode-seeking term and a partner for each latent need each other",
            "Give both (RandomPartner or Mine), or neither.",
        )
    if s.pair_in_d and t.partner is None:
        yield "pair_in_d puts the partners into D's step, and there is no partner", "Give one, or leave it out."
    if seeking and (s.g_batch or s.batch) == 1:
        yield "a batch of one pair has no batch ratio", "Use a batch of 2 or more."
    classes = [p for p in (*t.penalties, *t.terms) if isinstance(p, (ClassLoss, ClassTerm))]
    if classes and t.heads == 1 and t.classifier is None:
        yield "a class term needs class logits", "Give D one output per class (heads), or a classifier."
    if t.classifier is not None and not any(isinstance(p, ClassLoss) for p in t.penalties):
        yield "a classifier that no loss trains", "Add ClassLoss to the penalties."
    shift = t.image_shift.shift if isinstance(t.image_shift, Both) else t.image_shift
    if isinstance(shift, AgainstLoss) and shift.loss != s.loss:
        yield f"AgainstLoss moves images against the loss {shift.loss!r}, and D minimises {s.loss!r}", "Name the same loss."
    if isinstance(t.image_shift, Both) and any(isinstance(p, ClassLoss) for p in t.penalties):
        yield "Both hands D shifted copies whose class outputs nobody defined", "Use the shift alone with a class term."
