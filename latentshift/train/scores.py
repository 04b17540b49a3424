"""What a piece may ask of the critic in training: logits, class logits, features. D stays a plain layer network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import MissingCapabilityError, UsageError
from ..layers import LabelJoin, LayerNet


class Scores(nn.Module):
    """D as the pieces see it: `scores(x, label) -> (rows,)`.

    D's last layer gives one number, or with `heads` above 1 the logit and then one number per class (ACGAN). A separate
    `classifier` (rows, classes) takes the place of those heads (AT-GAN's AC-WGAN-GP).
    """

    def __init__(self, D: LayerNet, heads: int = 1, classifier: LayerNet | None = None) -> None:
        super().__init__()
        self.D, self.heads, self.classifier = D, heads, classifier
        self._made: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.D(x, label)
        if self.heads == 1:
            return out.flatten()
        if out.ndim < 2 or out.flatten(1).shape[1] != self.heads:
            raise UsageError(
                f"D gives {tuple(out.shape[1:])} a row, and the class heads need {self.heads} numbers",
                way_out="Its last layer is Linear(..., 1 + classes).",
            )
        self._made.append((x, out))
        return out.flatten(1)[:, 0]

    def class_logits(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows, classes); images that D has just scored are not put through it again."""
        if self.classifier is not None:
            out: Tensor = self.classifier(x)
            return out
        if self.heads == 1:
            raise MissingCapabilityError(
                "a class term needs class logits", way_out="Give D one output per class, or a classifier."
            )
        for seen, made in self._made:
            if seen is x:
                return made.flatten(1)[:, 1:]
        self(x, label)
        return self._made[-1][1].flatten(1)[:, 1:]

    def features(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows, n): what D's last weighted layer is given."""
        last = max(i for i, m in enumerate(self.D.stack) if next(m.parameters(), None) is not None)
        for module in list(self.D.stack)[:last]:
            if isinstance(module, LabelJoin):
                assert label is not None
                x = module(x, label)
            else:
                x = module(x)
        return x.flatten(1)

    def forget(self) -> None:
        """Drop the outputs kept for `class_logits` (their graphs end with a step)."""
        self._made.clear()


def one_head(D: LayerNet) -> LayerNet:
    """Return a copy of a D with class heads that gives its logit alone: the first row of the last linear layer."""
    at = max(i for i, e in enumerate(D.entries) if e["op"] in ("Linear", "Conv2d"))
    entries = [dict(e) for e in D.entries]
    field = "out_features" if entries[at]["op"] == "Linear" else "out_channels"
    entries[at]["kw"] = {**entries[at]["kw"], field: 1}
    key = entries[at].get("key", "")
    names = {f"{key}.{n}" if key else n for n in ("weight", "bias")}
    tensors = {k: (v[:1] if k in names else v).detach().clone() for k, v in D.tensors().items()}
    return LayerNet(entries, where=D.where).load(tensors).eval().requires_grad_(False)


def norm_of(grads: list[Tensor]) -> Tensor:
    """Return the length of gradients taken together."""
    return torch.stack([g.square().sum() for g in grads]).sum().sqrt()
