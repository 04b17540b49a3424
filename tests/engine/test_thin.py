"""Thin sides and small maps: the numbers of torch's own convolutions and products, both ways, in the form that was meant."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentshift.engine import few, matrix, ops, packed, thin

needs_packing = pytest.mark.skipif(bool(packed.can_pack()), reason="this torch packs no weights")

#: layer, side of its input, which way has the thin side
LAYERS = {
    "up by two": (nn.ConvTranspose2d(32, 3, 4, 2, 1), 8, "ahead"),
    "up by two, 5 taps": (nn.ConvTranspose2d(32, 2, 5, 2, 2, output_padding=1), 9, "ahead"),
    "up, stride 1": (nn.ConvTranspose2d(32, 1, 3, 1, 1), 16, "ahead"),
    "to an image": (nn.Conv2d(32, 3, 3, 1, 1), 16, "ahead"),
    "to an image, 7 taps": (nn.Conv2d(32, 4, 7, 1, 3), 18, "ahead"),
    "from an image": (nn.Conv2d(3, 32, 3, 1, 1), 16, "back"),
    "from an image by two": (nn.Conv2d(3, 32, 5, 2, 2, bias=False), 16, "back"),
    "from an image by two, 4 taps": (nn.Conv2d(1, 32, 4, 2, 1), 16, "back"),
    "oblong": (nn.Conv2d(32, 3, (3, 5), 1, (1, 2)), 16, "ahead"),
    "without padding": (nn.Conv2d(32, 3, 3), 18, "ahead"),
    "much padding": (nn.Conv2d(32, 3, 3, 1, 3), 16, "ahead"),
    # what it does not stand for
    "odd": (nn.Conv2d(32, 3, 3, 1, 1), 17, ""),
    "up to an odd map": (nn.ConvTranspose2d(6, 8, 3, 2, 1), 4, ""),
    "by three": (nn.Conv2d(3, 32, 5, 3, 1), 18, ""),
    "wide": (nn.Conv2d(32, 5, 3, 1, 1), 16, ""),
    "1x1": (nn.Conv2d(32, 3, 1), 16, ""),
    "dilated": (nn.Conv2d(32, 3, 3, 1, 2, dilation=2), 16, ""),
}


def packed_conv(layer, side, act, dtype=torch.float32, shift=None):
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    return packed.Conv(
        layer.weight.detach().to(dtype), bias, stride=layer.stride, padding=layer.padding, dilation=layer.dilation, act=act,
        output_padding=getattr(layer, "output_padding", (0, 0)), transposed=isinstance(layer, nn.ConvTranspose2d),
        size=(layer.in_channels, side, side), bias_map=shift,
    )  # fmt: skip


@needs_packing
@pytest.mark.parametrize("name", LAYERS)
def test_a_thin_side_has_the_numbers_and_the_gradient_of_torch(name):
    layer, side, way = LAYERS[name]
    x = torch.randn(3, layer.in_channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    shift = torch.randn_like(layer(x)[:1]).detach()
    for act, added in ((None, None), (("tanh", 0.0), None), (("leaky_relu", 0.2), shift)):
        op = packed_conv(layer, side, act, shift=added)
        ahead, back = (op.thin_up, op.thin_down)[:: 1 if op.transposed else -1]
        assert (ahead is not None, back is not None) == (way == "ahead", way == "back")
        assert op.apart == (name == "up to an odd map"), "bias and activation behind the kernel"
        before = layer(x) if added is None else layer(x) + added
        theirs = before if act is None else torch.tanh(before) if act[0] == "tanh" else F.leaky_relu(before, 0.2)
        mine, kept = op.forward(x.detach())
        g = torch.randn_like(theirs).contiguous(memory_format=torch.channels_last)
        assert torch.allclose(mine, theirs, atol=1e-5)
        assert mine.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(op.backward(g, kept), torch.autograd.grad(theirs, x, g)[0], atol=1e-5)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["up by two", "to an image", "from an image by two"])
def test_a_row_of_a_thin_side_has_the_same_bits_in_any_call(name, dtype):
    layer, side, _ = LAYERS[name]
    op = packed_conv(layer, side, ("tanh", 0.0), dtype)
    x = torch.randn(16, layer.in_channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
    y, kept = op.forward(x)
    g = torch.randn(y.shape).to(dtype).contiguous(memory_format=torch.channels_last)
    back = op.backward(g, kept)
    for rows in (slice(0, 8), slice(5, 6), slice(9, 11)):
        count = rows.stop - rows.start
        fit = op if count == 8 else few.fitted(op, count)
        mine, kept = fit.forward(x[rows])
        assert torch.equal(mine, y[rows])
        assert torch.equal(fit.backward(g[rows], kept), back[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_one_output_is_a_sum_of_products(dtype):
    torch.manual_seed(0)
    layer = nn.Linear(300, 1)
    op = thin.Dot(layer.weight.detach().to(dtype), layer.bias.detach().to(dtype), act=("leaky_relu", 0.2))
    x, g = torch.randn(24, 300).to(dtype), torch.randn(24, 1).to(dtype)
    q = x.double().requires_grad_(True)
    exact = F.leaky_relu(q @ op.weight.double().t() + op.bias.double(), 0.2)
    y, kept = op.forward(x)
    back = op.backward(g, kept)
    loose = 1e-6 if dtype == torch.float32 else 2**-8  # one rounding, of the result
    assert y.dtype == back.dtype == dtype
    assert torch.allclose(y.double(), exact, rtol=loose, atol=1e-6)
    assert torch.allclose(back.double(), torch.autograd.grad(exact, q, g.double())[0], rtol=2 * loose, atol=1e-6)
    for rows in (slice(3, 4), slice(5, 7), slice(8, 16)):
        fit = few.fitted(op, rows.stop - rows.start) if rows.start < 8 else op
        mine, kept = fit.forward(x[rows])
        assert torch.equal(mine, y[rows])
        assert torch.equal(fit.backward(g[rows], kept), back[rows])
    assert not isinstance(few.fitted(thin.Dot(op.weight, op.bias), 1), ops.Filled), "one row is called as one"


@needs_packing
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"),
    [(4, 2, 1, 3), (5, 2, 2, 6), (3, 1, 1, 4), (2, 1, 1, 3), (5, 3, 4, 5), (7, 4, 6, 4)],
)
def test_taps_on_the_padding_are_left_out_of_large_products(transposed, kernel, stride, padding, side):
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(9, 6, kernel, stride, padding)
    x = torch.randn(3, 9, side, side).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    before = layer(x)
    shift = torch.randn_like(before[:1]).detach()
    for act, added in ((None, None), (("relu", 0.0), shift)):
        op = matrix.MatrixConv(
            layer.weight.detach(), layer.bias.detach(), stride=layer.stride, padding=layer.padding, transposed=transposed,
            act=act, size=(9, side, side), out=tuple(before.shape[2:]), bias_map=added,
        )  # fmt: skip
        small, large = (side, before.shape[2]) if transposed else (before.shape[2], side)
        met = sum(0 <= i * stride - padding + tap < large for i in range(small) for tap in range(kernel))
        assert sum(len(part.taps) * len(part.lines) for part, _, _ in op.parts) == met
        theirs = before if added is None else (before + added).relu()
        mine, kept = op.forward(x.detach())
        g = torch.randn_like(theirs)
        assert torch.allclose(mine, theirs, atol=1e-5)
        assert torch.allclose(op.backward(g, kept), torch.autograd.grad(theirs, x, g, retain_graph=True)[0], atol=1e-5)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_of_matrix_products_has_the_same_bits_in_any_call(transposed, dtype):
    size, out = (128, *((3, 3) if transposed else (6, 6))), (6, 6) if transposed else (3, 3)
    op = matrix.MatrixConv(
        torch.randn(128, 128, 4, 4).to(dtype) / 45, None, stride=(2, 2), padding=(1, 1), transposed=transposed,
        act=("leaky_relu", 0.2), size=size, out=out,
    )  # fmt: skip
    assert len(op.parts) == 3
    x = torch.randn(24, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    g = torch.randn(24, 128, *out).to(dtype).contiguous(memory_format=torch.channels_last)
    y, kept = op.forward(x)
    back = op.backward(g, kept)
    for rows in (slice(0, 8), slice(8, 24), slice(5, 6), slice(9, 11)):
        count = rows.stop - rows.start
        fit = op if count >= 8 else few.fitted(op, count)
        mine, kept = fit.forward(x[rows])
        assert torch.equal(mine, y[rows])
        assert torch.equal(fit.backward(g[rows], kept), back[rows])
