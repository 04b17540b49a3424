"""The door for people: any two callables, arrays and tensors, the same numbers as the command line."""

import numpy as np
import pytest
import torch

import latentshift
from latentshift.errors import (
    LatentshiftWarning,
    MissingCapabilityError,
    NumericError,
    RequestError,
    ShapeError,
    UnknownNameError,
    UsageError,
)
from latentshift.model import Pair
from latentshift.objective import Displacement, Realness
from latentshift.sampler import Sampler, load
from latentshift.strategies.gradient import IFGSM
from latentshift.testing import check_critic, check_pair


def nets(d=6, dtype=torch.float32):
    torch.manual_seed(0)
    G = torch.nn.Sequential(torch.nn.Linear(d, 32), torch.nn.Tanh(), torch.nn.Linear(32, 48), torch.nn.Unflatten(1, (3, 4, 4)))
    D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    return G.eval().to(dtype), D.eval().to(dtype)


@pytest.mark.parametrize("callables", ["modules", "functions"])
def test_any_two_callables(callables):
    G, D = nets()
    if callables == "functions":
        g, d = G, D
        G, D = (lambda z: g(z)), (lambda x: d(x))
    result = Sampler(G, D, recipe="advlatgan-z/ball").refine(torch.randn(20, 6), steps=5)
    assert result.images.shape == (20, 3, 4, 4)
    assert bool((result.gain > 0).all())
    assert len(result) == 20
    assert result.names()[0] == "row0000"
    assert torch.allclose(result.images, nets()[0](result.z).detach(), atol=1e-5)


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "numpy"])
def test_it_hands_back_what_it_was_given(kind):
    G, D = nets(dtype=torch.float64 if kind == "float64" else torch.float32)
    z = torch.randn(5, 6)
    z = z.numpy() if kind == "numpy" else z.to(getattr(torch, kind))
    result = Sampler(G, D).refine(z, strategy="ifgsm", steps=2)
    for value in (result.z, result.z0, result.images):
        assert isinstance(value, np.ndarray if kind == "numpy" else torch.Tensor)
        assert value.dtype == z.dtype


def test_seeds_and_latents_give_the_same():
    pair = load("fashion32")
    a = Sampler(pair).refine(seeds=range(12))
    z = np.stack([np.random.RandomState(s).randn(64) for s in range(12)]).astype(np.float32)
    b = Sampler(pair).refine(torch.from_numpy(z), seeds=range(12))
    assert torch.equal(a.z, b.z)
    assert torch.equal(a.score, b.score)
    assert a.names() == b.names() == [f"seed{s:04d}" for s in range(12)]
    c = Sampler(pair).refine(torch.from_numpy(z))
    assert torch.equal(a.z, c.z), "a method without noise does not depend on the seed"


def test_stream_is_refine_in_bounded_pieces():
    pair = load("ring")
    whole = Sampler(pair, chunk=16).refine(seeds=range(40), strategy="ifgsm", steps=3)
    parts = list(Sampler(pair, chunk=16).stream(seeds=iter(range(40)), strategy="ifgsm", steps=3))
    assert [len(z) for z, _ in parts] == [16, 16, 8]
    assert torch.equal(torch.cat([z for z, _ in parts]), whole.z)
    assert torch.equal(torch.cat([x for _, x in parts]), whole.images)


def test_zero_steps_are_the_start_to_the_bit():
    z = torch.randn(9, 6)
    result = Sampler(*nets()).refine(z, strategy="ifgsm", steps=0)
    assert torch.equal(result.z, z)
    assert torch.equal(result.score, result.score0)
    assert result.ledger.as_tuple() == (9, 9, 0, 0)


def test_score_and_objective():
    G, D = nets()
    z = torch.randn(9, 6)
    sampler = Sampler(G, D)
    assert torch.allclose(sampler.score(z), D(G(z))[:, 0].detach(), atol=1e-5)
    free = Sampler(G, D).refine(z, strategy=IFGSM(steps=10, step_size=0.05, eps=None))
    held = Sampler(G, D, objective=Realness() - 30.0 * Displacement()).refine(
        z, strategy=IFGSM(steps=10, step_size=0.05, eps=None)
    )
    assert float((held.z - z).abs().mean()) < 0.7 * float((free.z - z).abs().mean())


def test_the_record_of_a_result(tmp_path):
    result = Sampler(load("fashion32")).refine(seeds=range(5), before=True, trace=True)
    out = result.save(tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["grid.png", "latents.npz", "run.json", "samples.jsonl", "thumbs.npz", *(f"seed000{i}.png" for i in range(5))]
    )
    assert result.trace.shape == (3, 5)
    assert result.grid(columns=5).width > 300
    with pytest.raises(latentshift.LatentshiftError, match="holds another run"):
        result.save(out)


def test_what_is_refused():
    G, D = nets()
    sampler = Sampler(G, D)
    with pytest.raises(ShapeError, match="G does not take latents"):
        sampler.refine(torch.randn(3, 5))
    with pytest.raises(ShapeError, match="D does not take G's images"):
        Sampler(G, torch.nn.Linear(5, 1).eval()).refine(torch.randn(3, 6))
    with pytest.raises(ShapeError, match="one number for the whole batch"):
        Sampler(G, lambda x: D(x).mean()).refine(torch.randn(3, 6))
    with pytest.raises(ShapeError, match="not one number per image"):
        Sampler(G, lambda x: x[:, :1]).refine(torch.randn(3, 6))
    with pytest.raises(NumericError, match="first in row 1"):
        sampler.refine(torch.tensor([[0.0] * 6, [float("nan")] * 6]))
    with pytest.raises(UsageError, match="nothing to refine"):
        sampler.refine()
    with pytest.raises(UsageError, match="z_size"):
        Sampler(G, D).refine(seeds=range(3))
    with pytest.raises(ShapeError, match="there is no row"):
        sampler.refine(torch.zeros(0, 6))
    with pytest.raises(ShapeError, match="2 seeds for 3 latents"):
        sampler.refine(torch.randn(3, 6), seeds=[1, 2])
    with pytest.raises(UnknownNameError, match="Did you mean 'ifgsm'"):
        sampler.refine(torch.randn(3, 6), strategy="ifgms")
    with pytest.raises(UnknownNameError, match="unknown option 'stepz'"):
        sampler.refine(torch.randn(3, 6), strategy="ifgsm", stepz=3)
    with pytest.raises(UnknownNameError, match="unknown option 'stepz'"):
        sampler.refine(torch.randn(3, 6), strategy=IFGSM(), stepz=3)
    with pytest.raises(MissingCapabilityError, match="no critic in this model"):
        Sampler(G).refine(torch.randn(3, 6))
    with pytest.raises(RequestError, match="no classes"):
        sampler.refine(torch.randn(3, 6), labels=[1, 2, 3])
    with pytest.raises(UsageError, match="not a callable"):
        Sampler(3, D)


def test_a_model_in_training_mode_is_used_through_an_evaluation_copy():
    torch.manual_seed(0)
    G = torch.nn.Sequential(torch.nn.Linear(6, 48), torch.nn.BatchNorm1d(48), torch.nn.Unflatten(1, (3, 4, 4)))
    D = nets()[1]
    with pytest.warns(LatentshiftWarning, match="G is in training mode.*scores may differ"):
        sampler = Sampler(G, D)
    z = torch.randn(16, 6)
    mean = G[1].running_mean.clone()
    score = sampler.score(z)
    assert torch.equal(mean, G[1].running_mean)
    assert G.training
    assert torch.allclose(score, D(G.eval()(z))[:, 0].detach(), atol=1e-5)
    with torch.no_grad():
        G[0].weight.mul_(0.5)  # the copy shares its tensors
    assert not torch.allclose(sampler.score(z), score)


def test_a_critic_that_looks_at_the_batch_is_named():
    G, D = nets()
    with pytest.warns(LatentshiftWarning, match="looks at the whole batch"):
        Pair.wrap(G, lambda x: D(x)[:, 0] - 3 * D(x).mean(), z_size=6)


def test_labels():
    torch.manual_seed(0)
    table = torch.randn(4, 6)
    G, D = nets()
    sampler = Sampler(lambda z, y: G(z + table[y]), lambda x, y: D(x)[:, 0] + y, classes=4, z_size=6)
    result = sampler.refine(seeds=range(30), strategy="ifgsm", steps=2)
    assert set(result.labels.tolist()) == {0, 1, 2, 3}
    few = sampler.refine(seeds=range(10, 14), strategy="ifgsm", steps=2)
    assert torch.equal(few.labels, result.labels[10:14])
    fixed = sampler.refine(seeds=range(6), labels=2, strategy="ifgsm", steps=2)
    assert fixed.labels.tolist() == [2] * 6
    for bad in ([4] * 6, [-1] * 6):
        with pytest.raises(RequestError, match="classes 0 to 3"):
            sampler.refine(seeds=range(6), labels=bad)


@pytest.mark.parametrize("name", ["fashion32", "fashion32-sn", "ring", "grid"])
def test_bundled_pairs_keep_the_contract(name):
    pair = load(name)
    check_pair(pair)
    if pair.image_shape is not None and len(pair.image_shape) == 3:
        check_critic(pair.critic, pair.image_shape)


def test_the_default_recipe_helps_on_the_bundled_pair():
    """The score rises on at least 95 % of the rows that move, at the last iterate, and the judge's distance does not rise."""
    from latentshift.files.pictures import to_bytes
    from latentshift.metrics.judge import load_judge

    pair = load("fashion32")
    last = Sampler(pair).refine(seeds=range(400), keep_best=False, lower_share=1.0)
    assert float((last.gain > 0).float().mean()) >= 0.95
    default = Sampler(pair).refine(seeds=range(400), before=True)
    moved = torch.tensor([s != "good_already" for s in default.stopped])
    assert 0.3 < float(moved.float().mean()) < 0.7
    assert float((default.gain[moved] > 0).float().mean()) >= 0.95
    judge = load_judge("fashion32-judge")
    before, after = (
        torch.from_numpy(to_bytes(x, pair.image_range).transpose(0, 3, 1, 2).copy()) for x in (default.images0, default.images)
    )
    assert judge.distance(after).value <= judge.distance(before).value
