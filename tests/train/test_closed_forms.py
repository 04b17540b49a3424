"""Closed forms of the pieces on the linear oracle G(z) = A z + c, D(x) = w.x + b, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from latentshift.errors import UsageError
from latentshift.files.folder import read_pair
from latentshift.files.names import FASHION32
from latentshift.layers import LayerNet
from latentshift.strategies.mining import PairMining
from latentshift.train.assistant import AdvAs
from latentshift.train.penalties import ClassLoss, RobDis, WeightClip, WGANDiv
from latentshift.train.pieces import LOSSES, GradientPenalty
from latentshift.train.scores import Scores, one_head
from latentshift.train.shifts import AgainstLoss, Both, TowardsOther
from latentshift.train.terms import ClassTerm, Fool, Mine, ModeSeeking, Paired, RandomPartner, StayNear, Step, sparse_noise

DRAW = torch.Generator()


def linear(weight: Any, bias: Any) -> LayerNet:
    w, b = torch.as_tensor(weight, dtype=torch.float64), torch.as_tensor(bias, dtype=torch.float64)
    net = LayerNet([{"op": "Linear", "key": "a", "kw": {"in_features": w.shape[1], "out_features": w.shape[0]}}]).double()
    with torch.no_grad():
        net.stack[0].weight.copy_(w)
        net.stack[0].bias.copy_(b)
    return net


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


W = [[0.6, -1.1, 0.3]]


def test_relativistic_pair() -> None:
    pair = LOSSES["relativistic"]
    r, f = torch.tensor([2.0]), torch.tensor([0.5])
    assert pair.d(r, f).item() == pytest.approx(math.log1p(math.exp(-1.5)))
    assert pair.g(f, r).item() == pytest.approx(math.log1p(math.exp(1.5)))
    assert pair.d(r + 7, f + 7).item() == pytest.approx(pair.d(r, f).item(), rel=1e-5), "only differences count"


@pytest.mark.parametrize(("k", "p"), [(2.0, 6.0), (1.0, 2.0), (3.0, 3.0)])
def test_wgan_div_on_a_linear_critic(k: float, p: float) -> None:
    D = Scores(linear(W, [0.2]))
    size = math.sqrt(sum(v * v for v in W[0]))
    x, f = normal(5, 3), normal(5, 3, seed=1)
    assert WGANDiv(k, p)(D, x, f, None, DRAW).item() == pytest.approx(k * size**p)
    flat = Scores(linear([[0.0, 0.0, 0.0]], [0.2]))
    value = WGANDiv()(flat, x, f, None, DRAW)
    (g,) = torch.autograd.grad(value, flat.D.stack[0].weight)
    assert bool(torch.isfinite(g).all()), "no root, no NaN at 0"


def test_robdis_on_two_linear_layers() -> None:
    """phi = V x, D = u.phi, so D's gradient is w = V^T u: |phi' - phi|_F = e sqrt(m) |V w| / |w|, for real and fake."""
    V, u, e, m = normal(4, 3), normal(1, 4, seed=1), 1e-2, 6
    two = [{"op": "Linear", "key": k, "kw": {"in_features": a, "out_features": b}} for k, a, b in (("a", 3, 4), ("b", 4, 1))]
    net = LayerNet(two).double()
    with torch.no_grad():
        net.stack[0].weight.copy_(V)
        net.stack[1].weight.copy_(u)
    w = (u @ V)[0]
    want = e * math.sqrt(m) * ((V @ w).norm() / w.norm()).item()
    value = RobDis(weight=10.0, eps=e)(Scores(net), normal(m, 3), normal(m, 3, seed=2), None, DRAW)
    assert value.item() == pytest.approx(10 * 2 * want, rel=1e-6)
    rows = RobDis(weight=10.0, eps=e, reduce="row")(Scores(net), normal(m, 3), normal(m, 3, seed=2), None, DRAW)
    assert rows.item() == pytest.approx(10 * 2 * want / math.sqrt(m), rel=1e-6)
    assert torch.autograd.grad(value, net.stack[0].weight)[0].abs().max() > 0


def test_clip_holds_weights_and_biases() -> None:
    D = linear(W, [0.2])
    WeightClip(0.1)(D)
    assert D.stack[0].weight.tolist() == [[0.1, -0.1, 0.1]]
    assert D.stack[0].bias.item() == pytest.approx(0.1)


def test_class_terms_of_uniform_logits_are_log_c() -> None:
    D = Scores(linear([[0.0, 0.0, 0.0]] * 6, [0.3, 1.0, 1.0, 1.0, 1.0, 1.0]), heads=6)
    x, y = normal(4, 3), torch.tensor([0, 3, 1, 4])
    assert torch.equal(D(x, y), torch.full((4,), 0.3, dtype=torch.float64))
    assert ClassLoss(weight=2.0)(D, x, normal(4, 3, seed=1), y, DRAW).item() == pytest.approx(4 * math.log(5))
    assert ClassLoss(fake=False)(D, x, x, y, DRAW).item() == pytest.approx(math.log(5))
    step = Step(x, None, x, None, y, D, DRAW)
    assert ClassTerm(0.5)(step).item() == pytest.approx(0.5 * math.log(5))
    with pytest.raises(UsageError, match="labels"):
        ClassTerm()(Step(x, None, x, None, None, D, DRAW))


def test_one_head_is_the_logit_alone() -> None:
    D = linear(normal(6, 3), normal(6, seed=1))
    x = normal(4, 3, seed=2)
    assert torch.allclose(one_head(D)(x.float()), D(x)[:, :1].float(), atol=1e-6)


def test_dat_row_form_and_its_batch_form() -> None:
    """delta_i = -eps sign(D(x_i) - mean other) w; in batch form that over m, with one sign for all rows."""
    D, eps, m = Scores(linear(W, [0.2])), 0.1, 8
    w = torch.tensor(W[0], dtype=torch.float64)
    x, f = normal(m, 3) + 0.3, normal(m, 3, seed=1)
    moved, fakes = TowardsOther(eps, clamp=None, reduce="row")(D, x, f, None)
    dx, df = D(x), D(f)
    assert torch.allclose(moved - x, -eps * (dx - df.mean()).sign()[:, None] * w)
    assert torch.allclose(fakes - f, -eps * (df - dx.mean()).sign()[:, None] * w)
    assert torch.allclose((D(moved) - dx).abs(), (eps * w.square().sum()).expand(m)), "D moves by eps |w|^2"
    batch, _ = TowardsOther(eps, clamp=None)(D, x, f, None)
    assert torch.allclose(batch - x, (-eps / m * (dx.mean() - df.mean()).sign() * w).expand(m, 3))


def test_dat_moves_no_component_farther_than_its_limit() -> None:
    D = Scores(linear([[30.0, -0.5]], [0.0]))
    x, f = normal(4, 2), normal(4, 2, seed=1)
    for limit, most in ((1.0, 1.0), (None, 30.0)):
        moved, _ = TowardsOther(1.0, clamp=None, reduce="row", limit=limit)(D, x, f, None)
        assert torch.allclose((moved - x).abs(), torch.tensor([most, 0.5], dtype=torch.float64).expand(4, 2))


def test_dat_with_the_scores_of_eq_10() -> None:
    D, eps = Scores(linear(W, [0.2])), 0.1
    w = torch.tensor(W[0], dtype=torch.float64)
    x, f = normal(5, 3), normal(5, 3, seed=1)
    sp = torch.nn.functional.softplus
    moved, fakes = TowardsOther(eps, clamp=None, reduce="row", link="bce")(D, x, f, None)
    dx, df = D(x), D(f)
    gx = (-sp(-dx) + sp(-df).mean()).sign() * torch.sigmoid(-dx)
    gf = (-sp(df) + sp(dx).mean()).sign() * -torch.sigmoid(df)
    assert torch.allclose(moved - x, -eps * gx[:, None] * w)
    assert torch.allclose(fakes - f, -eps * gf[:, None] * w)


@pytest.mark.parametrize(("reduce", "factor"), [("row", 1), ("batch", 4)])
def test_dat_has_its_fixed_point(reduce: Any, factor: int) -> None:
    """Wasserstein loss, constant clouds a, b of four rows: D's weight settles at (a - b) / (2 eps), in batch form times m."""
    a, b, eps = torch.tensor([0.5, -0.2], dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.25
    D = Scores(linear([[0.1, 0.1]], [0.0]))
    x, f = a.expand(4, 2), b.expand(4, 2)
    for _ in range(300):
        moved, fakes = TowardsOther(eps, clamp=None, reduce=reduce)(D, x, f, None)
        (g,) = torch.autograd.grad(LOSSES["wasserstein"].d(D(moved), D(fakes)), D.D.stack[0].weight)
        with torch.no_grad():
            D.D.stack[0].weight -= 1.0 * g
    assert torch.allclose(D.D.stack[0].weight[0], factor * (a - b) / (2 * eps), atol=1e-6)


def test_asgan_on_a_linear_critic() -> None:
    D, eps = Scores(linear(W, [0.2])), 0.01
    x, f = normal(5, 3), normal(5, 3, seed=1)
    size = sum(abs(v) for v in W[0])
    for loss in ("bce", "wasserstein"):
        moved, fakes = AgainstLoss(loss, eps, clamp=None)(D, x, f, None)
        assert (D(moved).mean() - D(x).mean()).item() == pytest.approx(-eps * size)
        assert (D(fakes).mean() - D(f).mean()).item() == pytest.approx(eps * size)
    assert torch.equal(AgainstLoss("bce", eps, clamp=None, fake=False)(D, x, f, None)[1], f)


def test_both_keeps_the_clean_rows() -> None:
    D, x, f = Scores(linear(W, [0.2])), normal(5, 3), normal(5, 3, seed=1)
    shift = TowardsOther(1.0, clamp=None)
    moved, fakes = shift(D, x, f, None)
    both = Both(shift)(D, x, f, None)
    assert torch.equal(both[0], torch.cat([x, moved]))
    assert torch.equal(both[1], torch.cat([f, fakes]))


def test_advas_on_the_linear_oracle() -> None:
    """Wasserstein: grad_w L_adv = mean f - mean x = Delta; r = |Delta|^2; dr/dc = 2 Delta, dr/dA = 2 Delta mean(z)^T."""
    G, D = linear(normal(3, 2), normal(3, seed=1)), linear(W, [0.2])
    z, x = normal(7, 2, seed=2), normal(7, 3, seed=3)
    theta, phi = list(G.parameters()), list(D.parameters())
    scores = Scores(D)

    def step(piece: AdvAs) -> tuple[list[Tensor], list[Tensor]]:
        f = G(z)
        g0 = torch.autograd.grad(LOSSES["wasserstein"].g(scores(f)), theta, retain_graph=True)

        def adversary(rows: slice, penalties: bool) -> Tensor:
            return LOSSES["wasserstein"].d(scores(x[rows]), scores(f[rows]))

        return list(g0), piece(g0, adversary, theta, phi, 7)

    delta = (G(z).mean(0) - x.mean(0)).detach()
    w = torch.tensor(W[0], dtype=torch.float64)
    g0, both = step(AdvAs(scale=1.0))
    g1 = [b - a for a, b in zip(g0, both, strict=True)]
    assert torch.allclose(g1[1], 2 * delta)
    assert torch.allclose(g1[0], 2 * delta[:, None] * z.mean(0)[None])
    assert torch.allclose(g0[1], -w)
    size = [math.sqrt(sum(g.square().sum().item() for g in part)) for part in (g0, g1)]
    ratio = w.norm().item() / (2 * delta.norm().item())
    assert size[0] / size[1] == pytest.approx(ratio), "|g0| / |g1| = |w| / (2 |Delta|)"
    assert torch.allclose(step(AdvAs(scale="cap"))[1][1], g0[1] + min(1.0, ratio) * g1[1])
    assert torch.allclose(step(AdvAs(scale="match"))[1][1], g0[1] + ratio * g1[1])
    assert torch.allclose(step(AdvAs(scale="alone"))[1][1], 2 * delta), "G's own gradient is left out"
    halves = [(G(z[s]).mean(0) - x[s].mean(0)).detach() for s in (slice(0, 3), slice(3, 7))]
    _, split = step(AdvAs(scale=1.0, estimator="split"))
    assert torch.allclose(split[1] - g0[1], halves[0] + halves[1]), "grad_c of Delta1 . Delta2"


def test_advas_is_the_plain_step_at_the_optimum() -> None:
    """Delta = 0: r = 0, its gradient 0, no 0/0, the step equal to the bit."""
    G, D = linear(torch.eye(3).tolist(), [0.0] * 3), Scores(linear(W, [0.2]))
    x = normal(4, 3)
    theta = list(G.parameters())
    for scale in ("cap", "match", 3.0):
        f = G(x)
        g0 = torch.autograd.grad(LOSSES["wasserstein"].g(D(f)), theta, retain_graph=True)
        out = AdvAs(scale=scale)(g0, lambda s, p, f=f: D(f[s]).mean() - D(x[s]).mean(), theta, list(D.parameters()), 4)
        assert all(torch.equal(a, b) for a, b in zip(g0, out, strict=True))


def test_the_split_estimate_is_unbiased_and_the_plain_one_is_not() -> None:
    """|E g|^2 of 20,000 batches of 8: the product of half batches hits the truth, the square adds the variance over N."""
    truth, n = torch.tensor([0.3, -0.2], dtype=torch.float64), 8
    g = truth + normal(20_000, n, 2)
    halves = g[:, :4].mean(1), g[:, 4:].mean(1)
    assert (halves[0] * halves[1]).sum(1).mean().item() == pytest.approx(0.13, abs=0.01)
    assert g.mean(1).square().sum(1).mean().item() == pytest.approx(0.13 + 2 / n, abs=0.01)


def test_mining_on_a_diagonal_generator() -> None:
    """G = diag(a, b): a sign step s lowers the ratio by exactly s (a - b) / (|p| + |q|) and keeps |p| + |q| (Eq. 8)."""
    a, b, s = 3.0, 1.0, 0.004
    G, z = linear([[a, 0.0], [0.0, b]], [0.0, 0.0]), normal(40, 2)

    def offset(size: float) -> Tensor:
        return (Mine(PairMining(steps=1, step_size=size, eps=None, support="free", jitter=0.08))(z, None, G, None) - z).abs()

    start, end = offset(1e-12), offset(s)
    far = start[:, 0] > s
    assert int(far.sum()) > 30
    ratio = [(a * d[:, 0] + b * d[:, 1]) / d.sum(1) for d in (start, end)]
    assert torch.allclose((ratio[0] - ratio[1])[far], (s * (a - b) / start.sum(1))[far], atol=1e-7)
    assert torch.allclose(start.sum(1)[far], end.sum(1)[far], atol=1e-7)


def test_the_default_mining_falls_and_the_printed_one_rises() -> None:
    """On the bundled G: jitter 0.08 and 3 steps of 0.004 lower the ratio, the printed 0.01 and 0.01 overshoot."""
    G = read_pair(FASHION32.folder).G
    z = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))

    def ratio(jitter: float, size: float) -> float:
        other = Mine(PairMining(steps=3, step_size=size, eps=None, support="free", jitter=jitter))(z, None, G, None)  # type: ignore[arg-type]
        with torch.no_grad():
            return ((G(z) - G(other)).abs().flatten(1).mean(1) / (z - other).abs().mean(1)).mean().item()

    assert Mine().strategy == PairMining(steps=3, step_size=0.004, eps=None, support="free", jitter=0.08)
    assert ratio(0.08, 0.004) < 0.9 * ratio(0.08, 1e-9)
    assert ratio(0.01, 0.01) > 1.1 * ratio(0.01, 1e-9)


def test_the_content_term_on_a_linear_generator() -> None:
    """Images a constant e off G(code): the term is weight |e|^2 / n for any draw, its gradient to c -2 weight e / n."""
    G = linear(normal(3, 2), normal(3, seed=1))
    codes, e = normal(6, 2, seed=2), torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    images = (G(codes) + e).detach()
    step = Step(codes, None, images, None, None, None, torch.Generator().manual_seed(0))
    loss = Paired(G, codes, images, weight=2.0, rows=4)(step)
    assert loss.item() == pytest.approx(2.0 * e.square().mean().item())
    (g,) = torch.autograd.grad(loss, G.stack[0].bias)
    assert torch.allclose(g, -4.0 * e / 3)
    with pytest.raises(UsageError, match="no pairs"):
        Paired(G, codes, images[:5])


@pytest.mark.parametrize("reduce", ["batch", "row"])
def test_mode_seeking_on_a_scaled_identity(reduce: Any) -> None:
    s = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    z, z2 = normal(6, 4), normal(6, 4, seed=1)
    step = Step(z, z2, s * z, s * z2, None, None, DRAW)
    loss = ModeSeeking(reduce=reduce)(step)
    assert loss.item() == pytest.approx(1 / (0.7 + 1e-5))
    assert torch.autograd.grad(loss, s)[0].item() == pytest.approx(-1 / (0.7 + 1e-5) ** 2)
    assert ModeSeeking(weight=2.0, form="linear", reduce=reduce)(step).item() == pytest.approx(-1.4)
    with pytest.raises(UsageError, match="equal latents"):
        ModeSeeking()(Step(z, z.clone(), z, z, None, None, DRAW))


def test_random_partner_is_another_draw() -> None:
    z = normal(5, 2)
    assert torch.equal(RandomPartner()(z, None, None, lambda n: normal(n, 2, seed=4)), normal(5, 2, seed=4))  # type: ignore[arg-type]


def test_at_gan_at_its_start() -> None:
    """G_a = G: the second term is |rho| exactly; with rho = 0 it is 0, and its gradient is no NaN."""
    G = linear(normal(4, 2), normal(4, seed=1))
    z = normal(5, 2, seed=2)
    f = G(z)

    def step() -> Step:
        return Step(z, None, f, None, torch.zeros(5, dtype=torch.long), None, torch.Generator().manual_seed(3))

    still = StayNear(lambda z, y: G(z), pixels=0)(step())
    assert still.item() == 0.0
    assert bool(torch.isfinite(torch.autograd.grad(still, f, retain_graph=True)[0]).all())
    rho = sparse_noise(f.shape, 3, 0.5, torch.Generator().manual_seed(3))
    assert ((rho != 0).sum(1) == 3).all()
    assert rho.abs().max() <= 0.5
    value = StayNear(lambda z, y: G(z), beta=2.0, pixels=3, size=0.5)(step())
    assert value.item() == pytest.approx(2 * rho.norm(dim=1).mean().item(), rel=1e-6)


def test_fool_aims_at_the_likeliest_wrong_label_or_at_the_given_one() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    step = Step(logits, None, logits, None, torch.tensor([0, 1]), None, DRAW)
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 2]))
    assert Fool(lambda x: x, alpha=2.0)(step).item() == pytest.approx(2 * wanted.item())
    given = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 1]))
    assert Fool(lambda x: x, alpha=1.0, target=1)(step).item() == pytest.approx(given.item())


def test_the_penalty_reaches_g_where_g_is_to_feel_it() -> None:
    """With AdvAs the interpolations hold G's graph; in D's own step they do not."""
    c = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    deep = LayerNet(
        [
            {"op": "Linear", "key": "a", "kw": {"in_features": 3, "out_features": 5}},
            {"op": "Softplus"},
            {"op": "Linear", "key": "b", "kw": {"in_features": 5, "out_features": 1}},
        ]
    ).double()
    value = GradientPenalty()(Scores(deep), normal(4, 3), normal(4, 3, seed=1) + c, None, DRAW)
    assert torch.autograd.grad(value, c)[0].abs().sum() > 0
