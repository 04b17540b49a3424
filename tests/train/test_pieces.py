"""Spectral norm, baking, averaging, augmentation, initialisation."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from latentshift.files.folder import read_pair, write_pair
from latentshift.layers import LayerNet
from latentshift.train.pieces import Average, ShiftAndFlip, add_spectral_norm, baked, initialise


def small_critic(key: str = "d") -> LayerNet:
    conv = {"in_channels": 1, "out_channels": 4, "kernel_size": 4, "stride": 2, "padding": 1}
    return LayerNet(
        [
            {"op": "Conv2d", "key": f"{key}0", "kw": conv},
            {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}},
            {"op": "Flatten"},
            {"op": "Linear", "key": f"{key}1", "kw": {"in_features": 4 * 16, "out_features": 1}},
        ]
    )


def small_generator() -> LayerNet:
    conv = {"in_channels": 4, "out_channels": 1, "kernel_size": 4, "stride": 2, "padding": 1}
    return LayerNet(
        [
            {"op": "Linear", "key": "stem", "kw": {"in_features": 3, "out_features": 64}},
            {"op": "Reshape", "kw": {"shape": [4, 4, 4]}},
            {"op": "BatchNorm2d", "key": "norm", "kw": {"num_features": 4}},
            {"op": "ReLU"},
            {"op": "ConvTranspose2d", "key": "up", "kw": conv},
            {"op": "Tanh"},
        ]
    )


def diagonal(*values: float) -> LayerNet:
    n = len(values)
    net = LayerNet([{"op": "Linear", "key": "a", "kw": {"in_features": n, "out_features": n, "bias": False}}])
    with torch.no_grad():
        net.stack[0].weight.copy_(torch.diag(torch.tensor(values)))
    return net


def test_spectral_norm_of_a_diagonal() -> None:
    net = add_spectral_norm(diagonal(3.0, 1.0))
    net.train()
    for _ in range(20):
        net(torch.ones(1, 2))
    assert torch.allclose(net.stack[0].weight, torch.diag(torch.tensor([1.0, 1 / 3])), atol=1e-6)


def test_spectral_norm_converges_as_the_square_of_the_ratio() -> None:
    net = add_spectral_norm(diagonal(3.0, 2.0)).train()
    (parametrization,) = net.stack[0].parametrizations.weight
    with torch.no_grad():
        parametrization._u.copy_(torch.tensor([1.0, 1.0]) / 2**0.5)
        parametrization._v.copy_(torch.tensor([1.0, 1.0]) / 2**0.5)
    tangents = []
    for _ in range(4):
        net(torch.ones(1, 2))
        tangents.append(float(parametrization._v[1] / parametrization._v[0]))
    for before, after in itertools.pairwise(tangents):
        assert after / before == pytest.approx((2 / 3) ** 2, rel=1e-4)


def test_spectral_norm_neither_reads_nor_changes_the_global_random_state() -> None:
    first = copy.deepcopy(small_critic())
    second = copy.deepcopy(first)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    add_spectral_norm(first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    add_spectral_norm(second)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert add_spectral_norm(first) is first
    assert len(first.stack[0].parametrizations.weight) == 1, "normalised once"


@pytest.mark.parametrize("key", ["d", ""])
def test_baked_equals_the_network_in_evaluation(key: str) -> None:
    net = small_critic() if key else diagonal(3.0, 2.0, 0.5)
    if not key:
        net = LayerNet([{"op": "Linear", "kw": {"in_features": 3, "out_features": 3, "bias": False}}])
    add_spectral_norm(net).train()
    x = torch.randn(5, 1, 8, 8) if key else torch.randn(5, 3)
    net(x)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    plain = baked(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(m.training for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "baking takes no power step"
    assert not plain.training
    net.eval()
    assert torch.equal(plain(x), net(x))
    assert "parametrizations" not in " ".join(plain.state_dict())
    shared = {t.data_ptr() for t in net.state_dict().values()} & {t.data_ptr() for t in plain.state_dict().values()}
    assert not shared


def test_baked_keeps_batch_norm_and_labels() -> None:
    label = {"op": "Embedding", "key": "emb", "as": "vector", "kw": {"num_embeddings": 3, "embedding_dim": 2}}
    linear = {"op": "Linear", "key": "fc", "kw": {"in_features": 6, "out_features": 5}}
    net = LayerNet([label, linear, {"op": "BatchNorm1d", "key": "bn", "kw": {"num_features": 5}}])
    x, y = torch.randn(9, 4), torch.arange(9) % 3
    net.train()(x, y)
    assert torch.equal(baked(net)(x, y), net.eval()(x, y))


def test_average_follows_its_closed_form() -> None:
    live, beta = diagonal(1.0, 1.0), 0.9
    average = Average(live, beta)
    start = average.net.stack[0].weight.clone()
    with torch.no_grad():
        live.stack[0].weight.fill_(2.0)
    n = 7
    for t in range(100, 100 + n):  # (1 + t) / (10 + t) is above beta from t = 80 on
        average.update(live, t)
    assert torch.allclose(average.net.stack[0].weight, 2.0 + beta**n * (start - 2.0), atol=1e-6)


def test_average_warms_up_and_copies_integers() -> None:
    live = small_generator()
    average = Average(live, 0.999)
    old = average.net.stack[0].weight.clone()
    live.train()(torch.randn(4, 3))
    with torch.no_grad():
        live.stack[0].weight.add_(1.0)
    average.update(live, 0)
    assert torch.allclose(average.net.stack[0].weight, 0.1 * old + 0.9 * live.stack[0].weight, atol=1e-6)
    assert average.net.stack[2].num_batches_tracked.item() == 1
    assert not any(p.requires_grad for p in average.net.parameters())


def test_shift_and_flip_is_one_of_its_choices_for_every_row() -> None:
    x = torch.randn(40, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    out = ShiftAndFlip(pixels=2, fill=-7.0)(x, torch.Generator().manual_seed(1))
    used = set()
    for row, seen in zip(x, out, strict=True):
        found = []
        for flip in (False, True):
            padded = torch.nn.functional.pad(row.flip(2) if flip else row, (2, 2, 2, 2), value=-7.0)
            for dy in range(5):
                for dx in range(5):
                    if torch.equal(padded[:, dy : dy + 5, dx : dx + 6], seen):
                        found.append((flip, dy, dx))
        assert len(found) == 1
        used.add(found[0])
    assert len(used) > 15, "rows have draws of their own"


def test_shift_and_flip_gradient_is_its_transpose() -> None:
    x = torch.randn(6, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    augment = ShiftAndFlip(pixels=2, fill=0.0)  # linear for a fill of 0

    def f(x: torch.Tensor) -> torch.Tensor:
        return augment(x, torch.Generator().manual_seed(3))

    assert torch.autograd.gradcheck(f, (x,))
    v = torch.randn(6, 1, 5, 4, dtype=torch.float64)
    (back,) = torch.autograd.grad((f(x) * v).sum(), x)
    u = torch.randn(6, 1, 5, 4, dtype=torch.float64)
    assert (f(u) * v).sum().item() == pytest.approx((u * back).sum().item(), abs=1e-12)


def test_no_shift_and_no_flip_is_the_identity() -> None:
    x = torch.randn(3, 1, 4, 4)
    assert torch.equal(ShiftAndFlip(pixels=0, flip=False)(x, torch.Generator()), x)


def test_initialise_draws_from_its_generator_alone() -> None:
    state = torch.get_rng_state()
    nets = [small_generator(), small_generator()]
    torch.set_rng_state(state)
    for net in nets:
        initialise(net, 0.02, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert nets[0].stack[0].bias.abs().max() == 0
    assert nets[0].stack[0].weight.std().item() == pytest.approx(0.02, rel=0.25)
    assert (nets[0].stack[2].weight - 1).abs().max() < 0.1


def card(**changes: Any) -> dict[str, Any]:
    image = {"channels": 1, "height": 8, "width": 8, "range": [-1, 1]}
    return {
        "name": "tiny",
        "z_size": 3,
        "z_prior": {"kind": "normal"},
        "image": image,
        "critic": {"returns": "logit"},
        **changes,
    }


@pytest.mark.parametrize(("half", "most"), [(False, 0.0), (True, 0.01)])
def test_a_trained_pair_written_and_read_scores_the_same(tmp_path: Path, half: bool, most: float) -> None:
    draw = torch.Generator().manual_seed(0)
    G, D = initialise(small_generator(), 0.3, draw), add_spectral_norm(initialise(small_critic(), 0.3, draw))
    z = torch.randn(64, 3, generator=draw)
    G.train()(z)
    D.train()(G(z))
    G.eval()
    folder = write_pair(tmp_path / "pair", card(), G, baked(D), half=half)
    pair = read_pair(folder)
    D.eval()
    with torch.no_grad():
        images, score = G(z), D(G(z)).flatten()
        again, scored = pair.generate(z), pair.logit(pair.generate(z))
    assert (again - images).abs().max() <= 2 * most
    assert (scored - score).abs().max() <= most * (score.max() - score.min())
    assert all(p.stat().st_mode & 0o777 == (folder / "card.json").stat().st_mode & 0o777 for p in folder.iterdir())
    size = (folder / "G.safetensors").stat().st_size
    assert size < 2200 if half else size > 1800


def test_points_in_the_plane_make_a_pair_without_an_image_entry(tmp_path: Path) -> None:
    G = LayerNet([{"op": "Linear", "key": "a", "kw": {"in_features": 2, "out_features": 2}}])
    D = LayerNet([{"op": "Linear", "key": "a", "kw": {"in_features": 2, "out_features": 1}}])
    plain = {k: v for k, v in card(z_size=2).items() if k != "image"}
    pair = read_pair(write_pair(tmp_path / "p", {**plain, "modes": [[0.0, 1.0]]}, G, D))
    assert pair.image_shape == (2,)
    assert pair.card["modes"] == [[0.0, 1.0]]
    assert pair.logit(pair.generate(torch.randn(5, 2))).shape == (5,)
