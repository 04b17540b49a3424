"""Pieces that the residual families share: self-attention, discriminator blocks, the discriminator that they make up.

Written for evaluation with spectral norms already multiplied into the weights. Images and features are (rows, C, H, W).
Sources: SNGAN (Miyato et al. 2018), SAGAN (Zhang et al. 2018), cGAN-PD (Miyato and Koyama 2018), BigGAN (Brock et al. 2018);
the families differ in where the shortcut branches off and in the last pooling, which `DConfig` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentshift.errors import DamagedFileError, ShapeError
from latentshift.layers import aligned


def embedding(count: int, size: int) -> nn.Embedding:
    """A table of `count` vectors without random numbers in it (drawing them on the meta device loads half of torch's compiler:
    seconds)."""
    return nn.Embedding(count, size, _weight=torch.empty(count, size))


class SelfAttention(nn.Module):
    """Self-attention over positions, keys and values pooled 2x2; output gamma * attention + x."""

    def __init__(self, channels: int, key: int, value: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, key, 1, bias=False)
        self.phi = nn.Conv2d(channels, key, 1, bias=False)
        self.g = nn.Conv2d(channels, value, 1, bias=False)
        self.o = nn.Conv2d(value, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        rows, _, height, width = x.shape
        query = self.theta(x).flatten(2).transpose(1, 2)
        key = F.max_pool2d(self.phi(x), 2).flatten(2)
        value = F.max_pool2d(self.g(x), 2).flatten(2)
        weight = torch.softmax(torch.bmm(query, key), -1)
        y = torch.bmm(value, weight.transpose(1, 2)).reshape(rows, -1, height, width)
        out: Tensor = self.gamma * self.o(y) + x
        return out


class DBlock(nn.Module):
    """A residual block of a discriminator.

    `first`: no activation in front, the shortcut pools before its convolution. `relu_shortcut`: the shortcut sees relu(x)
    (mimicry's code rectifies in place, which also changes the input of the shortcut).
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, *, pool: bool, shortcut: bool, first: bool, relu_shortcut: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)
        self.conv_sc = nn.Conv2d(inputs, outputs, 1) if shortcut else None
        self.pool, self.first, self.relu_shortcut = pool, first, relu_shortcut

    def forward(self, x: Tensor) -> Tensor:
        a = x if self.first else F.relu(x)
        t = self.conv2(F.relu(self.conv1(a)))
        side = a if self.relu_shortcut else x
        if self.first and self.pool:
            side = F.avg_pool2d(side, 2)
        if self.conv_sc is not None:
            side = self.conv_sc(side)
        if self.pool:
            t = F.avg_pool2d(t, 2)
            side = side if self.first else F.avg_pool2d(side, 2)
        out: Tensor = t + side
        return out


@dataclass(frozen=True)
class DBlockConfig:
    """Channels and form of one block."""

    inputs: int
    hidden: int
    outputs: int
    pool: bool
    shortcut: bool


@dataclass(frozen=True)
class DConfig:
    """What a residual discriminator is made of."""

    blocks: tuple[DBlockConfig, ...]
    attention: tuple[tuple[int, int, int], ...] = ()  # (after block, key channels, value channels)
    classes: int | None = None
    linear_bias: bool = True
    reduce: Literal["sum", "mean"] = "sum"
    relu_shortcut: bool = False

    def json(self) -> dict[str, Any]:
        """Return the form that a card holds."""
        return asdict(self)

    @staticmethod
    def from_json(card: Mapping[str, Any]) -> DConfig:
        """Return the config of a card; the inverse of `json`."""
        blocks = tuple(DBlockConfig(**b) for b in card["blocks"])
        attention = tuple((int(a), int(b), int(c)) for a, b, c in card["attention"])
        return DConfig(**{**card, "blocks": blocks, "attention": attention})


class ResidualD(nn.Module):
    """Discriminator of the residual families: `forward(images, label=None) -> (rows,)` logits, higher for more real."""

    def __init__(self, config: DConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            DBlock(
                b.inputs,
                b.hidden,
                b.outputs,
                pool=b.pool,
                shortcut=b.shortcut,
                first=i == 0,
                relu_shortcut=config.relu_shortcut,
            )
            for i, b in enumerate(config.blocks)
        )
        self.attention = nn.ModuleDict(
            {str(i): SelfAttention(config.blocks[i].outputs, key, value) for i, key, value in config.attention}
        )
        width = config.blocks[-1].outputs
        self.linear = nn.Linear(width, 1, bias=config.linear_bias)
        self.embed = embedding(config.classes, width) if config.classes else None

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows, width): what the last linear layer sees."""
        h = images
        for i, block in enumerate(self.blocks):
            h = block(h)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        h = F.relu(h)
        return h.sum((2, 3)) if self.config.reduce == "sum" else h.mean((2, 3))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return head(self.linear, self.embed, self.features(images), label)


def head(linear: nn.Linear, embed: nn.Embedding | None, h: Tensor, label: Tensor | None) -> Tensor:
    """Return (rows,): linear(h), plus the projection of h on the label's embedding where D is conditional."""
    logit: Tensor = linear(h).squeeze(1)
    if embed is not None:
        if label is None:
            raise ShapeError("this discriminator is conditional and got no labels")
        logit = logit + (embed(label) * h).sum(1)
    return logit


def scalar(tensor: Tensor, name: str) -> Tensor:
    """Return a tensor of one number without axes (an attention's gamma is saved with none or one)."""
    if tensor.numel() != 1:
        raise DamagedFileError(f"tensor {name!r} has shape {tuple(tensor.shape)}; one number was expected")
    return tensor.reshape(())


def fill(net: nn.Module, tensors: Mapping[str, Tensor], what: str) -> nn.Module:
    """Give a network built on the meta device its tensors, exactly; frozen and in evaluation mode.

    Raises DamagedFileError where names or shapes do not fit, naming the first that does not.
    """
    wanted = net.state_dict()
    for name, want in wanted.items():
        if name not in tensors:
            raise DamagedFileError(f"{what}: tensor {name!r} is missing, {tuple(want.shape)} was expected")
        if want.dtype.is_floating_point and not tensors[name].dtype.is_floating_point:
            raise DamagedFileError(f"{what}: tensor {name!r} holds {tensors[name].dtype}, floating point was expected")
        if tuple(tensors[name].shape) != tuple(want.shape):
            raise DamagedFileError(f"{what}: tensor {name!r} is {tuple(tensors[name].shape)}, {tuple(want.shape)} was expected")
    extra = [k for k in tensors if k not in wanted]
    if extra:
        raise DamagedFileError(f"{what}: tensor {extra[0]!r} belongs to no layer ({len(extra)} such)")
    net.load_state_dict({k: aligned(tensors[k]) for k in wanted}, assign=True)
    return net.requires_grad_(False).eval()
