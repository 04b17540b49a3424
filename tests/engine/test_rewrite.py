"""Exact rewrites: the kernels against what they replace, residual networks with equal scores, and what is left as it is."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentshift.engine import packed, rewrite
from latentshift.engine.precision import networks
from latentshift.engine.run import Settings
from latentshift.model import Pair

needs_packing = pytest.mark.skipif(bool(packed.can_pack()), reason="this torch packs no weights")


def test_the_kernels_are_exact():
    x, w = torch.randn(2, 5, 6, 8, dtype=torch.float64), torch.randn(7, 5, 3, 3, dtype=torch.float64)
    up = F.conv2d(F.interpolate(x, scale_factor=2), w, padding=1)
    assert torch.allclose(F.conv_transpose2d(x, rewrite.doubled(w), stride=2, padding=1), up, atol=1e-12)
    down = F.avg_pool2d(F.conv2d(x, w, padding=1), 2)
    assert torch.allclose(F.conv2d(x, rewrite.halved(w), stride=2, padding=1), down, atol=1e-12)


class Up(nn.Module):
    def __init__(self, a, b, mode="nearest"):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.conv1, self.conv2, self.side = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1), nn.Conv2d(a, b, 1)
        self.mode = mode

    def forward(self, x):
        t = self.conv1(F.interpolate(F.relu(self.bn1(x)), scale_factor=2, mode=self.mode))
        return self.conv2(F.relu(self.bn2(t))) + F.interpolate(self.side(x), scale_factor=2, mode="nearest")


class Down(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv1, self.conv2, self.side = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1), nn.Conv2d(a, b, 1)

    def forward(self, x):
        t = self.conv2(F.relu(self.conv1(F.relu(x))))
        return F.avg_pool2d(t, 2) + F.avg_pool2d(self.side(x), 2)


class G(nn.Module):
    def __init__(self, mode="nearest"):
        super().__init__()
        self.linear, self.blocks = nn.Linear(16, 32 * 9), nn.Sequential(Up(32, 24, mode), Up(24, 16, mode))
        self.bn, self.conv = nn.BatchNorm2d(16), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z):
        h = self.blocks(self.linear(z).reshape(z.shape[0], 32, 3, 3))
        return torch.tanh(self.conv(F.relu(self.bn(h))))


class D(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.linear = nn.Sequential(Down(3, 16), Down(16, 32)), nn.Linear(32, 1)

    def forward(self, x):
        return self.linear(F.relu(self.blocks(x)).sum((2, 3)))


def make(generator):
    torch.manual_seed(0)
    for net in (generator, critic := D()):
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
                m.weight.data.normal_()
                m.bias.data.normal_()
        net.eval()
    return Pair.wrap(generator, critic, z_size=16)


def both(pair, z):
    q = z.clone().requires_grad_(True)
    score = pair.logit(pair.generate(q))
    return score.detach(), torch.autograd.grad(score.sum(), q)[0]


@needs_packing
def test_residual_networks_are_rewritten_with_equal_scores():
    pair = make(G())
    ready = networks(pair, Settings())
    assert "G 7 convolutions packed, 2 rewrites; D 6 convolutions packed, 4 rewrites" in ready.note
    z = torch.randn(24, 16)
    for mine, theirs in zip(both(ready.pair, z), both(pair, z), strict=True):
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm()
    for mine, whole in zip(both(ready.pair, z[8:16]), both(ready.pair, z), strict=True):
        assert torch.equal(mine, whole[8:16]), "a row's bits do not depend on its batch"


@needs_packing
def test_bilinear_upsampling_is_not_taken_for_nearest():
    note = networks(make(G("bilinear")), Settings()).note
    assert "G 7 convolutions packed; D" in note


def test_what_cannot_be_traced_runs_prepared_and_says_so():
    class Branch(G):
        def forward(self, z):
            return super().forward(z) * (2.0 if float(z.detach().sum()) > 1e9 else 1.0)

    pair = make(Branch())
    ready = networks(pair, Settings())
    assert "as prepared" in ready.note
    z = torch.randn(8, 16)
    assert torch.allclose(both(ready.pair, z)[0], both(pair, z)[0], rtol=1e-4, atol=1e-4)
