"""The Inception network of the FID, in plain torch: the TensorFlow graph of 2015-12-05 (Szegedy et al. 2015, Inception v3).

Weights are not bundled. They are read from a local file, by the reader that never runs a file's code, or fetched when the
name `inception` is asked for: the state dict that pytorch-fid publishes (sha256 6726825d..., 95 MB, Apache-2.0), which
torch-fidelity reads too. Tensor names and shapes are that file's; the graph's own ways are those that Heusel et al. 2017
and Salimans et al. 2016 used:

    input      RGB bytes, resized to 299 as TensorFlow 1 did (no antialiasing, no half-pixel shift), (x - 128) / 128
    averages   pooling leaves the border out of its count
    last block its pooling branch takes the maximum (in the first of the two like blocks: the average)
    features   2,048 means over space; logits 1,008, without the bias, as the published scores were computed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DamagedFileError
from .features import Network

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299
CLASSES = 1008

#: a convolution: name, outputs, kernel (height, width), stride; without stride 2 the output keeps its size
Conv = tuple[str, int, tuple[int, int], int]


def _c(name: str, out: int, height: int = 1, width: int = 0, stride: int = 1) -> Conv:
    return name, out, (height, width or height), stride


class Unit(nn.Module):
    """Convolution without bias, batch normalisation (eps 0.001), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, joined on the channels.

    `branches`: each a chain of convolutions; a tuple as its last link forks, both of its convolutions see the same input.
    `pool`: 'average' or 'max' before the branch `branch_pool`, or 'stride' for a pool of stride 2 that joins as it is.
    """

    def __init__(self, inputs: int, branches: list[list[Any]], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.pool, self.plan = pool, []
        self.outputs = 0
        for branch in branches:
            width, names = inputs, []
            for link in branch:
                forks = list(link) if isinstance(link[0], tuple) else [link]
                for name, out, kernel, stride in forks:
                    padding = 0 if stride == 2 else (kernel[0] // 2, kernel[1] // 2)
                    self.add_module(name, Unit(width, out, kernel, stride, padding))
                names.append([f[0] for f in forks])
                width = sum(f[1] for f in forks)
            self.plan.append(names)
            self.outputs += width
        if pool == "stride":
            self.outputs += inputs
        else:
            self.branch_pool = Unit(inputs, pooled, (1, 1))
            self.outputs += pooled

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for branch in self.plan:
            y = x
            for names in branch:
                y = (
                    torch.cat([self.get_submodule(n)(y) for n in names], 1)
                    if len(names) > 1
                    else self.get_submodule(names[0])(y)
                )
            out.append(y)
        if self.pool == "stride":
            out.append(F.max_pool2d(x, 3, 2))
        elif self.pool == "max":
            out.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            out.append(self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        return torch.cat(out, 1)


def _double(a: int, b: int) -> list[Conv]:
    return [_c("branch3x3dbl_1", a), _c("branch3x3dbl_2", b, 3), _c("branch3x3dbl_3", b, 3)]


def _five(inputs: int, pooled: int) -> Mixed:
    five = [_c("branch5x5_1", 48), _c("branch5x5_2", 64, 5)]
    return Mixed(inputs, [[_c("branch1x1", 64)], five, _double(64, 96)], "average", pooled)


def _seven(width: int) -> Mixed:
    one = [_c("branch7x7_1", width), _c("branch7x7_2", width, 1, 7), _c("branch7x7_3", 192, 7, 1)]
    two = [_c("branch7x7dbl_1", width), _c("branch7x7dbl_2", width, 7, 1), _c("branch7x7dbl_3", width, 1, 7)]
    two += [_c("branch7x7dbl_4", width, 7, 1), _c("branch7x7dbl_5", 192, 1, 7)]
    return Mixed(768, [[_c("branch1x1", 192)], one, two], "average", 192)


def _last(inputs: int, pool: str) -> Mixed:
    one = [_c("branch3x3_1", 384), (_c("branch3x3_2a", 384, 1, 3), _c("branch3x3_2b", 384, 3, 1))]
    two = [_c("branch3x3dbl_1", 448), _c("branch3x3dbl_2", 384, 3)]
    fork = (_c("branch3x3dbl_3a", 384, 1, 3), _c("branch3x3dbl_3b", 384, 3, 1))
    return Mixed(inputs, [[_c("branch1x1", 320)], one, [*two, fork]], pool, 192)


class Inception(nn.Module):
    """Input (n, 3, 299, 299) from `prepare`; features (n, 2048), logits (n, 1008) without the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = Unit(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = Unit(32, 64, (3, 3), padding=1)
        self.Conv2d_3b_1x1 = Unit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Unit(80, 192, (3, 3))
        self.Mixed_5b = _five(192, 32)
        self.Mixed_5c = _five(256, 64)
        self.Mixed_5d = _five(288, 64)
        reduce = [_c("branch3x3dbl_1", 64), _c("branch3x3dbl_2", 96, 3), _c("branch3x3dbl_3", 96, 3, stride=2)]
        self.Mixed_6a = Mixed(288, [[_c("branch3x3", 384, 3, stride=2)], reduce], "stride")
        self.Mixed_6b = _seven(128)
        self.Mixed_6c = _seven(160)
        self.Mixed_6d = _seven(160)
        self.Mixed_6e = _seven(192)
        one = [_c("branch3x3_1", 192), _c("branch3x3_2", 320, 3, stride=2)]
        two = [_c("branch7x7x3_1", 192), _c("branch7x7x3_2", 192, 1, 7), _c("branch7x7x3_3", 192, 7, 1)]
        self.Mixed_7a = Mixed(768, [one, [*two, _c("branch7x7x3_4", 192, 3, stride=2)]], "stride")
        self.Mixed_7b = _last(1280, "average")
        self.Mixed_7c = _last(2048, "max")
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for name, module in self.named_children():
            if name == "fc":
                break
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = F.max_pool2d(x, 3, 2)
            x = module(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def resize_tf1(x: Tensor, side: int) -> Tensor:
    """Bilinear resize of (n, C, H, W) as TensorFlow 1 does it: pixel i is taken from i * size / side, no antialiasing."""
    for axis in (2, 3):
        size = x.shape[axis]
        if size == side:
            continue
        at = torch.arange(side, device=x.device, dtype=torch.float32) * (size / side)
        low = at.floor().long().clamp(max=size - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = side
        part = (at - low).to(x.dtype).view(shape)
        a, b = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=size - 1))
        x = a + (b - a) * part
    return x


def prepare(images: Tensor) -> Tensor:
    """RGB bytes (n, 3, H, W) to the network's input."""
    return (resize_tf1(images.float(), SIDE) - 128) / 128


def load_inception(path: str | Path) -> Network:
    """Build the network from a local file of its weights; DamagedFileError where they are another network's."""
    from ..files.checkpoint import read_tensors
    from .networks import fill

    path = Path(path)
    tree = read_tensors(path).tree
    if not isinstance(tree, dict) or not all(isinstance(v, Tensor) for v in tree.values()):
        raise DamagedFileError("not a state dict of the Inception network", where=str(path))
    with torch.device("meta"):
        net = Inception()
    return Network("inception", fill(net.to_empty(device="cpu"), tree, path), prepare, 3, SIDE)


def fetch_inception(*, offline: bool = False) -> Network:
    """Build the network from the published weights, fetched once into the cache and checked by their sha256."""
    from ..files.fetch import fetch

    return load_inception(fetch(URL, sha256=SHA256, offline=offline))
