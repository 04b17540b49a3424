"""Losses and penalties against their closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from latentshift.layers import LayerNet
from latentshift.train.pieces import LOSSES, R1, GradientPenalty


def linear(weight: list[float], bias: float = 0.0) -> LayerNet:
    net = LayerNet([{"op": "Linear", "key": "", "kw": {"in_features": len(weight), "out_features": 1}}]).double()
    with torch.no_grad():
        net.stack[0].weight.copy_(torch.tensor([weight], dtype=torch.float64))
        net.stack[0].bias.fill_(bias)
    return net


@pytest.mark.parametrize(
    ("name", "real", "fake", "d", "g"),
    [
        ("bce", 0.0, 0.0, 2 * math.log(2), math.log(2)),
        ("bce", 3.0, -3.0, 2 * math.log1p(math.exp(-3)), 3 + math.log1p(math.exp(-3))),
        ("hinge", 2.0, -2.0, 0.0, 2.0),
        ("hinge", 0.5, 0.25, 0.5 + 1.25, -0.25),
        ("wasserstein", 3.0, -1.0, -4.0, 1.0),
        ("least-squares", 1.0, 0.0, 0.0, 0.5),
        ("least-squares", 0.0, 3.0, 0.5 + 4.5, 2.0),
    ],
)
def test_values(name: str, real: float, fake: float, d: float, g: float) -> None:
    r, f = torch.full((5,), real, dtype=torch.float64), torch.full((5,), fake, dtype=torch.float64)
    assert LOSSES[name].d(r, f).item() == pytest.approx(d, abs=1e-14)
    assert LOSSES[name].g(f).item() == pytest.approx(g, abs=1e-14)


def test_losses_are_means_over_rows() -> None:
    torch.manual_seed(0)
    r, f = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    for loss in LOSSES.values():
        if loss.g is None or loss.relative:  # "none" has none; the relativistic pair has a test of its own
            continue
        assert loss.d(r, f) == pytest.approx(sum(loss.d(r[i : i + 1], f[i : i + 1]).item() for i in range(6)) / 6)
        assert loss.g(f) == pytest.approx(sum(loss.g(f[i : i + 1]).item() for i in range(6)) / 6)


def test_bce_is_the_binary_cross_entropy_of_torch() -> None:
    torch.manual_seed(0)
    r, f = torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    theirs = binary_cross_entropy_with_logits(r, torch.ones_like(r)) + binary_cross_entropy_with_logits(f, torch.zeros_like(f))
    assert LOSSES["bce"].d(r, f).item() == pytest.approx(theirs.item(), abs=1e-14)


@pytest.mark.parametrize(("logit", "slope"), [(-120.0, -1.0), (0.0, -0.5), (60.0, -8.7565e-27), (120.0, 0.0)])
def test_bce_gradient_is_stable_in_float32(logit: float, slope: float) -> None:
    d = torch.tensor([logit], requires_grad=True)
    (of_g,) = torch.autograd.grad(LOSSES["bce"].g(d), d)
    assert of_g.item() == pytest.approx(slope, rel=1e-4, abs=1e-37)
    far = torch.tensor([1.0])
    (of_real,) = torch.autograd.grad(LOSSES["bce"].d(d, far), d)
    (of_fake,) = torch.autograd.grad(LOSSES["bce"].d(far, -d), d)  # D's slope at a fake of the mirrored logit
    assert of_real.item() == of_fake.item() == of_g.item()


def test_link_independence_of_the_generator_losses() -> None:
    d = torch.linspace(-8, 8, 33, dtype=torch.float64).requires_grad_(True)

    def sign(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, d)[0].sign()

    down = -torch.ones_like(d)
    for name in ("bce", "hinge", "wasserstein"):
        assert torch.equal(sign(LOSSES[name].g(d)), down)
    assert torch.equal(sign(logsigmoid(-d).sum()), down)  # log(1 - D), the saturating form of the papers
    least = sign(LOSSES["least-squares"].g(d))
    assert torch.equal(least == down, d < 1)


@pytest.mark.parametrize("weight", [[3.0, 4.0], [0.3, 0.4]])
def test_penalties_on_a_linear_critic(weight: list[float]) -> None:
    norm = math.hypot(*weight)
    D = linear(weight, 0.7)
    torch.manual_seed(0)
    x, f = torch.randn(7, 2, dtype=torch.float64), 3 + torch.randn(7, 2, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)

    def of(piece: Any) -> float:
        return piece(D, x, f, None, g).item()

    assert of(GradientPenalty(10.0)) == pytest.approx(10 * (norm - 1) ** 2, rel=1e-9)
    assert of(GradientPenalty(2.0, one_sided=True)) == pytest.approx(2 * max(0.0, norm - 1) ** 2, rel=1e-9)
    assert of(GradientPenalty(1.0, target=0.0)) == pytest.approx(norm**2, rel=1e-9)
    assert of(R1(3.0)) == pytest.approx(1.5 * norm**2, rel=1e-12)


def test_the_penalty_reaches_the_weights() -> None:
    D = linear([3.0, 4.0])
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g = torch.Generator()
    w = D.stack[0].weight
    (slope,) = torch.autograd.grad(R1(2.0)(D, x, x, None, g), w)
    assert torch.allclose(slope, 2 * w, rtol=1e-12)
    (slope,) = torch.autograd.grad(GradientPenalty(1.0)(D, x, x, None, g), w)  # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    assert torch.allclose(slope, 2 * 4 * w / 5, rtol=1e-9)


def test_penalty_points_lie_between_real_and_fake_with_one_number_per_row() -> None:
    seen: list[torch.Tensor] = []

    def D(x: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        seen.append(x.detach())
        return x.square().sum(1)

    x, f = torch.zeros(64, 3), torch.tensor([1.0, 2.0, 4.0]).expand(64, 3)
    value = GradientPenalty()(D, x, f, None, torch.Generator().manual_seed(0))
    t = seen[0] / f
    assert torch.allclose(t, t[:, :1].expand_as(t)), "one coefficient per row, the same for every coordinate"
    assert t[:, 0].min() > 0
    assert t[:, 0].max() < 1
    assert t[:, 0].std() > 0.2, "rows have coefficients of their own"
    norm = 2 * seen[0].norm(dim=1)
    assert value.item() == pytest.approx(10 * (norm - 1).square().mean().item(), rel=1e-5)


def test_a_zero_gradient_gives_a_finite_penalty() -> None:
    D = linear([0.0, 0.0])
    x = torch.ones(3, 2, dtype=torch.float64)
    (slope,) = torch.autograd.grad(GradientPenalty()(D, x, x, None, torch.Generator()), D.stack[0].weight)
    assert torch.isfinite(slope).all()
