"""Extractors by name, by file, from a judge, from a plug-in; fingerprints; features kept on the disk."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_files import shared

from latentshift import registry
from latentshift.errors import DamagedFileError, DownloadError, FileError, RequestError, ShapeError, UnknownNameError
from latentshift.files.imageset import ImageSet
from latentshift.metrics.dinov2 import of_model
from latentshift.metrics.extractors import fingerprint, load_extractor
from latentshift.metrics.features import Extracted, pixels
from latentshift.metrics.inputs import of_set
from latentshift.metrics.store import Store, load_statistics, save_statistics


def test_names_of_extractors() -> None:
    assert load_extractor("pixels32").name == "pixels32"
    grey = load_extractor("pixels:16x1")
    assert (grey.name, grey.channels) == ("pixels16", 1)  # type: ignore[attr-defined]
    assert load_extractor("fashion32-judge").name == "fashion32-judge"
    with pytest.raises(RequestError, match="cannot read 'pixels:wide'"):
        load_extractor("pixels:wide")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'inception'"):
        load_extractor("incepton")
    with pytest.raises(FileError, match="no such network file"):
        load_extractor("nets/none.safetensors")


def test_network_files_by_path(tmp_path: Path) -> None:
    path = shared("data", "nets", "resnet20_cifar10_fp16.safetensors")
    assert load_extractor(str(path)).name == "resnet20"
    (tmp_path / "inception.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DamagedFileError, match="LFS"):
        load_extractor(f"inception:{tmp_path / 'inception.pth'}")


def test_inception_is_fetched_only_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match=r"pt_inception-2015-12-05-6726825d\.pth"):
        load_extractor("inception")


class Mean:
    """A plug-in's extractor: the mean colour."""

    name = "mean"
    line = "the mean of every channel"

    def make(self, argument: str) -> Mean:
        return self

    def __call__(self, images: torch.Tensor) -> Extracted:
        return Extracted(images.float().mean((2, 3)), None)


def test_a_plug_in_is_an_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mean", f"{__name__}:Mean", "latentshift.features")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Mean())
    monkeypatch.setattr(registry, "_points", lambda group: {"mean": point})
    network = load_extractor("mean")
    assert network(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).features.shape == (2, 3)
    assert fingerprint(network) == fingerprint(Mean())


def test_dinov2_takes_the_class_token_and_says_what_it_needs() -> None:
    class Model(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> Any:
            assert pixel_values.shape[1:] == (3, 224, 224)
            tokens = pixel_values.flatten(2)[:, :, :5].transpose(1, 2)
            return type("Out", (), {"last_hidden_state": tokens})

    network = of_model(Model(), "dinov2")
    white = network(torch.full((2, 1, 20, 20), 255, dtype=torch.uint8))
    assert white.features[0].tolist() == pytest.approx(
        [(1 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    )
    try:
        import transformers  # noqa: F401
    except ImportError:
        with pytest.raises(RequestError, match=r"latentshift\[dinov2\]"):
            load_extractor("dinov2")


def test_fingerprints_tell_weights_apart() -> None:
    one, other = (load_extractor("fashion32-judge") for _ in range(2))
    assert fingerprint(one) == fingerprint(other) != fingerprint(pixels())
    with torch.no_grad():
        next(iter(other.net.parameters())).view(-1)[0] += 1e-3  # type: ignore[attr-defined]
    assert fingerprint(one) != fingerprint(other)


def test_kept_features_are_used_and_damaged_ones_made_again(tmp_path: Path, rng: np.random.Generator) -> None:
    images = of_set(ImageSet(rng.integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)))
    store = Store(pixels(1, 8), tmp_path)
    first = store.features(images).features
    kept = sorted((tmp_path / "features").rglob("*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(b"cut")
    assert torch.equal(Store(pixels(1, 8), tmp_path).features(images).features, first)
    assert kept[0].stat().st_size > 1000
    store.drop()
    assert not any(p.exists() for p in kept)


def test_statistics_keep_to_their_weights_and_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    images = of_set(ImageSet(rng.integers(0, 256, (30, 1, 8, 8), dtype=np.uint8), np.arange(30) % 3))
    network, path = pixels(1, 8), tmp_path / "s.npz"
    store = Store(network, None)
    reference = store.reference(images)[0]
    save_statistics(path, reference, store.fingerprint, images.sha256(), keep=20)
    back = load_statistics(path, network)
    assert back.moments.count == 30
    assert back.moments.cov == pytest.approx(reference.moments.cov)
    assert back.rows.shape == (20, 64)
    assert back.labels is not None
    assert len(back.labels) == 20
    save_statistics(path, reference, "0" * 64, images.sha256())
    with pytest.raises(ShapeError, match="other weights"):
        load_statistics(path, network)
