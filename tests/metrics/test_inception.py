"""The Inception network on random weights: its tensors, its numbers, and another project's network as the referee."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from latentshift.errors import DamagedFileError, UnsafeFileError
from latentshift.metrics.features import extract
from latentshift.metrics.inception import Inception, load_inception, prepare, resize_tf1


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights under which activations keep their size."""
    generator = torch.Generator().manual_seed(0)
    out = {}
    for key, value in Inception().state_dict().items():
        fan = max(1, value[0].numel()) if value.ndim > 1 else 1
        noise = torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        if key.endswith(("conv.weight", "fc.weight")):
            out[key] = noise * (2 / fan) ** 0.5
        elif key.endswith(("bn.weight", "running_var")):
            out[key] = 1 + 0.2 * noise.abs()
        else:
            out[key] = 0.1 * noise if value.is_floating_point() else value
    return out


@pytest.fixture(scope="module")
def weights(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)  # the published file's form
    return path


def test_tensors_are_those_of_the_published_file(state: dict[str, torch.Tensor]) -> None:
    """94 convolutions with 5 tensors of normalisation each, fc; 1,008 classes in place of 1,000."""
    assert len(state) == 94 * 6 + 2
    parameters = sum(p.numel() for p in Inception().parameters())
    assert parameters == 23_834_568 - 1000 * 2049 + 1008 * 2049  # Inception v3 of 1,000 classes has 23,834,568
    assert state["Conv2d_1a_3x3.conv.weight"].shape == (32, 3, 3, 3)
    assert state["Mixed_6c.branch7x7dbl_4.conv.weight"].shape == (160, 160, 7, 1)
    assert state["Mixed_7a.branch7x7x3_4.conv.weight"].shape == (192, 192, 3, 3)
    assert state["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)
    assert state["fc.weight"].shape == (1008, 2048)


def test_the_safe_reader_gives_the_network(weights: Path, state: dict[str, torch.Tensor]) -> None:
    network = load_inception(weights)
    assert (network.name, network.channels, network.size) == ("inception", 3, 299)
    out = extract(network, np.zeros((2, 3, 40, 40), np.uint8))
    assert out.features.shape == (2, 2048)
    assert out.logits is not None
    assert torch.allclose(out.logits, out.features @ state["fc.weight"].T, atol=1e-4)  # without the bias


@pytest.mark.usefixtures("no_torchvision")
def test_features_and_logits_are_torch_fidelitys(weights: Path) -> None:
    package = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is the referee")
    names = ["2048", "logits_unbiased"]
    theirs = package.FeatureExtractorInceptionV3("x", names, feature_extractor_weights_path=str(weights))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8))
    with torch.no_grad():
        features, logits = theirs(images)
    ours = load_inception(weights)(images)
    assert ours.logits is not None
    assert torch.allclose(ours.features, features, rtol=1e-4, atol=1e-5 * features.abs().max())
    assert torch.allclose(ours.logits, logits, rtol=1e-4, atol=1e-5 * logits.abs().max())


def test_the_last_block_takes_the_maximum_and_averages_leave_the_border_out() -> None:
    net = Inception()
    assert (net.Mixed_7b.pool, net.Mixed_7c.pool) == ("average", "max")
    x = torch.ones(1, 2048, 8, 8)
    net.Mixed_7b.branch_pool = torch.nn.Identity()
    pooled = net.Mixed_7b.eval()(torch.ones(1, 1280, 8, 8))[:, -1280:]
    assert torch.equal(pooled, torch.ones_like(pooled))  # with the border counted its corners were 4/9
    net.Mixed_7c.branch_pool = torch.nn.Identity()
    x[0, 0, 4, 4] = 5
    assert (net.Mixed_7c.eval()(x)[0, -2048] == 5).sum() == 9


def test_the_resize_is_that_of_tensorflow_1() -> None:
    """By hand: 2 pixels to 4 are taken from 0, 0.5, 1, 1.5, the last one held."""
    line = torch.tensor([0.0, 8.0]).view(1, 1, 1, 2).repeat(1, 1, 2, 1)
    assert resize_tf1(line, 4)[0, 0, 0].tolist() == [0.0, 4.0, 8.0, 8.0]
    assert prepare(torch.full((1, 3, 20, 30), 128, dtype=torch.uint8)).abs().max() == 0
    assert prepare(torch.zeros((1, 3, 299, 299), dtype=torch.uint8)).unique().tolist() == [-1.0]


def test_other_files_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({k: v for k, v in state.items() if k != "fc.bias"}, tmp_path / "less.pth")
    with pytest.raises(DamagedFileError, match=r"'fc.bias' is missing"):
        load_inception(tmp_path / "less.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DamagedFileError, match="not a state dict"):
        load_inception(tmp_path / "list.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UnsafeFileError):
        load_inception(tmp_path / "module.pth")
