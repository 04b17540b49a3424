"""Frozen networks under an honest critic: images in, a map of features out, differentiable, no weight ever moved.

A trunk is registered under `latentshift.trunks`: an object with `name`, `line`, `network` (the network that may then not
judge) and `build(side, image_range) -> module` from float images (rows, C, side, side) to (rows, channels, h, w) or
(rows, channels). Where the module is a layer network the critic's folder holds all of it; else the folder names the plug-in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..lazy import torch

if TYPE_CHECKING:
    from torch import nn

BUNDLED = Path(__file__).resolve().parents[1] / "data" / "squeezenet10" / "squeezenet.safetensors"


class Trunk(Protocol):
    """What a plug-in offers."""

    name: str
    line: str
    network: str

    def build(self, side: int, image_range: tuple[float, float]) -> nn.Module:
        """Return the frozen network for images of `side` pixels in `image_range`."""
        ...


def _maxpool() -> dict[str, Any]:
    return {"op": "MaxPool2d", "kw": {"kernel_size": 3, "stride": 2, "ceil_mode": True}}


@dataclass(frozen=True)
class SqueezeNetTrunk:
    """SqueezeNet 1.0 up to fire5, trained on ImageNet (bundled, BSD): images at 64 pixels (128 for larger ones)."""

    name: str = "squeezenet"
    line: str = "SqueezeNet 1.0 up to fire5, ImageNet, images at 64 or 128 pixels (bundled, BSD)"
    network: str = "squeezenet10"
    file: Path = BUNDLED

    def entries(self, side: int, image_range: tuple[float, float]) -> list[dict[str, Any]]:
        """Return the layer list."""
        low, high = image_range
        look: dict[str, Any] = {"size": 64 if side <= 64 else 128, "low": low, "high": high}
        fires = ((96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128))
        fire = [
            {"op": "Fire", "key": f"fire{i}", "kw": dict(zip(("inputs", "squeeze", "expand"), widths, strict=True))}
            for i, widths in enumerate(fires, start=2)
        ]
        first = {"in_channels": 3, "out_channels": 96, "kernel_size": 7, "stride": 2}
        return [
            {"op": "ImageInput", "kw": {**look, "bgr": True, "mean": [104, 117, 123]}},
            {"op": "Conv2d", "key": "conv1", "kw": first},
            {"op": "ReLU"},
            _maxpool(),
            *fire[:3],
            _maxpool(),
            fire[3],
        ]

    def build(self, side: int, image_range: tuple[float, float]) -> nn.Module:
        from ..files.folder import read_safetensors
        from ..layers import LayerNet

        tensors = read_safetensors(self.file)
        net = LayerNet(self.entries(side, image_range), where=self.name, meta=True).load(tensors, strict=False)
        return net.eval().requires_grad_(False)


SQUEEZENET = SqueezeNetTrunk()


def get_trunk(name: str) -> Trunk:
    """Return a trunk by name; raises UnknownNameError with near matches."""
    from .. import registry

    found: Trunk = registry.get("trunks", name)
    return found


def through(trunk: nn.Module, head: nn.Module) -> nn.Module:
    """Return head(trunk(images)) as one module in evaluation mode."""
    return torch.nn.Sequential(trunk, head).eval().requires_grad_(False)
