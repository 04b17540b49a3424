"""From loaded networks to a Pair: z, w, w+ and noise maps as spaces, integer labels, truncation, held noise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentshift.errors import FileError, LatentshiftWarning, RequestError, ShapeError, UsageError
from latentshift.files.checkpoint import FileContents
from latentshift.model import Capability, Critic, Pair, frozen_copy
from latentshift.noise import row_seeds
from latentshift.space import Space

from ..loaded import Files, Loaded, check_fit
from . import loading
from .container import Record, file_name, fill
from .discriminator import Discriminator, Grouping
from .networks import Generator, NoiseMode
from .spaces import drawn_noise, spaces


@dataclass(frozen=True)
class Options:
    """Choices of a user.

    `trunc` is psi, `cutoff` the number of rows of ws that it moves (None: all). `noise` is const, random (drawn from the row's
    seed and held) or none. `grouping` says how rows meet in D: reference, group, alone. `network` names another generator of
    the file than G_ema. `translate` (x, y in image widths) and `rotate` (degrees) move the image of a StyleGAN3.
    """

    trunc: float = 1.0
    cutoff: int | None = None
    noise: NoiseMode = "const"
    grouping: Grouping = "reference"
    network: str = ""
    translate: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0


def one_hot(label: Tensor | None, classes: int, dtype: torch.dtype) -> Tensor | None:
    """Return labels as (rows, classes): class numbers become one-hot rows, rows of weights stay as they are."""
    if not classes:
        return None
    if label is None:
        raise ShapeError("this network is conditional and got no labels", way_out="Give a class (--class).")
    if label.ndim == 2 and label.is_floating_point():
        return label.to(dtype)
    if label.ndim != 1 or label.is_floating_point():
        raise ShapeError(f"labels are {tuple(label.shape)} {label.dtype}, not (rows,) class numbers")
    if label.numel() and not 0 <= int(label.min()) <= int(label.max()) < classes:
        raise RequestError(f"a class outside 0 to {classes - 1}", where=f"class {int(label.max())}")
    return nn.functional.one_hot(label.long(), classes).to(dtype)


class LatentG(nn.Module):
    """z (rows, z_dim) and class numbers (rows,) to images, with a fixed truncation and kind of noise."""

    def __init__(self, net: Generator, options: Options) -> None:
        super().__init__()
        self.net = net
        self.psi, self.cutoff, self.noise_mode = options.trunc, options.cutoff, options.noise
        if self.psi != 1:
            net.truncate(torch.empty(0, net.num_ws, net.w_dim), self.psi, self.cutoff)  # refuses where it cannot be

    def styles(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return ws (rows, num_ws, w_dim), truncated."""
        return self.net.mapping(z, one_hot(label, self.net.c_dim, z.dtype), self.psi, self.cutoff)

    def paint(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return images of ws; `noise` (rows, total) holds all noise maps in a row. Both may be of another precision than
        the synthesis network; the images have that of ws."""
        dtype = self.net.synthesis_dtype
        held = None if noise is None else self.split(noise.to(dtype))
        return self.net.synthesis(ws.to(dtype), self.noise_mode, held).to(ws.dtype)

    def reduced(self, dtype: torch.dtype) -> LatentG:
        """Return a copy whose synthesis network works in `dtype`; the mapping, a hundredth of the work, stays as it is."""
        copy: LatentG = frozen_copy(self)
        copy.net.reduce_synthesis(dtype)
        return copy

    def split(self, noise: Tensor) -> list[Tensor]:
        """Cut (rows, total) into the noise maps (rows, 1, h, w)."""
        shapes = self.net.noise_shapes
        parts = torch.split(noise, [h * w for h, w in shapes], dim=1)
        return [p.reshape(-1, 1, h, w) for p, (h, w) in zip(parts, shapes, strict=True)]

    @property
    def noise_size(self) -> int:
        """Number of values in all noise maps together."""
        return sum(h * w for h, w in self.net.noise_shapes)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return images; random noise belongs to the row here too: without a seed it is drawn from z itself."""
        held = None
        if self.noise_mode == "random" and self.noise_size:
            seeds = row_seeds(z.detach().cpu().float().numpy())
            held = drawn_noise(self, torch.tensor(seeds, device=z.device)).to(z)
        return self.paint(self.styles(z, label), held)


class LabelledD(nn.Module):
    """Images and class numbers to logits (rows,)."""

    def __init__(self, net: Discriminator) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        logits: Tensor = self.net(images, one_hot(label, self.net.config.c_dim, images.dtype))
        return logits

    def reduced(self, dtype: torch.dtype) -> LabelledD:
        """Return a copy whose convolutions above 4x4 work in `dtype`; where rows are compared and the score is made, float32
        stays."""
        copy: LabelledD = frozen_copy(self)
        copy.net.reduce_trunk(dtype)
        return copy

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (rows, n): the last hidden layer, which knows no label."""
        return self.net.features(images)


@dataclass(frozen=True)
class StyleLoaded(Loaded):
    """Networks of one file with their spaces."""

    options: Options = field(default_factory=Options)

    def details(self) -> dict[str, Any]:
        """Return the sizes of w, what moves the image, and how rows meet in D."""
        assert isinstance(self.G, LatentG)
        net = self.G.net
        told: dict[str, Any] = {
            "w_size": net.w_dim,
            "num_ws": net.num_ws,
            "noise_maps": len(net.noise_shapes),
            "truncation": net.w_avg is not None,
        }
        if isinstance(self.D, LabelledD):
            c = self.D.net.config
            group = {"group": c.group or "the whole batch", "channels": c.planes, "policy": self.D.net.grouping}
            told["minibatch_std"] = group if c.planes else "none"
        return told

    def pair(self, *, name: str, source: str = "", sha256: str = "", card: Mapping[str, Any] | None = None) -> Pair:
        """Return the Pair with its spaces z, w, w+ and, where there are noise maps, noise and z+noise."""
        assert isinstance(self.G, LatentG)
        made = super().pair(name=name, source=source, sha256=sha256, card=card)
        table: dict[str, Space] = spaces(self.G)
        extra = Capability.STYLES | (Capability.NOISE_MAPS if self.G.noise_size else Capability.NONE)
        return made.replaced(space=table.pop("z"), more_spaces=table, extra=extra)


def assemble(
    family: str, g: Generator, d: Discriminator | None, options: Options, *, config: Mapping[str, Any],
    notes: tuple[str, ...] = (), source: str = "",
) -> StyleLoaded:  # fmt: skip
    """Return networks with everything that code cannot guess."""
    if not g.z_dim:
        raise RequestError("this generator takes no z", where=source)
    if options.grouping not in ("reference", "group", "alone"):
        raise UsageError(f"unknown grouping {options.grouping!r}", way_out="Known: reference, group, alone.")
    if options.noise not in ("const", "random", "none"):
        raise UsageError(f"unknown noise mode {options.noise!r}", way_out="Known: const, random, none.")
    if options.translate != (0.0, 0.0) or options.rotate:
        g.place(options.translate, options.rotate)
    if d is not None:
        d.grouping = options.grouping
    return StyleLoaded(
        family=family, G=LatentG(g, options).eval(), D=None if d is None else LabelledD(d).eval(), z_size=g.z_dim,
        image=(g.channels, g.resolution, g.resolution), classes=g.c_dim or None,
        d_classes=(d.config.c_dim or None) if d is not None else None, returns="logit", loss="non-saturating logistic with R1",
        notes=notes, config=config, options=options, source=source,
    )  # fmt: skip


def _contents(files: Files, path: Path) -> FileContents:
    try:
        files(path)
    except FileError:  # the door asks for a table; a generator that was saved alone is none
        if path not in files.contents or not loading.is_stylegan(files.contents[path].tree):
            raise
    return files.contents[path]


def read_critic(path: Path) -> Critic:
    """Return the discriminator of a network pickle; its companions come from that file's own generator."""
    found = loading.load_stylegan(path)
    D = LabelledD(found.need_critic()).eval()
    return Critic(D, path.stem, "logit", "high", bool(D.net.config.c_dim), True, D.features)


def load_path(path: Path, files: Files, critic: Path | None, options: Options) -> StyleLoaded:
    """Return what a network pickle holds, or G of one file and D of another."""
    found = loading.from_contents(_contents(files, path), network=options.network)
    d, notes, d_config = found.D, list(found.notes), found.d_config
    if critic is not None:
        other = loading.from_contents(_contents(files, critic))
        d, d_config = other.need_critic(), other.d_config
        c = d.config
        check_fit(found.family, found.G.resolution, c.resolution, found.G.c_dim or None, c.c_dim or None)
        d.set_companions(loading.companions(found.G, d.group_size - 1))
    elif found.misfit:
        raise RequestError(
            f"D and G of this file do not fit: {found.no_critic}", where=str(path), way_out="Give a D with --critic."
        )
    if d is None and "only a generator" not in found.no_critic:
        warnings.warn(f"{path}: D cannot be used: {found.no_critic}", LatentshiftWarning, stacklevel=3)
    for note in notes:
        if note.endswith("NaN or infinite"):
            warnings.warn(f"{path}: {note}; images and scores will be too", LatentshiftWarning, stacklevel=3)
    family = "stylegan3" if found.family.startswith("stylegan3") else "stylegan2"
    config: dict[str, Any] = {"code": found.family, "G": found.g_config, "D": d_config if d is not None else None}
    if chosen := {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != f.default}:
        in_tensors = ("network", "translate", "rotate")
        config["options"] = {k: v for k, v in chosen.items() if k not in in_tensors}
    fresh = tuple(n for n in notes if n not in found.contents.notes)  # the door adds those of the files itself
    return assemble(family, found.G, d, options, config=config, notes=fresh, source=str(path))


def rebuild(
    config: Mapping[str, Any],
    G: Mapping[str, Tensor],
    D: Mapping[str, Tensor] | None,
    changes: Mapping[str, Any] | None = None,
) -> StyleLoaded:
    """Return the networks of a pair folder from its card's config and its tensors; `changes` are options typed anew."""
    code = str(config.get("code", ""))
    where = "the card's config"
    kept: dict[str, Any] = {**config.get("options", {}), **dict(changes or {})}
    make: Any = Options
    options: Options = make(**{k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()})
    g = loading.empty_generator(Record("Generator", dict(config["G"]["arguments"])), code, config["G"].get("clamp"), where)
    fill(g, Record("Generator", {}, {file_name(k.removeprefix("net.")): v for k, v in G.items()}), "G", where)
    d: Discriminator | None = None
    if D is not None and config.get("D"):
        d = loading.empty_discriminator(dict(config["D"]["arguments"]), config["D"].get("clamp"), where)
        fill(d, Record("Discriminator", {}, {file_name(k.removeprefix("net.")): v for k, v in D.items()}), "D", where)
        d.set_companions(loading.companions(g, d.group_size - 1))
    return assemble("stylegan3" if code.startswith("stylegan3") else "stylegan2", g, d, options, config=config)


def retruncated(pair: Pair, psi: float, cutoff: int | None = None) -> Pair:
    """Return the pair with another truncation; the networks are shared."""
    G = pair.G
    if not isinstance(G, LatentG):
        raise UsageError("this pair is no StyleGAN")
    fresh = LatentG(G.net, replace(Options(), trunc=psi, cutoff=cutoff, noise=G.noise_mode)).eval()
    table = spaces(fresh)
    return pair.replaced(G=fresh, space=table.pop("z"), more_spaces=table)
