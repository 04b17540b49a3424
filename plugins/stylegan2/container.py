"""From the inert records of a network pickle to named tensors, and into one of our own networks.

A file matches a network only if three things agree: the class names of its objects, the names and shapes of its tensors, and
every number that its objects say about themselves (gains, clamps, activations). Anything else is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentshift.errors import DamagedFileError, FileError, UnsafeFileError
from latentshift.files.values import Opaque, PersistentObject

MAX_PARTS = 4096
_TABLES = ("_parameters", "_buffers", "_modules")
#: Class names of other projects that use the same container, and why they are not built.
_OTHERS = {
    "TriPlaneGenerator": "an EG3D network, which needs cameras and volume rendering",
    "DualDiscriminator": "an EG3D discriminator, which takes two images at once",
    "SuperresGenerator": "a StyleGAN-XL network, whose mapping is another one",
    "ProjectedDiscriminator": "a projected discriminator (Projected GAN, StyleGAN-XL, StyleGAN-T)",
    "FastganSynthesis": "a FastGAN network (Projected GAN)",
    "OSGDecoder": "an EG3D network, which needs cameras and volume rendering",
    "StyleSplit": "a StyleGAN-T network, which is driven by text",
    "DINO": "a StyleGAN-T discriminator",
    "Embedding": "a StyleGAN-XL network, whose mapping is another one",
}


@dataclass
class Record:
    """One network of a file: tensors by dotted name, and what each of its objects (by dotted path) says about itself."""

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)


def foreign(name: str, what: Opaque | str, where: str) -> FileError:
    """Return the refusal of a part that holds a class of another project."""
    last = what.name if isinstance(what, Opaque) else what
    known = _OTHERS.get(last)
    offset = f", byte {what.offset}" if isinstance(what, Opaque) else ""
    return UnsafeFileError(
        f"{name} is {known}" if known else f"{name} holds the class {what}, which is not a StyleGAN2 or StyleGAN3 part",
        where=f"{where}{offset}", way_out="Only parts of the publisher's own classes are rebuilt; nothing of the file was run.",
    )  # fmt: skip


def flatten(root: PersistentObject, name: str, where: str) -> Record:
    """Return the record of the network `name` of the file `where`.

    Raises UnsafeFileError for foreign parts and hooks, DamagedFileError for names given twice or tables of foreign form.
    """
    kwargs = root.state.get("_init_kwargs")
    if not isinstance(kwargs, dict) or root.state.get("_init_args") not in ((), None):
        raise DamagedFileError(f"{name} has no constructor arguments", where=where)
    record = Record(root.class_name, kwargs)
    if root.class_name in _OTHERS:
        raise foreign(name, root.class_name, where)
    stack: list[tuple[str, PersistentObject]] = [("", root)]
    while stack:
        path, part = stack.pop()
        full = f"{name}.{path}" if path else name
        if path in record.classes or len(record.classes) >= MAX_PARTS or path.count(".") > 16:
            raise DamagedFileError(f"{full} is there twice, or too deep", where=where)
        record.classes[path] = part.class_name
        tables = [part.state.get(t, {}) for t in _TABLES]
        if not all(isinstance(t, dict) and all(isinstance(k, str) and "." not in k for k in t) for t in tables):
            raise DamagedFileError(f"{full} has tables of foreign form", where=where)
        parameters, buffers, modules = tables
        for key, value in part.state.items():
            # Hooks are functions: a file that keeps one wants to run code.
            if key.endswith("_hooks") and isinstance(value, dict) and value:
                raise UnsafeFileError(f"{full} keeps hooks, which are code", where=where)
        twice = set(parameters) & set(buffers) | set(modules) & (set(parameters) | set(buffers))
        if twice:
            raise DamagedFileError(f"{full} has two parts named {min(twice)}", where=where)
        for key, value in [*parameters.items(), *buffers.items()]:
            if isinstance(value, Opaque):
                raise foreign(f"{full}.{key}", value, where)
            if value is not None and not isinstance(value, Tensor):
                raise DamagedFileError(f"{full}.{key} is no tensor", where=where)
            if value is not None:
                record.tensors[f"{path}.{key}" if path else key] = value
        for key, value in reversed(list(modules.items())):
            if isinstance(value, Opaque):
                raise foreign(f"{full}.{key}", value, where)
            if value is not None and not isinstance(value, PersistentObject):
                raise DamagedFileError(f"{full}.{key} is no network part", where=where)
            if value is not None:
                stack.append((f"{path}.{key}" if path else key, value))
        record.attributes[path] = {
            k: v for k, v in part.state.items() if not k.startswith("_") and not isinstance(v, Tensor | dict | PersistentObject)
        }
    return record


def file_name(name: str) -> str:
    """Return the name in a file of one of our parameters or buffers."""
    for mine, theirs in (("mapping_net.", "mapping."), ("synthesis_net.", "synthesis.")):
        if name.startswith(mine):
            name = theirs + name[len(mine) :]
    return name.replace("fir.resample_filter", "resample_filter")


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, np.ndarray):
        theirs = theirs.tolist()
    if isinstance(mine, list | tuple) or isinstance(theirs, list | tuple):
        both = isinstance(mine, list | tuple) and isinstance(theirs, list | tuple) and len(mine) == len(theirs)
        return both and all(_same(a, b) for a, b in zip(mine, theirs))
    if type(mine) in (int, float) and type(theirs) in (int, float):
        return math.isclose(mine, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return bool(mine == theirs)


def check_facts(record: Record, expected: Mapping[str, tuple[str, Mapping[str, Any]]], name: str, where: str) -> None:
    """Compare what the file's objects say with what the network that is built from its arguments has.

    `expected` gives by path a class name and facts; a fact that the file does not state is not compared.
    """
    for path, class_name in record.classes.items():
        full = f"{name}.{path}" if path else name
        if path not in expected:
            raise foreign(full, class_name, where)
        want_class, facts = expected[path]
        if class_name != want_class:
            raise foreign(full, class_name, where)
        said = record.attributes[path]
        for key, value in facts.items():
            if key in said and not _same(value, said[key]):
                raise DamagedFileError(
                    f"{full}.{key} is {str(said[key])[:60]} in the file and {str(value)[:60]} by its constructor arguments",
                    where=where,
                )
    missing = [p for p in expected if p not in record.classes]
    if missing:
        raise DamagedFileError(f"{name}.{missing[0]} is missing", where=where)


def fill(net: nn.Module, record: Record, name: str, where: str) -> None:
    """Give `net` (built on the meta device) the tensors of the record; half precision becomes float32.

    Raises DamagedFileError where a tensor is missing, left over, or of another shape; both are named.
    """
    mine = {file_name(k): (k, v) for k, v in net.state_dict().items()}
    left = [k for k in record.tensors if k not in mine]
    if left:
        raise DamagedFileError(f"the tensor {name}.{left[0]} belongs to no layer ({len(left)} such)", where=where)
    state = {}
    for theirs, (key, want) in mine.items():
        value = record.tensors.get(theirs)
        if value is None:
            raise DamagedFileError(
                f"the tensor {name}.{theirs} is missing; its arguments ask for {tuple(want.shape)}", where=where
            )
        if value.shape != want.shape or not value.is_floating_point():
            raise DamagedFileError(
                f"the tensor {name}.{theirs} is {tuple(value.shape)} {value.dtype} in the file, "
                f"{tuple(want.shape)} by its arguments",
                where=where,
            )
        # Kernels add in another order where memory is not aligned or strides are unusual (a 1x1 kernel counts as contiguous
        # with several): the same tensors from another kind of file would give other bits.
        plain = value.dtype == torch.float32 and value.stride() == want.stride() and value.data_ptr() % 64 == 0
        state[key] = value if plain else torch.empty(want.shape).copy_(value)
    net.load_state_dict(state, assign=True)
    net.requires_grad_(False).eval()
