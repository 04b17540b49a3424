"""The feature networks on the reference weights: accuracies and distances as their card states them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reference_files import cifar, shared
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from latentshift.errors import DamagedFileError, NumericError, RequestError, ShapeError
from latentshift.files.idx import read_idx
from latentshift.metrics.distance import frechet
from latentshift.metrics.features import Extracted, to_size
from latentshift.metrics.networks import SqueezeNet, caffe_bgr, extract, load_network, pixels


def test_resnet20_reaches_its_stated_accuracy_and_distance() -> None:
    """91.74 % on all 10,000; on 1,000 the standard error is 0.9 points. FD of 500 test images to 2,000 train: 0.35."""
    net = load_network(shared("data", "nets", "resnet20_cifar10_fp16.safetensors"))
    x, y = cifar("test", 1000)
    out = extract(net, x)
    assert net.name == "resnet20"
    assert out.features.shape == (1000, 64)
    assert out.logits is not None
    assert abs((out.logits.argmax(1).numpy() == y).mean() - 0.9174) < 0.027
    train = extract(net, cifar("train", 2000)[0]).features
    assert frechet(out.features[:500], train) == pytest.approx(0.35, abs=0.005)


def test_resnet56_classifies() -> None:
    net = load_network(shared("data", "nets", "resnet56_cifar10_fp16.safetensors"))
    x, y = cifar("test", 300)
    out = extract(net, x, batch=100)
    assert net.name == "resnet56"
    assert out.logits is not None
    assert abs((out.logits.argmax(1).numpy() == y).mean() - 0.9341) < 0.045


@pytest.mark.parametrize(("name", "stated"), [("cnn_mnist", 0.972), ("cnn_fashion_mnist", 0.843)])
def test_small_cnn_reaches_its_stated_accuracy(name: str, stated: float) -> None:
    net = load_network(shared("data", "nets", f"{name}_fp16.safetensors"))
    part = {
        "cnn_mnist": ("mnist", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        "cnn_fashion_mnist": ("fashion-mnist", "t10k6978-images-idx3-ubyte.xz", "t10k6978-labels-idx1-ubyte.xz"),
    }[name]
    x, y = (read_idx(shared("data", part[0], f)) for f in part[1:])
    out = extract(net, x[:3000, None])
    assert out.features.shape == (3000, 128)
    assert out.logits is not None
    assert abs((out.logits.argmax(1).numpy() == y[:3000]).mean() - stated) < 0.02
    padded = np.pad(x[:50, None], ((0, 0), (0, 0), (2, 2), (2, 2)))
    assert torch.equal(extract(net, padded).features, out.features[:50])


def squeezenet_by_hand(w: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The graph of the card, step by step, on raw tensors."""
    conv = lambda x, k, **kw: F.conv2d(x, w[k + ".weight"].float(), w[k + ".bias"].float(), **kw)  # noqa: E731
    x = F.max_pool2d(F.relu(conv(x, "conv1", stride=2)), 3, 2, ceil_mode=True)
    for k in range(2, 10):
        s = F.relu(conv(x, f"fire{k}.squeeze"))
        x = torch.cat([F.relu(conv(s, f"fire{k}.expand1")), F.relu(conv(s, f"fire{k}.expand3", padding=1))], 1)
        if k in (4, 8):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return x.mean((2, 3)), F.relu(conv(x, "conv10", padding=1)).mean((2, 3))


def test_squeezenet_is_the_graph_of_its_card_in_bgr() -> None:
    path = shared("data", "nets", "squeezenet10_imagenet_fp16.safetensors")
    net = load_network(path, size=112)
    x = torch.from_numpy(cifar("test", 4)[0])
    big = F.interpolate(x.float(), size=(112, 112), mode="bilinear").round().to(torch.uint8)
    features, logits = squeezenet_by_hand(
        load_file(path), big[:, [2, 1, 0]].float() - torch.tensor([104.0, 117, 123]).view(3, 1, 1)
    )
    out = net(big)
    assert net.name == "squeezenet112"
    torch.testing.assert_close(out.features, features, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=1e-3)
    assert isinstance(net.net, SqueezeNet)
    assert net.net.trunk(caffe_bgr(big), last=5).shape == (4, 256, 13, 13)


def test_squeezenet_ranks_noise_below_clean_images() -> None:
    """Its card: 12,159 for test images, 161,934 with noise of sigma 32. Fewer images here, so the order only."""
    net = load_network(shared("data", "nets", "squeezenet10_imagenet_fp16.safetensors"), size=64)
    x, ref = cifar("test", 60)[0], extract(net, cifar("train", 120)[0]).features
    noise = np.random.default_rng(0).normal(0, 32, x.shape)
    noisy = np.clip(x + noise, 0, 255).round().astype(np.uint8)
    assert frechet(extract(net, noisy).features, ref) > 2 * frechet(extract(net, x).features, ref)


def test_sizes_follow_the_stated_rules() -> None:
    x = torch.arange(28 * 28, dtype=torch.uint8).view(1, 1, 28, 28)
    padded = to_size(x, 32)
    assert torch.equal(padded[:, :, 2:30, 2:30], x)
    assert padded.int().sum() == x.int().sum()
    small = torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)
    assert torch.equal(to_size(small, 4)[0, 0, :2, 2:], torch.full((2, 2), 255, dtype=torch.uint8))
    assert to_size(torch.full((1, 3, 50, 40), 7, dtype=torch.uint8), 32).unique().tolist() == [7]


def test_pixels_are_features_in_0_to_1() -> None:
    x = np.zeros((2, 3, 4, 4), np.uint8)
    x[1] = 255
    out = extract(pixels(size=4), x)
    assert out.features.shape == (2, 48)
    assert out.features[1].unique().tolist() == [1.0]
    assert out.logits is None
    grey = extract(pixels(size=4), x[:, :1])
    assert torch.equal(grey.features, out.features)


def test_floats_and_colour_for_a_grey_network_are_refused() -> None:
    with pytest.raises(ShapeError, match="uint8"):
        extract(pixels(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(ShapeError, match="1 channels"):
        extract(pixels(channels=1), np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(ShapeError, match="no images"):
        extract(pixels(), np.zeros((0, 3, 32, 32), np.uint8))


def test_features_that_are_nan_are_named() -> None:
    class Broken:
        name = "broken"

        def __call__(self, images: torch.Tensor) -> Extracted:
            return Extracted(images.float().mean((2, 3)).log(), None)

    x = np.ones((9, 1, 2, 2), np.uint8)
    x[7] = 0
    with pytest.raises(NumericError, match="image 7"):
        extract(Broken(), x, batch=2)


def test_damaged_and_unknown_weights_are_refused(tmp_path: Path) -> None:
    good = load_file(shared("data", "nets", "cnn_mnist_fp16.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    save_file({k: v for k, v in good.items() if k != "fc1.bias"}, tmp_path / "missing.safetensors")
    save_file({**good, "fc1.bias": torch.zeros(5)}, tmp_path / "shape.safetensors")
    save_file({**good, "more": torch.zeros(5)}, tmp_path / "extra.safetensors")
    save_file({**good, "fc1.bias": torch.full((128,), float("nan"))}, tmp_path / "nan.safetensors")
    for name in ("cut", "missing", "shape", "extra", "nan", "absent"):
        with pytest.raises(DamagedFileError, match=name):
            load_network(tmp_path / f"{name}.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RequestError, match="unknown feature network"):
        load_network(tmp_path / "other.safetensors")
