"""StyleGAN2 and StyleGAN3: exact against the publisher's values, independent rows, refusals by name."""

# ruff: noqa: E501  (tables of bytes and of cases read better in one line)

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latentshift_plugins.stylegan2 import FAMILY, build
from latentshift_plugins.stylegan2.adapter import retruncated
from latentshift_plugins.stylegan2.container import Record, flatten
from latentshift_plugins.stylegan2.loading import Loaded, code_of, load_stylegan
from latentshift_plugins.stylegan2.ops import convolved, factor, resample
from latentshift_plugins.stylegan3 import build as build3
from torch.nn import functional as F

from latentshift.engine.run import Engine, Settings
from latentshift.errors import DamagedFileError, FileError, LatentshiftWarning, MissingCapabilityError, RequestError, ShapeError
from latentshift.files.checkpoint import read_tensors
from latentshift.files.folder import read_pair
from latentshift.landscape import Landscape
from latentshift.noise import latents
from latentshift.space import Context
from latentshift.strategies.gradient import IFGSM

sys.path.insert(0, str(Path(__file__).parent))
container = importlib.import_module("container")

FILES = [
    "sg2ada-default-32", "sg2ada-cifar-cond-32", "sg2ada-resnetG-skipD-64", "sg2ada-origG-freezeD-32", "sg2ada-emaonly-16",
    "sg2-sg3repo-cond-32", "sg3t-32", "sg3r-64",
]  # fmt: skip
WITH_D = [n for n in FILES if "emaonly" not in n]
shared = pytest.mark.shared


@cache
def loaded(name: str) -> Loaded:
    return load_stylegan(container.folder("stylegan") / f"{name}.pkl")


@cache
def values(name: str) -> dict[str, np.ndarray]:
    with np.load(container.folder("stylegan") / f"{name}.npz", allow_pickle=False) as arrays:
        return {k: arrays[k] for k in arrays.files}


def relative(a: torch.Tensor, b: np.ndarray) -> float:
    """Largest difference relative to the array's largest value."""
    assert tuple(a.shape) == b.shape
    return float(np.abs(a.detach().double().numpy() - b.astype(np.float64)).max() / np.abs(b).max())


def inputs(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    e = values(name)
    return torch.tensor(e["z"], dtype=dtype, requires_grad=True), torch.tensor(e["c"], dtype=dtype) if "c" in e else None


@shared
@pytest.mark.parametrize("name", FILES)
def test_every_tensor_has_the_digest_of_the_writer(name: str) -> None:
    facts = json.loads((container.folder("stylegan") / f"{name}.json").read_text())
    tree = loaded(name).contents.tree
    assert list(tree) == facts["top_level_keys"]
    checked = 0
    for network, table in facts["tensors"].items():
        record = flatten(tree[network], network, name)
        assert set(record.tensors) == set(table)
        for key, (dtype, shape, digest) in table.items():
            tensor = record.tensors[key]
            assert (str(tensor.dtype), list(tensor.shape)) == (f"torch.{dtype}", shape)
            assert hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() == digest, f"{network}.{key}"
            checked += 1
    assert checked > 40


@shared
@pytest.mark.parametrize("name", FILES)
def test_single_precision_agrees_with_the_publisher(name: str) -> None:
    e, G = values(name), loaded(name).G
    z, c = inputs(name, torch.float32)
    ws = G.mapping(z, c)
    assert tuple(ws.shape) == (4, G.num_ws, G.w_dim)
    assert relative(ws[:, 0], e["w"]) < 2e-6
    assert relative(G.mapping(z, c, 0.7)[:, 0], e["w_psi07"]) < 2e-6
    assert relative(G.mapping(z, c, 0.7, 3), e["ws_psi07_cut3"]) < 2e-6
    images = G.synthesis(ws)
    assert relative(images, e["img_const"]) < 1e-5
    if "img_none" in e:
        assert relative(G.synthesis(ws, "none"), e["img_none"]) < 1e-5
    if "img_const_psi07" in e:
        assert relative(G(z, c, 0.7), e["img_const_psi07"]) < 1e-5
    D = loaded(name).D
    score = (D(images, c, grouping="group") if D else images.square()).sum()
    assert relative(torch.autograd.grad(score, z)[0], e["grad_z"]) < 5e-3


@shared
@pytest.mark.parametrize("name", WITH_D)
def test_grouped_logits_agree_with_the_publisher_for_every_batch_size(name: str) -> None:
    e, G, D = values(name), loaded(name).G, loaded(name).need_critic()
    z, c = inputs(name, torch.float32)
    with torch.no_grad():
        images, more = G(z, c), G(z, c, 0.7)

        def score(rows: slice) -> torch.Tensor:
            return D(images[rows], None if c is None else c[rows], grouping="group")[:, None]

        assert relative(score(slice(4)), e["logits_b4"]) < 1e-5
        assert relative(torch.cat([score(slice(i, i + 1)) for i in range(4)]), e["logits_b1"]) < 1e-5
        assert relative(torch.cat([score(slice(i, i + 2)) for i in (0, 2)]), e["logits_b2"]) < 1e-5
        if "logits_b3" in e:
            assert relative(score(slice(3)), e["logits_b3"]) < 1e-5
        both = D(torch.cat([images, more]), None if c is None else torch.cat([c, c]), grouping="group")[:, None]
        assert relative(both, e["logits_b8"]) < 1e-5


@shared
@pytest.mark.parametrize("name", FILES)
def test_double_precision_is_exact(name: str) -> None:
    e = values(name)
    fresh = load_stylegan(container.folder("stylegan") / f"{name}.pkl")
    G, D = fresh.G.double(), fresh.D.double() if fresh.D else None
    z, c = inputs(name, torch.float64)
    ws = G.mapping(z, c)
    assert relative(ws[:, 0], e["w_f64"]) < 1e-13
    images = G.synthesis(ws)
    if "img_const_f64" in e:
        assert relative(images, e["img_const_f64"]) < 1e-12
    score = images.square().sum()
    if D is not None:
        logits = D(images, c, grouping="group")
        assert relative(logits[:, None], e["logits_b4_f64"]) < 1e-12
        score = logits.sum()
    assert relative(torch.autograd.grad(score, z)[0], e["grad_z_f64"]) < 1e-11


@shared
@pytest.mark.parametrize("name", WITH_D)
def test_rows_are_independent_by_default(name: str) -> None:
    G, D = loaded(name).G, loaded(name).need_critic()
    z, c = inputs(name, torch.float32)
    with torch.no_grad():
        images = G(z, c)
        together = D(images, c)
        alone = torch.cat([D(images[i : i + 1], None if c is None else c[i : i + 1]) for i in range(4)])
        lonely = D(images, c, grouping="alone")
    spread = float(together.max() - together.min())
    assert float((together - alone).abs().max()) < 1e-4 * spread + 1e-5
    grouped = torch.from_numpy(values(name)["logits_b4"])[:, 0]
    assert float((grouped - together).abs().max()) > 1e-4 * spread  # it is another score than the group's,
    assert float((lonely - together).abs().max()) > 1e-4 * spread  # and than that of an image alone
    # eight rows are eight rows to the bit, whatever stands beside them
    labels = None if c is None else torch.cat([c, c])
    with torch.no_grad():
        first = D(torch.cat([images, images]), labels)
        other = D(torch.cat([images, images.flip(0)]), None if c is None else torch.cat([c, c.flip(0)]))
    assert torch.equal(first[:4], other[:4])


@shared
def test_the_reference_group_is_the_published_group_with_fixed_companions() -> None:
    item = loaded("sg2ada-default-32")
    D = item.need_critic()
    z, _ = inputs("sg2ada-default-32", torch.float32)
    with torch.no_grad():
        images = item.G(z)
        friends = D.companions() if callable(D.companions) else D.companions
        assert friends is not None
        for i in range(4):
            want = D(torch.cat([images[i : i + 1], friends]), grouping="group")[0]
            assert float((D(images[i : i + 1])[0] - want).abs()) < 1e-5 * (1 + float(want.abs()))


def upfirdn(x: torch.Tensor, f: torch.Tensor, up: int, down: int, lo: int, hi: int, gain: float) -> torch.Tensor:
    """The definition: zeros between samples, padding, true convolution, every down-th sample."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, h * up, w * up)
    wide[:, :, ::up, ::up] = x
    wide = F.pad(wide, (lo, hi, lo, hi))
    f2 = torch.outer(f, f) if f.ndim == 1 else f
    kernel = f2.flip(0, 1)[None, None].expand(c, 1, *f2.shape) * gain
    return F.conv2d(wide, kernel, groups=c)[:, :, ::down, ::down]


@settings(max_examples=60, deadline=None)
@given(
    up=st.integers(1, 4), down=st.integers(1, 3), taps=st.integers(1, 12), lo=st.integers(-2, 14), hi=st.integers(-2, 14),
    size=st.integers(4, 9), flat=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_resampling_is_the_definition(
    up: int, down: int, taps: int, lo: int, hi: int, size: int, flat: bool, seed: int
) -> None:
    if size * up + lo + hi < taps or size + min(lo, 0) + min(hi, 0) < 1:
        return
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, size, size + 1, dtype=torch.float64, generator=generator)
    f = torch.rand((taps,) if flat else (taps, taps), dtype=torch.float64, generator=generator)
    got = resample(x, f, up=up, down=down, pad=(lo, hi), gain=1.7)
    want = upfirdn(x, f, up, down, lo, hi, 1.7)
    assert got.shape == want.shape
    assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)


def test_only_exact_products_are_factored() -> None:
    taps = torch.tensor([1.0, 3, 3, 1])
    f = torch.outer(taps, taps) / 64
    found = factor(f)
    assert found is not None
    assert torch.equal(torch.outer(found, found), f.double())
    assert factor(f + torch.eye(4) * 1e-6) is None


# -- other networks than the reference set has, written by the tests' own writer -------------------------------------------

SG2: dict[str, dict[str, Any]] = {
    "filters of 5 taps": {"synthesis": {"resample_filter": [1, 4, 6, 4, 1]}, "block": {"resample_filter": [1, 2, 1]}},
    "long filters": {"synthesis": {"resample_filter": [1] * 8}, "block": {"resample_filter": [1, 2, 3, 4, 4, 3, 2, 1, 1]}},
    "resnet, kernel 1": {"synthesis": {"architecture": "resnet", "kernel_size": 1}, "D": {"architecture": "skip"}},
    "kernel 5, orig": {"synthesis": {"architecture": "orig", "kernel_size": 5}, "D": {"architecture": "orig"}},
    "filter in 2-D": {"synthesis": {"resample_filter": [[1, 2], [3, 5]]}},
    "activations": {"synthesis": {"activation": "elu"}, "block": {"activation": "softplus"}, "mapping": {"activation": "tanh"}},
    "no average": {"mapping": {"w_avg_beta": None, "num_layers": 1}},
    "no minibatch statistic": {"epilogue": {"mbstd_num_channels": 0}},
    "whole batch is the group": {"epilogue": {"mbstd_group_size": None, "mbstd_num_channels": 4}},
    "conditional": {"c_dim": 5, "D": {"cmap_dim": 7}},
    "16 px, wide": {"resolution": 16, "channels": 1},
    "128 px": {"resolution": 128},
}


def make2(path: Path, *, seed: int = 0, protocol: int = 4, keep: tuple[str, ...] = ("G", "D", "G_ema"), **o: Any) -> Path:
    """Write a StyleGAN2 file with small widths."""
    res, ch, c_dim = o.get("resolution", 32), o.get("channels", 3), o.get("c_dim", 0)
    size = {"channel_base": 256, "channel_max": 16}
    common = {"c_dim": c_dim, "img_resolution": res, "img_channels": ch}
    gk = {"z_dim": 24, "w_dim": 20, **common, "mapping_kwargs": {"num_layers": 2, **o.get("mapping", {})},
          "synthesis_kwargs": {**size, "num_fp16_res": 2, "conv_clamp": 256, **o.get("synthesis", {})}}  # fmt: skip
    dk = {**common, "num_fp16_res": 2, "conv_clamp": 256, **size, "mapping_kwargs": {"num_layers": 2}, "block_kwargs": o.get("block", {}),
          "epilogue_kwargs": o.get("epilogue", {}), **o.get("D", {})}  # fmt: skip
    tree: dict[str, Any] = {"training_set_kwargs": {"path": "/data"}}
    for i, name in enumerate(n for n in ("G", "D", "G_ema") if n in keep):
        if name == "D":
            net: torch.nn.Module
            net, facts = build.discriminator(Record("Discriminator", dk), "", clamp=None)
            kwargs = dk
        else:
            net, facts, _ = build.generator(Record("Generator", gk), "", clamp=None)
            kwargs = gk
        container.randomise(net, seed + i)
        tree[name] = container.parts(net, facts, kwargs)
    return container.write(path, {**tree, "augment_pipe": None, **o.get("more", {})}, protocol)


@pytest.mark.parametrize("name", SG2)
def test_other_stylegan2_networks_load_and_run(tmp_path: Path, name: str) -> None:
    path = make2(tmp_path / "a.pkl", **SG2[name])
    item = load_stylegan(path)
    assert item.family == "stylegan2-ada"
    G, D = item.G.double(), item.need_critic().double()
    z = torch.randn(4, 24, dtype=torch.float64, requires_grad=True)
    c = torch.eye(5, dtype=torch.float64)[:4] if G.c_dim else None
    images = G(z, c)
    assert tuple(images.shape) == (4, G.channels, G.resolution, G.resolution)
    logits = D(images, c)
    (grad,) = torch.autograd.grad(logits.sum(), z)
    logits = logits.detach()
    assert bool(torch.isfinite(grad).all())
    assert float(grad.abs().max()) > 0
    # the gradient is that of a central difference along one direction
    step = 1e-5 * torch.randn(4, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        change = D(G(z + step, c), c).sum() - D(G(z - step, c), c).sum()
    assert math.isclose(float(change), 2 * float((grad * step).sum()), rel_tol=1e-3, abs_tol=1e-9)
    with torch.no_grad():
        alone = D(images[:1], None if c is None else c[:1])
    assert abs(float(alone[0] - logits[0])) < 1e-10 * (1 + abs(float(alone[0])))
    if name == "no average":
        with pytest.raises(RequestError, match="average"):
            G.mapping(z, c, 0.5)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_is_the_same_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    a, b = load_stylegan(make2(tmp_path / "a.pkl", protocol=protocol)), load_stylegan(make2(tmp_path / "b.pkl"))
    for mine, theirs in ((a.G, b.G), (a.need_critic(), b.need_critic())):
        assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in mine.state_dict().items())


def make3(path: Path, **o: Any) -> tuple[Path, dict[str, Any]]:
    """Write a StyleGAN3 generator with small widths."""
    kwargs = {"z_dim": 16, "c_dim": 0, "w_dim": 20, "img_resolution": 32, "img_channels": 3, "channel_base": 512, "channel_max": 16,
              "mapping_kwargs": {"num_layers": 2}, "magnitude_ema_beta": 0.99, **o}  # fmt: skip
    net, facts, _ = build3.generator(Record("Generator", kwargs), "")
    container.randomise(net, 5)
    from latentshift_plugins.stylegan3.filters import filters

    state = net.state_dict()
    with torch.no_grad():
        for plan in net.synthesis_net.plans:  # type: ignore[union-attr]
            for key, value in zip(("up_filter", "down_filter"), filters(plan), strict=True):  # type: ignore[arg-type]
                if value is not None:
                    state[f"synthesis_net.{plan.name}.{key}"].copy_(value)  # type: ignore[union-attr]
            state[f"synthesis_net.{plan.name}.magnitude_ema"].fill_(1.3)  # type: ignore[union-attr]
        state["synthesis_net.input.transform"].copy_(torch.eye(3))
    return container.write(path, {"G_ema": container.parts(net, facts, kwargs)}, 5), kwargs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conv_kernel": 1, "use_radial_filters": True},
        {"num_layers": 9, "num_critical": 1, "margin_size": 6, "c_dim": 3, "filter_size": 4, "lrelu_upsampling": 4},
        {"img_resolution": 48, "output_scale": 1.0, "conv_clamp": None, "first_cutoff": 1.5},
    ],
    ids=["T", "R", "other numbers", "48 px"],
)
def test_other_stylegan3_networks_load_and_run(tmp_path: Path, options: dict[str, Any]) -> None:
    path, _ = make3(tmp_path / "a.pkl", **options)
    item = load_stylegan(path)
    G = item.G.double()
    assert item.family == ("stylegan3-r" if options.get("use_radial_filters") else "stylegan3-t")
    assert G.noise_shapes == []
    z = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    c = torch.eye(3, dtype=torch.float64) if G.c_dim else None
    images = G(z, c)
    size = options.get("img_resolution", 32)
    assert tuple(images.shape) == (3, 3, size, size)
    (grad,) = torch.autograd.grad(images.square().sum(), z)
    G.synthesis_net.recompute = True
    (again,) = torch.autograd.grad(G(z, c).square().sum(), z)
    assert torch.allclose(grad, again, rtol=1e-10)
    with torch.no_grad():
        alone = torch.cat([G(z[i : i + 1], None if c is None else c[i : i + 1]) for i in range(3)])
    assert torch.allclose(alone, images, rtol=1e-7, atol=1e-8)


def test_a_stylegan3_image_moves_with_its_input(tmp_path: Path) -> None:
    path, _ = make3(tmp_path / "a.pkl", img_resolution=64)
    still, moved = FAMILY.load(path), FAMILY.load(path, translate=(0.25, 0.0))
    z = torch.randn(2, 16)
    with torch.no_grad():
        a, b = still.generate(z), moved.generate(z)
    inner = slice(20, 44)
    shifted = a[:, :, inner, 4:28]  # 16 of 64 pixels to the right
    assert float((b[:, :, inner, 20:44] - shifted).abs().mean()) < 0.1 * float((a[:, :, inner, 20:44] - shifted).abs().mean())
    with pytest.raises(RequestError, match="StyleGAN3"):
        FAMILY.load(make2(tmp_path / "b.pkl"), rotate=10)


def surgery(tree: Any, *path: str) -> dict[str, Any]:
    """The instance dictionary of a part of a written network."""
    part = tree
    for key in path:
        part = part.meta["state"]["_modules"][key]
    state: dict[str, Any] = part.meta["state"]
    return state


def edit_first_tensor(state: dict[str, Any]) -> None:
    state["_parameters"]["weight"] = torch.nn.Parameter(state["_parameters"]["weight"].detach()[:, :-1].clone())


class Foreign:
    """A class of another project."""


Foreign.__module__, Foreign.__qualname__ = "pg_modules.discriminator", "ProjectedDiscriminator"

DAMAGED: dict[str, tuple[Any, str]] = {
    "unknown argument": (lambda g: surgery(g)["_init_kwargs"].update(rand_embedding=True), "rand_embedding"),
    "unknown synthesis argument": (lambda g: surgery(g)["_init_kwargs"]["synthesis_kwargs"].update(square=True), "square"),
    "resolution bomb": (lambda g: surgery(g)["_init_kwargs"].update(img_resolution=1 << 20), "img_resolution is 1048576"),
    "resolution of no power": (lambda g: surgery(g)["_init_kwargs"].update(img_resolution=48), "power of two"),
    "width bomb": (lambda g: surgery(g)["_init_kwargs"].update(w_dim=10**9), "w_dim is 1000000000"),
    "layer bomb": (lambda g: surgery(g)["_init_kwargs"]["mapping_kwargs"].update(num_layers=10**6), "num_layers is 1000000"),
    "another resolution than the tensors": (lambda g: surgery(g)["_init_kwargs"].update(img_resolution=64), "img_resolution is 32"),
    "clamp contradicts": (lambda g: surgery(g, "synthesis", "b8", "conv0").update(conv_clamp=7), "conv_clamp is 7"),
    "activation contradicts": (lambda g: surgery(g, "synthesis", "b8", "conv1").update(activation="relu"), "activation is relu"),
    "gain contradicts": (lambda g: surgery(g, "mapping", "fc0").update(weight_gain=0.5), "weight_gain is 0.5"),
    "missing tensor": (lambda g: surgery(g, "synthesis", "b8", "conv0")["_parameters"].pop("weight"), "b8.conv0.weight is missing"),
    "tensor too many": (lambda g: surgery(g, "synthesis")["_buffers"].update(more=torch.ones(1)), "synthesis.more belongs to no layer"),
    "name twice": (lambda g: surgery(g, "mapping")["_parameters"].update(w_avg=torch.ones(20)), "two parts named w_avg"),
    "other shape": (lambda g: edit_first_tensor(surgery(g, "synthesis", "b8", "conv0")), "b8.conv0.weight is (16, 15, 3, 3)"),
    "missing part": (lambda g: surgery(g, "synthesis")["_modules"].pop("b16"), "b16"),
    "hooks": (lambda g: surgery(g)["_modules"].update() or surgery(g).update(_forward_hooks={"1": "x"}), "hooks"),
    "other class name": (lambda g: surgery(g, "synthesis")["_modules"]["b8"].meta.update(class_name="TriPlaneGenerator"), "EG3D"),
    "EG3D": (lambda g: g.meta.update(class_name="TriPlaneGenerator"), "EG3D"),
    "integers": (lambda g: surgery(g, "mapping")["_buffers"].update(w_avg=torch.ones(20, dtype=torch.long)), "int64"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_contradicts_itself_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change, word = DAMAGED[name]
    real = container.write

    def write(path: Path, tree: dict[str, Any], protocol: int) -> Path:
        change(tree["G_ema"])
        return real(path, tree, protocol)  # type: ignore[no-any-return]

    monkeypatch.setattr(container, "write", write)
    path = make2(tmp_path / "a.pkl")
    with pytest.raises(FileError) as caught:
        load_stylegan(path)
    assert caught.value.exit_status == 4
    assert word in str(caught.value), str(caught.value)


def test_a_stylegan3_file_with_other_filters_is_refused(tmp_path: Path) -> None:
    path, _ = make3(tmp_path / "a.pkl")
    raw = path.read_bytes()
    tree = read_tensors(path).tree
    taps = flatten(tree["G_ema"], "G_ema", "").tensors["synthesis.L0_36_16.up_filter"]
    changed = (taps * 1.2).numpy().tobytes()
    path.write_bytes(raw.replace(taps.contiguous().numpy().tobytes(), changed, 1))
    with pytest.raises(DamagedFileError, match="filter L0"):
        load_stylegan(path)


def test_a_foreign_discriminator_leaves_the_generator_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("pg_modules.discriminator")
    module.ProjectedDiscriminator = Foreign  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pg_modules", type(sys)("pg_modules"))
        patch.setitem(sys.modules, "pg_modules.discriminator", module)
        path = make2(tmp_path / "a.pkl", keep=("G", "G_ema"), more={"D": Foreign()})
    item = load_stylegan(path)
    assert item.D is None
    assert "projected discriminator" in item.no_critic
    with pytest.raises(MissingCapabilityError, match="no critic in this model") as caught:
        item.need_critic()
    assert "--critic" in str(caught.value)
    assert caught.value.exit_status == 3
    with pytest.warns(LatentshiftWarning, match="D cannot be used"):
        pair = FAMILY.load(path)
    with pytest.raises(MissingCapabilityError):
        pair.need_critic()


def test_discriminators_of_other_images_are_requests_that_make_no_sense(tmp_path: Path) -> None:
    g = make2(tmp_path / "g.pkl")
    for other, word in (({"resolution": 16}, "16"), ({"c_dim": 5}, "5 classes")):
        d = make2(tmp_path / "d.pkl", **other)
        with pytest.raises(RequestError, match=word):
            FAMILY.load(g, critic=d)
    fine = FAMILY.load(g, critic=make2(tmp_path / "d.pkl", seed=9))
    assert (
        float((fine.logit(fine.generate(torch.ones(1, 24))) - FAMILY.load(g).logit(fine.generate(torch.ones(1, 24)))).abs()) > 0
    )


def test_not_finite_weights_warn_with_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = container.randomise

    def spoiled(net: torch.nn.Module, seed: int) -> None:
        real(net, seed)
        for name, tensor in net.state_dict().items():
            if name.endswith("b8.conv0.bias"):
                tensor[:3] = float("nan")

    monkeypatch.setattr(container, "randomise", spoiled)
    with pytest.warns(LatentshiftWarning, match="3 of 16 values are NaN or infinite"):
        FAMILY.load(make2(tmp_path / "a.pkl"))


@shared
@pytest.mark.parametrize("name", FILES)
def test_pairs_have_their_spaces_and_climb_in_each(name: str) -> None:
    pair = FAMILY.load(container.folder("stylegan") / f"{name}.pkl")
    assert code_of(loaded(name).contents.tree) == ("stylegan3" if name.startswith("sg3") else "stylegan2")
    rows = 2 if name.startswith("sg3") else 8
    z = torch.from_numpy(latents(range(rows), pair.space.shape, pair.space.prior))
    label = torch.arange(rows) % pair.classes if pair.classes else None
    context = Context(torch.arange(rows), label)
    plain = pair.generate(z, label)
    noisy = not (name.startswith("sg3") or "emaonly" in name)
    assert list(pair.more_spaces) == ["w", "w+", *(["noise", "z+noise"] if noisy else [])]
    for space in (pair.space, *pair.more_spaces.values()):
        point = space.enter(pair, z, context)
        assert tuple(point.shape) == (rows, *space.shape)
        land = Landscape(pair, context._replace(point0=point), space=space)
        assert torch.allclose(land.images(point), plain, atol=1e-5)
        if pair.critic is not None:
            value, grad = land.value_and_grad(point)
            size = 1e-3 / grad.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *[1] * space.axes)
            assert float((land.value(point + size * grad) - value).mean()) > 0, space.name
            if space.name == "noise":
                assert float(grad[:, : pair.space.size].abs().max()) == 0  # z is held
        assert bool(torch.isfinite(space.log_density(point)).all())
    w = pair.spaces["w"].prior
    far = torch.from_numpy(latents(range(100, 1100), pair.space.shape, pair.space.prior))
    ws = pair.spaces["w"].enter(
        pair, far, Context(torch.arange(1000), None if label is None else torch.arange(1000) % pair.classes)
    )
    assert float((ws.mean(0) - w.mean).abs().max()) < 6 * float(ws.std(0).max()) / math.sqrt(1000)  # type: ignore[attr-defined]


@shared
def test_random_noise_belongs_to_the_row_and_is_held() -> None:
    path = container.folder("stylegan") / "sg2ada-default-32.pkl"
    pair, fixed = FAMILY.load(path, noise="random"), FAMILY.load(path)
    z = torch.zeros(3, 48)
    images = pair.space.decode(pair, z, Context(torch.tensor([5, 6, 5])))
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], fixed.generate(z)[0], atol=1e-3)
    assert torch.allclose(pair.space.decode(pair, z[:1], Context(torch.tensor([6])))[0], images[1], atol=1e-5)
    assert torch.equal(FAMILY.load(path, noise="none").generate(z), fixed.G.net.synthesis(fixed.G.styles(z), "none"))


@shared
def test_labels_truncation_and_shapes_are_checked() -> None:
    pair = FAMILY.load(container.folder("stylegan") / "sg2ada-cifar-cond-32.pkl", trunc=0.7)
    z, c = inputs("sg2ada-cifar-cond-32", torch.float32)
    assert (
        relative(pair.generate(z.detach()[:3], torch.arange(3)), values("sg2ada-cifar-cond-32")["img_const_psi07"][:3]) < 1e-5
    )
    assert torch.equal(retruncated(pair, 1.0).generate(z, c), FAMILY.load(pair.source).generate(z, c))
    with pytest.raises(RequestError, match="class outside 0 to 2"):
        pair.generate(z, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ShapeError, match="conditional"):
        pair.generate(z)
    with pytest.raises(ShapeError, match="z is"):
        pair.generate(z[:, :3], c)
    with pytest.raises(ShapeError, match="images are"):
        pair.logit(torch.zeros(2, 3, 16, 16), torch.tensor([0, 1]))
    D = loaded("sg2ada-default-32").need_critic()
    with pytest.raises(ShapeError, match="does not divide"):
        D(torch.zeros(6, 3, 32, 32), grouping="group")


@shared
@pytest.mark.parametrize("name", FILES)
def test_a_pair_folder_gives_the_same_bits(tmp_path: Path, name: str) -> None:
    path = container.folder("stylegan") / f"{name}.pkl"
    FAMILY.convert(path, tmp_path / "folder")
    back, pair = read_pair(tmp_path / "folder"), FAMILY.load(path)
    z = torch.from_numpy(latents(range(8), pair.space.shape, pair.space.prior))
    label = torch.arange(8) % pair.classes if pair.classes else None
    with torch.no_grad():
        images = pair.generate(z, label)
        assert torch.equal(back.generate(z, label), images)
        if pair.critic is not None:
            assert torch.equal(back.logit(images, label), pair.logit(images, label))
    assert list(back.spaces) == list(pair.spaces)


def test_a_file_without_stylegan_networks_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(DamagedFileError, match="torch-zip file without StyleGAN networks"):
        load_stylegan(tmp_path / "a.pt")
    with pytest.raises(DamagedFileError, match="no network 'G2'"):
        load_stylegan(make2(tmp_path / "b.pkl"), network="G2")
    only = load_stylegan(make2(tmp_path / "c.pkl", keep=("G", "D")))
    assert any("raw training network" in n for n in only.notes)


def test_a_generator_saved_alone_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentshift.files.names import read_critic_path, read_path

    real = container.write
    monkeypatch.setattr(container, "write", lambda path, tree, protocol: real(path, tree["G_ema"], protocol))
    pair = read_path(make2(tmp_path / "alone.pkl"))
    assert pair.critic is None
    assert list(pair.spaces)[:3] == ["z", "w", "w+"]
    monkeypatch.undo()
    whole = read_path(make2(tmp_path / "whole.pkl"))
    critic = read_critic_path(tmp_path / "whole.pkl")
    images = whole.generate(torch.ones(2, 24))
    assert torch.equal(critic.logit(images), whole.logit(images))
    three, _ = make3(tmp_path / "three.pkl")
    assert read_path(three).image_shape == (3, 32, 32)


def test_the_engine_refines_in_z_and_w_and_a_row_has_the_same_bits_alone(tmp_path: Path) -> None:
    from latentshift.engine.run import Engine
    from latentshift.strategies.gradient import IFGSM

    pair = FAMILY.load(make2(tmp_path / "a.pkl"))
    seeds = list(range(10))
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    for name in ("z", "w"):
        space = pair.spaces[name]
        run = Engine(IFGSM(steps=4, eps=0.2), pair, space=space).run(z, seeds)
        chunk = run.chunks[0]
        assert (chunk.score > chunk.score0).all()
        one = Engine(IFGSM(steps=4, eps=0.2), pair, space=space).run(z[7:8], seeds[7:8]).chunks[0]
        assert np.array_equal(one.point[0], chunk.point[7])
        assert np.array_equal(one.images[0], chunk.images[7])


@shared
@pytest.mark.parametrize("name", ["sg2ada-resnetG-skipD-64", "sg2-sg3repo-cond-32", "sg3t-32"])
@pytest.mark.parametrize("space", ["z", "w+"])
def test_the_engine_refines_in_bfloat16(name: str, space: str) -> None:
    """Rows move on reduced copies: what is compared and what is drawn from z stays in single precision; the gain is kept."""
    pair = FAMILY.load(container.folder("stylegan") / f"{name}.pkl")
    seeds = list(range(8))
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior)).float()
    gains, moved = [], []
    for precision in ("fp32", "bf16"):
        engine = Engine(IFGSM(steps=5, step_size=0.02), pair, space=pair.spaces[space], settings=Settings(precision=precision))
        assert engine.precision == precision, engine.run_.notes
        run = engine.run(z, seeds)
        gains.append(np.concatenate([c.score - c.score0 for c in run.chunks]))
        moved.append(engine.moving)
    assert moved[1].G.net.synthesis_dtype is torch.bfloat16
    assert moved[1].G.net.mapping_net.fc0.weight.dtype is torch.float32
    assert moved[1].critic.call.net.b4.conv.weight.dtype is torch.float32
    assert moved[0].G.net.synthesis_dtype is torch.float32
    assert gains[0].mean() > 0
    assert gains[1].mean() > 0.9 * gains[0].mean()


@pytest.mark.parametrize(("c_in", "c_out", "side"), [(3, 256, 32), (256, 512, 16), (512, 512, 4)])
def test_a_1x1_convolution_gives_a_row_the_same_bits_in_any_batch(c_in, c_out, side):
    """oneDNN's own, or its gradient, does not at these sizes: 8 rows and 16 differ in the last bits."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(c_out, c_in, 1, 1, generator=draw)
    x = torch.randn(24, c_in, side, side, generator=draw).to(memory_format=torch.channels_last)
    back = torch.randn(24, c_out, side, side, generator=draw).to(memory_format=torch.channels_last)

    def both(rows, f=convolved):
        q = x[:rows].clone(memory_format=torch.channels_last).requires_grad_(True)
        y = f(q, weight)
        return y.detach(), torch.autograd.grad(y, q, back[:rows])[0]

    whole = both(24)
    for rows in (8, 16):
        assert all(torch.equal(a, b[:rows]) for a, b in zip(both(rows), whole, strict=True))
    for a, b in zip(whole, both(24, torch.nn.functional.conv2d), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
