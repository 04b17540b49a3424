"""The CPU plan: the numbers and gradients of torch's own form, a row's bits, what it falls back to and what it leaves alone."""

import copy

import pytest
import torch
from torch import nn

from latentshift.engine import matrix, packed
from latentshift.engine.plan import Plan
from latentshift.engine.precision import networks
from latentshift.engine.prepare import prepare
from latentshift.engine.run import Engine, Settings
from latentshift.engine.threads import dealt
from latentshift.layers import Reshape, SpatialSum
from latentshift.model import Pair
from latentshift.strategies.gradient import IFGSM

needs_packing = pytest.mark.skipif(bool(packed.can_pack()), reason="this torch packs no weights")


def lively(net):
    generator = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_(generator=generator)
            m.running_var.uniform_(0.3, 2, generator=generator)
            m.weight.data.normal_(generator=generator)
            m.bias.data.normal_(generator=generator)
    return net.eval()


def upward():
    return [
        nn.Linear(100, 64 * 9, bias=False),
        Reshape([64, 3, 3]),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 96, 4, 2, 1, bias=False),
        nn.BatchNorm2d(96),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(96, 20, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(20, 3, 3, padding=1),
        nn.Tanh(),
    ]


def downward():
    return [
        nn.Conv2d(3, 24, 5, 2, 2, bias=False),
        nn.LeakyReLU(0.2),
        nn.BatchNorm2d(24),
        nn.Conv2d(24, 40, 5, 2, 2, bias=False),
        nn.LeakyReLU(0.2),
        nn.BatchNorm2d(40),
        nn.Flatten(),
        nn.Linear(40 * 9, 1),
    ]


D_FORMS = {
    "norm after activation": downward,
    "grouped and dilated": lambda: [
        nn.Conv2d(3, 12, 3, padding=2, dilation=2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 24, 3, 2, 1, groups=3),
        nn.LeakyReLU(0.2),
        SpatialSum(),
        nn.Linear(24, 1),
    ],
    "other layers": lambda: [
        nn.Conv2d(3, 12, 3),
        nn.GELU(),
        nn.GroupNorm(3, 12),
        nn.AvgPool2d(2),
        nn.Conv2d(12, 16, 3),
        nn.BatchNorm2d(16),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(16 * 9, 33),
        nn.Sigmoid(),
        nn.Linear(33, 1),
    ],
    "a transposed one after a norm": lambda: [
        nn.Conv2d(3, 8, 4, 2, 1),
        nn.ReLU(),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 5, 3, 2, 1, output_padding=1),
        nn.Flatten(),
        nn.Linear(5 * 144, 1),
    ],
}


def make(form="norm after activation"):
    torch.manual_seed(0)
    return Pair.wrap(lively(nn.Sequential(*upward())), lively(nn.Sequential(*D_FORMS[form]())), z_size=100)


def both(pair, z):
    q = z.clone().requires_grad_(True)
    images = pair.generate(q)
    score = pair.logit(images)
    (grad,) = torch.autograd.grad(score.sum(), q)
    return images.detach(), score.detach(), grad


@needs_packing
@pytest.mark.parametrize("form", D_FORMS)
def test_a_plan_has_the_numbers_and_gradients_of_torch(form):
    pair = make(form)
    ready = networks(pair, Settings())
    assert isinstance(ready.pair.G, Plan), ready.note
    assert isinstance(ready.pair.D, Plan), ready.note
    z = torch.randn(11, 100)
    for mine, theirs, tolerance in zip(both(ready.pair, z), both(pair, z), (1e-4, 1e-4, 1e-3), strict=True):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


@needs_packing
def test_rows_have_the_same_bits_in_any_batch_and_order():
    ready = networks(make(), Settings()).pair
    z = torch.randn(48, 100)
    order = torch.randperm(48)
    with dealt(torch.device("cpu")):
        whole = both(ready, z)
        for rows in (8, 24):
            for mine, all_rows in zip(both(ready, z[order[:rows]]), whole, strict=True):
                assert torch.equal(mine, all_rows[order[:rows]])


@needs_packing
def test_a_matrix_product_stands_for_a_convolution_of_a_small_map(monkeypatch):
    for least, form in ((1 << 18, "MatrixConv"), (1 << 20, "Conv")):  # the second layer's weights have 384 KiB
        monkeypatch.setattr(matrix, "BYTES", least)
        ready = networks(make(), Settings()).pair
        assert [type(op).__name__ for op in ready.G.ops] == ["Linear", form, "Conv", "Conv"]
    for transposed in (False, True):
        conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(7, 5, 3, 2, 1, **({"output_padding": 1} if transposed else {}))
        x = torch.randn(4, 7, 4, 4)
        y = conv(x)
        op = matrix.MatrixConv(
            conv.weight.detach(), conv.bias.detach(), stride=(2, 2), padding=(1, 1), transposed=transposed, act=("relu", 0.0),
            size=(7, 4, 4), out=tuple(y.shape[2:]),
        )  # fmt: skip
        mine, kept = op.forward(x)
        q = x.clone().requires_grad_(True)
        theirs = conv(q).relu()
        g = torch.randn_like(theirs)
        assert torch.allclose(mine, theirs, atol=1e-5)
        assert torch.allclose(op.backward(g, kept), torch.autograd.grad(theirs, q, g)[0], atol=1e-5)


@needs_packing
@pytest.mark.parametrize("transposed", [False, True])
def test_forward_and_backward_of_a_convolution_are_adjoint(transposed):
    torch.manual_seed(3)
    op = packed.Conv(torch.randn(6, 4, 4, 4) if transposed else torch.randn(4, 6, 4, 4), None, stride=(2, 2), padding=(1, 1),
                  transposed=transposed, size=(6, 9, 10))  # fmt: skip
    x = torch.randn(3, 6, 9, 10).contiguous(memory_format=torch.channels_last)
    y, kept = op.forward(x)
    g = torch.randn_like(y)
    a, b = (y.double() * g).sum(), (x.double() * op.backward(g, kept)).sum()
    assert abs(a - b) <= 1e-4 * y.norm() * g.norm()


@needs_packing
def test_bfloat16_keeps_the_signs_and_the_gain():
    pair = make()
    z, seeds = torch.randn(16, 100), list(range(16))
    ready = networks(pair, Settings(precision="bf16"))
    assert "bf16" in ready.note
    assert ready.moving is not ready.pair
    exact, rough = both(ready.pair, z)[2], both(ready.moving, z)[2]
    assert ((exact * rough) > 0).float().mean() >= 0.9
    gains = []
    for precision in ("fp32", "bf16"):
        run = Engine(IFGSM(steps=6, step_size=0.02, eps=None), pair, settings=Settings(precision=precision)).run(z, seeds)
        gains.append(sum(float((c.score - c.score0).sum()) for c in run.chunks))
        score = torch.from_numpy(run.chunks[-1].score)
        seen = networks(pair, Settings()).pair
        again = seen.logit(seen.generate(torch.from_numpy(run.chunks[-1].point)))
        assert torch.allclose(score, again, atol=1e-5), "the score that is reported is read in float32"
    assert gains[1] >= 0.97 * gains[0]


def test_unknown_precisions_are_refused():
    from latentshift.errors import UsageError

    with pytest.raises(UsageError, match="float16"):
        networks(make(), Settings(precision="fp16"))
    with pytest.raises(UsageError, match="fp32, tf32, bf16, auto"):
        networks(make(), Settings(precision="int8"))
    assert "fp32 on cpu" in networks(make(), Settings(precision="tf32")).lost[0]


def test_without_packed_operators_the_prepared_form_runs_and_says_so(monkeypatch):
    monkeypatch.setattr(packed, "can_pack", lambda: "this torch has no packed convolutions (test)")
    ready = networks(make(), Settings())
    assert "no CPU plan: this torch has no packed convolutions" in ready.note
    assert torch.isfinite(both(ready.pair, torch.randn(8, 100))[2]).all()


@needs_packing
def test_a_plan_that_differs_is_not_used(monkeypatch):
    monkeypatch.setattr(packed, "masked", lambda grad, y, act: grad)
    ready = networks(make(), Settings())
    assert "gradients differed" in ready.note
    assert not isinstance(ready.pair.G, Plan)


@needs_packing
def test_the_callers_networks_stay_as_they_are():
    torch.manual_seed(0)
    D = nn.Sequential(*[nn.utils.parametrizations.spectral_norm(m) if hasattr(m, "weight") and m.weight.ndim > 1 else m
                        for m in downward()]).eval()  # fmt: skip
    G = nn.Sequential(*upward()).eval()
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (G, D)]
    want = D(G(torch.ones(8, 100)))
    pair = Pair.wrap(G, D, z_size=100)
    Engine(IFGSM(steps=2, eps=None, step_size=0.1), pair).run(torch.randn(8, 100), list(range(8)))
    for net, old in zip((G, D), before, strict=True):
        assert all(torch.equal(old[k], v) for k, v in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for net in (G, D) for p in net.parameters())
    assert torch.equal(want, D(G(torch.ones(8, 100))))


@pytest.mark.parametrize("kind", ["hook", "parametrization", "weight norm hook", "weight norm"])
def test_weight_norms_are_baked_in_and_stay_in_the_original(kind):
    norm = {
        "hook": nn.utils.spectral_norm,
        "parametrization": nn.utils.parametrizations.spectral_norm,
        "weight norm hook": nn.utils.weight_norm,
        "weight norm": nn.utils.parametrizations.weight_norm,
    }[kind]
    torch.manual_seed(0)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight norm is deprecated, and still in people's files
        conv = norm(nn.Conv2d(3, 8, 3, padding=1))
    D = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 1))
    D(torch.randn(4, 3, 6, 6)).sum().backward()  # the hooks leave a weight with a graph behind
    D.zero_grad()
    D.eval()
    x = torch.randn(8, 3, 6, 6)
    want = D(x)
    ready, note = prepare(Pair.wrap(nn.Identity().eval(), D, z_size=(3, 6, 6)))
    assert "1 weight norms baked in" in note
    plain = next(m for m in ready.D.modules() if isinstance(m, nn.Conv2d))
    assert type(plain) is nn.Conv2d
    assert set(plain.state_dict()) == {"weight", "bias"}
    assert not plain._forward_pre_hooks
    assert torch.allclose(ready.logit(x), want[:, 0], atol=1e-6)
    assert torch.equal(D(x), want)
    assert copy.deepcopy(plain) is not plain
