"""Pairs and critics: what a model offers, and the adapter that wraps any two callables.

A `Pair` generates images from latents and scores them, per row. The adapter owns shapes, image range, labels, dtype,
evaluation mode and the link from what D returns to one number per image that is higher for more real images.
"""

from __future__ import annotations

import copy
import enum
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .errors import LatentshiftWarning, MissingCapabilityError, NumericError, RequestError, ShapeError, UsageError
from .lazy import torch
from .space import ImageSpace, Normal, Prior, Space

if TYPE_CHECKING:
    from torch import Tensor

RETURNS: tuple[str, ...] = ("logit", "probability", "critic", "least-squares")


class Capability(enum.Flag):
    """What a pair can do and a method may need."""

    NONE = 0
    CRITIC = enum.auto()  # there is a score at all
    GRADIENT = enum.auto()  # images and score are differentiable (a G without a critic is taken to be)
    LOGIT = enum.auto()  # the score is a log odds of real against generated, as trained
    CALIBRATED = enum.auto()  # ... and was fitted to be one on held-out images
    FEATURES = enum.auto()  # D gives features
    STYLES = enum.auto()  # there are w and w+ spaces
    NOISE_MAPS = enum.auto()  # G has noise inputs that can be held or moved
    LABELS = enum.auto()  # the pair is conditional


_MISSING: dict[Capability, tuple[str, str]] = {
    Capability.CRITIC: (
        "has no critic in this model",
        "Give one with --critic (a name from 'latentshift critics', a pair folder, the file of a D), or fit one to your "
        "images: latentshift critic.",
    ),
    Capability.GRADIENT: (
        "gives no gradient",
        "Use a method without one: 'latentshift strategies --for MODEL' lists them.",
    ),
    Capability.LOGIT: (
        "scores with a critic that is no log odds",
        "Calibrate it on real images (--reals DATA; reals= in Python), or use a method that only climbs.",
    ),
    Capability.CALIBRATED: (
        "has an uncalibrated critic",
        "Calibrate it on real images (--reals DATA; reals= in Python), or type --calibration none.",
    ),
    Capability.FEATURES: ("gives no features of D", "Use another method, or an adapter with `features`."),
    Capability.STYLES: ("has no w space", "Use --space z."),
    Capability.NOISE_MAPS: ("has no noise maps", "Use --space z."),
    Capability.LABELS: ("has no classes", "Leave --class out."),
}


def require(pair: Pair, needs: Capability, who: str) -> None:
    """Raise MissingCapabilityError where `pair` lacks something of `needs`, naming it and the way out."""
    for flag in needs & ~pair.capabilities:
        text, way_out = _MISSING[flag]
        raise MissingCapabilityError(f"'{who}' cannot run: {pair.name!r} {text}", way_out=way_out)


def per_row(values: Any, rows: int, who: str = "D") -> Tensor:
    """Return D's output as (rows,), or raise ShapeError where it is no number per image."""
    if not isinstance(values, torch.Tensor):
        raise ShapeError(f"{who} returned {type(values).__name__}, not a tensor of one number per image")
    if values.ndim >= 1 and values.shape[0] == rows and values.numel() == rows:
        return values.reshape(rows)
    shape = tuple(values.shape)
    if values.numel() == 1:
        raise ShapeError(
            f"{who} returned one number for the whole batch of {rows} images (shape {shape})",
            way_out="Return one number per image: leave out the mean over the batch.",
        )
    raise ShapeError(
        f"{who} returned {shape} for {rows} images, not one number per image",
        way_out="Reduce a map yourself, as in lambda x: D(x).flatten(1).mean(1).",
    )


def _modules_behind(call: Any) -> list[Any]:
    """Return the torch modules that a callable holds: itself, its owner, a partial's parts, closure cells."""
    if isinstance(call, torch.nn.Module):
        return [call]
    if isinstance(call, functools.partial):
        return [m for part in (call.func, *call.args, *call.keywords.values()) for m in _modules_behind(part)]
    found = []
    owner = getattr(call, "__self__", None)
    if isinstance(owner, torch.nn.Module):
        found.append(owner)
    for cell in getattr(call, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if isinstance(content, torch.nn.Module):
            found.append(content)
    return found


def frozen_copy(module: Any) -> Any:
    """Return a copy of a module in evaluation mode that shares its tensors and asks for no gradient of any of them."""
    memo: dict[int, Any] = {}
    for sub in module.modules():
        for name, p in sub._parameters.items():
            if p is not None:
                memo[id(p)] = torch.nn.Parameter(p.detach(), requires_grad=False)
            del name
        for b in sub._buffers.values():
            if b is not None:
                memo[id(b)] = b.detach()
        for value in vars(sub).values():  # the classic spectral norm leaves a non-leaf weight that cannot be copied
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value.detach()
    return copy.deepcopy(module, memo).eval()


def evaluation(call: Any, what: str) -> Any:
    """Return `call` fit for refinement: a module in training mode is replaced by an evaluation copy, with a warning."""
    training = [m for m in _modules_behind(call) if any(s.training for s in m.modules())]
    if not training:
        return call
    if isinstance(call, torch.nn.Module):
        warnings.warn(
            f"{what} is in training mode: an evaluation copy that shares its tensors is used (batch statistics and dropout "
            "off), so scores may differ from those seen in training.",
            LatentshiftWarning,
            stacklevel=4,
        )
        return frozen_copy(call)
    warnings.warn(
        f"{what} is a function around a module in training mode: batch statistics or dropout may make a row depend on its "
        f"neighbours. Call .eval() on the module first.",
        LatentshiftWarning,
        stacklevel=4,
    )
    return call


def _strip_sigmoid(D: Any) -> Any | None:
    """Return D without a final sigmoid layer where its form shows one, else None."""
    from .layers import LayerNet

    if isinstance(D, LayerNet) and D.entries[-1]["op"] == "Sigmoid":
        return D.without_last("Sigmoid")
    if isinstance(D, torch.nn.Sequential) and type(D) is torch.nn.Sequential and len(D) > 1:
        last = D[-1]
        if isinstance(last, torch.nn.Sigmoid):
            return D[:-1]
        inner = _strip_sigmoid(last)
        if inner is not None:
            return torch.nn.Sequential(*[D[i] for i in range(len(D) - 1)], inner)
    return None


@dataclass(frozen=True)
class Critic:
    """One number per image, higher for more real.

    `call(images)` or `call(images, labels)` gives what the network's last layer gives; `returns` says what that is:
    `logit` (log odds), `probability`, `critic` (a score without a scale), `least-squares` (trained to targets 1 and 0; its
    value is climbed as it stands). `real_is` "low" turns the sign. `range` is the image range that it wants.
    """

    call: Callable[..., Any]
    name: str = "D"
    returns: str = "logit"
    real_is: str = "high"
    labels: bool = False
    differentiable: bool = True
    features_call: Callable[..., Any] | None = None
    classes: int | None = None  # how many labels it knows, where it says so
    calibrated: bool = False  # its logit was fitted to held-out images

    def __post_init__(self) -> None:
        if self.returns not in RETURNS:
            raise UsageError(f"a critic returns one of {', '.join(RETURNS)}, not {self.returns!r}")
        if self.real_is not in ("high", "low"):
            raise UsageError(f"real_is is 'high' or 'low', not {self.real_is!r}")

    @property
    def capabilities(self) -> Capability:
        flags = Capability.CRITIC
        if self.differentiable:
            flags |= Capability.GRADIENT
        if self.returns in ("logit", "probability"):
            flags |= Capability.LOGIT
        if self.features_call is not None:
            flags |= Capability.FEATURES
        if self.calibrated:
            flags |= Capability.CALIBRATED
        return flags

    def logit(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows,): the log odds where `returns` allows it, else the raw score; always higher for more real."""
        out = self.call(images, label) if self.labels else self.call(images)
        d = per_row(out, images.shape[0], self.name)
        if self.returns == "probability":
            p = d.double().clamp(1e-12, 1 - 1e-12)
            d = (p.log() - torch.log1p(-p)).to(d.dtype)
        return -d if self.real_is == "low" else d


@dataclass(frozen=True)
class Pair:
    """A generator and a critic, per row.

    `G(z)` or, with classes, `G(z, label)` gives images (rows, C, H, W) in `image_range` (or (rows, n) points).
    Use `Pair.wrap` for your own modules and functions, `latentshift.load` for files.
    """

    G: Callable[..., Any]
    critic: Critic | None
    space: Space
    name: str = "pair"
    source: str = ""
    sha256: str = ""
    classes: int | None = None
    image_shape: tuple[int, ...] | None = None
    image_range: tuple[float, float] = (-1.0, 1.0)
    more_spaces: Mapping[str, Space] = field(default_factory=dict)
    extra: Capability = Capability.NONE
    dtype: Any = None
    card: Mapping[str, Any] = field(default_factory=dict, repr=False)
    batch_coupled: bool = False

    @property
    def capabilities(self) -> Capability:
        flags = self.extra | (self.critic.capabilities if self.critic else Capability.GRADIENT)
        return flags | (Capability.LABELS if self.classes else Capability.NONE)

    @property
    def spaces(self) -> dict[str, Space]:
        """All spaces by name, the plain one first; then the model's own, G's hidden layers, and the images themselves."""
        from .hidden import layer_spaces

        found = {self.space.name: self.space, **self.more_spaces}
        if not self.more_spaces:
            found |= layer_spaces(self.G, self.space, self.classes)
        if self.image_shape is not None:
            low, high = self.image_range
            if len(self.image_shape) == 1 and self.image_range == (-1.0, 1.0):  # points whose range nobody stated have no walls
                low, high = -math.inf, math.inf
            found.setdefault("image", ImageSpace(shape=self.image_shape, low=low, high=high))
        return found

    @property
    def D(self) -> Callable[..., Any]:
        """What the critic calls."""
        return self.need_critic().call

    def need_critic(self) -> Critic:
        """Return the critic, or raise MissingCapabilityError with the ways out."""
        if self.critic is None:
            require(self, Capability.CRITIC, "score")
            raise AssertionError
        return self.critic

    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return images (rows, ...) of latents (rows, *space.shape)."""
        images: Tensor = self.G(z, label) if self.classes else self.G(z)
        return images

    def logit(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows,) scores, higher for more real."""
        return self.need_critic().logit(images, label)

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows, n) features of D; raises MissingCapabilityError where the adapter has none."""
        critic = self.need_critic()
        require(self, Capability.FEATURES, "features")
        assert critic.features_call is not None
        out: Tensor = critic.features_call(images, label) if critic.labels else critic.features_call(images)
        return out

    def modules(self) -> list[Any]:
        """Return the torch modules behind G and the critic."""
        calls = [self.G] + ([self.critic.call] if self.critic else [])
        return [m for c in calls for m in _modules_behind(c)]

    @property
    def device(self) -> Any:
        """The device of the first tensor of G, else the CPU."""
        for module in self.modules():
            for tensor in (*module.parameters(), *module.buffers()):
                return tensor.device
        return torch.device("cpu")

    @property
    def compute_dtype(self) -> Any:
        """The dtype of the state: G's own, float32 at least."""
        if self.dtype is not None:
            return self.dtype
        for module in _modules_behind(self.G):
            for p in module.parameters():
                if p.dtype.is_floating_point:
                    return torch.promote_types(p.dtype, torch.float32)
        return torch.float32

    def to(self, device: Any) -> Pair:
        """Return this pair on `device`; networks are copied there, the caller's stay where they are."""
        if torch.device(device) == self.device or not self.modules():
            return self

        def moved(call: Any) -> Any:
            return frozen_copy(call).to(device) if isinstance(call, torch.nn.Module) else call

        critic = replace(self.critic, call=moved(self.critic.call)) if self.critic else None
        return replace(self, G=moved(self.G), critic=critic)

    def replaced(self, **changes: Any) -> Pair:
        """Return a copy with fields changed."""
        return replace(self, **changes)

    @staticmethod
    def wrap(
        G: Callable[..., Any],
        D: Callable[..., Any] | Critic | None = None,
        *,
        z_size: int | tuple[int, ...] | None = None,
        prior: Prior | None = None,
        classes: int | None = None,
        returns: str = "logit",
        real_is: str = "high",
        image_range: tuple[float, float] = (-1.0, 1.0),
        name: str = "pair",
        differentiable: bool = True,
    ) -> Pair:
        """Return a Pair of any two callables or modules.

        `z_size` is one latent's shape (found out from the latents given to `refine` where left out). With `classes`, both
        are called with labels as second argument. A D that ends in a sigmoid layer is read before it.
        """
        if isinstance(G, Pair):
            raise UsageError("this is already a Pair", way_out="Pass it to Sampler as it is.")
        for what, call in (("G", G), ("D", D)):
            if call is not None and not callable(call) and not isinstance(call, Critic):
                raise UsageError(f"{what} is {type(call).__name__}, not a callable")
        if returns not in RETURNS:
            raise UsageError(f"a critic returns one of {', '.join(RETURNS)}, not {returns!r}")
        critic: Critic | None
        if D is None or isinstance(D, Critic):
            critic = D
        else:
            call = evaluation(D, "D")
            if returns == "probability" and (plain := _strip_sigmoid(call)) is not None:
                call, returns = plain, "logit"
            critic = Critic(call, "D", returns, real_is, bool(classes), differentiable)
        shape = () if z_size is None else (z_size,) if isinstance(z_size, int) else tuple(z_size)
        pair = Pair(
            evaluation(G, "G"),
            critic,
            Space("z", shape, prior or Normal()),
            name,
            classes=classes,
            image_range=image_range,
        )
        return pair.probed() if shape else pair

    def probed(self, shape: tuple[int, ...] | None = None) -> Pair:
        """Return this pair with its shapes found out by one tiny evaluation (three rows and one of them alone).

        Raises ShapeError where G and D do not fit each other or D gives no number per image; warns where the score of a row
        depends on its neighbours.
        """
        if shape is not None and self.space.shape and tuple(shape) != self.space.shape:
            self.space.check(torch.empty(1, *shape))
        pair = self if shape is None else replace(self, space=replace(self.space, shape=tuple(shape)))
        generator = torch.Generator().manual_seed(0)
        z = pair.space.prior.scale() * torch.randn(3, *pair.space.shape, generator=generator)
        z = pair.space.clamp(z).to(pair.device, pair.compute_dtype)
        label = torch.zeros(3, dtype=torch.long, device=z.device) if pair.classes else None
        with torch.no_grad():
            images = _fits(lambda: pair.generate(z, label), f"G does not take latents of shape {tuple(z.shape)}")
            if not isinstance(images, torch.Tensor) or images.ndim < 2 or images.shape[0] != 3:
                got = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
                raise ShapeError(f"G returned {got} for 3 latents, not (3, channels, height, width)")
            found = replace(pair, image_shape=tuple(images.shape[1:]))
            if pair.critic is None:
                return found
            if pair.critic.classes is not None and pair.critic.classes != pair.classes:
                raise ShapeError(
                    f"G has {pair.classes or 'no'} classes, the critic {pair.critic.name!r} has {pair.critic.classes}",
                    way_out="Give a critic for the same labels, or one without.",
                )
            score = _fits(lambda: pair.logit(images, label), f"D does not take G's images of shape {tuple(images.shape[1:])}")
            one = None if label is None else label[:1]
            try:
                alone = pair.logit(pair.generate(z[:1], one), one)
            except (RuntimeError, ValueError):  # as batch statistics of one row
                alone = torch.full_like(score[:1], torch.inf)
        spread = float((score.max() - score.min()).abs()) + 1e-3 * float(score.abs().max()) + 1e-12
        never = bool(torch.isinf(alone).all()) and bool(torch.isfinite(score).all())
        if never or abs(float(alone[0] - score[0])) > 0.05 * spread + 1e-4 * abs(float(score[0])):
            what = "cannot be had" if never else f"changes from {float(score[0]):.4g} to {float(alone[0]):.4g}"
            warnings.warn(
                f"the score of a row {what} when it is scored alone: D or "
                "G looks at the whole batch, so results will depend on the batch.",
                LatentshiftWarning,
                stacklevel=3,
            )
            found = replace(found, batch_coupled=True)
        return found


def _fits(call: Callable[[], Any], what: str) -> Any:
    try:
        return call()
    except RequestError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error).lower():
            raise
        raise ShapeError(f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def check_finite(z: Tensor, what: str) -> None:
    """Raise NumericError where a row of `z` is NaN or infinite, naming the first one."""
    bad = ~torch.isfinite(z.flatten(1)).all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise NumericError(f"{int(bad.sum())} of {len(z)} {what} are NaN or infinite", where=f"first in row {row}")
