"""`--critic REF`: a pair folder or file, a name with its options, a model's D, or a weighted sum of these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Critic, Pair


@dataclass(frozen=True, eq=False)
class _Own:
    """A critic of the model's kind, as one that scores images in [-1, 1]."""

    critic: Critic
    image_range: tuple[float, float]
    resolution: int | None = None
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        return self.critic.name

    @property
    def differentiable(self) -> bool:
        return self.critic.differentiable

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        low, high = self.image_range
        out: Tensor = self.critic.logit(low + (images + 1) * ((high - low) / 2), labels)
        return out


def quality_of(text: str) -> Any:
    """Return the registered critic of NAME or NAME:KEY=VALUE,...; raises UsageError where an option is missing or unknown."""
    from .. import registry
    from ..recipe import parse_option

    name, _, rest = text.partition(":")
    kind = registry.get("critics", name.strip())
    try:
        return kind(**dict(parse_option(part) for part in rest.split(",") if part.strip()))
    except TypeError as error:
        raise UsageError(
            f"the critic {name!r} cannot be made: {error}",
            where="--critic",
            way_out=f"Write {name}:KEY=VALUE,...; 'latentshift critics {name}' lists its options.",
        ) from None


def critic_of(reference: str, pair: Pair) -> Critic:
    """Return the critic that `--critic` names for `pair`; `D` is the pair's own, `0.7*D+0.3*sharpness` a weighted sum."""
    from .. import registry
    from ..critics import WeightedSum, as_critic
    from ..files.folder import is_pair_folder
    from ..files.names import read_critic_path, resolve

    path = Path(reference)
    if is_pair_folder(path) or path.is_file():
        return read_critic_path(path)
    if re.match(r"\s*[-+]?[\d.]+\s*\*", reference):
        parts = []
        for part in re.split(r"\+(?=\s*[-\d.]+\s*\*)", reference):
            weight, _, name = part.partition("*")
            parts.append((_weight(weight, reference), _Own(critic_of(name.strip(), pair), pair.image_range)))
        return as_critic(WeightedSum(parts), image_range=pair.image_range)
    if reference == "D":
        return pair.need_critic()
    if reference.partition(":")[0] in registry.names("critics"):
        return as_critic(quality_of(reference), image_range=pair.image_range)
    try:
        return resolve(reference).need_critic()
    except UnknownNameError:
        raise UnknownNameError(
            "critic", reference, registry.names("critics"), way_out="'latentshift critics' lists all; a pair folder works too."
        ) from None


def _weight(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"cannot read the weight {text.strip()!r} of {where!r}", where="--critic", way_out="Write 0.7*D+0.3*sharpness."
        ) from None
