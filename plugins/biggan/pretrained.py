"""pytorch-pretrained-BigGAN: BigGAN-deep converted from the published TF-Hub modules. A generator only.

The project keeps batch statistics for 51 values of the truncation t. Between two rows of the table it weights them the wrong
way round, and rounding makes it miss some rows (t = 0.14, 0.28, 0.56, 0.58, 0.94); both are reproduced by default, so that
images equal the project's. `interpolation="linear"` is the correct form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentshift.errors import DamagedFileError, RequestError, ShapeError
from latentshift.files.statedict import Tensors

from ..residual import SelfAttention, scalar

FAMILY = "pytorch-pretrained-BigGAN"
_LAYER = re.compile(r"generator\.layers\.(\d+)\.(.+)")
_ATTENTION = {"snconv1x1_theta": "theta", "snconv1x1_phi": "phi", "snconv1x1_g": "g", "snconv1x1_o_conv": "o", "gamma": "gamma"}
# upsampling of the published 128, 256 and 512 px models, by number of blocks: every second block, the last one included
_PUBLISHED = {10: "FTFTFTFTFT", 12: "FTFTFTFTFTFT", 14: "FTFTFTFTFTFTFT"}


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


@dataclass(frozen=True)
class Config:
    """`layers`: (upsample, channels in, channels out) of each block; `attention_at`: the number of the block behind it."""

    z_size: int
    classes: int
    layers: tuple[tuple[bool, int, int], ...]
    attention_at: int
    key: int
    value: int
    n_stats: int
    eps: float = 1e-4

    @property
    def resolution(self) -> int:
        """Side of the image in pixels."""
        return 4 << sum(up for up, _, _ in self.layers)

    def json(self) -> dict[str, Any]:
        """Return the form that a card holds."""
        return asdict(self)

    @staticmethod
    def from_json(card: Mapping[str, Any]) -> Config:
        """Return the config of a card; the inverse of `json`."""
        layers = tuple((bool(u), int(a), int(b)) for u, a, b in card["layers"])
        return Config(**{**card, "layers": layers})


def table_rows(t: float, n_stats: int, interpolation: Literal["published", "linear"] = "published") -> tuple[int, int, float]:
    """Return (row a, row b, weight of a) of the statistics at truncation t.

    >>> table_rows(0.43, 51)[:2], round(table_rows(0.43, 51)[2], 3)  # row 21 gets the weight that row 22 should have
    ((21, 22), 0.5)
    """
    if not 0 <= t <= 1:
        raise RequestError(f"truncation is between 0 and 1, not {t}", where="--trunc")
    fraction, whole = math.modf(t / (1.0 / (n_stats - 1)))
    a = int(whole)
    if fraction == 0.0 or a + 1 >= n_stats:
        return a, a, 1.0
    return a, a + 1, fraction if interpolation == "published" else 1 - fraction


class TableNorm(nn.Module):
    """Batch norm with statistics of a truncation; conditional (scale and offset of the condition) or plain."""

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, condition: int | None, config: Config) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(config.n_stats, channels))
        self.register_buffer("running_vars", torch.ones(config.n_stats, channels))
        self.eps = config.eps
        if condition is None:
            self.weight: nn.Parameter | None = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.weight = None
            self.scale = nn.Linear(condition, channels, bias=False)
            self.offset = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor, rows: tuple[int, int, float]) -> Tensor:
        a, b, part = rows
        mean, var = self.running_means[a], self.running_vars[a]
        if a != b:
            mean = mean * part + self.running_means[b] * (1 - part)
            var = var * part + self.running_vars[b] * (1 - part)
        if self.weight is None:
            gain, bias = 1 + self.scale(condition), self.offset(condition)
        else:
            gain, bias = self.weight, self.bias
        gain = gain * torch.rsqrt(var + self.eps)
        shift = bias - mean * gain
        return torch.addcmul(shift[..., None, None], x, gain[..., None, None])


class Block(nn.Module):
    """Bottleneck block; a block with fewer outputs keeps the first half of the shortcut's channels."""

    def __init__(self, up: bool, inputs: int, outputs: int, config: Config) -> None:
        super().__init__()
        hidden, condition = inputs // 4, 2 * config.z_size
        self.bn_0 = TableNorm(inputs, condition, config)
        self.bn_1 = TableNorm(hidden, condition, config)
        self.bn_2 = TableNorm(hidden, condition, config)
        self.bn_3 = TableNorm(hidden, condition, config)
        self.conv_0 = nn.Conv2d(inputs, hidden, 1)
        self.conv_1 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv_2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv_3 = nn.Conv2d(hidden, outputs, 1)
        self.up, self.kept = up, inputs // 2 if inputs != outputs else inputs

    def forward(self, x: Tensor, condition: Tensor, rows: tuple[int, int, float]) -> Tensor:
        t = self.conv_0(F.relu(self.bn_0(x, condition, rows)))
        t = F.relu(self.bn_1(t, condition, rows))
        side = x[:, : self.kept]
        if self.up:
            t, side = _up(t), _up(side)
        t = F.relu(self.bn_2(self.conv_1(t), condition, rows))
        t = F.relu(self.bn_3(self.conv_2(t), condition, rows))
        out: Tensor = self.conv_3(t) + side
        return out


class PretrainedGenerator(nn.Module):
    """`forward(z, label) -> (rows, 3, S, S)` in [-1, 1] at `self.truncation`; z = t * truncated normal on [-2, 2]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.truncation = 1.0
        self.interpolation: Literal["published", "linear"] = "published"
        width = config.layers[-1][2]
        self.embeddings = nn.Linear(config.classes, config.z_size, bias=False)
        self.gen_z = nn.Linear(2 * config.z_size, 16 * config.layers[0][1])
        self.layers = nn.ModuleList(Block(up, a, b, config) for up, a, b in config.layers)
        before = config.layers[config.attention_at][1] if config.attention_at < len(config.layers) else width
        self.attention = SelfAttention(before, config.key, config.value)
        self.bn = TableNorm(width, None, config)
        # the file's convolution has `width` outputs, of which three are used; only those are kept
        self.conv_to_rgb = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        config = self.config
        if label is None:
            raise ShapeError("this generator is conditional and got no labels")
        if z.ndim != 2 or z.shape[1] != config.z_size:
            raise ShapeError(f"latents have shape {tuple(z.shape)}, this generator takes (rows, {config.z_size})")
        rows = table_rows(self.truncation, config.n_stats, self.interpolation)
        condition = torch.cat([z, self.embeddings.weight.T[label]], 1)
        h = self.gen_z(condition).reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2).contiguous()
        for i, layer in enumerate(self.layers):
            if i == config.attention_at:
                h = self.attention(h)
            h = layer(h, condition, rows)
        if config.attention_at == len(self.layers):
            h = self.attention(h)
        return torch.tanh(self.conv_to_rgb(F.relu(self.bn(h, condition, rows))))


def is_generator(keys: Mapping[str, Any]) -> bool:
    """Return whether these are the names of a pytorch-pretrained-BigGAN generator."""
    return "embeddings.weight" in keys and any(k.startswith("generator.gen_z.") for k in keys)


def infer(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None, notes: list[str]) -> tuple[Config, Tensors]:
    """Return (config, tensors under our names); `config` is the model's config.json where there is one.

    Without it, shapes give all but eps and which blocks upsample: those are taken from the published models where the
    number of blocks is theirs (10, 12, 14). Raises RequestError otherwise, DamagedFileError where file and config disagree.
    """
    numbers = sorted({int(m[1]) for k in tensors if (m := _LAYER.fullmatch(k))})
    at = [i for i in numbers if f"generator.layers.{i}.gamma" in tensors]
    if len(at) != 1 or numbers != list(range(len(numbers))):
        raise DamagedFileError(f"{FAMILY}: layers {numbers} with attention at {at}: one attention and no gaps were expected")
    blocks = [i for i in numbers if i not in at]
    try:
        sizes = [
            (tensors[f"generator.layers.{i}.conv_0.weight"].shape[1], tensors[f"generator.layers.{i}.conv_3.weight"].shape[0])
            for i in blocks
        ]
        z_size, classes = tensors["embeddings.weight"].shape
        n_stats = tensors["generator.bn.running_means"].shape[0]
        key = tensors[f"generator.layers.{at[0]}.snconv1x1_theta.weight"].shape[0]
        value = tensors[f"generator.layers.{at[0]}.snconv1x1_g.weight"].shape[0]
    except KeyError as error:
        raise DamagedFileError(f"{FAMILY}: tensor {error.args[0]!r} is missing") from None
    eps = 1e-4
    if config is not None:
        ups, eps = _told(config, sizes, z_size, classes, n_stats, at[0])
    elif len(blocks) in _PUBLISHED:
        ups = [c == "T" for c in _PUBLISHED[len(blocks)]]
        notes.append("no config.json: upsampling and eps 1e-4 were taken from the published model of this size")
    else:
        raise RequestError(
            f"{FAMILY}: {len(blocks)} blocks and no config.json, which tells where the resolution doubles",
            way_out="Put config.json beside the weights.",
        )
    layers = tuple((up, a, b) for up, (a, b) in zip(ups, sizes, strict=True))
    return Config(z_size, classes, layers, at[0], key, value, n_stats, eps), _rename(tensors, at[0])


def _told(
    config: Mapping[str, Any], sizes: list[tuple[int, int]], z_size: int, classes: int, n_stats: int, at: int
) -> tuple[list[bool], float]:
    """Check config.json against the shapes and return (upsample of each block, eps)."""
    try:
        width = int(config["channel_width"])
        layers = [(bool(u), int(a) * width, int(b) * width) for u, a, b in config["layers"]]
        told = {k: int(config[k]) for k in ("z_dim", "num_classes", "n_stats", "attention_layer_position")}
        eps = float(config["eps"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{FAMILY}: config.json cannot be read: {type(error).__name__} {error}") from None
    seen = {"z_dim": z_size, "num_classes": classes, "n_stats": n_stats, "attention_layer_position": at}
    for name, value in seen.items():
        if told[name] != value:
            raise DamagedFileError(f"{FAMILY}: config.json says {name} {told[name]}, the weights say {value}")
    if [(a, b) for _, a, b in layers] != sizes:
        raise DamagedFileError(f"{FAMILY}: config.json says blocks {[(a, b) for _, a, b in layers]}, the weights say {sizes}")
    return [u for u, _, _ in layers], eps


def _rename(tensors: Mapping[str, Tensor], at: int) -> Tensors:
    out: Tensors = {}
    for key, tensor in tensors.items():
        m = _LAYER.fullmatch(key)
        if m and int(m[1]) == at:
            head, dot, rest = m[2].partition(".")
            out[f"attention.{_ATTENTION.get(head, head)}{dot}{rest}"] = scalar(tensor, key) if head == "gamma" else tensor
        elif m:
            number = int(m[1]) - (int(m[1]) > at)
            out[f"layers.{number}.{m[2]}"] = tensor
        elif key.startswith("generator.conv_to_rgb."):
            out[key.removeprefix("generator.")] = tensor[:3]
        else:
            out[key.removeprefix("generator.")] = tensor
    return out
