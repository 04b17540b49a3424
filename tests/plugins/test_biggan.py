"""BigGAN-PyTorch and pytorch-pretrained-BigGAN against the publishers' own numbers, and the forms that have no such numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latentshift_plugins.biggan import FAMILY
from latentshift_plugins.biggan.load import Options, load_tree
from latentshift_plugins.biggan.pretrained import table_rows
from latentshift_plugins.biggan.run import load_path
from latentshift_plugins.loaded import Files, Loaded
from torch import Tensor

from latentshift.errors import DamagedFileError, FileError, MissingCapabilityError, RequestError, UnknownNameError
from latentshift.files.checkpoint import read_tensors
from latentshift.files.folder import read_pair
from latentshift.model import Capability, require

RUNS = ("bgp-32-plain", "bgp-128-hier-shared-attn", "bgp-64-shared-standing", "bgp-deep-32-hier")
IMAGE, LOGIT, GRAD = 5e-5, 1e-5, 3e-5  # tolerances of the reference files' README, float32 on a CPU


@pytest.mark.shared
@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("which", ["G", "G_ema"])
def test_run_equals_publisher(case, which, reference, expected, close):
    folder = reference(f"biggan/{case}")
    meta, want = expected(folder)
    loaded = load_path(folder, Files(), options=Options(ema=which == "G_ema"))
    z, y = torch.from_numpy(want["z"]).requires_grad_(), torch.from_numpy(want["y"])
    images = loaded.G(z, y)
    logit = loaded.D(images, y)
    (grad,) = torch.autograd.grad(logit.sum(), z)
    if f"{which}_image" in want:
        close(images, want[f"{which}_image"], IMAGE, absolute=True)
    close(logit, want[f"{which}_logit"], LOGIT)
    close(grad, want[f"{which}_grad_z"], GRAD)
    told = meta["meta"]
    side = told["resolution"]
    assert (loaded.image, loaded.classes, loaded.z_size) == ((3, side, side), told["n_classes"], want["z"].shape[1])


@pytest.mark.shared
@pytest.mark.parametrize("case", RUNS)
def test_tensors_equal_digests(case, reference, expected, check_digests):
    folder = reference(f"biggan/{case}")
    digests = expected(folder)[0]["digests"]
    assert set(digests) == {"D", "G", "G_ema"}
    for name, stated in digests.items():
        path = next(p for p in folder.glob(f"{name}*.pth") if p.stem.removeprefix(name)[:4] in ("", "_bes"))
        check_digests(read_tensors(path).tree, stated)


@pytest.mark.shared
def test_pretrained_equals_publisher(reference, expected, close, check_digests):
    folder = reference("biggan/hf-deep-32")
    meta, want = expected(folder)
    check_digests(read_tensors(folder / "pytorch_model.bin").tree, meta["digests"])
    y = torch.from_numpy(want["y"])
    for i, t in enumerate(want["truncations"]):
        loaded = load_path(folder, Files(), options=Options(trunc=float(t)))
        z = (torch.from_numpy(want["z_unit"]) * np.float32(t)).requires_grad_()
        images = loaded.G(z, y)
        (grad,) = torch.autograd.grad(0.5 * images.square().sum(), z)
        close(images, want[f"image_{i}"], IMAGE, absolute=True)
        close(grad, want[f"grad_z_{i}"], GRAD)
        assert loaded.pair(name="x").space.prior.clamp(torch.tensor([9.0])).item() == pytest.approx(2 * t)


@pytest.mark.shared
def test_float64_is_the_same_function(reference, expected, close):
    """Loaded in float64, everything runs in float64 and differs from the publisher's float32 by its rounding only."""
    folder = reference("biggan/bgp-128-hier-shared-attn")
    _, want = expected(folder)
    wide = load_path(folder, Files(), options=Options(dtype=torch.float64))
    z, y = torch.from_numpy(want["z"]).double(), torch.from_numpy(want["y"])
    images = wide.G(z, y)
    assert images.dtype == torch.float64
    assert wide.pair(name="x").compute_dtype == torch.float64
    close(images, want["G_ema_image"], IMAGE, absolute=True)


@pytest.mark.shared
def test_run_says_what_it_took(reference):
    plain = load_path(reference("biggan/bgp-32-plain"), Files())
    assert "took G_ema.pth and D.pth" in plain.notes
    assert "left out optimizer states: D_optim.pth, G_optim.pth" in plain.notes
    standing = load_path(reference("biggan/bgp-64-shared-standing"), Files())
    assert any("divided by their count (6)" in note for note in standing.notes)
    best = reference("biggan/bgp-128-hier-shared-attn")
    by_file = load_path(best / "G_best1.pth", Files())
    assert "took G_best1.pth and D_best1.pth" in by_file.notes
    with pytest.raises(RequestError, match=r"no copy 'best7'.*_best1"):
        load_path(best, Files(), options=Options(suffix="best7"))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["G_optim.pth", "state_dict.pth"])
def test_files_without_weights_are_named(name, reference):
    folder = reference("biggan/bgp-32-plain")
    with pytest.raises(FileError, match=r"no weights.*G_ema.pth|no weights.*_optim"):
        FAMILY.load(folder / name)


@pytest.mark.shared
def test_pair_and_folder_round_trip(reference, expected, tmp_path):
    """A pair folder of a family loads through the general door, bit-equal, and keeps D out where there is none."""
    for case in ("bgp-128-hier-shared-attn", "bgp-deep-32-hier", "hf-deep-32"):
        folder = reference(f"biggan/{case}")
        pair = FAMILY.load(folder)
        FAMILY.convert(folder, tmp_path / case)
        again = read_pair(tmp_path / case)
        z, y = pair.space.prior.draw(np.random.RandomState(0), (2, *pair.space.shape)), torch.tensor([0, 5])
        z = torch.from_numpy(z).float()
        images = pair.generate(z, y)
        assert torch.equal(images, again.generate(z, y))
        assert again.space == pair.space
        assert (again.classes, again.image_shape) == (pair.classes, pair.image_shape)
        if case == "hf-deep-32":
            for made in (pair, again):
                with pytest.raises(MissingCapabilityError, match="no critic in this model"):
                    require(made, Capability.CRITIC, "ifgsm")
        else:
            assert torch.equal(pair.logit(images, y), again.logit(images, y))
            assert pair.features(images, y).shape[0] == 2
            assert Capability.LABELS | Capability.GRADIENT | Capability.FEATURES in pair.capabilities


@pytest.mark.shared
def test_card_against_tensors(reference, tmp_path):
    FAMILY.convert(reference("biggan/bgp-32-plain"), tmp_path / "a")
    card = json.loads((tmp_path / "a" / "card.json").read_text())

    def refused(match: str, **changes: Any) -> None:
        (tmp_path / "a" / "card.json").write_text(json.dumps({**card, **changes}))
        with pytest.raises(DamagedFileError, match=match):
            read_pair(tmp_path / "a")

    refused(r"says z_size, classes, image \(13, 10.*makes \(12, 10", z_size=13)
    refused("lin|config", config={**card["config"], "G": {**card["config"]["G"], "z_size": 13}})
    refused("cannot be used", config={**card["config"], "G": {"nothing": 1}})
    refused("no BigGAN", config={**card["config"], "G": {**card["config"]["G"], "blocks": [[16, 16]] * 90}})
    refused("no config", config=None)


@pytest.mark.shared
def test_one_side_of_another_run(reference, tmp_path):
    small, large = reference("biggan/bgp-32-plain"), reference("biggan/bgp-128-hier-shared-attn")
    deep = reference("biggan/bgp-deep-32-hier")
    with pytest.raises(RequestError, match="G makes images of 32 px, D is for 128 px") as caught:
        FAMILY.load(small / "G_ema.pth", critic=large / "D_best1.pth")
    assert caught.value.exit_status == 3
    with pytest.raises(RequestError, match="G has 10 classes and D has 6 classes"):
        FAMILY.load(small / "G_ema.pth", critic=deep / "D.pth")
    with pytest.raises(RequestError, match="only a discriminator"):
        FAMILY.load(small / "D.pth")
    with pytest.raises(RequestError, match="no discriminator of this family"):
        FAMILY.load(small / "G_ema.pth", critic=small / "G.pth")
    with pytest.raises(RequestError, match="no discriminator fits"):
        FAMILY.load(reference("biggan/hf-deep-32"), critic=small / "D.pth")
    alone = tmp_path / "alone.pth"
    shutil.copy(small / "G_ema.pth", alone)
    assert FAMILY.load(alone).critic is None
    with pytest.raises(UnknownNameError, match=r"unknown option 'truncations'.*'trunc'"):
        FAMILY.load(alone, truncations=0.5)
    with pytest.raises(RequestError, match="above 0 and at most 1"):
        FAMILY.load(reference("biggan/hf-deep-32"), trunc=1.5)


@pytest.mark.shared
def test_pretrained_config_is_checked(reference, tmp_path):
    folder = reference("biggan/hf-deep-32")
    shutil.copytree(folder, tmp_path / "m")
    told = json.loads((folder / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**told, "num_classes": 14}))
    with pytest.raises(DamagedFileError, match="says num_classes 14, the weights say 13"):
        FAMILY.load(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{")
    with pytest.raises(DamagedFileError, match="JSON"):
        FAMILY.load(tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(RequestError, match=r"6 blocks and no config.json"):
        FAMILY.load(tmp_path / "m")


def test_table_rows():
    """The five places where rounding picks another row than meant (measured on the project's code), and the ends."""
    assert table_rows(1.0, 51) == (50, 50, 1.0)
    assert table_rows(0.4, 51)[0] == 20
    for t, row in ((0.14, 8), (0.28, 15), (0.56, 29), (0.58, 28), (0.94, 46)):
        a, b, part = table_rows(t, 51)
        assert (a if part > 0.5 else b) == row
    a, b, part = table_rows(0.435, 51)
    assert (a, b) == (21, 22)
    assert part == pytest.approx(0.75)
    assert table_rows(0.435, 51, "linear")[2] == pytest.approx(0.25)


# --- networks made here in the project's layout -------------------------------------------------------------------------

_G = {
    32: ((4, 4, 4), (4, 4, 4)),
    64: ((16, 16, 8, 4), (16, 8, 4, 2)),
    128: ((16, 16, 8, 4, 2), (16, 8, 4, 2, 1)),
    256: ((16, 16, 8, 8, 4, 2), (16, 8, 8, 4, 2, 1)),
    512: ((16, 16, 8, 8, 4, 2, 1), (16, 8, 8, 4, 2, 1, 1)),
}
_D = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16)}


class Maker:
    """Writes state dicts with the project's names; `effective` keeps every weight as it acts."""

    def __init__(self, seed: int, spectral: bool = True) -> None:
        self.random, self.spectral = torch.Generator().manual_seed(seed), spectral
        self.tensors: dict[str, Tensor] = {}
        self.effective: dict[str, Tensor] = {}

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def weight(self, key: str, *shape: int, bias: bool = True, spectral: bool | None = None) -> None:
        w = self.draw(*shape) / shape[-1] ** 0.5
        self.tensors[f"{key}.weight"] = self.effective[f"{key}.weight"] = w
        if bias:
            self.tensors[f"{key}.bias"] = self.effective[f"{key}.bias"] = 0.1 * self.draw(shape[0])
        if self.spectral if spectral is None else spectral:
            u = self.draw(1, shape[0])
            v = u @ w.flatten(1) / (u @ w.flatten(1)).norm()
            self.effective[f"{key}.weight"] = w / (v @ w.flatten(1).T).norm()
            self.tensors[f"{key}.u0"], self.tensors[f"{key}.sv0"] = u, torch.ones(1)

    def statistics(self, key: str, channels: int, form: str) -> None:
        mean, var = 0.2 * self.draw(channels), 0.5 + torch.rand(channels, generator=self.random)
        if form == "mybn":
            self.tensors |= {f"{key}.bn.stored_mean": 4 * mean, f"{key}.bn.stored_var": 4 * var}
            self.tensors[f"{key}.bn.accumulation_counter"] = torch.tensor([4.0])
        elif form == "cross":
            self.tensors |= {f"{key}.bn.running_mean": mean, f"{key}.bn.running_var": var}
            self.tensors[f"{key}.bn.num_batches_tracked"] = torch.tensor(7)
        else:
            self.tensors |= {f"{key}.stored_mean": mean, f"{key}.stored_var": var}


def make_g(
    side: int, ch: int, classes: int, shared: int, hier: bool, form: str = "", seed: int = 0, spectral: bool = True
) -> Maker:
    m, (inputs, outputs) = Maker(seed, spectral), _G[side]
    k = 3
    if shared:
        m.weight("shared", classes, shared, bias=False, spectral=False)
    m.weight("linear", inputs[0] * ch * 16, k)
    for i, (a, b) in enumerate(zip(inputs, outputs, strict=True)):
        m.weight(f"blocks.{i}.0.conv1", b * ch, a * ch, 3, 3)
        m.weight(f"blocks.{i}.0.conv2", b * ch, b * ch, 3, 3)
        m.weight(f"blocks.{i}.0.conv_sc", b * ch, a * ch, 1, 1)
        for bn, c in (("bn1", a * ch), ("bn2", b * ch)):
            for what in ("gain", "bias"):
                if shared:
                    m.weight(f"blocks.{i}.0.{bn}.{what}", c, shared + (k if hier else 0), bias=False)
                else:
                    m.weight(f"blocks.{i}.0.{bn}.{what}", classes, c, bias=False, spectral=False)
            m.statistics(f"blocks.{i}.0.{bn}", c, form)
    last = outputs[-1] * ch
    m.tensors |= {"output_layer.0.gain": 1 + 0.1 * m.draw(last), "output_layer.0.bias": 0.1 * m.draw(last)}
    m.statistics("output_layer.0", last, form)
    m.weight("output_layer.2", 3, last, 3, 3)
    return m


def make_d(side: int, ch: int, classes: int, seed: int = 1) -> Maker:
    m, outputs = Maker(seed), [w * ch for w in _D[side]]
    for i, (a, b) in enumerate(zip([3, *outputs], outputs, strict=False)):
        m.weight(f"blocks.{i}.0.conv1", b, a, 3, 3)
        m.weight(f"blocks.{i}.0.conv2", b, b, 3, 3)
        pools = i < 2 if side == 32 else i < len(outputs) - 1
        if pools or a != b:
            m.weight(f"blocks.{i}.0.conv_sc", b, a, 1, 1)
    m.weight("linear", 1, outputs[-1])
    m.weight("embed", classes, outputs[-1], bias=False)
    return m


def _score(loaded: Loaded) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, loaded.z_size, generator=torch.Generator().manual_seed(3)).requires_grad_()
    y = torch.tensor([0, loaded.classes - 1])
    images = loaded.G(z, y)
    out = loaded.D(images, y) if loaded.D else images.flatten(1).mean(1)
    (grad,) = torch.autograd.grad(out.sum(), z)
    assert bool(torch.isfinite(grad).all())
    assert float(grad.abs().min(1).values.max()) > 0  # every part of z, each chunk of a hierarchical one, reaches the score
    return images.detach(), out.detach()


@pytest.mark.parametrize(
    ("side", "ch", "shared", "hier"),
    [(32, 3, 0, False), (64, 1, 5, False), (64, 2, 5, True), (128, 1, 6, True), (256, 1, 4, True), (512, 1, 4, True)],
)
def test_shapes_tell_everything(side, ch, shared, hier, tmp_path):
    g, d = make_g(side, ch, 5, shared, hier), make_d(side, ch + 1, 5) if side != 512 else None
    loaded = load_tree(g.tensors, d.tensors if d else None)
    blocks = len(_G[side][0])
    assert (loaded.image, loaded.classes) == ((3, side, side), 5)
    assert loaded.z_size == (3 * (blocks + 1) if hier else 3)
    images, score = _score(loaded)
    assert images.shape == (2, 3, side, side)
    loaded.write(tmp_path / "pair")
    again = read_pair(tmp_path / "pair")
    z = torch.randn(2, loaded.z_size, generator=torch.Generator().manual_seed(3))
    y = torch.tensor([0, 4])
    assert torch.equal(again.generate(z, y), images)
    if d:
        assert torch.equal(again.logit(images, y), loaded.D(images, y))
        assert torch.allclose(score, loaded.D(images, y), rtol=1e-5)
    # the same weights without normalisation in the file are the same network
    plain = {**{k: v for k, v in g.tensors.items() if not k.endswith((".u0", ".sv0"))}, **g.effective}
    same, _ = _score(load_tree(plain, d.tensors if d else None))
    assert float((same - images).abs().max()) < 1e-5


def test_three_layouts_of_statistics():
    """Running averages, accumulated sums and the cross-replica form (read as meant in training) of one network agree."""
    runs = {form: load_tree(make_g(32, 2, 4, 5, False, form).tensors) for form in ("", "mybn")}
    cross = make_g(32, 2, 4, 5, False, "cross").tensors
    runs["mul"] = load_tree(cross, options=Options(cross_replica_gain="mul"))
    images = {form: _score(run)[0] for form, run in runs.items()}
    assert float((images["mybn"] - images[""]).abs().max()) < 1e-5
    assert float((images["mul"] - images[""]).abs().max()) < 1e-5
    assert any("divided by their count (4)" in note for note in runs["mybn"].notes)
    # the publisher's sampler adds the gain: another image, and a note that names the option
    added = load_tree(cross)
    assert float((_score(added)[0] - images[""]).abs().mean()) > 0.01
    assert any("cross_replica_gain='mul'" in note for note in added.notes)
    drifted = {
        k: v - 0.5 if k.endswith("accumulation_counter") else v for k, v in make_g(32, 2, 4, 5, False, "mybn").tensors.items()
    }
    assert any("no whole number" in note for note in load_tree(drifted).notes)


def test_standing_statistics_can_be_taken_anew():
    """Whatever statistics a file holds, accumulation gives the same ones; they are those of the network's own activations."""
    first, second = make_g(32, 2, 4, 5, False).tensors, make_g(32, 2, 4, 5, False).tensors
    spoilt = {k: v + 3 if "stored_" in k else v for k, v in second.items()}
    a, b = (load_tree(t, options=Options(accumulate=3)) for t in (first, spoilt))
    z, y = torch.randn(2, 3), torch.tensor([0, 1])
    assert torch.equal(a.G(z, y), b.G(z, y))
    assert not torch.allclose(a.G(z, y), load_tree(spoilt).G(z, y), atol=1e-2)
    # the first norm sees the linear layer of z alone: its variance over many latents is that of the weights
    weight, bias = a.G.linear.weight, a.G.linear.bias
    mean = bias.reshape(8, 16).mean(1)
    var = (weight.square().sum(1) + bias.square()).reshape(8, 16).mean(1) - mean.square()
    norm = load_tree(first, options=Options(accumulate=20)).G.blocks[0].bn1
    assert torch.allclose(norm.mean, mean, atol=0.08)
    assert torch.allclose(norm.var, var, rtol=0.15)
    assert norm.gather is None


def test_run_settings_are_used():
    g = make_g(32, 2, 4, 0, False).tensors
    z, y = torch.randn(2, 3), torch.tensor([0, 1])
    plain = load_tree(g)
    scaled = load_tree(g, run={"z_var": 0.5, "BN_eps": 1e-5})
    assert torch.allclose(scaled.G(z, y), plain.G(0.5 * z, y))
    eps = load_tree(g, run={"BN_eps": 0.1})
    assert not torch.allclose(eps.G(z, y), plain.G(z, y), atol=1e-3)


def test_refusals():
    g, d = make_g(32, 2, 4, 5, False).tensors, make_d(32, 2, 4).tensors
    missing = {k: v for k, v in g.items() if k != "blocks.1.0.conv2.weight"}
    with pytest.raises(DamagedFileError, match=r"blocks.1.conv2.weight|blocks.1.0.conv2.weight"):
        load_tree(missing)
    wide = {**g, "blocks.0.0.bn1.gain.weight": torch.zeros(8, 6)}
    with pytest.raises(DamagedFileError, match=r"takes 6 numbers"):
        load_tree({k: v for k, v in wide.items() if "u0" not in k and "sv0" not in k})
    with pytest.raises(DamagedFileError, match=r"blocks.*gaps"):
        load_tree({k: v for k, v in g.items() if not k.startswith("blocks.1.")})
    with pytest.raises(RequestError, match="other norm styles"):
        load_tree({k: v for k, v in g.items() if "stored_" not in k})
    with pytest.raises(RequestError, match="G makes images of 32 px, D is for 64 px"):
        load_tree(g, make_d(64, 1, 4).tensors)
    with pytest.raises(RequestError, match="4 classes and D has 7"):
        load_tree(g, make_d(32, 1, 7).tensors)
    with pytest.raises(RequestError, match="no labels"):
        load_tree(g, d).G(torch.zeros(1, 3))
    with pytest.raises(RequestError, match=r"takes \(rows, 3\)"):
        load_tree(g, d).G(torch.zeros(1, 4), torch.tensor([0]))
    with pytest.raises(RequestError, match="TF-Hub"):
        load_tree({"G_linear.module.weight_bar": torch.zeros(2, 2), "G_linear.module.weight_u": torch.zeros(2)})
    with pytest.raises(RequestError, match="no BigGAN"):
        load_tree({"fc.weight": torch.zeros(2, 2)})


def test_one_file_for_both_and_prefixes():
    g, d = make_g(32, 2, 4, 5, False).tensors, make_d(32, 2, 4).tensors
    nested = {
        "G": {f"module.{k}": torch.zeros_like(v) for k, v in g.items()},
        "G_ema": {f"module.{k}": v for k, v in g.items()},
        "D": d,
    }
    images, score = _score(load_tree(nested))
    want_images, want_score = _score(load_tree(g, d))
    assert torch.equal(images, want_images)
    assert torch.equal(score, want_score)


def test_listing_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from latentshift_plugins.biggan import FAMILY as a; from latentshift_plugins.classic import FAMILY as b; "
    )
    code += "print(bool(a.line and b.line), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert out.stdout.split() == ["True", "False"]
