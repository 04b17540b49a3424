"""BigGAN checkpoints to networks: from trees of tensors as a reader gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentshift.errors import DamagedFileError, FileError, RequestError
from latentshift.files.statedict import Part, bake, unwrap

from .. import residual
from ..loaded import Loaded, check_fit
from . import pretrained, shapes
from .networks import BigGANDeepDiscriminator, BigGANGenerator, DeepDConfig, GConfig, Statistics
from .shapes import Settings

# Modules of the TF-Hub conversion and of other third-party spectral norms.
_TF_HUB = ".module.weight_bar"


@dataclass(frozen=True)
class Options:
    """Choices of a user. `suffix` picks a copy in a run's folder.

    `trunc` is the truncation of z. pytorch-pretrained-BigGAN (0 to 1): z cut at 2 and scaled by it, with its statistics of that
    row. BigGAN-PyTorch: entries of z beyond it are drawn again, as the paper has it; the statistics stay as they are.

    `accumulate`: take the batch statistics anew from that many batches of 64 random latents (the project's standing
    statistics; it takes 16), instead of those in the file.
    """

    trunc: float | None = None
    interpolation: Literal["published", "linear"] = "published"
    suffix: str | None = None
    ema: bool = True
    cross_replica_gain: Literal["add", "mul"] | None = None
    accumulate: int = 0
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


def build_generator(config: GConfig, named: Mapping[str, Tensor]) -> BigGANGenerator:
    """Return the network of a config, filled."""
    net = _built(lambda: BigGANGenerator(config), named, f"{shapes.FAMILY} G")
    assert isinstance(net, BigGANGenerator)
    return net


def generator(tensors: Mapping[str, Tensor], settings: Settings, dtype: torch.dtype) -> tuple[BigGANGenerator, list[str]]:
    """Return a generator built from the state dict of BigGAN-PyTorch, and notes."""
    plain, baked = bake(tensors, dtype)
    notes = list(baked)
    config, named = shapes.infer_generator(plain, settings, notes)
    return build_generator(config, named), notes


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
        raise RequestError(f"{shapes.FAMILY}: this is {what}", where=where, way_out="Give G_ema.pth or the run's folder.")
    net, g_notes = generator(G.tensors, settings, options.dtype)
    if options.accumulate:
        accumulate(net, options.accumulate, settings.z_std)
        g_notes.append(f"batch statistics were accumulated from {options.accumulate} batches of 64 (seed 0)")
    notes = [*G.notes, *(f"G: {n}" for n in g_notes)]
    critic: nn.Module | None = None
    if D is not None:
        if not shapes.is_discriminator(D.tensors):
            raise RequestError(f"{shapes.FAMILY}: the file given as D is no discriminator of this family", where=where)
        critic, size, classes, d_notes = discriminator(D.tensors, options.dtype)
        check_fit(shapes.FAMILY, net.config.resolution, size, net.config.classes, classes)
        notes += [*D.notes, *(f"D: {n}" for n in d_notes)]
    if settings.z_std != 1:
        notes.append(f"the run drew z with standard deviation {settings.z_std:g} (its z_var): z is scaled inside G")
    made = _assembled(net, critic, settings.z_std)
    if options.trunc is not None:
        if options.trunc <= 0:
            raise RequestError(f"truncation is above 0, not {options.trunc:g}", where="--trunc")
        made = replace(made, prior={"kind": "truncated-normal", "bound": options.trunc})
        notes.append(f"entries of z beyond {options.trunc:g} are drawn again; the batch statistics are those of the file")
    return made.with_notes(*notes)


def _assembled(net: BigGANGenerator, critic: nn.Module | None, z_std: float) -> Loaded:
    config = net.config
    return Loaded(
        family="biggan",
        G=net if z_std == 1 else ScaledInput(net, z_std).eval(),
        D=critic,
        z_size=config.z_size,
        image=(config.colours, config.resolution, config.resolution),
        classes=config.classes,
        d_classes=config.classes if critic is not None else None,
        returns="critic",
        loss="hinge",
        source=shapes.FAMILY,
        config={
            "form": shapes.FAMILY,
            "G": config.json(),
            "D": critic.config.json() if critic is not None else None,  # type: ignore[union-attr, operator]
            "z_std": z_std,
        },
    )


@torch.no_grad()
def accumulate(net: BigGANGenerator, batches: int, z_std: float = 1.0, rows: int = 64) -> None:
    """Replace the batch statistics of a generator by means over batches: standing statistics, in place.

    Each batch normalises itself, as in training; means and biased variances of all batches are averaged. Latents and labels
    are drawn from a generator of their own with seed 0.
    """
    if not 0 < batches <= 10_000:
        raise RequestError(f"accumulate takes 1 to 10,000 batches, not {batches}")
    norms = [m for m in net.modules() if isinstance(m, Statistics)]
    random = torch.Generator().manual_seed(0)
    dtype = net.linear.weight.dtype
    for norm in norms:
        norm.gather = []
    for _ in range(batches):
        z = torch.randn(rows, net.config.z_size, generator=random).to(dtype) * z_std
        net(z, torch.randint(net.config.classes, (rows,), generator=random))
    for norm in norms:
        gathered, norm.gather = norm.gather or [], None
        norm.mean = torch.stack([mean for mean, _ in gathered]).mean(0)
        norm.var = torch.stack([var for _, var in gathered]).mean(0)


class ScaledInput(nn.Module):
    """G of z times a constant: a run that drew z with another standard deviation keeps a standard normal prior."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(z * self.scale, label)
        return out


def load_pretrained(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None, options: Options, where: str = ""
) -> Loaded:
    """Return pytorch-pretrained-BigGAN's generator; there is no discriminator for it anywhere."""
    plain, baked = bake(tensors, options.dtype)
    notes = list(baked)
    found, named = pretrained.infer(plain, config, notes)
    t = options.trunc or 1.0
    notes.append(f"statistics of truncation {t:g}; latents are truncated at 2 and scaled by the same value")
    return _pretrained(found, named, options).with_notes(*notes)


def _pretrained(found: pretrained.Config, named: Mapping[str, Tensor], options: Options) -> Loaded:
    if options.interpolation not in ("published", "linear"):
        raise RequestError(f"interpolation is 'published' or 'linear', not {options.interpolation!r}")
    t = 1.0 if options.trunc is None else options.trunc
    if not 0 < t <= 1:
        raise RequestError(f"truncation is above 0 and at most 1, not {t:g}", where="--trunc")
    net = _built(lambda: pretrained.PretrainedGenerator(found), named, f"{pretrained.FAMILY} G")
    assert isinstance(net, pretrained.PretrainedGenerator)
    net.truncation, net.interpolation = t, options.interpolation
    return Loaded(
        family="biggan",
        G=net,
        D=None,
        z_size=found.z_size,
        image=(3, found.resolution, found.resolution),
        prior={"kind": "truncated-normal", "bound": 2.0} | ({"factor": t} if t != 1 else {}),
        classes=found.classes,
        loss="hinge",
        source=pretrained.FAMILY,
        config={
            "form": pretrained.FAMILY,
            "G": found.json(),
            "D": None,
            "truncation": t,
            "interpolation": options.interpolation,
        },
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
            what = f"{shapes.FAMILY}: only a discriminator is in this file"
            raise RequestError(what, where=where, way_out="Give G_ema.pth or the run's folder.")
        raise RequestError(f"no BigGAN in this file (parts: {len(found.parts)})", where=where)
    if d_tree is not None and D is None:
        raise RequestError(f"{shapes.FAMILY}: the file given as D is no discriminator of this family", where=where)
    return load_parts(G, D, settings, options, where)


def critic_of(tree: Mapping[str, Any], where: str = "") -> tuple[nn.Module, int | None, str]:
    """Return (network, classes, what it returns) of the discriminator in a tree; raises RequestError where there is none."""
    D = _one(unwrap(tree, where=where), shapes.is_discriminator, None)
    if D is None:
        raise RequestError(f"{shapes.FAMILY}: no discriminator in this file", where=where, way_out="Give D.pth of a run.")
    net, _, classes, _ = discriminator(D.tensors, torch.float32)
    return net, classes, "critic"


def rebuild(config: Mapping[str, Any], G: Mapping[str, Tensor], D: Mapping[str, Tensor] | None) -> Loaded:
    """Return the networks of a pair folder's card (`Loaded.config`) with their tensors under our names."""
    if config["form"] == pretrained.FAMILY:
        found = pretrained.Config.from_json(config["G"])
        _sane(found.layers, found.resolution)
        settings = {"trunc": float(config["truncation"]), "interpolation": config["interpolation"]}
        return _pretrained(found, G, Options(**settings))
    g_config = GConfig.from_json(config["G"])
    _sane(g_config.blocks, g_config.resolution)
    d_config: residual.DConfig | DeepDConfig | None = None
    if D is not None:
        card = config["D"]
        d_config = DeepDConfig.from_json(card) if "stages" in card else residual.DConfig.from_json(card)
        _sane(d_config.stages if isinstance(d_config, DeepDConfig) else d_config.blocks, 0)
    inner = {k.removeprefix("net."): v for k, v in G.items()}
    critic = build_discriminator(d_config, D) if d_config is not None and D is not None else None
    return _assembled(build_generator(g_config, inner), critic, float(config.get("z_std", 1.0)))


def _sane(blocks: Sized, resolution: int) -> None:
    """Refuse a card whose network could not be meant, before anything is built."""
    if len(blocks) > 64 or resolution > 8192:
        raise DamagedFileError(f"a network of {len(blocks)} blocks and {resolution} px is no BigGAN")
