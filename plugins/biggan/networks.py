"""The networks of BigGAN-PyTorch: G, BigGAN-deep G and D; the plain D is `latentshift_plugins.residual.ResidualD`.

Paper: Brock, Donahue, Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (2018). Spectral norms
are multiplied into the weights beforehand, so a forward is repeatable and has no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentshift.errors import ShapeError

from ..residual import SelfAttention, embedding, head

Attention = tuple[tuple[int, int, int], ...]  # (after block, key channels, value channels)


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Statistics(nn.Module):
    """Stored mean and variance of a batch norm: x -> (x - mean) / sqrt(var + eps) * scale + shift in one pass."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.eps = eps
        self.gather: list[tuple[Tensor, Tensor]] | None = None  # where batch statistics go while they are accumulated

    def normalise(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """`scale` and `shift` are (rows, C) or (C,)."""
        mean, var = self.mean, self.var
        if self.gather is not None:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            self.gather.append((mean, var))
        a = scale * torch.rsqrt(var + self.eps)
        b = shift - mean * a
        return torch.addcmul(b[..., None, None], x, a[..., None, None])


class ConditionalNorm(Statistics):
    """Batch norm with gain 1 + gain(y) and bias(y); y is a condition vector, or a label where there is no shared embedding.

    `additive`: xhat + (1 + gain) + bias, what BigGAN-PyTorch computes for `cross_replica` files outside of multi-GPU training.
    """

    def __init__(self, channels: int, inputs: int, *, shared: bool, eps: float, additive: bool) -> None:
        super().__init__(channels, eps)
        self.gain: nn.Module
        self.bias: nn.Module
        if shared:
            self.gain = nn.Linear(inputs, channels, bias=False)
            self.bias = nn.Linear(inputs, channels, bias=False)
        else:
            self.gain = embedding(inputs, channels)
            self.bias = embedding(inputs, channels)
        self.additive = additive

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = 1 + self.gain(y), self.bias(y)
        if self.additive:
            gain, bias = torch.ones_like(gain), gain + bias
        return self.normalise(x, gain, bias)


class PlainNorm(Statistics):
    """The output's batch norm: learned gain and bias, eps 1e-5 whatever the option says."""

    def __init__(self, channels: int, *, additive: bool) -> None:
        super().__init__(channels, 1e-5)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.additive = additive

    def forward(self, x: Tensor) -> Tensor:
        if self.additive:
            return self.normalise(x, torch.ones_like(self.gain), self.gain + self.bias)
        return self.normalise(x, self.gain, self.bias)


@dataclass(frozen=True)
class GConfig:
    """What a BigGAN-PyTorch generator is made of; everything but `eps` and `additive` is read from shapes."""

    kind: Literal["plain", "deep"]
    z_size: int
    classes: int
    blocks: tuple[tuple[int, int], ...]  # channels in and out of each block
    shared: int  # size of the shared class embedding, 0 for none
    hierarchical: bool
    attention: Attention = ()
    eps: float = 1e-5
    additive: bool = False
    bottom: int = 4
    colours: int = 3

    @property
    def resolution(self) -> int:
        """Side of the image in pixels."""
        doublings = len(self.blocks) if self.kind == "plain" else len(self.blocks) // 2
        return self.bottom << doublings

    @property
    def condition(self) -> int:
        """Size of what a conditional norm sees (the number of classes where it sees the label itself)."""
        if not self.shared:
            return self.classes
        if self.kind == "deep":
            return self.shared + self.z_size
        return self.shared + (self.z_size // (len(self.blocks) + 1) if self.hierarchical else 0)

    def json(self) -> dict[str, Any]:
        """Return the form that a card holds."""
        return asdict(self)

    @staticmethod
    def from_json(card: Mapping[str, Any]) -> GConfig:
        """Return the config of a card; the inverse of `json`."""
        blocks = tuple((int(a), int(b)) for a, b in card["blocks"])
        attention = tuple((int(a), int(b), int(c)) for a, b, c in card["attention"])
        return GConfig(**{**card, "blocks": blocks, "attention": attention})


class GBlock(nn.Module):
    """Two 3x3 convolutions with conditional norms, doubling the resolution."""

    def __init__(self, inputs: int, outputs: int, config: GConfig) -> None:
        super().__init__()
        norm = {"shared": bool(config.shared), "eps": config.eps, "additive": config.additive}
        self.bn1 = ConditionalNorm(inputs, config.condition, **norm)  # type: ignore[arg-type]
        self.bn2 = ConditionalNorm(outputs, config.condition, **norm)  # type: ignore[arg-type]
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_sc = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        t = self.conv1(_up(F.relu(self.bn1(x, y))))
        t = self.conv2(F.relu(self.bn2(t, y)))
        # a 1x1 convolution and nearest upsampling commute: a quarter of the work
        out: Tensor = t + _up(self.conv_sc(x))
        return out


class DeepGBlock(nn.Module):
    """Bottleneck block of BigGAN-deep; every second one doubles the resolution and drops the last channels."""

    def __init__(self, inputs: int, outputs: int, config: GConfig, *, up: bool) -> None:
        super().__init__()
        hidden = inputs // 4
        norm = {"shared": True, "eps": config.eps, "additive": config.additive}
        self.bn1 = ConditionalNorm(inputs, config.condition, **norm)  # type: ignore[arg-type]
        self.bn2 = ConditionalNorm(hidden, config.condition, **norm)  # type: ignore[arg-type]
        self.bn3 = ConditionalNorm(hidden, config.condition, **norm)  # type: ignore[arg-type]
        self.bn4 = ConditionalNorm(hidden, config.condition, **norm)  # type: ignore[arg-type]
        self.conv1 = nn.Conv2d(inputs, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(hidden, outputs, 1)
        self.up, self.outputs = up, outputs

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        t = F.relu(self.bn2(self.conv1(F.relu(self.bn1(x, y))), y))
        side = x[:, : self.outputs]
        if self.up:
            t, side = _up(t), _up(side)
        t = self.conv3(F.relu(self.bn3(self.conv2(t), y)))
        out: Tensor = self.conv4(F.relu(self.bn4(t, y))) + side
        return out


class BigGANGenerator(nn.Module):
    """`forward(z, label) -> (rows, 3, S, S)` in [-1, 1]; z (rows, z_size) standard normal, label (rows,) int64."""

    def __init__(self, config: GConfig) -> None:
        super().__init__()
        self.config = config
        deep = config.kind == "deep"
        start = config.blocks[0][0]
        self.shared = embedding(config.classes, config.shared) if config.shared else None
        self.chunk = config.z_size // (len(config.blocks) + 1) if config.hierarchical and not deep else config.z_size
        entry = config.shared + config.z_size if deep else self.chunk
        self.linear = nn.Linear(entry, start * config.bottom**2)
        self.blocks = nn.ModuleList(
            DeepGBlock(a, b, config, up=i % 2 == 1) if deep else GBlock(a, b, config) for i, (a, b) in enumerate(config.blocks)
        )
        self.attention = nn.ModuleDict(
            {str(i): SelfAttention(config.blocks[i][1], key, value) for i, key, value in config.attention}
        )
        self.norm = PlainNorm(config.blocks[-1][1], additive=config.additive)
        self.conv = nn.Conv2d(config.blocks[-1][1], config.colours, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        config = self.config
        if label is None:
            raise ShapeError("this generator is conditional and got no labels")
        if z.ndim != 2 or z.shape[1] != config.z_size:
            raise ShapeError(f"latents have shape {tuple(z.shape)}, this generator takes (rows, {config.z_size})")
        y = self.shared(label) if self.shared is not None else label
        parts: list[Tensor]
        if config.kind == "deep":
            entry = torch.cat([y, z], 1)
            parts = [entry] * len(self.blocks)
        elif config.hierarchical:
            entry, *chunks = torch.split(z, self.chunk, 1)
            parts = [torch.cat([y, chunk], 1) for chunk in chunks]
        else:
            entry, parts = z, [y] * len(self.blocks)
        h = self.linear(entry).reshape(len(z), -1, config.bottom, config.bottom)
        for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            h = block(h, part)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        return torch.tanh(self.conv(F.relu(self.norm(h))))


@dataclass(frozen=True)
class DeepDConfig:
    """What a BigGAN-deep discriminator is made of."""

    stages: tuple[tuple[int, int, int, bool], ...]  # channels in and out, number of blocks, whether the first one pools
    classes: int
    attention: Attention = ()
    colours: int = 3

    def json(self) -> dict[str, Any]:
        """Return the form that a card holds."""
        return asdict(self)

    @staticmethod
    def from_json(card: Mapping[str, Any]) -> DeepDConfig:
        """Return the config of a card; the inverse of `json`."""
        stages = tuple((int(a), int(b), int(n), bool(p)) for a, b, n, p in card["stages"])
        attention = tuple((int(a), int(b), int(c)) for a, b, c in card["attention"])
        return DeepDConfig(**{**card, "stages": stages, "attention": attention})


class DeepDBlock(nn.Module):
    """Bottleneck block; the shortcut gets its new channels from a 1x1 convolution of itself."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool) -> None:
        super().__init__()
        hidden = outputs // 4
        self.conv1 = nn.Conv2d(inputs, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(hidden, outputs, 1)
        self.conv_sc = nn.Conv2d(inputs, outputs - inputs, 1) if outputs > inputs else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        t = self.conv2(F.relu(self.conv1(F.relu(x))))
        t = F.relu(self.conv3(F.relu(t)))
        if self.pool:
            t, x = F.avg_pool2d(t, 2), F.avg_pool2d(x, 2)
        if self.conv_sc is not None:
            x = torch.cat([x, self.conv_sc(x)], 1)
        out: Tensor = self.conv4(t) + x
        return out


class BigGANDeepDiscriminator(nn.Module):
    """`forward(images, label) -> (rows,)` logits, higher for more real."""

    def __init__(self, config: DeepDConfig) -> None:
        super().__init__()
        self.config = config
        self.input_conv = nn.Conv2d(config.colours, config.stages[0][0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.ModuleList(DeepDBlock(a if j == 0 else b, b, pool=pool and j == 0) for j in range(n))
            for a, b, n, pool in config.stages
        )
        self.attention = nn.ModuleDict({str(i): SelfAttention(config.stages[i][1], k, v) for i, k, v in config.attention})
        width = config.stages[-1][1]
        self.linear = nn.Linear(width, 1)
        self.embed = embedding(config.classes, width)

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows, width): what the last linear layer sees."""
        h = self.input_conv(images)
        for i, stage in enumerate(self.stages):
            for block in stage:  # type: ignore[attr-defined]
                h = block(h)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        return F.relu(h).sum((2, 3))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return head(self.linear, self.embed, self.features(images), label)
