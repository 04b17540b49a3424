"""`load_stylegan`: a network pickle of StyleGAN2-ada, StyleGAN2 or StyleGAN3 as networks of our own.

loaded = load_stylegan("network.pkl")
images = loaded.G(z);  logits = loaded.D(images)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentshift.errors import DamagedFileError, FileError, MissingCapabilityError
from latentshift.files.checkpoint import FileContents, read_tensors
from latentshift.files.values import Opaque, PersistentObject

from . import build
from .build import Facts
from .container import Record, fill, flatten, foreign
from .discriminator import Discriminator
from .networks import Generator

#: Seeds of the companion rows of the discriminator's minibatch statistic, as far from anyone's own seeds as they get.
COMPANION_SEED = 4_294_967_295


@dataclass
class Loaded:
    """Networks of one file. `D` is None where the file has none that can be used; `no_critic` then says why.

    `misfit` says that a D is there and is for other images or labels than G's. The configs rebuild the networks.
    """

    family: str
    G: Generator
    D: Discriminator | None
    no_critic: str
    misfit: bool
    notes: tuple[str, ...]
    contents: FileContents
    g_config: dict[str, Any]
    d_config: dict[str, Any] | None

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of the generator's noise maps."""
        return self.G.noise_shapes

    def need_critic(self) -> Discriminator:
        """Return D, or raise MissingCapabilityError with the ways out."""
        if self.D is None:
            raise MissingCapabilityError(
                f"no critic in this model ({self.no_critic})", where=str(self.contents.path),
                way_out="Use a critic by name or the D of another file (--critic), or fit one: latentshift critic.",
            )  # fmt: skip
        return self.D


def is_stylegan(tree: Any) -> bool:
    """Return whether a tree of `read_tensors` holds networks of this container."""
    return isinstance(tree, PersistentObject) or (
        isinstance(tree, dict) and any(isinstance(tree.get(k), PersistentObject | Opaque) for k in ("G_ema", "G"))
    )


def load_stylegan(path: str | Path, *, network: str = "") -> Loaded:
    """Read a network pickle and build its generator (G_ema, or what `network` names) and discriminator.

    Everything is float32 and in evaluation mode, whatever precision the file asks for at its high resolutions.
    Raises FileError and its children (status 4) with the part of the file that cannot be used.
    """
    return from_contents(read_tensors(path), network=network)


def from_contents(contents: FileContents, *, network: str = "") -> Loaded:
    """Build the networks of a file that was read already."""
    where, tree = str(contents.path), contents.tree
    if contents.kind != "stylegan-pickle" or not is_stylegan(tree):
        raise DamagedFileError(f"a {contents.kind} file without StyleGAN networks", where=where)
    notes = list(contents.notes)
    if isinstance(tree, PersistentObject):
        tree = {"G_ema": tree}
    name = network or ("G_ema" if tree.get("G_ema") is not None else "G")
    if network and network not in tree:
        raise DamagedFileError(
            f"the file has no network {network!r}", where=where, way_out=f"It has: {', '.join(map(str, tree))}."
        )
    if name == "G" and not network:
        notes.append("the file has no G_ema; its raw training network G is used")
    record = _record(tree[name], name, where)
    g, expected, family = _empty(record, f"{where}, {name}")
    build.check(record, expected, name, where)
    fill(g, record, name, where)
    d, d_config, why = _discriminator(tree.get("D"), where)
    misfit = _mismatch(g, d) if d is not None else ""
    if d is not None and not misfit:
        d.set_companions(companions(g, d.group_size - 1))
    else:
        d, why = None, misfit or why
        notes.append(f"no critic: {why}")
    g_config = {"arguments": record.init_kwargs, "clamp": build.g_clamp(record)}
    return Loaded(family, g, d, why, bool(misfit), tuple(notes), contents, g_config, d_config)


def code_of(tree: Any) -> str:
    """Return 'stylegan2', 'stylegan3' or '' for a tree of `read_tensors`, by the class names in it."""
    if isinstance(tree, PersistentObject):
        tree = {"G_ema": tree}
    top = (
        next((tree[k] for k in ("G_ema", "G", "D") if isinstance(tree.get(k), PersistentObject)), None)
        if is_stylegan(tree)
        else None
    )
    if top is None:
        return ""
    synthesis = (top.state.get("_modules") or {}).get("synthesis")
    parts = synthesis.state.get("_modules") if isinstance(synthesis, PersistentObject) else None
    first = parts.get("input") if isinstance(parts, dict) else None
    return "stylegan3" if isinstance(first, PersistentObject) and first.class_name == "SynthesisInput" else "stylegan2"


def empty_generator(record: Record, code: str, clamp: float | None, where: str) -> Generator:
    """Return a generator on the meta device from constructor arguments; `code` is 'stylegan3-t' or the like."""
    if code.startswith("stylegan3"):
        from ..stylegan3 import build as build3

        return build3.generator(record, where)[0]
    return build.generator(record, where, clamp=clamp)[0]


def empty_discriminator(arguments: dict[str, Any], clamp: float | None, where: str) -> Discriminator:
    """Return a discriminator on the meta device from constructor arguments."""
    return build.discriminator(Record("Discriminator", arguments), where, clamp=clamp)[0]


def companions(g: Generator, count: int) -> Callable[[], Tensor]:
    """Return a function that gives `count` images of g from fixed latents; labels go round the classes.

    Copies of a discriminator share the function, and so the images: they are made once for each precision and device.
    """
    made: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def make() -> Tensor:
        anchor = next(g.parameters())
        key = (anchor.dtype, anchor.device)
        if key not in made:
            made[key] = images(anchor)
        return made[key]

    def images(anchor: Tensor) -> Tensor:
        z = np.random.RandomState(COMPANION_SEED).randn(count, max(g.z_dim, 1))[:, : g.z_dim]
        latents = torch.from_numpy(z).to(anchor)
        c = torch.eye(g.c_dim).to(anchor)[torch.arange(count) % g.c_dim] if g.c_dim else None
        rows = [
            g(latents[i : i + 1], None if c is None else c[i : i + 1])  # one at a time: the largest networks fill memory
            for i in range(count)
        ]
        return torch.cat(rows) if rows else torch.empty(0, g.channels, g.resolution, g.resolution).to(anchor)

    return make


def _record(value: Any, name: str, where: str) -> Record:
    if isinstance(value, Opaque):
        raise foreign(name, value, where)
    if not isinstance(value, PersistentObject):
        raise DamagedFileError(f"{name} is no network", where=where)
    return flatten(value, name, where)


def _empty(record: Record, where: str) -> tuple[Generator, Facts, str]:
    if record.classes.get("synthesis.input") == "SynthesisInput":
        from ..stylegan3 import build as build3

        return build3.generator(record, where)
    return build.generator(record, where, clamp=build.g_clamp(record))


def _discriminator(value: Any, where: str) -> tuple[Discriminator | None, dict[str, Any] | None, str]:
    if value is None:
        return None, None, "the file holds only a generator"
    try:
        record = _record(value, "D", where)
        clamp = build.d_clamp(record)
        d, expected = build.discriminator(record, f"{where}, D", clamp=clamp)
        build.check(record, expected, "D", where)
        fill(d, record, "D", where)
    except FileError as error:
        return None, None, error.what
    return d, {"arguments": record.init_kwargs, "clamp": clamp}, ""


def _mismatch(g: Generator, d: Discriminator) -> str:
    if (g.resolution, g.channels) != (d.config.resolution, d.config.channels):
        return f"D takes {d.config.channels}x{d.config.resolution} px where G makes {g.channels}x{g.resolution} px"
    if g.c_dim != d.config.c_dim:
        return f"D takes {d.config.c_dim} classes where G has {g.c_dim}"
    return ""
