"""bfloat16 keeps the gradient's signs: looked at on a few rows, layers raised to float32 where it does not."""

import pytest
import torch

from latentshift.bench import pairs
from latentshift.engine import matrix, packed, signs
from latentshift.engine.precision import networks
from latentshift.engine.run import Engine, Settings
from latentshift.files.folder import read_pair
from latentshift.model import Pair
from latentshift.noise import latents
from latentshift.strategies.gradient import IFGSM

needs_packing = pytest.mark.skipif(bool(packed.can_pack()), reason="this torch has no packed convolutions")


def small(name="A"):
    nets = pairs.networks(name, shrink=8)
    return Pair.wrap(nets.G, nets.D, z_size=pairs.Z, name=name)


def test_a_share_of_signs_counts_what_is_not_zero():
    theirs = torch.tensor([[1.0, -1.0, 2.0, 0.0], [1.0, 1.0, -3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    mine = torch.tensor([[5.0, 1.0, 0.0, 1.0], [1.0, 2.0, -3.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    found = signs.share(theirs, mine)
    assert found.mean == pytest.approx(0.75)
    assert found.error == pytest.approx(0.25)
    assert not found.surely(1)
    assert signs.Share(0.95, 0.01).surely(3)


@needs_packing
def test_a_trained_pair_that_falls_short_keeps_its_first_layer_in_float32(reference):
    pair = read_pair(reference("reference", "pairs", "mnist28-dcgan-bce"))
    exact = networks(pair, Settings())
    made = networks(pair, Settings(precision="bf16"))
    assert "G's first layer in fp32" in made.note
    assert made.precision == "bf16"
    assert not made.lost
    z = torch.from_numpy(latents(range(512), pair.space.shape, pair.space.prior))
    theirs = signs.gradient(exact.moving, z, None)
    mine = signs.share(theirs, signs.gradient(made.moving, z, None))
    assert mine.mean >= signs.SIGNS, mine
    assert made.moving.G.ops[1].wanted == torch.bfloat16
    z = z[:16]
    run = Engine(IFGSM(steps=5, step_size=0.05, eps=None), pair, settings=Settings(precision="bf16")).run(z, list(range(16)))
    assert "in fp32" in run.plan
    assert float((run.chunks[0].score - run.chunks[0].score0).mean()) > 0
    alone = signs.gradient(made.moving, z[5:6], None)
    assert torch.equal(alone, signs.gradient(made.moving, z, None)[5:6]), "a row's bits stay its own"


@needs_packing
def test_more_layers_in_float32_keep_more_signs():
    pair = small()
    exact, low = networks(pair, Settings()).moving, networks(pair, Settings(precision="bf16")).moving
    z = torch.randn(64, 100, generator=torch.Generator().manual_seed(2))
    theirs = signs.gradient(exact, z, None)
    kept = [signs.share(theirs, signs.gradient(p, z, None)).mean for _, p in signs.raised(exact, low)]
    assert len(kept) == len([op for op in low.G.ops if not op.rowwise])
    assert kept[-1] > signs.share(theirs, signs.gradient(low, z, None)).mean
    assert list(signs.raised(low, pair)) == []


@needs_packing
def test_what_nothing_mends_is_said_and_auto_takes_float32(monkeypatch):
    monkeypatch.setattr(signs, "SIGNS", 0.999)
    monkeypatch.setattr("latentshift.engine.precision.bf16_gain", lambda device: 2.0)
    pair = small()
    auto = networks(pair, Settings(precision="auto"))
    assert auto.precision == "fp32"
    assert auto.moving is auto.pair
    assert "fp32" in auto.note
    assert any("auto: bf16 keeps only" in line and "fp32 instead" in line for line in auto.lost)
    asked = networks(pair, Settings(precision="bf16"))
    assert asked.precision == "bf16"
    assert any("keeps only" in line and "--precision fp32" in line for line in asked.lost)


@needs_packing
def test_a_layer_that_is_a_product_in_one_precision_only_can_be_raised(monkeypatch):
    monkeypatch.setattr(matrix, "BYTES", 300 << 10)  # of A's widest layer, an eighth as wide: 512 KiB in float32
    pair = small()
    exact, low = networks(pair, Settings()).moving, networks(pair, Settings(precision="bf16")).moving
    assert [type(p.G.ops[1]).__name__ for p in (exact, low)] == ["MatrixConv", "Conv"]
    assert len(list(signs.raised(exact, low))) == len(exact.G.ops)
