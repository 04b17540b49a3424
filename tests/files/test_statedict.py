"""Unwrapping of what people save, and every form of normalised weight against torch's own layers."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from latentshift.errors import DamagedFileError, FileError
from latentshift.files.statedict import as_float, bake, bake_spectral_norm, read_name, unwrap


def _net() -> dict[str, Tensor]:
    return OrderedDict({"fc.weight": torch.randn(3, 4), "fc.bias": torch.randn(3)})


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("net_G", ("G", False)), ("netD", ("D", False)), ("g_ema", ("G", True)), ("G_ema", ("G", True)), ("d", ("D", False)),
        ("generator", ("G", False)), ("discriminator_state_dict", ("D", False)), ("ema_generator", ("G", True)),
        ("model_state_dict", ("", False)), ("params_ema", ("", True)), ("ema", ("", True)), ("ema_model", ("", True)),
        ("critic", ("D", False)), ("G_state_dict", ("G", False)), ("state_dict", ("", False)), ("gamma", ("", False)),
        ("optim_G", ("", False)),
    ],
)  # fmt: skip
def test_names(name, meaning):
    assert read_name(name) == meaning


@pytest.mark.parametrize(
    ("tree", "paths"),
    [
        (
            {"net_G": _net(), "net_D": _net(), "optim_G": {"state": {0: {"s": torch.ones(1)}}, "param_groups": []}},
            ("net_G", "net_D"),
        ),
        ({"g": _net(), "d": _net(), "g_ema": _net(), "latent_avg": torch.ones(2)}, ("g_ema", "d")),
        ({"state": {"models": {"generator": _net(), "discriminator": _net()}}, "epoch": 3}, None),
        ({"G": {"state_dict": _net()}, "D": {"model_state_dict": _net()}}, ("G.state_dict", "D.model_state_dict")),
        ({"state_dict": {f"{p}.{k}": v for p in ("generator", "discriminator") for k, v in _net().items()}}, None),
    ],
)
def test_pairs_in_one_file(tree, paths):
    found = unwrap(tree)
    G, D = found.generator(), found.discriminator()
    assert list(G.tensors) == list(D.tensors) == ["fc.weight", "fc.bias"]
    if paths:
        assert (G.path, D.path) == paths
    assert not any("optim" in part.path for part in found.parts)


def test_average_for_G_never_for_D():
    tree = {"netG": _net(), "netG_ema": _net(), "netD_ema": _net(), "netD": _net()}
    found = unwrap(tree)
    assert found.generator().tensors["fc.weight"] is tree["netG_ema"]["fc.weight"]
    assert found.generator().ema
    assert found.discriminator().tensors["fc.weight"] is tree["netD"]["fc.weight"]
    assert "'netG', 'netG_ema'" in found.notes[0]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "ema_model.", "model."])
def test_prefixes_of_wrappers(prefix):
    net = _net()
    part = unwrap({"generator": {prefix + k: v for k, v in net.items()}}).generator()
    assert part.tensors == net
    assert len(part.notes) == prefix.count(".")


def test_prefixes_that_mean_something_stay():
    """gan-collections' D has a real `model.` beside `linear.`; `main.` is a Sequential of the network itself."""
    kept = {"model.0.weight": torch.ones(1), "linear.weight": torch.ones(1)}
    assert list(unwrap(kept).parts[0].tensors) == list(kept)
    assert list(unwrap({"main.0.weight": torch.ones(1)}).parts[0].tensors) == ["main.0.weight"]


def test_weight_averaging_counter():
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in _net().items()}}
    part = unwrap({"netG": averaged}).generator()
    assert list(part.tensors) == ["fc.weight", "fc.bias"]
    assert part.ema


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}, "optimizer's state"),
        ({"itr": 3, "config": {}, "save_num": 0}, "run's settings"),
        ({"epoch": 3, "loss": [1.0]}, r"no tensors of a network \(top level: epoch, loss\)"),
        ({}, "top level: nothing"),
    ],
)
def test_files_without_weights(tree, text):
    with pytest.raises(FileError, match=text) as caught:
        unwrap(tree, where="x.pth")
    assert caught.value.exit_status == 4
    assert "x.pth" in str(caught.value)


def test_deep_nests_end():
    tree = {"a": {}}
    for _ in range(20):
        tree = {"a": tree}
    tree["b"] = {"w": torch.ones(1)}
    found = unwrap(tree)
    assert len(found.parts) == 1
    deep: dict = {"w": torch.ones(1)}
    for _ in range(20):
        deep = {"a": deep}
    with pytest.raises(FileError, match="no tensors"):
        unwrap(deep)


# --- normalised weights -------------------------------------------------------------------------------------------------

_LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (2, 5)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 5, 4), (2, 3, 6, 6)),
    "transposed, square": (lambda: nn.ConvTranspose2d(4, 4, 4), (2, 4, 6, 6)),
}


@pytest.mark.parametrize("form", ["old", "new"])
@pytest.mark.parametrize("kind", _LAYERS)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_torch_spectral_norm(kind, form):
    """Both forms equal torch's layer in evaluation mode; a transposed convolution is normalised along its second axis."""
    torch.manual_seed(0)
    make, shape = _LAYERS[kind]
    layer = nn.utils.spectral_norm(make()) if form == "old" else parametrizations.spectral_norm(make())
    x = torch.randn(shape)
    for _ in range(3):
        layer(x)
    with torch.no_grad():  # one more step of training after the last power step
        for p in layer.parameters():
            p.add_(torch.randn_like(p), alpha=0.01)
    layer.eval()
    baked, notes = bake(layer.state_dict())
    plain = make()
    plain.load_state_dict(baked)
    assert torch.allclose(plain(x), layer(x), rtol=1e-5, atol=1e-6)
    assert any("multiplied 1 spectral" in note for note in notes)
    assert set(baked) == {"weight", "bias"}
    nested = bake_spectral_norm({f"a.b.{k}": v for k, v in layer.state_dict().items()})
    assert torch.equal(nested["a.b.weight"], baked["weight"])


@pytest.mark.parametrize("form", ["old", "new"])
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_torch_weight_norm(form, dim):
    torch.manual_seed(0)
    wrap = nn.utils.weight_norm if form == "old" else parametrizations.weight_norm
    layer = wrap(nn.Conv2d(3, 4, 3), dim=dim)
    plain = nn.Conv2d(3, 4, 3)
    plain.load_state_dict(bake(layer.state_dict())[0])
    x = torch.randn(2, 3, 6, 6)
    assert torch.allclose(plain(x), layer(x), rtol=1e-5, atol=1e-6)


def _step(weight: Tensor, u: Tensor) -> Tensor:
    """One power step by hand: the weight divided by v W^T u^T."""
    w = weight.flatten(1)
    v = u.reshape(1, -1) @ w
    v = v / v.norm()
    new = v @ w.T
    return weight / (new @ (new / new.norm()).T)


def test_one_power_step_forms():
    """BigGAN-PyTorch's, mimicry's and the third-party wrapper's: logged sigmas are not used, further vectors are ignored."""
    torch.manual_seed(0)
    w, u = torch.randn(4, 3, 3, 3), torch.randn(1, 4)
    want = _step(w, u)
    more = {"a.u1": torch.randn(1, 4), "a.sv1": torch.ones(1)}
    forms = [
        {"a.weight": w, "a.bias": torch.ones(4), "a.u0": u, "a.sv0": torch.full((1,), 9.0), **more},
        {"a.weight": w, "a.bias": torch.ones(4), "a.sn_u": u, "a.sn_sigma": torch.full((1,), 9.0)},
        {
            "a.module.bias": torch.ones(4),
            "a.module.weight_u": u[0],
            "a.module.weight_v": torch.randn(27),
            "a.module.weight_bar": w,
        },
    ]
    for tensors in forms:
        baked, _ = bake(tensors)
        assert set(baked) == {"a.weight", "a.bias"}
        assert torch.allclose(baked["a.weight"], want, rtol=1e-6)
    wide, _ = bake({k: v.double() for k, v in forms[0].items()}, torch.float64)
    assert torch.allclose(wide["a.weight"], _step(w.double(), u.double()), rtol=1e-14)


def test_torch_0_4_form():
    torch.manual_seed(0)
    w, u = torch.randn(4, 5), torch.randn(4)
    stored = w / 3
    assert torch.equal(bake({"weight": stored, "weight_orig": w, "weight_u": u})[0]["weight"], stored)
    assert torch.allclose(bake({"weight_orig": w, "weight_u": u})[0]["weight"], _step(w, u), rtol=1e-6)


def test_averaged_vectors_are_renormalised():
    """An average of singular vectors is shorter than 1; taken as it stands it would inflate the weight."""
    torch.manual_seed(0)
    layer = nn.utils.spectral_norm(nn.Linear(5, 3))
    layer(torch.randn(2, 5))
    state = layer.state_dict()
    want = bake(state)[0]["weight"]
    shorter = {k: 0.6 * v if k.endswith(("_u", "_v")) else v for k, v in state.items()}
    got, notes = bake(shorter)
    assert torch.allclose(got["weight"], want, rtol=1e-5)
    assert any("averaged singular vectors (lengths 0.6, 0.6)" in note for note in notes)


def test_pieces_that_do_not_fit():
    w = torch.randn(4, 5)
    with pytest.raises(DamagedFileError, match=r"weight \(4, 5\), u \(3,\), v \(5,\)"):
        bake({"x.weight_orig": w, "x.weight_u": torch.randn(3), "x.weight_v": torch.randn(5)})
    with pytest.raises(DamagedFileError, match=r"'x\.weight_u' is missing"):
        bake({"x.weight_orig": w, "x.weight_v": torch.randn(5)})
    with pytest.raises(DamagedFileError, match=r"u \(1, 3\)"):
        bake({"x.weight": w, "x.u0": torch.randn(1, 3), "x.sv0": torch.ones(1)})
    with pytest.raises(DamagedFileError, match=r"weight norm of 'x\.weight'"):
        bake({"x.weight_g": torch.randn(3, 1), "x.weight_v": w})


def test_order_and_inputs_are_kept():
    torch.manual_seed(0)
    tensors = {
        "b.bias": torch.ones(4), "b.weight_orig": torch.randn(4, 5), "b.weight_u": torch.randn(4), "b.weight_v": torch.randn(5),
        "a.weight": torch.randn(2, 4), "n": torch.tensor(3),
    }  # fmt: skip
    before = {k: v.clone() for k, v in tensors.items()}
    baked, _ = bake(tensors)
    assert list(baked) == ["b.bias", "b.weight", "a.weight", "n"]
    assert baked["n"].dtype == torch.int64
    assert all(torch.equal(tensors[k], v) for k, v in before.items())


def test_half_precision_and_broken_numbers():
    tensors = {
        "a": torch.ones(2, dtype=torch.float16),
        "b": torch.tensor([1.0, float("nan"), float("inf")]),
        "n": torch.tensor(1),
    }
    out, notes = as_float(tensors)
    assert out["a"].dtype == torch.float32
    assert notes == (
        "1 tensors in half precision were widened to float32",
        "2 weights in 1 tensors are NaN or infinite (first: 'b')",
    )
