"""DINOv2 features (Oquab et al. 2023) through the package `transformers`, as Stein et al. 2023 use them for distances.

Images are resized to 224 (bicubic, antialiased), scaled as ImageNet is; the features are the class token after the last
layer norm. The weights (Apache-2.0) are fetched by that package from the hub when the extractor is first asked for.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DownloadError, RequestError
from .features import Network
from .networks import imagenet_scale

MODEL = "facebook/dinov2-large"
SIDE = 224


class ClassToken(nn.Module):
    """The class token of a vision transformer of `transformers`: (n, 3, 224, 224) to (n, width); no logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.model(pixel_values=x).last_hidden_state[:, 0], None


def prepare(images: Tensor) -> Tensor:
    """RGB bytes (n, 3, H, W) to the network's input."""
    x = images.float()
    if x.shape[2:] != (SIDE, SIDE):
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)
    return imagenet_scale(x)


def of_model(model: Any, name: str) -> Network:
    """Wrap a model of `transformers` that gives `last_hidden_state`."""
    return Network(name, ClassToken(model).eval().requires_grad_(False), prepare, 3, SIDE)


def load_dinov2(argument: str = "") -> Network:
    """Return the extractor; `argument`: a local folder or another DINOv2 of the hub. RequestError without the extra."""
    try:
        from transformers import AutoModel
    except Exception as error:  # a broken install raises what it likes
        raise RequestError(
            f"DINOv2 needs the package transformers ({type(error).__name__})", way_out="pip install 'latentshift[dinov2]'."
        ) from None
    where = argument or MODEL
    try:
        model = AutoModel.from_pretrained(where)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(f"DINOv2 cannot be loaded: {text}", where=where, way_out="Give dinov2:FOLDER.") from None
    return of_model(
        model, "dinov2" if not argument else f"dinov2-{argument.rstrip('/').rpartition('/')[2].removeprefix('dinov2-')}"
    )
