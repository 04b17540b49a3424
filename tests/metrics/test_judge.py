"""The judge: floors, bias, paired changes, and the bundled Fashion-MNIST judge at its card's figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_files import cifar, shared

from latentshift.errors import DamagedFileError, ShapeError, UnknownNameError
from latentshift.files.images import read_images
from latentshift.metrics.coverage import prdc
from latentshift.metrics.distance import Moments, frechet, kid
from latentshift.metrics.features import Extracted, extract, pixels
from latentshift.metrics.judge import BUNDLED, Judge, bundled_judges, load_judge
from latentshift.metrics.networks import load_network


def test_moments_without_rows_are_the_moments_of_the_rest(rng: np.random.Generator) -> None:
    x = rng.normal(size=(100, 4)) + 5
    rest, want = Moments.of(x).without(x[:30]), Moments.of(x[30:])
    assert rest.count == 70
    np.testing.assert_allclose(rest.mean, want.mean)
    np.testing.assert_allclose(rest.cov, want.cov)


@pytest.fixture
def small(rng: np.random.Generator) -> tuple[Judge, np.ndarray]:
    """A judge in pixels (12 features) of 600 random images, and 150 others of the same law."""
    images = rng.integers(0, 256, (750, 3, 2, 2), dtype=np.uint8)
    return Judge.of(pixels(size=2), images[:600]), images[600:]


def test_a_reading_names_its_network_and_stands_beside_its_floor(small: tuple[Judge, np.ndarray]) -> None:
    judge, images = small
    got = judge.distance(images)
    assert (got.metric, got.count, got.reference) == ("FD-pixels2", 150, 600)
    assert got.value == pytest.approx(frechet(judge.see(images), judge.features))
    assert got.floor is not None
    assert got.bias is not None
    assert got.bias == pytest.approx(got.floor, rel=0.35)  # real images are all bias
    assert "is the bias of 150 images" in got.note
    black = judge.distance(np.zeros_like(images))
    assert black.value > 10 * got.floor
    assert black.note == ""


def test_the_floor_from_moments_alone_agrees_with_the_one_from_images(small: tuple[Judge, np.ndarray]) -> None:
    judge, _ = small
    alone = Judge(judge.network, judge.moments)
    assert alone.floor(100, draws=20)[0] == pytest.approx(judge.floor(100, draws=20)[0], rel=0.35)


def test_too_few_images_say_so(small: tuple[Judge, np.ndarray]) -> None:
    judge, images = small
    assert "fewer images (7) than features (12)" in judge.distance(images[:7]).note
    with pytest.raises(ShapeError, match="2 images or more"):
        judge.distance(images[:1])


def test_readings_are_the_metrics_on_the_same_features(small: tuple[Judge, np.ndarray]) -> None:
    judge, images = small
    got = {r.metric: r for r in judge.readings(images, k=3)}
    rows = judge.see(images)
    assert judge.features is not None
    assert got["KID-pixels2"].value == kid(rows, judge.features).value
    assert got["KID-pixels2"].error == pytest.approx(kid(rows, judge.features).error)
    real = judge.features[np.random.default_rng(0).permutation(600)][:150]
    assert got["coverage-pixels2"].value == prdc(real, rows, k=3).coverage
    assert got["coverage-pixels2"].count == got["coverage-pixels2"].reference == 150
    assert "IS-pixels2" not in got


def test_a_paired_change_is_the_difference_and_its_sign_is_right(small: tuple[Judge, np.ndarray]) -> None:
    judge, images = small
    darker = (images * 0.8).astype(np.uint8)
    got = judge.change(images, darker, draws=30)
    assert got["FD-pixels2"].value == pytest.approx(judge.distance(darker).value - judge.distance(images).value)
    assert got["FD-pixels2"].low > 0
    assert judge.change(images, images, draws=5)["density-pixels2"].value == 0
    with pytest.raises(ShapeError, match="same rows"):
        judge.change(images, images[:9])


def test_saved_statistics_come_back_and_keep_to_their_network(small: tuple[Judge, np.ndarray], tmp_path: Path) -> None:
    judge, images = small
    judge.save(tmp_path / "ref.npz")
    back = Judge.load(judge.network, tmp_path / "ref.npz")
    assert back.distance(images).value == pytest.approx(judge.distance(images).value, rel=1e-9)
    assert back.features is not None
    with pytest.raises(ShapeError, match="statistics of pixels2"):
        Judge.load(pixels(size=4), tmp_path / "ref.npz")


def test_a_network_of_a_strangers_own_serves(rng: np.random.Generator) -> None:
    class Means:
        name = "means"

        def __call__(self, images: torch.Tensor) -> Extracted:
            return Extracted(images.float().mean((2, 3)), None)

    images = rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    assert Judge.of(Means(), images[:40]).distance(images[40:]).metric == "FD-means"


def test_the_bundled_judge_is_what_its_card_says() -> None:
    judge = load_judge("fashion32-judge")
    card = json.loads((BUNDLED / "fashion32-judge" / "card.json").read_text())
    assert bundled_judges() == ["fashion32-judge"]
    data = read_images(shared("data", "fashion-mnist", "t10k6978-images-idx3-ubyte.xz"), size=32)
    assert data.labels is not None
    out = extract(judge.network, data.images[:1500])
    assert out.logits is not None
    accuracy = (out.logits.argmax(1).numpy() == data.labels[:1500]).mean()
    assert card["metrics"]["accuracy_test"] > 0.85
    assert accuracy == pytest.approx(card["metrics"]["accuracy_test"], abs=0.025)
    # the stored features are those of these very images
    assert judge.features is not None
    np.testing.assert_allclose(judge.features[:1500], out.features, rtol=2e-3, atol=2e-3)
    unpadded = extract(judge.network, data.images[:10, :, 2:30, 2:30])
    assert torch.equal(unpadded.features, out.features[:10])


def test_the_bundled_judge_ranks_what_was_done_to_images() -> None:
    judge = load_judge("fashion32-judge")
    path = shared("data", "fashion-mnist", "train8226-images-idx3-ubyte.xz")
    real = read_images(path, size=32).images[:400]
    noise = np.random.default_rng(0).normal(0, 25, real.shape)
    noisy = np.clip(real + noise, 0, 255).round().astype(np.uint8)
    values = [judge.distance(x, floor_draws=0).value for x in (real, real[:, :, ::-1], noisy, 255 - real)]
    assert values == sorted(values)
    floor, spread = judge.floor(400)
    assert values[0] < floor + 5 * spread  # other real images are at the floor
    assert values[1] > floor + 10 * spread
    change = judge.change(real, noisy, draws=20)["FD-fashion32-judge"]
    assert change.z > 3


def test_images_of_another_kind_are_noted() -> None:
    judge = load_judge("fashion32-judge")
    digits = read_images(shared("data", "mnist", "t10k-images-idx3-ubyte.gz"), size=32).images[:200]
    notes = {r.metric: r.note for r in judge.readings(255 - digits)}
    assert "of the same kind" in notes["density-fashion32-judge"]
    garments = read_images(shared("data", "fashion-mnist", "train8226-images-idx3-ubyte.xz"), size=32).images[:200]
    assert all("of the same kind" not in r.note for r in judge.readings(garments))


def test_resnet_judge_gives_the_stated_floor() -> None:
    """FD-resnet20 of 500 test images to 2,000 train images is 0.35; train against train is lower (it was trained there)."""
    network = load_network(shared("data", "nets", "resnet20_cifar10_fp16.safetensors"))
    judge = Judge.of(network, cifar("train", 1000)[0])
    got = judge.readings(cifar("test", 300)[0])
    names = [r.metric for r in got]
    assert names == [f"{m}-resnet20" for m in ("FD", "KID", "precision", "recall", "density", "coverage", "IS")]
    fd = got[0]
    assert fd.floor is not None
    assert fd.value < 3 * fd.floor
    assert got[-1].value > 6


def test_judges_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="fashion32-judge"):
        load_judge("fashion32-juge")
    good = BUNDLED / "fashion32-judge"
    for name, edit in {
        "kind": {"kind": "pair"},
        "tap": {"feature_layer": 99},
        "image": {"image": {}},
        "layer": {"layers": [{"op": "system", "kw": {}}]},
    }.items():
        folder = tmp_path / name
        shutil.copytree(good, folder)
        card = json.loads((folder / "card.json").read_text()) | edit
        (folder / "card.json").write_text(json.dumps(card))
        with pytest.raises(DamagedFileError):
            load_judge(folder)
    folder = tmp_path / "tap2"
    shutil.copytree(good, folder)
    card = json.loads((folder / "card.json").read_text()) | {"feature_layer": 14}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises((DamagedFileError, ShapeError)):
        load_judge(folder).see(np.zeros((4, 1, 32, 32), np.uint8))
    (folder / "card.json").write_text("{")
    with pytest.raises(DamagedFileError):
        load_judge(folder)
