"""The operations that torch has no layer for, and sums of layer lists."""

import pytest
import torch
from torch.nn import functional as F

from latentshift.errors import DamagedFileError
from latentshift.layers import LayerNet, output_shape
from latentshift.operations import ImageInput
from latentshift.train.pieces import baked

LINEAR = {"op": "Linear", "key": "a", "kw": {"in_features": 3, "out_features": 1}}


def test_image_input_is_what_the_network_was_trained_on():
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    out = ImageInput(8, bgr=True, mean=[104, 117, 123], std=2)(x)
    want = ((x + 1) * 127.5).flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    assert torch.allclose(out, want / 2, atol=1e-4)
    grey = torch.rand(2, 1, 8, 8)
    big = ImageInput(16, low=0, high=1)(grey)
    assert torch.allclose(big[:, 0], big[:, 2])
    assert torch.allclose(big[:, :1], F.interpolate(grey * 255, (16, 16), mode="bilinear"), atol=1e-3)


def test_a_sum_of_layer_lists():
    entry = {"op": "Branches", "key": "s", "branches": [[LINEAR], [LINEAR]], "weights": [2.0, -1.0], "bias": 0.5}
    net = LayerNet([entry], meta=True)
    tensors = {}
    for i in range(2):
        tensors |= {f"s.parts.{i}.stack.0.weight": torch.full((1, 3), 1.0 + i), f"s.parts.{i}.stack.0.bias": torch.zeros(1)}
    net.load(tensors)
    x = torch.rand(4, 3)
    assert torch.allclose(net(x)[:, 0], 0.5 + (2 * 1.0 - 2.0) * x.sum(1))
    assert set(net.tensors()) == set(tensors)
    assert output_shape(net, (3,)) == (1,)
    assert torch.equal(baked(net)(x), net(x))


@pytest.mark.parametrize(
    "change",
    [
        {"branches": []},
        {"weights": [1.0]},
        {"weights": [1.0, float("nan")]},
        {"weights": ["a", "b"]},
        {"branches": [[LINEAR], "x"]},
        {"branches": [[LINEAR], [{"op": "Branches", "branches": [[LINEAR]], "weights": [1.0]}]]},
        {"bias": "x"},
        {"branches": [[LINEAR], [{"op": "Embedding", "key": "e", "kw": {"num_embeddings": 2, "embedding_dim": 2}}]]},
    ],
)
def test_a_sum_that_lies_is_refused(change):
    entry = {"op": "Branches", "key": "s", "branches": [[LINEAR], [LINEAR]], "weights": [1.0, 1.0], **change}
    with pytest.raises(DamagedFileError):
        LayerNet([entry])
