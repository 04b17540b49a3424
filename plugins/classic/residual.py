"""Residual classics from shapes: the ResNets of pytorch-gan-collections and AdvLatGAN, and mimicry's networks.

Both are brought to one generator (`ResidualG`) and one discriminator (`latentshift_plugins.residual.ResidualD`); the projects
differ in upsampling (nearest, bilinear), in what the shortcut of D sees, in the last pooling, in labels and attention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentshift.errors import DamagedFileError, RequestError, ShapeError

from ..residual import DBlockConfig, DConfig, ResidualD, SelfAttention, embedding, fill, scalar
from .halves import Half, Tensors, axes, numbers, square

COLLECTIONS = "pytorch-gan-collections ResNet"
MIMICRY = "mimicry"


@dataclass(frozen=True)
class GConfig:
    """What a residual generator is made of."""

    z_size: int
    bottom: int
    blocks: tuple[tuple[int, int, int], ...]  # channels in, hidden, out
    up: Literal["nearest", "bilinear"]
    classes: int | None = None
    attention: tuple[tuple[int, int, int], ...] = ()  # (after block, key channels, value channels)
    colours: int = 3
    sigmoid: bool = False

    def json(self) -> dict[str, Any]:
        """Return the form that a card holds."""
        return asdict(self)

    @staticmethod
    def from_json(card: Mapping[str, Any]) -> GConfig:
        """Return the config of a card; the inverse of `json`."""
        blocks = tuple((int(a), int(b), int(c)) for a, b, c in card["blocks"])
        attention = tuple((int(a), int(b), int(c)) for a, b, c in card["attention"])
        return GConfig(**{**card, "blocks": blocks, "attention": attention})


class LabelNorm(nn.Module):
    """Batch norm whose scale and shift are looked up by the label: first and second half of `embed`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.embed = embedding(classes, 2 * channels)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gamma, beta = self.embed(label)[..., None, None].chunk(2, 1)
        return torch.addcmul(beta, self.bn(x), gamma)


class GBlock(nn.Module):
    """Residual block that doubles the resolution."""

    def __init__(self, inputs: int, hidden: int, outputs: int, config: GConfig) -> None:
        super().__init__()
        self.bn1, self.bn2 = (LabelNorm(c, config.classes) if config.classes else nn.BatchNorm2d(c) for c in (inputs, hidden))
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)
        self.conv_sc = nn.Conv2d(inputs, outputs, 1)
        self.bilinear = config.up == "bilinear"

    def up(self, x: Tensor) -> Tensor:
        if self.bilinear:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        def norm(bn: nn.Module, h: Tensor) -> Tensor:
            out: Tensor = bn(h, label) if isinstance(bn, LabelNorm) else bn(h)
            return F.relu(out)

        t = self.conv1(self.up(norm(self.bn1, x)))
        t = self.conv2(norm(self.bn2, t))
        # a 1x1 convolution commutes with both kinds of upsampling: a quarter of the work
        out: Tensor = t + self.up(self.conv_sc(x))
        return out


class ResidualG(nn.Module):
    """`forward(z, label=None) -> (rows, colours, S, S)` in [-1, 1], or [0, 1] with `sigmoid`."""

    def __init__(self, config: GConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.blocks[0][0], config.blocks[-1][2]
        self.linear = nn.Linear(config.z_size, first * config.bottom**2)
        self.blocks = nn.ModuleList(GBlock(*b, config) for b in config.blocks)
        self.attention = nn.ModuleDict(
            {str(i): SelfAttention(config.blocks[i][2], key, value) for i, key, value in config.attention}
        )
        self.bn = nn.BatchNorm2d(last)
        self.conv = nn.Conv2d(last, config.colours, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        config = self.config
        if config.classes and label is None:
            raise ShapeError("this generator is conditional and got no labels")
        h = self.linear(z).reshape(z.shape[0], -1, config.bottom, config.bottom)
        for i, block in enumerate(self.blocks):
            h = block(h, label)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        h = self.conv(F.relu(self.bn(h)))
        return torch.sigmoid(h) if config.sigmoid else torch.tanh(h)


def recognise(tensors: Tensors, spectral: bool) -> Half | None:
    """Return the network that these plain tensors are, or None for none of these families.

    `spectral`: whether the file held spectral norms (they tell SNGAN from WGAN).
    """
    if "blocks.0.residual.3.weight" in tensors:
        return _collections_generator(tensors)
    if "model.0.residual.0.weight" in tensors:
        return _collections_discriminator(tensors, spectral)
    if "l1.weight" in tensors and "block2.c1.weight" in tensors:
        return _mimicry_generator(tensors)
    if "block1.c1.weight" in tensors or "local_feat_blocks.0.c1.weight" in tensors:
        return _mimicry_discriminator(tensors, spectral)
    return None


def build_g(config: GConfig, tensors: Tensors, what: str) -> ResidualG:
    """Return the filled generator of a config."""
    with torch.device("meta"):
        net = ResidualG(config)
    fill(net, _counted(net, tensors), what)
    return net


def build_d(config: DConfig, tensors: Tensors, what: str) -> ResidualD:
    """Return the filled discriminator of a config."""
    with torch.device("meta"):
        net = ResidualD(config)
    fill(net, tensors, what)
    return net


def _counted(net: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
    """Give torch's batch norms their counters, which evaluation does not use and a file may lack."""
    counters = {k: torch.zeros((), dtype=torch.long) for k in net.state_dict() if k.endswith("num_batches_tracked")}
    return {**{k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}, **counters}


def _rename(tensors: Tensors, rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    out = {}
    for key, tensor in tensors.items():
        name = key
        for pattern, new in rules:
            name, hit = re.subn(pattern, new, key)
            if hit:
                break
        out[name] = scalar(tensor, key) if name.endswith(".gamma") else tensor
    return out


def _g_half(family: str, config: GConfig, named: Tensors, loss: str = "") -> Half:
    net = build_g(config, named, f"{family} G")
    side = config.bottom * 2 ** len(config.blocks)
    return Half("G", family, net, (side,), config.colours, config.z_size, config.classes, loss, {"G": config.json()})


def _collections_generator(tensors: Tensors) -> Half:
    rules = [
        (r"^blocks\.(\d+)\.residual\.0\.", r"blocks.\1.bn1."),
        (r"^blocks\.(\d+)\.residual\.3\.", r"blocks.\1.conv1."),
        (r"^blocks\.(\d+)\.residual\.4\.", r"blocks.\1.bn2."),
        (r"^blocks\.(\d+)\.residual\.6\.", r"blocks.\1.conv2."),
        (r"^blocks\.(\d+)\.shortcut\.1\.", r"blocks.\1.conv_sc."),
        (r"^output\.0\.", "bn."),
        (r"^output\.2\.", "conv."),
    ]
    n = len(numbers(tensors, r"blocks\.(\d+)\.residual\."))
    # the older generation keeps the output in the same list: norm, relu, convolution
    rules += [(rf"^blocks\.{n}\.", "bn."), (rf"^blocks\.{n + 2}\.", "conv.")]
    named = _rename(tensors, rules)
    config = _g_config(named, n, "nearest")
    newer = "output.0.weight" in tensors
    return replace(_g_half(COLLECTIONS, config, named), config={"G": config.json(), "newer": newer})


def _g_config(named: Tensors, n: int, up: Literal["nearest", "bilinear"]) -> GConfig:
    shapes = [(axes(named, f"blocks.{i}.conv1.weight", 4), axes(named, f"blocks.{i}.conv2.weight", 4)) for i in range(n)]
    blocks = tuple((a[1], a[0], b[0]) for a, b in shapes)
    rows, z_size = axes(named, "linear.weight", 2)
    embed = "blocks.0.bn1.embed.weight"
    return GConfig(
        z_size,
        square(rows, blocks[0][0], "the first linear layer"),
        blocks,
        up,
        axes(named, embed, 2)[0] if embed in named else None,
        _attention(named),
        axes(named, "conv.weight", 4)[0],
    )


def _attention(named: Tensors) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        (i, axes(named, f"attention.{i}.theta.weight", 4)[0], axes(named, f"attention.{i}.g.weight", 4)[0])
        for i in numbers(named, r"attention\.(\d+)\.")
    )


def _d_blocks(named: Tensors, n: int) -> list[DBlockConfig]:
    """Blocks with a convolution in the shortcut pool; the families' exceptions are the caller's."""
    blocks = []
    for i in range(n):
        hidden, inputs = axes(named, f"blocks.{i}.conv1.weight", 4)[:2]
        shortcut = f"blocks.{i}.conv_sc.weight" in named
        blocks.append(DBlockConfig(inputs, hidden, axes(named, f"blocks.{i}.conv2.weight", 4)[0], shortcut, shortcut))
    return blocks


def _collections_discriminator(tensors: Tensors, spectral: bool) -> Half:
    rules = [
        (r"^model\.0\.residual\.0\.", "blocks.0.conv1."),
        (r"^model\.0\.residual\.2\.", "blocks.0.conv2."),
        (r"^model\.(\d+)\.residual\.1\.", r"blocks.\1.conv1."),
        (r"^model\.(\d+)\.residual\.3\.", r"blocks.\1.conv2."),
        (r"^model\.(\d+)\.shortcut\.[01]\.", r"blocks.\1.conv_sc."),
    ]
    named = _rename(tensors, rules)
    blocks = _d_blocks(named, len(numbers(tensors, r"model\.(\d+)\.residual\.")))
    bias = "linear.bias" in named
    every = all(b.pool for b in blocks)
    # WGAN-GP, older: mean at the end. At 48 px there is only the older one; at 32 px G tells the generation.
    config = DConfig(tuple(blocks), linear_bias=bias, reduce="mean" if bias and every and not spectral else "sum")

    def half(c: DConfig) -> Half:
        net = build_d(c, named, f"{COLLECTIONS} D")
        loss = "hinge" if spectral else "wasserstein" if bias else ""
        return Half("D", COLLECTIONS, net, (48,) if every else (32,), blocks[0].inputs, loss=loss, config={"D": c.json()})

    def settle(G: Half) -> Half:
        if spectral or not bias or every or G.config.get("newer") is not False:
            return half(config)
        return half(replace(config, reduce="mean"))

    return replace(half(config), settle=settle)


def _mimicry_generator(tensors: Tensors) -> Half:
    blocks = numbers(tensors, r"block(\d+)\.c1\.")
    if blocks != list(range(2, 2 + len(blocks))):
        raise DamagedFileError(f"{MIMICRY} G: blocks {blocks} are not numbered from 2 without gaps")
    top = blocks[-1] + 1
    attended = 1 if len(blocks) == 3 else 2  # after the second block at 32 px, after the third at 128 px
    named = _rename(
        tensors,
        [
            (r"^l1\.", "linear."),
            (rf"^b{top}\.", "bn."),
            (rf"^c{top}\.", "conv."),
            (r"^attn_block\.", f"attention.{attended}."),
            *((rf"^block{i}\.{old}\.", f"blocks.{i - 2}.{new}.") for i in blocks for old, new in _MIMICRY_NAMES),
        ],
    )
    return _g_half(MIMICRY, _g_config(named, len(blocks), "bilinear"), named)


_MIMICRY_NAMES = (("b1", "bn1"), ("b2", "bn2"), ("c1", "conv1"), ("c2", "conv2"), ("c_sc", "conv_sc"))


def _mimicry_discriminator(tensors: Tensors, spectral: bool) -> Half:
    # InfoMax and self-supervised heads serve training only
    unused = ("local_nrkhs_", "global_nrkhs_") + (("l_y.",) if "l_y.bias" in tensors else ())
    kept = {k: v for k, v in tensors.items() if not k.startswith(unused)}
    local = len(numbers(kept, r"local_feat_blocks\.(\d+)\."))
    rules = [
        (r"^l_y\.", "embed."),
        (r"^l(\d+)\.", "linear."),
        (r"^attn_block\.", "attention.1."),
    ]
    names = _MIMICRY_NAMES[2:]
    rules += [(rf"^local_feat_blocks\.(\d+)\.{old}\.", rf"blocks.\1.{new}.") for old, new in names]
    for i in numbers(kept, r"global_feat_blocks\.(\d+)\."):
        rules += [(rf"^global_feat_blocks\.{i}\.{old}\.", f"blocks.{local + i}.{new}.") for old, new in names]
    for i in numbers(kept, r"block(\d+)\."):
        rules += [(rf"^block{i}\.{old}\.", f"blocks.{i - 1}.{new}.") for old, new in names]
    named = _rename(kept, rules)
    n = len(numbers(named, r"blocks\.(\d+)\."))
    if not 4 <= n <= 6:
        raise RequestError(f"{MIMICRY} D: {n} blocks; 4 to 6 are known (32 to 128 px)")
    head = next((int(m[1]) for k in kept if (m := re.match(r"l(\d+)\.weight", k))), None)
    sides = {4: (32,), 5: (48, 64), 6: (128,)}[n]
    if n == 5 and head is not None and spectral:
        sides = (48,) if head == 5 else (64,)
    elif n == 5 and head == 5:
        sides = (48,)
    blocks = _d_blocks(named, n)
    classes = axes(named, "embed.weight", 2)[0] if "embed.weight" in named else None
    config = DConfig(tuple(blocks), _attention(named), classes, "linear.bias" in named, "sum" if spectral else "mean", True)
    notes: list[str] = []
    if not spectral:
        notes.append("DCGAN's D sums over positions, WGAN-GP's averages, and the files are alike: averaged (pool='sum' sums)")
    if any(k.startswith(unused) for k in tensors):
        notes.append("left out heads of D that serve training only")

    def settle(G: Half) -> Half:
        side = next((s for s in sides if s in G.sides), sides[-1])
        built = config
        if side == 48:  # its last block widens without pooling
            built = replace(config, blocks=(*blocks[:-1], replace(blocks[-1], pool=False)))
        net = build_d(built, named, f"{MIMICRY} D")
        return Half(
            "D",
            MIMICRY,
            net,
            sides,
            blocks[0].inputs,
            classes=classes,
            loss="hinge" if spectral else "wasserstein",
            config={"D": built.json()},
            notes=tuple(notes),
        )

    return replace(settle(Half("G", MIMICRY, nn.Identity(), sides, 3)), settle=settle)
