"""BigGAN-PyTorch: the architecture and the canonical tensors from a state dict's names and shapes alone.

What the shapes cannot tell (BN_eps, the prior's z_var, the meaning of a cross-replica gain) comes from `Settings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from latentshift.errors import DamagedFileError, RequestError
from latentshift.files.statedict import Tensors

from ..residual import DBlockConfig, DConfig, scalar
from .networks import DeepDConfig, GConfig

FAMILY = "BigGAN-PyTorch"
_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")
_STATISTICS = {
    "stored_mean": "mean",
    "bn.stored_mean": "mean",
    "bn.running_mean": "mean",
    "stored_var": "var",
    "bn.stored_var": "var",
    "bn.running_var": "var",
}
_NORMS = re.compile(r"(.*\bbn\d|output_layer\.0)\.(.+)")


@dataclass(frozen=True)
class Settings:
    """What a run's `state_dict.pth` may tell and the weights do not.

    `cross_replica_gain`: how the gain of a cross-replica norm is meant; "add" equals the publisher's code outside of
    multi-GPU training, "mul" is what such training computed. None: "add", with a note.
    """

    bn_eps: float = 1e-5
    z_std: float = 1.0
    parallel: bool | None = None
    cross_replica_gain: Literal["add", "mul"] | None = None

    def __post_init__(self) -> None:
        if self.cross_replica_gain not in (None, "add", "mul"):
            raise RequestError(f"cross_replica_gain is 'add' or 'mul', not {self.cross_replica_gain!r}")

    @staticmethod
    def of_run(config: Mapping[str, Any], gain: Literal["add", "mul"] | None = None) -> Settings:
        """Read the `config` of a run's state file."""

        def number(key: str, default: float) -> float:
            value = config.get(key, default)
            return float(value) if isinstance(value, int | float) and value > 0 else default

        parallel = config.get("parallel")
        return Settings(number("BN_eps", 1e-5), number("z_var", 1.0), parallel if isinstance(parallel, bool) else None, gain)


def is_generator(keys: Mapping[str, Any]) -> bool:
    """Return whether these are the names of a BigGAN-PyTorch generator."""
    return "output_layer.0.gain" in keys and "blocks.0.0.conv1.weight" in keys


def is_discriminator(keys: Mapping[str, Any]) -> bool:
    """Return whether these are the names of a BigGAN-PyTorch discriminator."""
    return "embed.weight" in keys and "linear.weight" in keys and "blocks.0.0.conv1.weight" in keys and not is_generator(keys)


def _shape(tensors: Mapping[str, Tensor], key: str, axes: int) -> tuple[int, ...]:
    if key not in tensors:
        raise DamagedFileError(f"{FAMILY}: tensor {key!r} is missing")
    shape = tuple(tensors[key].shape)
    if len(shape) != axes or 0 in shape:
        raise DamagedFileError(f"{FAMILY}: tensor {key!r} has shape {shape}, {axes} axes were expected")
    return shape


def _count(tensors: Mapping[str, Tensor]) -> int:
    found = {int(m[1]) for k in tensors if (m := _BLOCK.fullmatch(k))}
    if found != set(range(len(found))) or not found:
        raise DamagedFileError(f"{FAMILY}: blocks {sorted(found)} are not numbered from 0 without gaps")
    return len(found)


def _attention(tensors: Mapping[str, Tensor]) -> tuple[tuple[int, int, int, int], ...]:
    """(block, place in the block, key channels, value channels) of each attention."""
    return tuple(
        (int(m[1]), int(m[2]), _shape(tensors, f"{k[:-5]}theta.weight", 4)[0], _shape(tensors, f"{k[:-5]}g.weight", 4)[0])
        for k in tensors
        if (m := _BLOCK.fullmatch(k)) and m[3] == "gamma"
    )


def _statistics(tensors: Mapping[str, Tensor], notes: list[str]) -> Tensors:
    """Bring the three layouts of batch statistics to `X.mean`, `X.var`; accumulated sums are divided by their count."""
    out: Tensors = {}
    counts: set[float] = set()
    for key, tensor in tensors.items():
        m = _NORMS.fullmatch(key)
        leaf = _STATISTICS.get(m[2]) if m else None
        if m is None or leaf is None:
            if not key.endswith(("accumulation_counter", "num_batches_tracked")):
                out[key] = tensor
            continue
        counter = tensors.get(f"{m[1]}.bn.accumulation_counter")
        count = float(counter.sum()) if counter is not None else 0.0
        counts |= {count} if counter is not None else set()
        out[f"{m[1]}.{leaf}"] = tensor / count if count > 0 else tensor
    if any(c > 0 for c in counts):
        shown = ", ".join(f"{c:g}" for c in sorted(counts))
        notes.append(f"standing statistics: accumulated sums were divided by their count ({shown})")
        if any(c != round(c) for c in counts):
            notes.append("the count is no whole number: sums averaged after accumulation drift; accumulate=16 takes them anew")
    if not any(k.endswith(".mean") for k in out):
        raise RequestError(f"{FAMILY}: this generator has no batch statistics; other norm styles are not supported")
    return out


def infer_generator(tensors: Mapping[str, Tensor], settings: Settings, notes: list[str]) -> tuple[GConfig, Tensors]:
    """Return (config, tensors under our names) of a generator whose spectral norms are multiplied in.

    Raises DamagedFileError where the shapes contradict each other, RequestError for a form that is not supported.
    """
    n = _count(tensors)
    deep = "blocks.0.0.conv4.weight" in tensors
    last = "conv4" if deep else "conv1"
    blocks = tuple(
        (_shape(tensors, f"blocks.{i}.0.conv1.weight", 4)[1], _shape(tensors, f"blocks.{i}.0.{last}.weight", 4)[0])
        for i in range(n)
    )
    if deep and n % 2:
        raise RequestError(f"{FAMILY}: BigGAN-deep with {n} blocks: only two blocks a stage are supported")
    out_features, entry = _shape(tensors, "linear.weight", 2)
    bottom = round((out_features / blocks[0][0]) ** 0.5)
    if bottom**2 * blocks[0][0] != out_features:
        raise DamagedFileError(f"{FAMILY}: linear.weight gives {out_features} numbers, no square of {blocks[0][0]} channels")
    shared_shape = _shape(tensors, "shared.weight", 2) if "shared.weight" in tensors else None
    gain = _shape(tensors, "blocks.0.0.bn1.gain.weight", 2)
    if shared_shape is None:
        if deep:
            raise RequestError(f"{FAMILY}: BigGAN-deep without a shared embedding cannot run, not even in its own code")
        classes, shared, hierarchical, z_size = gain[0], 0, False, entry
    else:
        classes, shared = shared_shape
        if deep:
            hierarchical, z_size = True, entry - shared
            if gain[1] != entry:
                raise RequestError(f"{FAMILY}: BigGAN-deep without --hier cannot run, not even in its own code")
        else:
            hierarchical = gain[1] == shared + entry
            z_size = entry * (n + 1) if hierarchical else entry
            if not hierarchical and gain[1] != shared:
                raise DamagedFileError(
                    f"{FAMILY}: bn1.gain takes {gain[1]} numbers; the class embedding has {shared}, a chunk of z {entry}"
                )
    if z_size < 1:
        raise DamagedFileError(f"{FAMILY}: linear.weight takes {entry} numbers, fewer than the class embedding's {shared}")
    additive = False
    if "output_layer.0.bn.running_mean" in tensors:
        additive = settings.cross_replica_gain != "mul"
        if settings.cross_replica_gain is None:
            trained = {True: "on several GPUs", False: "on one GPU", None: "unknown where"}[settings.parallel]
            notes.append(
                f"cross-replica norms: the gain is added, as the publisher's sampler does; trained {trained}: if several "
                "GPUs were used, cross_replica_gain='mul' is what training saw"
            )
    config = GConfig(
        "deep" if deep else "plain",
        z_size,
        classes,
        blocks,
        shared,
        hierarchical,
        tuple((i, key, value) for i, _, key, value in _attention(tensors)),
        settings.bn_eps,
        additive,
        bottom,
        _shape(tensors, "output_layer.2.weight", 4)[0],
    )
    return config, _rename(_statistics(tensors, notes))


def _rename(tensors: Mapping[str, Tensor], deep_d: bool = False) -> Tensors:
    places = {(i, j) for i, j, _, _ in _attention(tensors)}
    out: Tensors = {}
    for key, tensor in tensors.items():
        name = key.replace("output_layer.0.", "norm.").replace("output_layer.2.", "conv.")
        if m := _BLOCK.fullmatch(key):
            i, j = int(m[1]), int(m[2])
            block = f"stages.{i}.{j}" if deep_d else f"blocks.{i}"
            name = f"attention.{i}.{m[3]}" if (i, j) in places else f"{block}.{m[3]}"
        out[name] = scalar(tensor, key) if name.endswith(".gamma") else tensor
    return out


def infer_discriminator(tensors: Mapping[str, Tensor]) -> tuple[DConfig | DeepDConfig, int, Tensors]:
    """Return (config, resolution, tensors under our names) of a discriminator whose spectral norms are multiplied in."""
    n = _count(tensors)
    classes = _shape(tensors, "embed.weight", 2)[0]
    attention = tuple((i, key, value) for i, _, key, value in _attention(tensors))
    if "input_conv.weight" in tensors:
        if not 3 <= n <= 6:
            raise RequestError(f"{FAMILY}: a BigGAN-deep discriminator of {n} stages; 3 to 6 are known (32 to 256 px)")
        places = {(i, j) for i, j, _, _ in _attention(tensors)}
        depth = {int(m[2]) for k in tensors if (m := _BLOCK.fullmatch(k)) and (int(m[1]), int(m[2])) not in places}
        inputs = _shape(tensors, "input_conv.weight", 4)
        widths = [_shape(tensors, f"blocks.{i}.0.conv4.weight", 4)[0] for i in range(n)]
        pools = [True, True, False] if n == 3 else [True] * n
        stages = tuple(zip([inputs[0], *widths], widths, [len(depth)] * n, pools, strict=False))
        return DeepDConfig(stages, classes, attention, inputs[1]), 32 * 2 ** (n - 3), _rename(tensors, deep_d=True)
    if not 4 <= n <= 7:
        raise RequestError(f"{FAMILY}: a discriminator of {n} blocks; 4 to 7 are known (32 to 256 px)")
    pools = [True, True, False, False] if n == 4 else [True] * (n - 1) + [False]
    blocks = []
    for i, pool in enumerate(pools):
        hidden, inputs_i = _shape(tensors, f"blocks.{i}.0.conv1.weight", 4)[:2]
        outputs = _shape(tensors, f"blocks.{i}.0.conv2.weight", 4)[0]
        blocks.append(DBlockConfig(inputs_i, hidden, outputs, pool, f"blocks.{i}.0.conv_sc.weight" in tensors))
    return DConfig(tuple(blocks), attention, classes), 32 * 2 ** (n - 4), _rename(tensors)
