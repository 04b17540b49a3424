"""Feature networks as plain modules, from a safetensors file given by path: uint8 images in, features and logits out.

SqueezeNet 1.0 (Iandola et al. 2016), the CIFAR ResNets (He et al. 2016, option A shortcuts), a small CNN for 28x28 grey
images; raw pixels are in `features`. None of them is the Inception of the FID, so a value is named by its network:
`FD-resnet20`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DamagedFileError, RequestError
from ..operations import Fire
from .features import Extracted, Features, Network, bilinear, extract, pixels, to_size

__all__ = [
    "Extracted",
    "Features",
    "Network",
    "ResNetCIFAR",
    "SmallCNN",
    "SqueezeNet",
    "extract",
    "load_network",
    "pixels",
]


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0. Input (n, 3, H, W) float from `caffe_bgr`; features 512, logits 1000."""

    #: input channels, squeeze, expand of fire2 to fire9
    FIRES = (
        *((96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)),
        *((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        for i, widths in enumerate(self.FIRES, start=2):
            self.add_module(f"fire{i}", Fire(*widths))
        self.conv10 = nn.Conv2d(512, 1000, 1, padding=1)

    def trunk(self, x: Tensor, last: int = 9) -> Tensor:
        """Return the output of fire`last` (2 to 9): (n, widths, H', W'), differentiable in x."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2, ceil_mode=True)
        for i in range(2, last + 1):
            x = self.get_submodule(f"fire{i}")(x)
            if i in (4, 8) and i != last:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return x.mean((2, 3)), F.relu(self.conv10(x)).mean((2, 3))


def caffe_bgr(x: Tensor) -> Tensor:
    """RGB 0..255 -> blue, green, red minus (104, 117, 123): its input (in RGB order it loses a third)."""
    return x.float().flip(1) - torch.tensor([104.0, 117.0, 123.0], device=x.device).view(1, 3, 1, 1)


class Block(nn.Module):
    """Two 3x3 convolutions; with stride 2 the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        o = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            pad = o.shape[1] // 4
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return F.relu(o + x)


class ResNetCIFAR(nn.Module):
    """ResNet of depth 6 n + 2 for 32x32. Input (n, 3, 32, 32) from `imagenet_scale`; features 64, logits `classes`."""

    def __init__(self, n: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for layer, width in enumerate((16, 32, 64), start=1):
            first = Block(inputs, width, 1 if layer == 1 else 2)
            self.add_module(f"layer{layer}", nn.Sequential(first, *(Block(width, width, 1) for _ in range(n - 1))))
            inputs = width
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)))
        for layer in (1, 2, 3):
            x = self.get_submodule(f"layer{layer}")(x)
        features = x.mean((2, 3))
        return features, self.linear(features)


def imagenet_scale(x: Tensor) -> Tensor:
    """RGB 0..255 -> (x / 255 - mean) / std with the usual ImageNet constants."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=x.device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=x.device).view(1, 3, 1, 1)
    return (x.float() / 255 - mean) / std


class SmallCNN(nn.Module):
    """Three 3x3 convolutions (24, 48, 96) with pooling, then 128 features. Input (n, 1, 28, 28) in 0..1."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1)
        self.conv2 = nn.Conv2d(24, 48, 3, padding=1)
        self.conv3 = nn.Conv2d(48, 96, 3, padding=1)
        self.fc1 = nn.Linear(864, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        features = F.relu(self.fc1(x.flatten(1)))
        return features, self.fc2(features)


def _to_28(images: Tensor) -> Tensor:
    """28x28 as it is; of 32x32 (28x28 with a border of 2) the border is cut off; else `to_size`."""
    if images.shape[2:] == (32, 32):
        images = images[:, :, 2:30, 2:30]
    return to_size(images, 28).float() / 255


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; DamagedFileError where it is none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedFileError(f"not a readable safetensors file: {error}", where=str(path)) from None


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Return `net` with these tensors, frozen and in evaluation mode; DamagedFileError names the first that does not fit."""
    state = {k: v.float() for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    want = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    for key, value in want.items():
        if key not in state:
            raise DamagedFileError(f"tensor {key!r} is missing", where=str(path))
        if state[key].shape != value.shape:
            raise DamagedFileError(
                f"tensor {key!r} is {tuple(state[key].shape)}, the network has {tuple(value.shape)}", where=str(path)
            )
        if not torch.isfinite(state[key]).all():
            raise DamagedFileError(f"tensor {key!r} holds NaN or infinite numbers", where=str(path))
    extra = sorted(set(state) - set(want))
    if extra:
        raise DamagedFileError(f"tensor {extra[0]!r} belongs to no layer ({len(extra)} such)", where=str(path))
    net.load_state_dict(state, strict=False)
    return net.eval().requires_grad_(False)


def load_network(path: str | Path, *, size: int | None = None, name: str = "") -> Network:
    """Build the feature network of a safetensors file; the architecture is recognised by the names of its tensors.

    `size`: input side, for SqueezeNet only (default 227; 112 is four times cheaper and another metric, so the name says
    it: `squeezenet112`). Raises DamagedFileError for a damaged file, RequestError for an unknown architecture.
    """
    path = Path(path)
    tensors = read_tensors(path)
    if "fire2.squeeze.weight" in tensors:
        side = size or 227
        if side < 32:
            raise RequestError(f"SqueezeNet needs an input of 32 pixels or more, not {side}")
        return Network(
            name or f"squeezenet{side}",
            fill(SqueezeNet(), tensors, path),
            lambda x: caffe_bgr(bilinear(x, side)),
            3,
            side,
        )
    if size is not None:
        raise RequestError("this network has a fixed input size", where=str(path))
    blocks = {int(m[1]) for k in tensors if (m := re.fullmatch(r"layer1\.(\d+)\.conv1\.weight", k))}
    if blocks and "linear.weight" in tensors:
        n = len(blocks)
        resnet = fill(ResNetCIFAR(n, len(tensors["linear.weight"])), tensors, path)
        return Network(name or f"resnet{6 * n + 2}", resnet, lambda x: imagenet_scale(to_size(x, 32)), 3, 32)
    if "fc2.weight" in tensors and "conv3.weight" in tensors:
        cnn = fill(SmallCNN(len(tensors["fc2.weight"])), tensors, path)
        return Network(name or path.stem.removesuffix("_fp16").replace("_", "-"), cnn, _to_28, 1, 28)
    raise RequestError(
        "unknown feature network",
        where=str(path),
        way_out="Known: SqueezeNet 1.0, CIFAR ResNets (depth 6 n + 2), the small CNN.",
    )
