"""Preparation: exact folding, also where it is easy to get wrong, and the original when it is not."""

import pytest
import torch
from torch import nn

from latentshift.engine.prepare import PaddedLinear, prepare
from latentshift.files.folder import read_pair
from latentshift.model import Pair

torch.manual_seed(0)


def lively(net):
    """Give batch norms statistics and scales that are not the identity, some scales negative."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.3, 2)
            if m.affine:
                m.weight.data.normal_()
                m.bias.data.normal_()
    return net.eval()


NETS = {
    "conv, norm": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    "conv without bias": nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)),
    "grouped conv": nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)),
    "transposed": nn.Sequential(nn.ConvTranspose2d(3, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
    "grouped transposed": nn.Sequential(nn.ConvTranspose2d(4, 8, 4, 2, 1, groups=2), nn.BatchNorm2d(8)),
    "norm after leaky relu and zero padding": nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2, bias=False),
        nn.LeakyReLU(0.2),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 5, 2, 2, bias=False),
        nn.LeakyReLU(0.2),
    ),
    "no affine": nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
    "no running statistics": nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True)),
    "dropout": nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout2d(), nn.BatchNorm2d(8)),
}


@pytest.mark.parametrize("name", NETS)
def test_folding_is_exact(name):
    net = lively(NETS[name])
    channels = net[0].in_channels
    head = nn.Sequential(net, nn.Flatten(), nn.LazyLinear(1))
    head(torch.zeros(1, channels, 12, 12))
    D = lively(head)
    pair = Pair.wrap(nn.Identity().eval(), D, z_size=(channels, 12, 12))
    ready, note = prepare(pair)
    assert ready is not pair, note
    x = torch.randn(16, channels, 12, 12)
    a, b = pair.logit(x), ready.logit(x)
    assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    grads = []
    for p in (pair, ready):
        q = x.clone().requires_grad_(True)
        grads.append(torch.autograd.grad(p.logit(q).sum(), q)[0])
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-5)
    folds = sum(isinstance(m, nn.BatchNorm2d) for m in net) and "relu" not in name
    assert ("batch norms folded" in note) == bool(folds)


def test_a_linear_layer_before_a_reshape_is_folded():
    G = lively(nn.Sequential(nn.Linear(6, 4 * 9), nn.Unflatten(1, (4, 3, 3)), nn.BatchNorm2d(4), nn.ReLU()))
    pair = Pair.wrap(G, z_size=6)
    ready, note = prepare(pair)
    z = torch.randn(8, 6)
    assert "1 batch norms folded" in note
    assert torch.allclose(pair.generate(z), ready.generate(z), atol=1e-5)


def test_awkward_widths_are_padded_and_equal():
    layer = nn.Linear(6, 5)
    assert PaddedLinear.helps(layer)
    x = torch.randn(64, 6)
    padded = PaddedLinear(layer)
    assert torch.allclose(padded(x), layer(x), atol=1e-6)
    order = torch.randperm(64)
    assert torch.equal(padded(x)[order], padded(x[order]))


def test_a_network_that_cannot_be_prepared_exactly_runs_as_given():
    class Fickle(nn.Module):
        """Gives something else once it was copied."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))
            self.copied = False

        def __deepcopy__(self, memo):
            other = Fickle()
            other.copied = True
            return other.eval()

        def forward(self, x):
            return self.w * x.sum(1) + (1.0 if self.copied else 0.0)

    pair = Pair.wrap(nn.Identity().eval(), Fickle().eval(), z_size=3)
    ready, note = prepare(pair)
    assert ready is pair
    assert note.startswith("as given: the prepared form differed by")


def test_reference_pairs_are_equal_when_prepared(pair_name, reference):
    pair = read_pair(reference("reference", "pairs", pair_name))
    ready, _ = prepare(pair)
    assert ready is not pair
    z = pair.space.clamp(torch.randn(16, *pair.space.shape, generator=torch.Generator().manual_seed(0)))
    label = torch.arange(16) % 10 if pair.classes else None
    a, b = (p.logit(p.generate(z, label), label) for p in (pair, ready))
    assert float((a - b).abs().max()) <= 1e-4 * max(1e-3, float(a.abs().max()))
    assert all(p.requires_grad is False for m in ready.modules() for p in m.parameters())


def test_the_classic_spectral_norm_can_be_copied_after_a_forward_with_gradients():
    D = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 1))
    D(torch.randn(3, 4, requires_grad=True)).sum().backward()
    D.eval()
    pair = Pair.wrap(nn.Identity().eval(), D, z_size=4)
    x = torch.randn(8, 4)
    ready, _ = prepare(pair)
    assert torch.allclose(pair.logit(x), ready.logit(x), atol=1e-6)
