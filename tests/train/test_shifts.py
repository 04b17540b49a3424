"""AdvLatGAN-qua and direct adversarial training: closed forms on linear networks, equal to the library's own step, pure."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from latentshift.landscape import landscape_of
from latentshift.layers import LayerNet
from latentshift.model import Pair
from latentshift.strategies.gradient import IFGSM, MIFGSM, PGD, ifgsm_step
from latentshift.train.pieces import add_spectral_norm
from latentshift.train.shifts import Climb, TowardsOther, has_dropout, still


def linear(a: int, b: int, seed: int) -> LayerNet:
    net = LayerNet([{"op": "Linear", "key": "a", "kw": {"in_features": a, "out_features": b}}])
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        net.stack[0].weight.copy_(torch.randn(b, a, generator=g))
        net.stack[0].bias.copy_(torch.randn(b, generator=g))
    return net


def mlp(a: int, b: int, *, norm: bool = False, dropout: bool = False) -> LayerNet:
    layers: list[dict[str, Any]] = [{"op": "Linear", "key": "a", "kw": {"in_features": a, "out_features": 16}}]
    layers += [{"op": "BatchNorm1d", "key": "n", "kw": {"num_features": 16}}] if norm else []
    layers += [{"op": "Dropout", "kw": {"p": 0.5}}] if dropout else []
    layers += [{"op": "ReLU"}, {"op": "Linear", "key": "b", "kw": {"in_features": 16, "out_features": b}}]
    return LayerNet(layers)


def sign_steps(n: int, size: float) -> IFGSM:
    return IFGSM(steps=n, step_size=size, eps=None, support="free")


def test_qua_on_the_linear_oracle() -> None:
    G, D, eps = linear(3, 5, 0), linear(5, 1, 1), 0.03
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    w = (D.stack[0].weight @ G.stack[0].weight).detach()[0]  # A^T w
    moved = Climb(sign_steps(1, eps))(z, None, G, D)
    assert torch.equal(moved, z + eps * w.sign())
    with torch.no_grad():
        rise = (D(G(moved)) - D(G(z))).flatten()
    assert torch.allclose(rise, eps * w.abs().sum().expand(6), atol=1e-5)
    assert not moved.requires_grad


def test_more_steps_stay_in_the_ball_that_the_published_code_lacks() -> None:
    G, D = linear(3, 5, 0), linear(5, 1, 1)
    z = torch.randn(6, 3)
    sign = (D.stack[0].weight @ G.stack[0].weight).detach()[0].sign()
    free = Climb(sign_steps(4, 0.1))(z, None, G, D)
    held = Climb(IFGSM(steps=4, step_size=0.1, eps=0.15))(z, None, G, D)
    assert torch.allclose(free, z + 0.4 * sign, atol=1e-6)
    assert torch.allclose(held, z + 0.15 * sign, atol=1e-6)


def test_climb_is_the_librarys_own_step() -> None:
    torch.manual_seed(0)
    G, D = mlp(3, 4), mlp(4, 1)
    z = torch.randn(9, 3)
    land = landscape_of(Pair.wrap(G.eval(), D.eval(), z_size=3), z)
    want = ifgsm_step(ifgsm_step(z, land, 0.05), land, 0.05)
    G.train()
    D.train()
    got = Climb(sign_steps(2, 0.05))(z, None, G, D)
    assert torch.equal(got, want)
    assert not torch.equal(got, z)


@pytest.mark.parametrize("strategy", [MIFGSM(steps=3, eps=0.2), PGD(steps=3, eps=0.2), IFGSM(steps=3, eps=0.2, norm="2")])
def test_other_strategies_plug_in(strategy: IFGSM) -> None:
    torch.manual_seed(0)
    G, D = mlp(3, 4), mlp(4, 1)
    z = torch.randn(32, 3)
    moved = Climb(strategy)(z, None, G, D)
    d = moved - z
    assert (d.norm(dim=1) if strategy.norm == "2" else d.abs().amax(1)).max() <= 0.2 + 1e-6
    assert (D(G(moved)) - D(G(z))).mean() > 0
    assert torch.equal(Climb(strategy)(z, None, G, D), moved), "also a random start is a function of the rows"


def test_labels_reach_both_networks() -> None:
    label = {"op": "Embedding", "key": "e", "as": "vector", "kw": {"num_embeddings": 2, "embedding_dim": 1}}

    def conditional(n: int) -> LayerNet:
        net = LayerNet([label, {"op": "Linear", "key": "a", "kw": {"in_features": 3, "out_features": n}}])
        return net.load({k: torch.ones_like(v) for k, v in net.tensors().items()})

    seen: list[torch.Tensor] = []
    G, D = conditional(2), conditional(1)
    for net in (G, D):
        net.stack[0].register_forward_hook(lambda m, args, out: seen.append(args[1]))
    y = torch.tensor([0, 1, 0])
    Climb(sign_steps(1, 0.1))(torch.zeros(3, 2), y, G, D)
    assert len(seen) == 2
    assert all(torch.equal(s, y) for s in seen)


class Products(TorchDispatchMode):
    """Counts the matrix products that are really computed."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def test_no_gradient_of_any_weight_is_computed() -> None:
    G, D, z = mlp(8, 8), mlp(8, 1), torch.randn(10, 8)
    with Products() as forward:
        D(G(z))
    with Products() as climb:
        Climb(sign_steps(1, 0.1))(z, None, G, D)
    with Products() as everything:
        D(G(z.clone().requires_grad_(True))).sum().backward()
    # to z alone the way back takes as many products as the way there; gradients of the weights take as many again
    assert (forward.count, climb.count, everything.count) == (4, 8, 12)


def fingerprint(*nets: LayerNet) -> str:
    h = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for net in nets:
        for name, t in net.state_dict().items():
            h.update(name.encode() + t.numpy().tobytes())
        for p in net.parameters():
            h.update(b"none" if p.grad is None else p.grad.numpy().tobytes())
        h.update(bytes(m.training for m in net.modules()))
        h.update(bytes(p.requires_grad for p in net.parameters()))
    return h.hexdigest()


def loaded_pair() -> tuple[LayerNet, LayerNet]:
    """A pair with everything that leaves traces: batch norm, dropout, spectral norm, gradients of the caller, mixed modes."""
    G, D = mlp(3, 4, norm=True), add_spectral_norm(mlp(4, 1, norm=True, dropout=True))
    D(G(torch.randn(8, 3))).sum().backward()
    D.stack[-1].eval()
    return G, D


@pytest.mark.parametrize("stats", ["batch", "running"])
def test_climb_leaves_no_trace(stats: Any) -> None:
    G, D = loaded_pair()
    z, y = torch.randn(8, 3), None
    keep, before = z.clone(), fingerprint(G, D)
    moved = Climb(sign_steps(2, 0.1), stats=stats)(z, y, G, D)
    assert fingerprint(G, D) == before
    assert torch.equal(z, keep)
    assert not torch.equal(moved, z)


def test_towards_other_leaves_no_trace() -> None:
    _, D = loaded_pair()
    x, f = torch.randn(8, 4), torch.randn(8, 4)
    keep, before = (x.clone(), f.clone()), fingerprint(D)
    moved = TowardsOther(clamp=None)(D, x, f, None)
    assert fingerprint(D) == before
    assert torch.equal(x, keep[0])
    assert torch.equal(f, keep[1])
    assert not torch.equal(moved[0], x)
    assert not any(m.requires_grad for m in moved)


def test_a_failure_inside_leaves_no_trace() -> None:
    G, D = loaded_pair()
    z = torch.randn(8, 3)
    before = fingerprint(G, D)

    def fail_late() -> None:
        with still(G, D):
            G(z)
            G(z[:, :2])

    with pytest.raises(RuntimeError, match="shapes"):
        fail_late()
    assert fingerprint(G, D) == before


def test_spectral_norm_takes_no_power_step_inside() -> None:
    D, x = add_spectral_norm(mlp(4, 1)), torch.randn(8, 4)
    fixed = D.eval()(x)
    D.train()
    with still(D):
        assert torch.equal(D(x), fixed)
        assert torch.equal(D(x), fixed)
    assert not torch.equal(D(x), fixed), "outside it goes on"


def test_batch_statistics_couple_rows_and_running_ones_do_not() -> None:
    torch.manual_seed(0)
    G, D = mlp(3, 4, norm=True), mlp(4, 1)
    for _ in range(20):
        G(torch.randn(64, 3))
    z = torch.randn(16, 3)
    other = torch.cat([z[:1], 5 * torch.randn(15, 3)])

    def first_step(rows: torch.Tensor, stats: Any) -> torch.Tensor:
        return Climb(IFGSM(steps=1, step_size=0.1, eps=None, norm="2", support="free"), stats=stats)(rows, None, G, D)[0]

    assert torch.allclose(first_step(z, "running"), first_step(other, "running"), atol=1e-6)
    assert not torch.allclose(first_step(z, "batch"), first_step(other, "batch"), atol=1e-4)
    G.eval()
    assert torch.equal(Climb(sign_steps(1, 0.1))(z, None, G, D), Climb(sign_steps(1, 0.1), stats="running")(z, None, G, D))


def test_towards_other_moves_by_eps_over_rows() -> None:
    D, m, eps = linear(4, 1, 0).double(), 10, 0.7
    w = D.stack[0].weight.detach()[0]
    x, f = torch.randn(m, 4).double() + w, torch.randn(m, 4).double() - w  # D tells them apart
    sign = (D(x).mean() - D(f).mean()).sign().item()
    assert sign == 1
    moved_x, moved_f = TowardsOther(eps=eps, clamp=None)(D, x, f, None)
    assert torch.allclose(moved_x - x, -eps / m * w.expand(m, 4), atol=1e-12)
    assert torch.allclose(moved_f - f, eps / m * w.expand(m, 4), atol=1e-12)
    back = TowardsOther(eps=eps, clamp=None)(D, f, x, None)  # a critic that is wrong gets the opposite sign
    assert torch.allclose(back[0] - f, eps / m * w.expand(m, 4), atol=1e-12)


def test_towards_other_clamps_images() -> None:
    D = linear(4, 1, 0)
    x, f = 0.99 * torch.ones(2, 4), -0.99 * torch.ones(2, 4)
    for moved in TowardsOther(eps=50.0)(D, x, f, None):
        assert moved.abs().max() == 1.0


def test_nothing_to_do_is_the_identity_to_the_bit() -> None:
    G, D = mlp(3, 4), mlp(4, 1)
    z, x, f = torch.randn(8, 3), torch.randn(8, 4), torch.randn(8, 4)
    assert torch.equal(Climb(sign_steps(0, 0.1))(z, None, G, D), z)
    assert all(torch.equal(a, b) for a, b in zip(TowardsOther(eps=0.0, clamp=None)(D, x, f, None), (x, f), strict=True))


def test_dropout_is_found() -> None:
    assert has_dropout(mlp(2, 2, dropout=True))
    assert not has_dropout(mlp(2, 2, norm=True))
