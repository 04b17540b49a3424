"""The classic families against the publishers' own numbers; networks made here in their layouts; what must be refused."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from latentshift_plugins.classic import FAMILY
from latentshift_plugins.classic.files import load_path, partner
from latentshift_plugins.classic.load import Options, load_tree
from latentshift_plugins.classic.networks import cnn_discriminator, cnn_generator, dcgan_generator, paper_names, paper_pair
from latentshift_plugins.loaded import Files
from torch import Tensor, nn

from latentshift.errors import FileError, RequestError, UnknownNameError
from latentshift.files.checkpoint import read_tensors
from latentshift.files.folder import read_pair
from latentshift.layers import LayerNet, output_shape
from latentshift.train.pieces import add_spectral_norm, initialise

# name: (loss, what D's output is, whether both networks are layer lists)
CASES = {
    "gc-sngan-res32": ("hinge", "critic", False),
    "gc-dcgan-cnn32": ("bce", "logit", True),
    "advlat-sngan-cnn48": ("hinge", "critic", True),
    "mimicry-sngan-32": ("hinge", "critic", False),
    "mimicry-infomax-64": ("hinge", "critic", False),
    "mimicry-sagan-32": ("hinge", "critic", False),
    "mimicry-cganpd-32": ("hinge", "critic", False),
}
IMAGE, LOGIT, GRAD = 3e-5, 1e-5, 1e-5  # tolerances of the reference files' README, float32 on a CPU


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_equals_publisher(case, reference, expected, close):
    folder = reference(f"classic/{case}")
    _, want = expected(folder)
    loss, returns, layered = CASES[case]
    pair = FAMILY.load(folder)
    z = torch.from_numpy(want["z"]).requires_grad_()
    y = torch.from_numpy(want["y"]) if "y" in want else None
    images = pair.generate(z, y)
    logit = pair.logit(images, y)
    (grad,) = torch.autograd.grad(logit.sum(), z)
    close(images, want["image"], IMAGE, absolute=True)
    close(logit, want["logit"], LOGIT)
    close(grad, want["grad_z"], GRAD)
    if "global_feat" in want:
        close(pair.features(images, y), want["global_feat"], LOGIT)
    assert pair.space.shape == want["z"].shape[1:]
    assert pair.image_shape == want["image"].shape[1:]
    assert (pair.card["loss"], pair.need_critic().returns) == (loss, returns)
    assert isinstance(pair.G, LayerNet) is layered
    assert ("layers" in pair.card) is layered


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_tensors_equal_digests(case, reference, expected, check_digests):
    folder = reference(f"classic/{case}")
    for name, stated in expected(folder)[0]["digests"].items():
        path = next(p for p in folder.rglob("*.p*t*") if name in p.name or p.name.startswith("model"))
        tree = read_tensors(path).tree
        check_digests(tree[name] if name in tree else tree["model_state_dict"], stated)


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_pair_folder_round_trip(case, reference, expected, tmp_path):
    folder = reference(f"classic/{case}")
    _, want = expected(folder)
    pair = FAMILY.load(folder)
    FAMILY.convert(folder, tmp_path / case)
    again = read_pair(tmp_path / case)
    z, y = torch.from_numpy(want["z"]), torch.from_numpy(want["y"]) if "y" in want else None
    images = pair.generate(z, y)
    assert torch.equal(again.generate(z, y), images)
    assert torch.equal(again.logit(images, y), pair.logit(images, y))
    assert again.need_critic().returns == pair.need_critic().returns
    assert (again.space, again.classes, again.image_shape) == (pair.space, pair.classes, pair.image_shape)


@pytest.mark.shared
def test_float64(reference, expected, close):
    for case in ("gc-dcgan-cnn32", "mimicry-cganpd-32"):
        folder = reference(f"classic/{case}")
        _, want = expected(folder)
        wide, narrow = FAMILY.load(folder, dtype=torch.float64), FAMILY.load(folder)
        z, y = torch.from_numpy(want["z"]), torch.from_numpy(want["y"]) if "y" in want else None
        images = wide.generate(z.double(), y)
        assert images.dtype == wide.compute_dtype == torch.float64
        close(images, want["image"], IMAGE, absolute=True)
        # nothing was rounded on the way: the numbers are not those of the float32 network
        assert not torch.equal(wide.logit(images, y).float().double(), wide.logit(images, y))
        close(narrow.logit(narrow.generate(z, y), y).double(), wide.logit(images, y), LOGIT)


@pytest.mark.shared
def test_files_of_a_run(reference, tmp_path):
    """D is found beside G; the newest step that both have is taken; steps that do not meet are refused."""
    source = reference("classic/mimicry-sngan-32/checkpoints")
    run = tmp_path / "checkpoints"
    shutil.copytree(source, run)
    g, d = run / "netG" / "netG_3_steps.pth", run / "netD" / "netD_3_steps.pth"
    assert partner(g) == d
    assert FAMILY.load(g).critic is not None
    shutil.copy(g, g.with_name("netG_12_steps.pth"))
    assert "took netG_3_steps.pth and netD_3_steps.pth" in load_path(tmp_path, Files()).notes
    shutil.copy(d, d.with_name("netD_12_steps.pth"))
    assert "took netG_12_steps.pth and netD_12_steps.pth" in load_path(tmp_path, Files()).notes
    d.unlink()
    g.with_name("netG_12_steps.pth").unlink()
    with pytest.raises(RequestError, match=r"no step has both networks: G at \[3\], D at \[12\]"):
        FAMILY.load(tmp_path)
    assert FAMILY.load(g).critic is None
    with pytest.raises(FileError, match="no checkpoint of a known family"):
        FAMILY.load(run / "netD")


@pytest.mark.shared
def test_one_side_of_another_run(reference):
    small = reference("classic/mimicry-sngan-32/checkpoints")
    large = reference("classic/mimicry-infomax-64/checkpoints")
    labelled = reference("classic/mimicry-cganpd-32/checkpoints")
    other = reference("classic/gc-sngan-res32/model.pt".rpartition("/")[0]) / "model.pt"
    g = small / "netG" / "netG_3_steps.pth"

    def refused(critic: Path, match: str) -> None:
        with pytest.raises(RequestError, match=match) as caught:
            FAMILY.load(g, critic=critic)
        assert caught.value.exit_status == 3

    refused(labelled / "netD" / "netD_3_steps.pth", "G has no classes and D has 5 classes")
    refused(other, "G is of mimicry, D of pytorch-gan-collections ResNet")
    refused(labelled / "netG" / "netG_3_steps.pth", "given as D holds a generator")
    # InfoMax takes 48 and 64 px with the same tensors, never 32
    refused(large / "netD" / "netD_3_steps.pth", "G makes images of 32 px, D is for 48 px")
    with pytest.raises(RequestError, match="only a discriminator"):
        FAMILY.load(small / "netD" / "netD_3_steps.pth", critic=small / "netD" / "netD_3_steps.pth")


# --- networks made here -------------------------------------------------------------------------------------------------


def _random(net: nn.Module, seed: int = 0) -> nn.Module:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if t.dtype.is_floating_point:
                noise = torch.randn(t.shape, generator=random)
                t.copy_(
                    0.5 + noise.abs()
                    if name.endswith("var")
                    else noise / max(1, t[0].numel()) ** 0.5
                    if t.ndim > 1
                    else 0.2 * noise + 1
                )
    return net.eval()


def _example_dcgan(nz: int, width: int, colours: int, side: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The PyTorch example's networks, written with torch's own modules."""
    n = {32: 2, 64: 3, 128: 4}[side]
    g: list[nn.Module] = [nn.ConvTranspose2d(nz, width << n, 4, 1, 0, bias=False), nn.BatchNorm2d(width << n), nn.ReLU()]
    d: list[nn.Module] = [nn.Conv2d(colours, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for i in range(n):
        a = width << (n - i)
        g += [nn.ConvTranspose2d(a, a // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(a // 2), nn.ReLU()]
        b = width << i
        d += [nn.Conv2d(b, 2 * b, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * b), nn.LeakyReLU(0.2)]
    g += [nn.ConvTranspose2d(width, colours, 4, 2, 1, bias=False), nn.Tanh()]
    d += [nn.Conv2d(width << n, 1, 4, 1, 0, bias=False), nn.Sigmoid()]
    return nn.Sequential(*g), nn.Sequential(*d)


def _named(net: nn.Module, prefix: str) -> dict[str, Tensor]:
    return OrderedDict((prefix + k, v) for k, v in net.state_dict().items())


@pytest.mark.parametrize(("side", "colours", "prefix"), [(32, 1, "main."), (64, 3, "module.main."), (128, 3, "gen.")])
def test_dcgan_example_and_copies(side, colours, prefix, tmp_path):
    G, D = _example_dcgan(7, 3, colours, side)
    _random(G), _random(D, 1)
    torch.save(_named(G, prefix), tmp_path / "netG_epoch_4.pth")
    torch.save(_named(D, prefix.replace("gen", "disc")), tmp_path / "netD_epoch_4.pth")
    pair = FAMILY.load(tmp_path)
    z = torch.randn(3, 7)
    images = G(z[:, :, None, None])
    assert pair.image_shape == (colours, side, side)
    assert torch.allclose(pair.generate(z), images, atol=1e-6)
    # the sigmoid is worked out: the pair scores with the logit before it
    assert torch.allclose(torch.sigmoid(pair.logit(images)), D(images).flatten(), atol=1e-6)
    assert pair.need_critic().returns == "logit"
    assert any("convention" in note for note in pair.card["notes"])


def test_sigmoid_images():
    G, _ = _example_dcgan(7, 3, 3, 32)
    _random(G)
    loaded = load_tree(_named(G, "main."), options=Options(image_range=(0.0, 1.0)))
    z = torch.randn(2, 7)
    want = torch.sigmoid(G[:-1](z[:, :, None, None]))
    assert torch.allclose(loaded.G(z), want, atol=1e-6)
    assert loaded.image_range == (0.0, 1.0)
    with pytest.raises(RequestError, match="-1,1 or 0,1"):
        Options(image_range=(0.0, 255.0))


def test_blocks_in_blocks_and_instance_norm():
    """A copy with one Sequential per block, biases at the ends and instance norm in D (a WGAN)."""

    def up(a: int, b: int, *more: int) -> nn.Sequential:
        return nn.Sequential(nn.ConvTranspose2d(a, b, 4, *more, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    def down(a: int, b: int) -> nn.Sequential:
        norm = nn.InstanceNorm2d(b, affine=True)
        return nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), norm, nn.LeakyReLU(0.2))

    G = nn.Sequential(up(5, 8, 1, 0), up(8, 4, 2, 1), up(4, 4, 2, 1), nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh())
    D = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), down(4, 6), down(6, 8), nn.Conv2d(8, 1, 4, 2, 0))
    _random(G), _random(D, 1)
    tree = {
        "epoch": 3,
        "generator": _named(G, "net."),
        "critic": _named(D, "disc."),
        "optimizer": {"state": {}, "param_groups": []},
    }
    loaded = load_tree(tree)
    z = torch.randn(2, 5)
    images = G(z[:, :, None, None])
    assert torch.allclose(loaded.G(z), images, atol=1e-6)
    assert torch.allclose(loaded.D(images).flatten(), D(images).flatten(), rtol=1e-5, atol=1e-6)
    assert (loaded.loss, loaded.returns) == ("wasserstein", "critic")


def test_layers_that_nothing_tells_are_refused():
    def conv(a: int, b: int, kernel: int = 4) -> nn.Conv2d:
        return nn.Conv2d(a, b, kernel, 2, 1)

    act = nn.LeakyReLU(0.2)
    hidden = nn.Sequential(conv(3, 4), act, conv(4, 8), nn.InstanceNorm2d(8), act, conv(8, 8), act, nn.Conv2d(8, 1, 4))
    G = _random(_example_dcgan(7, 3, 3, 32)[0])
    with pytest.raises(RequestError, match=r"between 'main.2' and 'main.5' lies a layer without weights"):
        load_tree(_named(G, "main."), _named(hidden, "main."))
    odd = nn.Sequential(
        nn.ConvTranspose2d(7, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, 2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4)
    )
    with pytest.raises(RequestError, match="a kernel of 3x3: its stride and padding are not in the file"):
        load_tree(_named(odd, "main."))


def test_upsampling_dcgan():
    G = nn.Module()
    G.l1 = nn.Sequential(nn.Linear(6, 8 * 64))
    layers = [
        nn.BatchNorm2d(8),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(8, 8, 3, 1, 1),
        nn.BatchNorm2d(8, 0.8),
        nn.LeakyReLU(0.2),
    ]
    layers += [nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, 1, 1), nn.BatchNorm2d(4, 0.8), nn.LeakyReLU(0.2)]
    G.conv_blocks = nn.Sequential(*layers, nn.Conv2d(4, 1, 3, 1, 1), nn.Tanh())
    D = nn.Module()
    parts: list[nn.Module] = []
    for a, b, norm in ((1, 2, False), (2, 4, True), (4, 4, True), (4, 8, True)):
        parts += [nn.Conv2d(a, b, 3, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25)] + ([nn.BatchNorm2d(b, 0.8)] if norm else [])
    D.model, D.adv_layer = nn.Sequential(*parts), nn.Sequential(nn.Linear(8 * 4, 1), nn.Sigmoid())
    _random(G), _random(D, 1)
    loaded = load_tree({"G": G.state_dict(), "D": D.state_dict()})
    z = torch.randn(2, 6)
    images = G.conv_blocks(G.l1(z).reshape(2, 8, 8, 8))
    assert loaded.image == (1, 32, 32)
    assert torch.allclose(loaded.G(z), images, atol=1e-6)
    want = D.adv_layer[0](D.model(images).flatten(1))
    assert torch.allclose(loaded.D(images), want, atol=1e-5)


@pytest.mark.parametrize("name", paper_names())
def test_paper_networks(name):
    """Sizes of tables 13 to 24, without taking memory for the large ones."""
    recipe = paper_pair(name)
    G = LayerNet(recipe.G, meta=True)
    made = output_shape(G, (recipe.z_size,))
    assert output_shape(LayerNet(recipe.D, meta=True), made) == (1,)
    side = {"cifar10": 32, "stl10": 48}.get(name.partition("-")[2].removeprefix("gp-"))
    side = side or (128 if name.endswith("128") else 64)
    assert made == ((2,) if name == "points" else (3, side, side))


def _parameters(layers: list[dict]) -> int:
    return sum(p.numel() for p in LayerNet(layers, meta=True).parameters())


def test_paper_networks_have_the_measured_sizes():
    """Parameter counts that were measured on the authors' code."""
    want = {32: (3_582_528, 2_934_464), 48: (4_616_768, 2_944_704), 64: (6_064_704, 2_959_040), 128: (15_993_408, 3_057_344)}
    for name, side in (("sngan-cifar10", 32), ("sngan-stl10", 48), ("sngan-lsun64", 64), ("sngan-celeba128", 128)):
        recipe = paper_pair(name)
        assert (_parameters(recipe.G), _parameters(recipe.D)) == want[side]
    dcgan = paper_pair("dcgan-cifar10")
    assert (_parameters(dcgan.G), _parameters(dcgan.D)) == (11_429_632, 4_309_441)
    newer = (
        cnn_generator(128, first_norm=True, bias=True),
        cnn_discriminator(widths=(64, 128, 128, 256, 256, 512, 512), bias=True, linear_bias=True),
    )
    assert _parameters(newer[1]) == 5_860_865
    with pytest.raises(UnknownNameError, match="Did you mean 'sngan-stl10'"):
        paper_pair("sngan-stl")


def test_trained_spectral_pair_comes_back(tmp_path):
    """A pair trained here with spectral norm, saved as anyone would, is recognised and scores as the trained networks do."""
    recipe = paper_pair("sngan-cifar10")
    narrow = [16, 8, 8, 4], [4, 4, 8, 8, 8, 8, 8]
    G = LayerNet(cnn_generator(recipe.z_size, narrow[0]))
    D = add_spectral_norm(LayerNet(cnn_discriminator(32, narrow[1])))
    random = torch.Generator().manual_seed(0)
    initialise(G, 0.3, random)
    images = torch.rand(4, 3, 32, 32, generator=random)
    for _ in range(5):
        D(images)  # power steps
    state = {}
    for entry, module in zip(D.entries, D.stack, strict=True):
        state |= {f"{entry['key']}.{k}": v for k, v in module.state_dict().items()} if "key" in entry else {}
    assert any("parametrizations" in k for k in state)
    torch.save({"net_G": G.tensors(), "net_D": state}, tmp_path / "model.pt")
    pair = FAMILY.load(tmp_path / "model.pt")
    D.eval()
    assert torch.allclose(pair.logit(images), D(images).flatten(), rtol=1e-4, atol=1e-6)
    z = torch.randn(2, recipe.z_size, generator=random)
    assert torch.allclose(pair.generate(z), G.eval()(z), atol=1e-6)
    assert pair.card["loss"] == "hinge"


def test_unknown_family_is_described():
    tree = {"state_dict": {"encoder.fc.weight": torch.zeros(3, 4), "encoder.fc.bias": torch.zeros(3)}}
    with pytest.raises(
        FileError, match=r"no known family.*2 tensors, 15 numbers; first keys: encoder.fc.weight \(3, 4\).*--factory"
    ) as e:
        load_tree(tree)
    assert e.value.exit_status == 4
    with pytest.raises(FileError, match=r"nearest family: mimicry G \(has 'l1.weight', lacks block2"):
        load_tree({"l1.weight": torch.zeros(3, 4), "b7.weight": torch.zeros(3)})


def test_damaged_shapes_are_refused():
    G = LayerNet(cnn_generator(5, [8, 4, 4, 2]))
    tensors = G.tensors()
    assert load_tree(tensors).image == (3, 32, 32)
    with pytest.raises(FileError, match=r"linear.weight has 100 numbers, which is no square map of 8 channels"):
        load_tree({**tensors, "linear.weight": torch.zeros(100, 5)})
    with pytest.raises(FileError, match=r"main\.1\.running_var"):
        load_tree({k: v for k, v in tensors.items() if k != "main.1.running_var"})
    with pytest.raises(FileError, match="belongs to no layer"):
        load_tree({**tensors, "main.9.extra": torch.zeros(1)})


def test_ema_copy_goes_first():
    G = LayerNet(dcgan_generator(5, [8, 4, 4, 4]))
    live = {k: torch.randn_like(v) if v.dtype.is_floating_point else v for k, v in G.tensors().items()}
    live = {k: v.abs() if k.endswith("var") else v for k, v in live.items()}
    average = {k: 0.5 * v if v.dtype.is_floating_point else v for k, v in live.items()}
    tree = {"netG": live, "netG_ema": {f"module.{k}": v for k, v in average.items()}}
    z = torch.randn(2, 5)
    want = load_tree(average).G(z)
    assert torch.equal(load_tree(tree).G(z), want)
    assert torch.equal(load_tree(tree, options=Options(ema=False)).G(z), load_tree(live).G(z))
    assert any("averaged copy" in note for note in load_tree(tree).notes)


def test_safetensors_and_npz(tmp_path):
    from safetensors.torch import save_file

    G = _random(_example_dcgan(7, 3, 3, 32)[0])
    state = {k: v.clone() for k, v in _named(G, "main.").items()}
    save_file(state, tmp_path / "g.safetensors")
    np.savez(tmp_path / "g.npz", **{k: v.numpy() for k, v in state.items()})
    torch.save(state, tmp_path / "g.pth", _use_new_zipfile_serialization=False)
    z = torch.randn(2, 7)
    images = [FAMILY.load(tmp_path / name).generate(z) for name in ("g.safetensors", "g.npz", "g.pth")]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
