"""Critics by name: anything that gives an image a number, and how it takes the discriminator's place.

A quality critic has `name`, `resolution` (or None), `differentiable`, `higher_is_better` and `score(images, labels)` -> (rows,)
for float images in [-1, 1], (rows, C, H, W). `as_critic` makes it the critic of a pair (`--critic NAME`), `Quality(critic)` a
term of an objective. Registered under `latentshift.critics`; each class's first line is what the listing shows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from .errors import DamagedFileError, FileError, MissingCapabilityError, RequestError, ShapeError, UsageError
from .lazy import torch
from .model import Critic, per_row

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class QualityCritic(Protocol):
    """What scores images."""

    name: str
    resolution: int | None
    differentiable: bool
    higher_is_better: bool

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return (rows,) for float images in [-1, 1], (rows, C, H, W)."""
        ...


def as_critic(quality: Any, *, image_range: tuple[float, float] = (-1.0, 1.0)) -> Critic:
    """Return a quality critic as the critic of a pair: images go from the pair's range to [-1, 1] and to the critic's size, and
    the sign is turned where lower is better. It has a score without a scale, so samplers ask for a calibration."""
    if not callable(getattr(quality, "score", None)):
        raise UsageError(f"{type(quality).__name__} is no critic: it has no score(images, labels)")
    low, high = image_range
    name, size = str(getattr(quality, "name", type(quality).__name__)), getattr(quality, "resolution", None)

    def call(images: Tensor, labels: Tensor | None = None) -> Tensor:
        if (low, high) != (-1.0, 1.0):
            images = (images - low) * (2 / (high - low)) - 1
        images = images if size is None else resized(images, size)
        return per_row(quality.score(images, labels), images.shape[0], name)

    return Critic(
        call,
        name,
        returns="critic",
        real_is="high" if getattr(quality, "higher_is_better", True) else "low",
        labels=True,
        differentiable=bool(getattr(quality, "differentiable", False)),
    )


def resized(images: Tensor, resolution: int | None) -> Tensor:
    """Return images (rows, C, H, W) at `resolution` squared (None: as they are), bilinear with antialiasing."""
    if images.ndim != 4:
        raise ShapeError(f"an image critic takes (rows, channels, height, width), not {tuple(images.shape)}")
    if resolution is None or tuple(images.shape[2:]) == (resolution, resolution):
        return images
    size = (resolution, resolution)
    out: Tensor = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return out


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 3:
        weight = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device)
        return (images * weight.reshape(1, 3, 1, 1)).sum(1)
    return images.mean(1)


@dataclass(frozen=True)
class Sharpness:
    """Share of an image's contrast that lies in fine detail; no download. Noise counts as detail: give a target.

    The log of the mean squared difference of neighbouring pixels over the variance of pixels (grey levels): 0 and more for
    noise (log 2 for white noise), about -3 to -6 for photographs, lower when blurred. Contrast and brightness do not matter. It
    knows nothing of content: climbed without a `target` it makes noise. With one, the score is minus the squared distance to
    it; take the mean over real images (`Sharpness().score(reals).mean()`).
    """

    target: float | None = None  # the level to come near to, as the score without a target gives it; none: the more, the better

    name: ClassVar[str] = "sharpness"
    resolution: ClassVar[int | None] = None
    differentiable: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = True

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        grey = _grey(resized(images, None))
        if min(grey.shape[1:]) < 2:
            raise ShapeError(f"sharpness needs 2 pixels or more each way, not {tuple(grey.shape[1:])}")
        across = (grey[:, :, 1:] - grey[:, :, :-1]).square().mean((1, 2))
        down = (grey[:, 1:] - grey[:, :-1]).square().mean((1, 2))
        spread = grey.var((1, 2), correction=0)
        score = ((across + down) / 2 + 1e-8).log() - (spread + 1e-8).log()
        return score if self.target is None else -(score - self.target).square()


@dataclass(frozen=True, eq=False)
class ClassLogit:
    """A classifier's logit of a class, from a judge's folder (card.json, judge.safetensors).

    `class_index` None takes each row's own label. `margin` takes off the log-sum-exp of all classes (the log probability),
    which cannot be raised by raising all logits.
    """

    folder: str  # a judge's folder: its last layer gives one logit per class
    class_index: int | None = None  # class from 0 up; none: the row's own label
    margin: bool = False  # log probability instead of the logit

    name: str = field(default="class-logit", init=False)
    resolution: int | None = field(default=None, init=False)
    differentiable: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = True
    net: Any = field(default=None, init=False, repr=False)
    classes: int = field(default=0, init=False)
    channels: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        from .files.folder import read_safetensors
        from .layers import LayerNet, output_shape

        folder = Path(self.folder)
        path = folder / "card.json"
        try:
            card = json.loads(path.read_text("utf-8"))
            layers, image = card["layers"], card["image"]
            shape = tuple(int(image[k]) for k in ("channels", "height", "width"))
        except OSError:
            raise FileError("no classifier here: it has no card.json", where=str(folder)) from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedFileError(f"not the card of a judge: {error!r}", where=str(path)) from None
        if not isinstance(layers, list) or image.get("range") != [-1, 1]:
            raise RequestError(
                "not a classifier's card: its layers are no list, or its images not in [-1, 1]",
                where=str(path),
                way_out="Give a judge's folder.",
            )
        net = LayerNet(layers, where=str(path), meta=True).load(read_safetensors(folder / "judge.safetensors"))
        out = output_shape(net, shape)
        if len(out) != 1 or out[0] < 2:
            raise RequestError(f"the network gives {out} for an image, not one logit per class", where=str(folder))
        if self.class_index is not None and not 0 <= self.class_index < out[0]:
            raise UsageError(f"class {self.class_index} of a classifier with classes 0 to {out[0] - 1}")
        object.__setattr__(self, "net", net.eval().requires_grad_(False))
        object.__setattr__(self, "resolution", shape[1])
        object.__setattr__(self, "classes", out[0])
        object.__setattr__(self, "channels", shape[0])

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = resized(images, self.resolution)
        if images.shape[1] != self.channels:
            raise ShapeError(f"the classifier takes {self.channels} channels, not {images.shape[1]}")
        logits: Tensor = self.net(images)
        if self.class_index is not None:
            labels = torch.full((len(images),), self.class_index, device=images.device)
        if labels is None:
            raise RequestError("the classifier was given no class", way_out="Give class_index, or labels.")
        picked = logits.gather(1, labels.reshape(-1, 1)).squeeze(1)
        return picked - logits.logsumexp(1) if self.margin else picked


@dataclass(frozen=True, eq=False)
class FolderCritic:
    """The discriminator of a pair folder, for another pair's images.

    Its images are resized to its own size. For D as the critic of a pair of the same size use
    `latentshift.files.folder.read_critic`, which keeps what its score means (log odds or not).
    """

    folder: str  # a pair folder: D.safetensors and card.json; its G is not needed

    name: str = field(default="D", init=False)
    resolution: int | None = field(default=None, init=False)
    differentiable: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = True
    critic: Any = field(default=None, init=False, repr=False)
    span: tuple[float, float] = field(default=(-1.0, 1.0), init=False)

    def __post_init__(self) -> None:
        from .files.folder import read_card, read_critic

        critic, image = read_critic(self.folder), read_card(Path(self.folder))["image"]
        low, high = image.get("range", [-1, 1])
        object.__setattr__(self, "critic", critic)
        object.__setattr__(self, "name", f"D of {Path(self.folder).name}")
        object.__setattr__(self, "resolution", int(image["height"]))
        object.__setattr__(self, "span", (float(low), float(high)))

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        low, high = self.span
        images = low + (resized(images, self.resolution) + 1) * ((high - low) / 2)
        out: Tensor = self.critic.logit(images, labels)
        return out


@dataclass(frozen=True)
class WeightedSum:
    """A weighted sum of critics, each turned so that higher is better.

    `scales` divide each part, so that weights speak of standard deviations: give each critic's spread on raw samples.
    """

    parts: Sequence[tuple[float, Any]] = ()  # pairs of weight and critic
    scales: Sequence[float] | None = None  # one divisor per part; none: 1

    name: ClassVar[str] = "weighted-sum"
    resolution: ClassVar[int | None] = None  # each part resizes for itself
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.parts:
            raise UsageError("a weighted sum needs at least one critic")
        if self.scales is not None and (len(self.scales) != len(self.parts) or not all(s > 0 for s in self.scales)):
            raise UsageError(f"scales are one number above 0 per critic, not {self.scales!r}")

    @property
    def differentiable(self) -> bool:
        return all(c.differentiable for _, c in self.parts)

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        total = images.new_zeros(len(images))
        for (weight, critic), scale in zip(self.parts, self.scales or [1.0] * len(self.parts), strict=True):
            sign = 1.0 if critic.higher_is_better else -1.0
            total = total + (sign * weight / scale) * critic.score(resized(images, critic.resolution), labels)
        return total


@dataclass(frozen=True, eq=False)
class PyIQA:
    """An image-quality model of the pyiqa package (Koncept512, MUSIQ, ...), where that is installed; it downloads weights.

    Its licence is non-commercial, so it is no dependency: install it yourself (`pip install pyiqa`).
    """

    metric: str = "koncept512"  # a metric without reference, by pyiqa's name
    device: str = "cpu"  # where the model runs
    resolution: int | None = 512  # side that images are brought to; none: as they are

    name: str = field(default="pyiqa", init=False)
    differentiable: bool = field(default=True, init=False)
    higher_is_better: bool = field(default=True, init=False)
    model: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            import pyiqa
        except Exception as error:  # its dependencies may break in any way (torchvision beside a CPU torch: RuntimeError)
            raise MissingCapabilityError(
                f"the critic 'pyiqa' needs the package pyiqa ({type(error).__name__}: {error})",
                way_out="Install it (pip install pyiqa; its licence is non-commercial), or use another critic.",
            ) from None
        try:
            model = pyiqa.create_metric(self.metric, as_loss=True, device=self.device)
        except Exception as error:
            raise RequestError(
                f"pyiqa cannot make the metric {self.metric!r} ({type(error).__name__}: {error})",
                way_out="pyiqa.list_models(metric_mode='NR') names the metrics without reference.",
            ) from None
        if getattr(model, "metric_mode", "NR") != "NR":
            raise RequestError(f"{self.metric!r} compares with a reference image", way_out="Use a metric without reference.")
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "name", self.metric)
        object.__setattr__(self, "higher_is_better", not model.lower_better)

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = resized((images + 1) / 2, self.resolution).clamp(0, 1)
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return per_row(self.model.net(images), len(images), self.name)
