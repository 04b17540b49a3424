"""BigGAN checkpoints to networks: from trees of tensors (any reader's) and from the files and folders of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentshift.errors import DamagedFileError, FileError, RequestError
from latentshift.files.statedict import Part, bake, unwrap

from .. import residual
from ..loaded import Loaded, check_fit
from . import pretrained, shapes
from .networks import BigGANDeepDiscriminator, BigGANGenerator, DeepDConfig, GConfig
from .shapes import Settings

Reader = Callable[[Path], Mapping[str, Any]]

_RUN_FILE = re.compile(r"(G|D|G_ema|state_dict|G_optim|D_optim)(_[A-Za-z0-9]+)?\.pth")
# Modules of the TF-Hub conversion and of other third-party spectral norms.
_TF_HUB = ".module.weight_bar"


@dataclass(frozen=True)
class Options:
    """Choices of a user. `truncation` (0 to 1) is for pytorch-pretrained-BigGAN; `suffix` picks a copy in a run's folder."""

    truncation: float = 1.0
    interpolation: str = "published"
    suffix: str | None = None
    ema: bool = True
    cross_replica_gain: Any = None
    dtype: torch.dtype = torch.float32


def recognise(tree: Mapping[str, Any]) -> str | None:
    """Return what this tree of tensors is: "G", "D", "pretrained G", or None. Only names are looked at."""
    try:
        found = unwrap(tree)
    except FileError:
        return None
    for part in found.parts:
        if pretrained.is_generator(part.tensors):
            return "pretrained G"
        if shapes.is_generator(part.tensors):
            return "G"
        if shapes.is_discriminator(part.tensors):
            return "D"
    return None


def refuse_conversions(tensors: Mapping[str, Any], where: str = "") -> None:
    """Raise RequestError for the TF-Hub conversion, which no published D goes with and no reference file exists for."""
    found = next((k for k in tensors if _TF_HUB in k), None)
    if found:
        raise RequestError(
            f"a TF-Hub conversion of BigGAN or another third-party spectral norm (key {found!r}); this form is not supported",
            where=where,
            way_out="Give the BigGAN-PyTorch run (G_ema.pth, D.pth) or a pytorch-pretrained-BigGAN folder.",
        )


def _built(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], what: str) -> nn.Module:
    with torch.device("meta"):
        net = make()
    return residual.fill(net, tensors, what)


def generator(tensors: Mapping[str, Tensor], settings: Settings, dtype: torch.dtype) -> tuple[BigGANGenerator, list[str]]:
    """Return a generator built from the state dict of BigGAN-PyTorch, and notes."""
    plain, notes = bake(tensors, dtype)
    more = list(notes)
    config, named = shapes.infer_generator(plain, settings, more)
    net = _built(lambda: BigGANGenerator(config), named, f"{shapes.FAMILY} G")
    assert isinstance(net, BigGANGenerator)
    return net, more


def discriminator(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[nn.Module, int, int, list[str]]:
    """Return (network, resolution, classes, notes) of a discriminator of BigGAN-PyTorch."""
    plain, notes = bake(tensors, dtype)
    config, resolution, named = shapes.infer_discriminator(plain)
    return build_discriminator(config, named), resolution, config.classes or 0, list(notes)


def build_discriminator(config: residual.DConfig | DeepDConfig, named: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of a config, filled."""
    what = f"{shapes.FAMILY} D"
    if isinstance(config, DeepDConfig):
        return _built(lambda: BigGANDeepDiscriminator(config), named, what)
    return _built(lambda: residual.ResidualD(config), named, what)


def load_parts(G: Part, D: Part | None, settings: Settings, options: Options, where: str = "") -> Loaded:
    """Return the pair of two state dicts of BigGAN-PyTorch; D may be missing.

    Raises RequestError (status 3) where D is for other images or labels, DamagedFileError (status 4) where tensors are
    missing or contradict each other.
    """
    refuse_conversions(G.tensors, where)
    if not shapes.is_generator(G.tensors):
        what = "a discriminator" if shapes.is_discriminator(G.tensors) else "no generator of this family"
        raise RequestError(f"{shapes.FAMILY}: this is {what}", where=where, way_out="Give G_ema.pth or G.pth, or the run's folder.")
    net, notes = generator(G.tensors, settings, options.dtype)
    config = net.config
    notes = [*G.notes, *(f"G: {n}" for n in notes)]
    critic: nn.Module | None = None
    d_config: dict[str, Any] = {}
    if D is not None:
        if not shapes.is_discriminator(D.tensors):
            raise RequestError(f"{shapes.FAMILY}: the file given as D is no discriminator of this family", where=where)
        critic, size, classes, d_notes = discriminator(D.tensors, options.dtype)
        check_fit(shapes.FAMILY, config.resolution, size, config.classes, classes)
        d_config = critic.config.json()  # type: ignore[union-attr, operator]
        notes += [*D.notes, *(f"D: {n}" for n in d_notes)]
    prior: dict[str, Any] = {"kind": "normal"}
    if settings.z_std != 1:
        notes.append(f"the run drew z with standard deviation {settings.z_std:g} (z_var is passed as one); z is scaled inside G")
        net = ScaledInput(net, settings.z_std)  # type: ignore[assignment]
    return Loaded(
        family="biggan",
        G=net,
        D=critic,
        z_size=config.z_size,
        image=(config.colours, config.resolution, config.resolution),
        prior=prior,
        classes=config.classes,
        loss="hinge",
        notes=tuple(notes),
        config={"form": shapes.FAMILY, "G": config.json(), "D": d_config or None, "z_std": settings.z_std},
    )


class ScaledInput(nn.Module):
    """G of z times a constant: a run that drew z with another standard deviation keeps a standard normal prior."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(z * self.scale, label)
        return out


def load_pretrained(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None, options: Options, where: str = "") -> Loaded:
    """Return pytorch-pretrained-BigGAN's generator; there is no discriminator for it anywhere."""
    if options.interpolation not in ("published", "linear"):
        raise RequestError(f"interpolation is 'published' or 'linear', not {options.interpolation!r}")
    pretrained.table_rows(options.truncation, 51)
    plain, baked = bake(tensors, options.dtype)
    notes = list(baked)
    found, named = pretrained.infer(plain, config, notes)
    net = _built(lambda: pretrained.PretrainedGenerator(found), named, f"{pretrained.FAMILY} G")
    assert isinstance(net, pretrained.PretrainedGenerator)
    net.truncation, net.interpolation = options.truncation, options.interpolation  # type: ignore[assignment]
    prior = {"kind": "truncated-normal", "bound": 2.0} | ({"factor": options.truncation} if options.truncation != 1 else {})
    notes.append(f"statistics of truncation {options.truncation:g}; the latents are truncated at 2 and scaled by the same value")
    settings = {"truncation": options.truncation, "interpolation": options.interpolation}
    return Loaded(
        family="biggan",
        G=net,
        D=None,
        z_size=found.z_size,
        image=(3, found.resolution, found.resolution),
        prior=prior,
        classes=found.classes,
        loss="hinge",
        notes=tuple(notes),
        config={"form": pretrained.FAMILY, "G": found.json(), "D": None, **settings},
    )


def _one(found: Any, want: Callable[[Mapping[str, Any]], bool], named: Part | None) -> Part | None:
    if named is not None and want(named.tensors):
        return named
    return next((p for p in found.parts if want(p.tensors)), None)


def load_tree(
    tree: Mapping[str, Any],
    d_tree: Mapping[str, Any] | None = None,
    *,
    run: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    options: Options = Options(),
    where: str = "",
) -> Loaded:
    """Return what a tree of tensors (and D's tree, where it is a file of its own) holds.

    `run`: the `config` of the run's state file; `config`: config.json of pytorch-pretrained-BigGAN.
    """
    found = unwrap(tree, where=where)
    for part in found.parts:
        refuse_conversions(part.tensors, where)
    hub = _one(found, pretrained.is_generator, None)
    if hub is not None:
        loaded = load_pretrained(hub.tensors, config, options, where)
        if d_tree is not None:
            raise RequestError("no discriminator fits pytorch-pretrained-BigGAN's generators: none was published", where=where)
        return loaded
    settings = Settings.of_run(run or {}, options.cross_replica_gain)
    G = _one(found, shapes.is_generator, found.generator())
    D = _one(unwrap(d_tree, where=where) if d_tree is not None else found, shapes.is_discriminator, None)
    if G is None:
        if D is not None:
            raise RequestError(
                f"{shapes.FAMILY}: only a discriminator is in this file", where=where, way_out="Give G_ema.pth or the run's folder."
            )
        raise RequestError(f"no BigGAN in this file (parts: {len(found.parts)})", where=where)
    if d_tree is not None and D is None:
        raise RequestError(f"{shapes.FAMILY}: the file given as D is no discriminator of this family", where=where)
    return load_parts(G, D, settings, options, where)


def run_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the files of a run's folder: suffix ("", "_best1", ...) to name ("G_ema", "D", ...) to path."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if m := _RUN_FILE.fullmatch(path.name):
            # G_ema and G_optim are names of their own, not a G with a suffix
            name, suffix = m[1], m[2] or ""
            for whole in ("_ema", "_optim"):
                if name in ("G", "D") and suffix.startswith(whole):
                    name, suffix = name + whole, suffix.removeprefix(whole)
            found.setdefault(suffix, {})[name] = path
    return found


def choose_suffix(files: Mapping[str, Mapping[str, Path]], folder: Path, wanted: str | None) -> str:
    """Return the copy to take: the one asked for, else the plain one, else the newest by time of its file."""
    usable = {s for s, names in files.items() if {"G", "G_ema"} & set(names)}
    if wanted is not None:
        suffix = wanted if not wanted or wanted.startswith("_") else f"_{wanted}"
        if suffix not in usable:
            raise RequestError(f"no copy {wanted!r} in this run: {sorted(s or '(plain)' for s in usable)}", where=str(folder))
        return suffix
    if not usable:
        raise FileError("a BigGAN-PyTorch run without a generator's file", where=str(folder), way_out="It needs G_ema.pth or G.pth.")
    return "" if "" in usable else max(usable, key=lambda s: (max(p.stat().st_mtime for p in files[s].values()), s))


def is_folder(folder: Path) -> bool:
    """Return whether a folder looks like a BigGAN-PyTorch run or a pytorch-pretrained-BigGAN model."""
    if (folder / "pytorch_model.bin").is_file() and (folder / "config.json").is_file():
        return "attention_layer_position" in (folder / "config.json").read_text(errors="replace")
    return any({"G", "G_ema"} & set(names) for names in run_files(folder).values())


def load_folder(folder: Path, read: Reader, options: Options = Options()) -> Loaded:
    """Return the pair of a run's folder (`G_ema.pth` before `G.pth`, `D.pth`, settings of `state_dict.pth`), or the generator
    of a pytorch-pretrained-BigGAN folder. `read` gives the tree of tensors of a file."""
    if (folder / "pytorch_model.bin").is_file():
        config = _json(folder / "config.json") if (folder / "config.json").is_file() else None
        return load_tree(read(folder / "pytorch_model.bin"), config=config, options=options, where=str(folder))
    files = run_files(folder)
    suffix = choose_suffix(files, folder, options.suffix)
    names = files[suffix]
    g_name = "G_ema" if "G_ema" in names and (options.ema or "G" not in names) else "G"
    run: Mapping[str, Any] = {}
    if "state_dict" in names:
        state = read(names["state_dict"])
        run = state.get("config") or {}
        run = run if isinstance(run, Mapping) else {}
    d_tree = read(names["D"]) if "D" in names else None
    loaded = load_tree(read(names[g_name]), d_tree, run=run, options=options, where=str(folder))
    others = sorted(s or "(plain)" for s in files if s != suffix)
    notes = [f"took {names[g_name].name}" + ("" if d_tree is None else f" and {names['D'].name}")]
    notes += [f"other copies in this run: {', '.join(others)}"] if others else []
    left = [p.name for s in files.values() for n, p in s.items() if n.endswith("_optim")]
    notes += [f"left out optimizer states: {', '.join(left)}"] if left else []
    if "state_dict" not in names:
        notes.append("no state_dict.pth: BN_eps 1e-5 and a standard normal prior were assumed")
    return loaded.with_notes(*notes)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        out = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DamagedFileError(f"not a readable JSON file: {error}", where=str(path)) from None
    if not isinstance(out, dict):
        raise DamagedFileError("not a JSON object", where=str(path))
    return out


def rebuild(config: Mapping[str, Any], G: Mapping[str, Tensor], D: Mapping[str, Tensor] | None) -> tuple[nn.Module, nn.Module | None]:
    """Return the networks of a pair folder's card (`Loaded.config`) with their tensors under our names."""
    if config["form"] == pretrained.FAMILY:
        found = pretrained.Config.from_json(config["G"])
        net = _built(lambda: pretrained.PretrainedGenerator(found), G, "G")
        assert isinstance(net, pretrained.PretrainedGenerator)
        net.truncation, net.interpolation = float(config["truncation"]), config["interpolation"]
        return net, None
    g_config = GConfig.from_json(config["G"])
    scale = float(config.get("z_std", 1.0))
    inner = {k.removeprefix("net."): v for k, v in G.items()}
    made = _built(lambda: BigGANGenerator(g_config), inner, "G")
    if scale != 1:
        made = ScaledInput(made, scale).eval()
    critic = None
    if D is not None and config.get("D"):
        card = config["D"]
        d_config = DeepDConfig.from_json(card) if "stages" in card else residual.DConfig.from_json(card)
        critic = build_discriminator(d_config, D)
    return made, critic
