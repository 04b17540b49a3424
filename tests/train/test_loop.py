"""The loop: composition, resume to the bit, failures that leave the last checkpoint whole."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from latentshift.errors import DamagedFileError, NumericError, OutputError, UsageError
from latentshift.layers import LayerNet
from latentshift.strategies.gradient import IFGSM
from latentshift.train.loop import Settings, Trainer
from latentshift.train.pieces import R1, GradientPenalty, initialise
from latentshift.train.shifts import Climb, TowardsOther


def generator_layers() -> list[dict[str, Any]]:
    conv = {"in_channels": 4, "out_channels": 1, "kernel_size": 4, "stride": 2, "padding": 1}
    return [
        {"op": "Linear", "key": "stem", "kw": {"in_features": 3, "out_features": 64}},
        {"op": "Reshape", "kw": {"shape": [4, 4, 4]}},
        {"op": "BatchNorm2d", "key": "norm", "kw": {"num_features": 4}},
        {"op": "ReLU"},
        {"op": "ConvTranspose2d", "key": "up", "kw": conv},
        {"op": "Tanh"},
    ]


def critic_layers(*, dropout: bool = False) -> list[dict[str, Any]]:
    conv = {"in_channels": 1, "out_channels": 4, "kernel_size": 4, "stride": 2, "padding": 1}
    return [
        {"op": "Conv2d", "key": "conv", "kw": conv},
        *([{"op": "Dropout", "kw": {"p": 0.3}}] if dropout else []),
        {"op": "LeakyReLU", "kw": {"negative_slope": 0.2}},
        {"op": "Flatten"},
        {"op": "Linear", "key": "head", "kw": {"in_features": 64, "out_features": 1}},
    ]


def images(rows: int, g: torch.Generator) -> tuple[Tensor, None]:
    ramp = torch.linspace(-1, 1, 8).expand(1, 8, 8)
    return (ramp + 0.1 * torch.randn(rows, 1, 8, 8, generator=g)).clamp(-1, 1), None


def normal(rows: int, g: torch.Generator) -> Tensor:
    return torch.randn(rows, 3, generator=g)


def trainer(*, dropout: bool = False, **options: Any) -> Trainer:
    draw = torch.Generator().manual_seed(7)
    G = initialise(LayerNet(generator_layers(), where="G"), 0.2, draw)
    D = initialise(LayerNet(critic_layers(dropout=dropout), where="D"), 0.2, draw)
    pieces = {k: options.pop(k) for k in ("penalties", "latent_shift", "image_shift", "augment", "data") if k in options}
    settings = Settings(**{"steps": 8, "batch": 8, **options})
    return Trainer(G, D, pieces.pop("data", images), normal, settings, **pieces)


EVERYTHING: dict[str, Any] = {
    "loss": "bce",
    "spectral_norm": True,
    "n_d": 2,
    "g_batch": 12,
    "dropout": True,
    "penalties": [R1(0.1), GradientPenalty(0.5)],
    "latent_shift": Climb(IFGSM(steps=1, step_size=0.03, eps=None, support="free")),
    "image_shift": TowardsOther(eps=1.0),
}


def everything_in(t: Trainer) -> list[Tensor]:
    state = t._state()
    out = [state["generator"]]
    for part in ("G", "D", "average"):
        out += list(state[part].values())
    for part in ("opt_g", "opt_d"):
        for row in state[part]["state"].values():
            out += [row[k] for k in sorted(row)]
    return out


def same(a: Trainer, b: Trainer) -> bool:
    x, y = everything_in(a), everything_in(b)
    return len(x) == len(y) and all(torch.equal(p, q) for p, q in zip(x, y, strict=True))


def test_with_all_slots_empty_it_is_the_plain_gan_step_to_the_bit() -> None:
    """The reference is written with `.backward()` and torch's own optimiser calls, as a textbook does it."""
    t = trainer(loss="bce", decay_share=0.0)
    G, D = LayerNet(generator_layers()), LayerNet(critic_layers())
    G.load_state_dict(t.G.state_dict())
    D.load_state_dict(t.D.state_dict())
    opt_g = torch.optim.Adam(G.parameters(), 2e-4, (0.5, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), 4e-4, (0.5, 0.999))
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        told = t.one_step()
        x, _ = images(8, g)
        f = G(normal(8, g)).detach()
        loss_d = softplus(-D(x)).mean() + softplus(D(f)).mean()
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        images(8, g)
        loss_g = softplus(-D(G(normal(8, g)))).mean()
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        assert told["loss_d"] == loss_d.item()
        assert told["loss_g"] == loss_g.item()
    for mine, theirs in ((t.G, G), (t.D, D)):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_shifts_of_nothing_change_nothing() -> None:
    still = {
        "latent_shift": Climb(IFGSM(steps=0, step_size=0.1, eps=None, support="free")),
        "image_shift": TowardsOther(eps=0.0, clamp=None),
    }
    plain, shifted = trainer(spectral_norm=True), trainer(spectral_norm=True, **still)
    for _ in range(3):
        plain.one_step()
        shifted.one_step()
    assert same(plain, shifted)
    moved = trainer(spectral_norm=True, image_shift=TowardsOther(eps=1.0))
    for _ in range(3):
        moved.one_step()
    assert not same(plain, moved)


def test_a_step_leaves_gradients_and_the_global_random_state_alone() -> None:
    t = trainer(**EVERYTHING)
    first = next(t.G.parameters())
    first.grad = torch.ones_like(first)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    t.one_step()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for net in (t.G, t.D) for p in net.parameters() if p is not first)


def test_the_global_random_state_does_not_matter() -> None:
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append(trainer(**EVERYTHING).run())
    assert same(*runs)
    assert not same(runs[0], trainer(seed=1, **EVERYTHING).run())


def test_the_counts_of_a_step() -> None:
    """Passes per generator step: plain 2 G and 2 n_d + 1 D; the climb one of each for every step of D; DAT two of D."""
    calls = {"G": 0, "D": 0}

    def counted(**options: Any) -> tuple[int, int]:
        t = trainer(n_d=3, **options)
        for name, net in (("G", t.G), ("D", t.D)):
            calls[name] = 0

            def count(*_: Any, name: str = name) -> None:
                calls[name] += 1

            net.register_forward_hook(count)
        t.one_step()
        return calls["G"], calls["D"]

    assert counted() == (3 + 1, 6 + 1)
    assert counted(latent_shift=EVERYTHING["latent_shift"]) == (6 + 1, 9 + 1)
    assert counted(image_shift=TowardsOther()) == (3 + 1, 12 + 1)
    assert counted(penalties=[GradientPenalty()]) == (3 + 1, 9 + 1)


def test_the_rate_falls_to_zero_over_the_last_share() -> None:
    s = Settings(steps=100, decay_share=0.25)
    assert [s.rate(t) for t in (0, 74, 75, 80, 99)] == [1.0, 1.0, 1.0, 0.8, 0.04]
    assert Settings(steps=100, decay_share=0.0).rate(99) == 1.0
    t = trainer(steps=8, decay_share=0.5, lr_g=1e-3, lr_d=4e-3)
    t.run()
    assert t.opt_g.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)
    assert t.opt_d.param_groups[0]["lr"] == pytest.approx(4e-3 / 4)


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_two_halves_are_the_whole_to_the_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = trainer(**options).run(every=4)
    path = tmp_path / "c.pt"
    half = trainer(**options)
    for _ in range(4):
        half.one_step()
    half.save(path)
    torch.manual_seed(99)
    rest = trainer(**options).run(checkpoint=path, every=4)
    assert rest.step == 8
    assert same(whole, rest)
    assert not same(whole, half)


def test_the_log_with_what_the_report_added_is_in_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"

    def add(t: Trainer, row: dict[str, float]) -> None:
        row["extra"] = 10.0 * t.step

    trainer().run(checkpoint=path, every=4, report=add)
    again = trainer()
    again.restore(path)
    assert [(r["step"], r["extra"]) for r in again.log] == [(4, 40.0), (8, 80.0)]
    assert again.step == 8


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import test_loop
path = Path(sys.argv[2])
def tell(t, row):
    print(t.step, flush=True)
    if t.step > 4:
        os.kill(os.getpid(), signal.SIGKILL)
test_loop.trainer(**test_loop.EVERYTHING).run(checkpoint=path, every=2, report=tell)
"""


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.split() == ["2", "4", "6"]
    torch.set_num_threads(1)
    resumed = trainer(**EVERYTHING)
    resumed.restore(path)
    assert resumed.step == 4
    resumed = trainer(**EVERYTHING).run(checkpoint=path, every=2)
    assert same(resumed, trainer(**EVERYTHING).run())


def test_a_write_cut_short_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    t = trainer()
    t.one_step()
    t.save(path)
    good = path.read_bytes()
    t.one_step()
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the disk is full after 1,000 bytes
        with pytest.raises((OutputError, RuntimeError)):
            t.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("where", ["data", "gradient of D", "gradient of G"])
def test_a_nan_leaves_the_last_checkpoint_intact(tmp_path: Path, where: str) -> None:
    path = tmp_path / "c.pt"
    count = 0

    def data(rows: int, g: torch.Generator) -> tuple[Tensor, None]:
        nonlocal count
        count += 1
        x, y = images(rows, g)
        return (x * float("nan"), y) if where == "data" and count > 10 else (x, y)  # two draws a step: the sixth

    def poisoned(D: Any, x: Tensor, f: Tensor, y: Tensor | None, g: torch.Generator) -> Tensor:
        zero = (D(x, y).mean() - D(x, y).mean().detach()) * 0.0
        return zero.sqrt() if where == "gradient of D" and t.step == 5 else zero  # value 0, gradient NaN

    t = trainer(data=data, penalties=[poisoned])
    if where == "gradient of G":
        t.G.stack[0].weight.register_hook(lambda g: g * float("nan") if t.step == 5 else None)
    saved: dict[int, bytes] = {}
    with pytest.raises(NumericError, match=r"step 6.*The checkpoint of step 5 is intact"):
        t.run(checkpoint=path, every=1, report=lambda t, row: saved.update({t.step: b""}))
    assert max(saved) == 5
    count = 0
    again = trainer(data=data, penalties=[poisoned])
    again.restore(path)
    assert again.step == 5
    assert all(bool(torch.isfinite(p).all()) for net in (again.G, again.D) for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"loss": "bce"}, "loss = 'hinge', not 'bce'"),
        ({"betas": (0.0, 0.9)}, "betas = "),
        ({"steps": 9}, "steps = 8, not 9"),
        ({"seed": 1}, "seed = 0, not 1"),
        ({"penalties": [R1(2.0)]}, "penalties = .*R1.gamma=1.0.*R1.gamma=2.0"),
        ({"penalties": []}, "penalties = .*R1"),
        ({"latent_shift": EVERYTHING["latent_shift"]}, "latent_shift = None, not .Climb"),
        ({"image_shift": TowardsOther()}, "image_shift = None, not .TowardsOther"),
        ({"dropout": True}, "layers of D"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_changed(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    path = tmp_path / "c.pt"
    trainer(penalties=[R1(1.0)]).save(path)
    other = trainer(**{"penalties": [R1(1.0)], **options})
    before = [x.clone() for x in everything_in(other)]
    with pytest.raises(UsageError, match=named):
        other.run(checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(before, everything_in(other), strict=True)), "refused before anything is taken"
    assert other.step == 0


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    t = trainer()
    t.save(path)
    data = path.read_bytes()
    for broken in (b"", data[: len(data) // 2], b"<html>"):
        path.write_bytes(broken)
        with pytest.raises(DamagedFileError):
            t.restore(path)
    state = t._state()
    del state["opt_d"]
    torch.save(state, path)
    with pytest.raises(DamagedFileError, match="opt_d"):
        t.restore(path)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="hinge"):
        trainer(loss="hing")


def test_it_learns() -> None:
    """A one-dimensional job with a known end: G(z) = a z + c on N(3, 0.5^2)."""
    one = [{"op": "Linear", "key": "a", "kw": {"in_features": 1, "out_features": 1}}]
    wide = [
        {"op": "Linear", "key": "a", "kw": {"in_features": 1, "out_features": 32}},
        {"op": "ReLU"},
        {"op": "Linear", "key": "b", "kw": {"in_features": 32, "out_features": 1}},
    ]
    draw = torch.Generator().manual_seed(0)
    G, D = initialise(LayerNet(one), 0.5, draw), initialise(LayerNet(wide), 0.3, draw)
    settings = Settings(steps=600, loss="bce", lr_g=1e-2, lr_d=1e-2, betas=(0.0, 0.9), decay_share=0.5, ema=0.98)
    t = Trainer(
        G,
        D,
        lambda n, g: (3 + 0.5 * torch.randn(n, 1, generator=g), None),
        lambda n, g: torch.randn(n, 1, generator=g),
        settings,
        penalties=[R1(1.0)],
    )
    began = time.perf_counter()
    t.run(every=600)
    a, c = t.average.net.stack[0].weight.item(), t.average.net.stack[0].bias.item()
    assert c == pytest.approx(3.0, abs=0.15)
    assert abs(a) == pytest.approx(0.5, abs=0.15)
    assert t.log[-1]["seconds"] <= time.perf_counter() - began
    assert dataclasses.asdict(settings)["steps"] == t.step
