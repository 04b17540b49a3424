"""Critics by name: what they score, how one takes D's place, what they refuse."""

import importlib.util
import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from latentshift import Pair, registry
from latentshift.critics import ClassLogit, FolderCritic, PyIQA, QualityCritic, Sharpness, WeightedSum, as_critic, resized
from latentshift.engine.run import Engine
from latentshift.errors import DamagedFileError, FileError, MissingCapabilityError, RequestError, ShapeError, UsageError
from latentshift.files.folder import write_pair
from latentshift.layers import LayerNet
from latentshift.model import Capability
from latentshift.noise import latents
from latentshift.objective import Quality
from latentshift.space import Normal, Space
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.selection import MH


def pictures(rows=6, channels=3, size=16):
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def blurred(images):
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)


def test_listing_names_all_without_torch():
    code = (
        "import sys; from latentshift import registry as r; found, broken = r.everything('critics');"
        "print(sorted(found), broken, all(r.one_line(c) for c in found.values()), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['class-logit', 'folder', 'pyiqa', 'sharpness', 'weighted-sum'] [] True False"
    assert registry.get("critics", "sharpness") is Sharpness


def test_sharpness_means_what_it_says():
    images = pictures(64, 1, 32)
    critic = Sharpness()
    assert isinstance(critic, QualityCritic)
    score = critic.score(images)
    assert score.shape == (64,)
    assert abs(float(score.mean()) - math.log(2)) < 0.01  # white noise
    assert (critic.score(blurred(images)) < score - 0.7).all()
    torch.testing.assert_close(critic.score(0.3 * images + 0.1), score, atol=1e-4, rtol=1e-4)  # contrast and brightness
    assert torch.isfinite(critic.score(torch.zeros(2, 3, 8, 8))).all()
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    by_hand = ((2 / 31) ** 2) / 2 / float(torch.linspace(-1, 1, 32).var(correction=0))
    assert float(critic.score(ramp)) == pytest.approx(math.log(by_hand), rel=1e-3)
    near = Sharpness(target=float(critic.score(blurred(images)).mean()))
    assert (near.score(blurred(images)) > near.score(images)).all()
    with pytest.raises(ShapeError, match="channels, height, width"):
        critic.score(torch.zeros(4, 2))


def image_pair(critic=None, image_range=(-1.0, 1.0)):
    weight = torch.randn(3 * 64, 5, generator=torch.Generator().manual_seed(1))
    low, high = image_range

    def G(z):
        return low + (high - low) * torch.sigmoid(z @ weight.T).reshape(-1, 3, 8, 8)

    return Pair(G, critic, Space("z", (5,), Normal()), image_shape=(3, 8, 8), image_range=image_range)


def test_a_quality_critic_takes_the_discriminators_place():
    quality = Sharpness()
    pair = image_pair(as_critic(quality, image_range=(0.0, 1.0)), (0.0, 1.0))
    assert pair.capabilities & Capability.GRADIENT
    assert not pair.capabilities & Capability.LOGIT
    z0 = torch.from_numpy(latents(range(16), (5,), Normal()))
    images = pair.generate(z0)
    torch.testing.assert_close(pair.logit(images), quality.score(images * 2 - 1))
    run = Engine(IFGSM(steps=5, eps=0.2), pair).run(z0, range(16))
    chunk = run.chunks[0]
    assert (chunk.score > chunk.score0).mean() > 0.9
    with pytest.raises(MissingCapabilityError, match="no log odds"):
        Engine(MH(), pair)
    term = Engine(IFGSM(steps=5, eps=0.2), image_pair(as_critic(quality)), objective=Quality(quality)).run(z0, range(16))
    plain = Engine(IFGSM(steps=5, eps=0.2), image_pair(as_critic(quality))).run(z0, range(16))
    assert (term.chunks[0].point == plain.chunks[0].point).all()


class Darkness:
    """Lower is better, no gradient, its own size."""

    name, resolution, differentiable, higher_is_better = "darkness", 4, False, False

    def score(self, images, labels=None):
        assert images.shape[2:] == (4, 4)
        return images.detach().mean((1, 2, 3))


def test_sign_size_and_missing_gradient_are_carried_over():
    critic = as_critic(Darkness())
    images = pictures(5, 3, 8)
    torch.testing.assert_close(critic.logit(images), -resized(images, 4).mean((1, 2, 3)))
    with pytest.raises(MissingCapabilityError, match="gives no gradient"):
        Engine(IFGSM(), image_pair(critic))


def test_weighted_sums_turn_signs_and_divide_by_scales():
    images = pictures(5, 3, 8)
    both = WeightedSum(parts=((2.0, Sharpness()), (0.5, Darkness())), scales=(4.0, 0.1))
    want = 0.5 * Sharpness().score(images) - 5 * Darkness().score(resized(images, 4))
    torch.testing.assert_close(both.score(images), want)
    assert not both.differentiable
    assert WeightedSum(parts=((1.0, Sharpness()),)).differentiable
    with pytest.raises(UsageError, match="at least one"):
        WeightedSum()
    with pytest.raises(UsageError, match="one number above 0 per critic"):
        WeightedSum(parts=((1.0, Sharpness()),), scales=(0.0,))


def judge_folder(tmp_path, out=4, **changes):
    layers = [
        {"op": "Flatten"},
        {"op": "Linear", "key": "last", "kw": {"in_features": 48, "out_features": out}},
    ]
    card = {
        "schema": 1,
        "kind": "judge",
        "layers": layers,
        "image": {"channels": 3, "height": 4, "width": 4, "range": [-1, 1]},
    } | changes
    random = torch.Generator().manual_seed(2)
    tensors = {"last.weight": torch.randn(out, 48, generator=random), "last.bias": torch.randn(out, generator=random)}
    save_file(tensors, tmp_path / "judge.safetensors")
    (tmp_path / "card.json").write_text(json.dumps(card))
    return tensors


def test_a_classifiers_class_logit(tmp_path):
    tensors = judge_folder(tmp_path)
    images = pictures(6, 3, 8)
    small = resized(images, 4).flatten(1)
    logits = small @ tensors["last.weight"].T + tensors["last.bias"]
    torch.testing.assert_close(ClassLogit(str(tmp_path), class_index=2).score(images), logits[:, 2])
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    own = ClassLogit(str(tmp_path), margin=True)
    torch.testing.assert_close(own.score(images, labels), logits.log_softmax(1)[torch.arange(6), labels])
    assert own.classes == 4
    with pytest.raises(RequestError, match="was given no class"):
        own.score(images)
    with pytest.raises(UsageError, match="classes 0 to 3"):
        ClassLogit(str(tmp_path), class_index=4)
    with pytest.raises(ShapeError, match="takes 3 channels"):
        own.score(pictures(2, 1, 8), labels[:2])
    x = images.clone().requires_grad_(True)
    own.score(x, labels).sum().backward()
    assert float(x.grad.abs().sum()) > 0


def test_folders_that_hold_no_classifier_are_refused(tmp_path):
    with pytest.raises(FileError, match="no classifier here"):
        ClassLogit(str(tmp_path / "none"))
    (tmp_path / "card.json").write_text("[1]")
    with pytest.raises(DamagedFileError, match="not the card of a judge"):
        ClassLogit(str(tmp_path))
    judge_folder(tmp_path, out=1)
    with pytest.raises(RequestError, match="not one logit per class"):
        ClassLogit(str(tmp_path))
    judge_folder(tmp_path, image={"channels": 3, "height": 4, "width": 4, "range": [0, 1]})
    with pytest.raises(RequestError, match=r"\[-1, 1\]"):
        ClassLogit(str(tmp_path))


def test_the_discriminator_of_a_folder_scores_other_images(tmp_path):
    entries = [{"op": "Flatten"}, {"op": "Linear", "key": "0", "kw": {"in_features": 16, "out_features": 1}}]
    D = LayerNet(entries)
    image = {"channels": 1, "height": 4, "width": 4, "range": [0, 1]}
    write_pair(tmp_path / "pair", {"image": image, "critic": {"returns": "logit", "real_is": "low"}}, D=D)
    critic = FolderCritic(str(tmp_path / "pair"))
    images = pictures(5, 1, 4)
    torch.testing.assert_close(critic.score(images), -D((images + 1) / 2).reshape(5))
    assert critic.resolution == 4
    assert critic.score(pictures(5, 1, 8)).shape == (5,)
    assert critic.name == "D of pair"


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is not None, reason="pyiqa is installed")
def test_pyiqa_is_asked_for_by_name_where_it_is_missing():
    with pytest.raises(MissingCapabilityError, match=r"needs the package pyiqa .*Install it"):
        PyIQA()
