"""Every sensible combination runs and resumes, a senseless one is refused with the reason, and each costs what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentshift.errors import UsageError
from latentshift.layers import LayerNet
from latentshift.strategies.gradient import IFGSM
from latentshift.train.assistant import AdvAs
from latentshift.train.critic import honest_trainer
from latentshift.train.loop import Settings, Trainer
from latentshift.train.networks import mlp
from latentshift.train.penalties import ClassLoss, RobDis, WeightClip, WGANDiv
from latentshift.train.pieces import R1, GradientPenalty
from latentshift.train.shifts import AgainstLoss, Both, Climb, TowardsOther
from latentshift.train.terms import ClassTerm, Fool, Mine, ModeSeeking, RandomPartner, StayNear

QUA = Climb(IFGSM(steps=1, step_size=0.03, eps=None, support="free"))
GP = GradientPenalty(1.0)


def net(a: int, b: int, seed: int, *, norm: bool = False) -> LayerNet:
    layers = mlp(a, b, (8,))
    if norm:
        layers.insert(1, {"op": "BatchNorm1d", "key": "n", "kw": {"num_features": 8}})
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return LayerNet(layers)


def points(rows: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 2, generator=g), torch.randint(0, 3, (rows,), generator=g)


def trainer(*, norm: bool = False, **options: Any) -> Trainer:
    slots = {k: options.pop(k) for k in list(options) if k not in Settings.__dataclass_fields__}
    settings = Settings(**{"steps": 4, "batch": 6, "loss": "bce", **options})
    heads = slots.get("heads", 1)
    return Trainer(
        net(3, 2, 0), net(2, heads, 1, norm=norm), points, lambda n, g: torch.randn(n, 3, generator=g), settings, **slots
    )


def classifier() -> LayerNet:
    return net(2, 3, 2)


RUNS: dict[str, dict[str, Any]] = {
    **{name: {"loss": name} for name in ("bce", "hinge", "least-squares", "relativistic")},
    "wgan-clip": {"loss": "wasserstein", "after_d": [WeightClip(0.1)]},
    "wgan-gp": {"loss": "wasserstein", "penalties": [GP]},
    "wgan-div": {"loss": "wasserstein", "penalties": [WGANDiv()]},
    "qua": {"latent_shift": QUA, "n_d": 2},
    "qua in G's step": {"g_shift": QUA},
    "dat": {"image_shift": TowardsOther(clamp=None)},
    "datt": {"image_shift": Both(TowardsOther(clamp=None)), "penalties": [GP]},
    "asgan": {"image_shift": AgainstLoss(clamp=None)},
    "robdis": {"penalties": [RobDis()]},
    "advas": {"assistant": AdvAs(), "penalties": [GP], "spectral_norm": True},
    "advas split": {"assistant": AdvAs(estimator="split")},
    "advas with dat": {"assistant": AdvAs(), "image_shift": TowardsOther(clamp=None)},
    "msgan": {"partner": RandomPartner(), "terms": [ModeSeeking()]},
    "div": {"partner": Mine(), "terms": [ModeSeeking()], "pair_in_d": True, "weight_decay": 1e-4},
    "div, advas, relativistic": {
        "loss": "relativistic",
        "partner": Mine(),
        "terms": [ModeSeeking()],
        "assistant": AdvAs(),
    },
    "acgan": {"heads": 4, "penalties": [ClassLoss()], "terms": [ClassTerm()]},
    "ac-wgan-gp": {
        "loss": "wasserstein",
        "penalties": [GP, ClassLoss()],
        "terms": [ClassTerm()],
        "classifier": classifier,
    },
    "at-gan": {"loss": "none", "n_d": 0, "terms": [Fool(net(2, 3, 5)), StayNear(net(3, 2, 0), pixels=1)]},
    "bf16": {"precision": "bf16", "latent_shift": QUA, "partner": Mine(), "terms": [ModeSeeking()]},
    "batch norm in D": {"norm": True, "latent_shift": QUA, "image_shift": TowardsOther(clamp=None)},
}


def made(options: dict[str, Any]) -> Trainer:
    return trainer(**{k: v() if k == "classifier" else v for k, v in options.items()})


def weights(t: Trainer) -> list[Tensor]:
    parts = [t.G, t.D, t.average.net] + ([t.classifier] if t.classifier else [])
    return [v for part in parts for v in part.state_dict().values()]


@pytest.mark.parametrize("name", RUNS)
def test_every_method_trains_purely_and_two_halves_are_the_whole(name: str, tmp_path: Path) -> None:
    options = RUNS[name]
    whole, start = made(options), made(options)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    whole.run(every=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for part in (whole.G, whole.scores) for p in part.parameters())
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in weights(whole) if p.is_floating_point())
    changed = [not torch.equal(a, b) for a, b in zip(weights(whole), weights(start), strict=True)]
    assert any(changed), "something is learnt"
    half = made(options)
    half.one_step(), half.one_step()
    half.save(tmp_path / "c.pt")
    rest = made(options).run(checkpoint=tmp_path / "c.pt", every=4)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(rest), strict=True))


def test_half_precision_is_another_run_and_a_near_one() -> None:
    full, half = made({"latent_shift": QUA}).run(), made({"latent_shift": QUA, "precision": "bf16"}).run()
    apart = [(a - b).abs().max().item() for a, b in zip(weights(full), weights(half), strict=True)]
    assert 0 < max(apart) < 0.01


def test_the_assistant_leaves_the_critic_alone() -> None:
    """With AdvAs in place of nothing, D's first step is the same: its weights, power vectors and optimiser are not touched."""
    plain, helped = made({"spectral_norm": True}), made({"spectral_norm": True, "assistant": AdvAs(scale=0.0)})
    plain.one_step(), helped.one_step()
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(helped), strict=True))
    assert not torch.equal(weights(made({"assistant": AdvAs()}).run())[0], weights(made({}).run())[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loss": "hing"}, "unknown loss"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"norm": True, "penalties": [GP]}, "GradientPenalty asks for the gradient of each row, and BatchNorm1d"),
        ({"norm": True, "penalties": [R1()]}, "R1 asks"),
        ({"norm": True, "penalties": [RobDis()]}, "RobDis asks"),
        ({"norm": True, "assistant": AdvAs()}, "AdvAs asks"),
        ({"spectral_norm": True, "after_d": [WeightClip()]}, "weight clip on a D with spectral norm"),
        ({"loss": "wasserstein"}, "without any bound"),
        ({"loss": "none", "terms": [Fool(lambda x: x)]}, "'none' trains no D"),
        ({"loss": "none", "n_d": 0}, "neither a loss nor a term"),
        ({"n_d": 0, "latent_shift": QUA}, "Climb belongs to D's step"),
        ({"train_g": False, "assistant": AdvAs()}, "AdvAs belongs to G's step"),
        ({"train_g": False, "g_shift": QUA}, "Climb belongs to G's step"),
        ({"terms": [ModeSeeking()]}, "need each other"),
        ({"partner": Mine()}, "need each other"),
        ({"partner": Mine(), "terms": [ModeSeeking()], "batch": 1}, "a batch of one pair"),
        ({"pair_in_d": True}, "there is no partner"),
        ({"terms": [ClassTerm()]}, "needs class logits"),
        ({"classifier": net(2, 3, 2)}, "a classifier that no loss trains"),
        ({"image_shift": AgainstLoss("hinge", clamp=None)}, "D minimises 'bce'"),
        ({"heads": 4, "image_shift": Both(TowardsOther(clamp=None)), "penalties": [ClassLoss()]}, "nobody defined"),
        ({"batch": 0}, "no sizes of a run"),
    ],
)
def test_a_senseless_combination_is_refused_with_the_reason(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        trainer(**options)
    assert error.value.way_out


class Counted:
    """Counts forwards of G and D, and backwards through them to their input, in rows."""

    def __init__(self, t: Trainer) -> None:
        self.count = {"F_G": 0, "F_D": 0, "B_z": 0}
        for name, part in (("F_G", t.G), ("F_D", t.D)):
            part.register_forward_hook(lambda m, a, o, name=name: self.count.update({name: self.count[name] + 1}))

        def first(m: Any, args: Any) -> None:
            if args[0].requires_grad:
                args[0].register_hook(lambda g: self.count.update(B_z=self.count["B_z"] + 1))

        t.G.register_forward_pre_hook(first)


def costs(**options: Any) -> dict[str, int]:
    t = trainer(**options)
    counted = Counted(t)
    t.one_step()
    return counted.count


@pytest.mark.parametrize("n_d", [1, 3])
def test_a_qua_step_costs_one_forward_of_each_and_one_backward_to_z_more(n_d: int) -> None:
    plain = costs(n_d=n_d)
    assert plain == {"F_G": n_d + 1, "F_D": 2 * n_d + 1, "B_z": 0}
    more = costs(n_d=n_d, latent_shift=QUA)
    assert {k: more[k] - plain[k] for k in plain} == {"F_G": n_d, "F_D": n_d, "B_z": n_d}


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"image_shift": TowardsOther(clamp=None)}, (0, 2, 0)),
        ({"image_shift": AgainstLoss(clamp=None)}, (0, 2, 0)),
        ({"penalties": [RobDis()]}, (0, 2, 0)),
        ({"penalties": [GP]}, (0, 1, 0)),
        ({"assistant": AdvAs()}, (0, 2, 0)),
        ({"partner": RandomPartner(), "terms": [ModeSeeking()]}, (0, 0, 0)),
        ({"partner": Mine(), "terms": [ModeSeeking()]}, (4, 0, 3)),
        ({"g_shift": QUA}, (1, 1, 1)),
    ],
)
def test_what_the_other_pieces_cost(options: dict[str, Any], more: tuple[int, int, int]) -> None:
    plain, full = costs(), costs(**options)
    assert tuple(full[k] - plain[k] for k in ("F_G", "F_D", "B_z")) == more


def test_qua_with_g_frozen_is_the_honest_critic() -> None:
    """The same loop with the same pieces: equal settings give equal weights, to the bit."""
    climb = IFGSM(steps=1, step_size=0.05, eps=None, support="free")
    draw = torch.Generator().manual_seed(5)
    real = torch.randn(50, 1, 8, 8, generator=draw)

    def data(rows: int, g: torch.Generator) -> tuple[Tensor, None]:
        return real[torch.randint(0, 50, (rows,), generator=g)], None

    def prior(rows: int, g: torch.Generator) -> Tensor:
        return torch.randn(rows, 3, generator=g)

    def generator() -> LayerNet:
        layers = [*mlp(3, 64, (8,)), {"op": "Reshape", "kw": {"shape": [1, 8, 8]}}]
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return LayerNet(layers)

    honest = honest_trainer(generator(), data, prior, image=(1, 8, 8), climb=climb, updates=6, seed=3)
    twin = honest_trainer(generator(), data, prior, image=(1, 8, 8), climb=climb, updates=6, seed=3)
    frozen = twin.settings
    qua = Trainer(twin.G, twin.D, data, prior, frozen, penalties=[R1(1.0)], latent_shift=twin.latent_shift)
    plain = Trainer(
        generator(),
        LayerNet(twin.D.entries).load({k: v.clone() for k, v in twin.D.tensors().items()}),
        data,
        prior,
        frozen,
        penalties=[R1(1.0)],
        latent_shift=Climb(climb),
    )
    G0 = [p.clone() for p in honest.G.state_dict().values()]
    for t in (honest, qua, plain):
        t.run(every=6)
    assert not frozen.train_g
    assert all(torch.equal(a, b) for a, b in zip(honest.D.parameters(), qua.D.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(G0, honest.G.state_dict().values(), strict=True)), "G stays as it was"
    # with -qua's own rule for every row in place of thirds, the honest trainer is -qua
    again = honest_trainer(generator(), data, prior, image=(1, 8, 8), climb=climb, updates=6, seed=3)
    again.latent_shift = Climb(climb)
    again.run(every=6)
    assert all(torch.equal(a, b) for a, b in zip(again.D.parameters(), plain.D.parameters(), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(again.average_d.net.parameters(), plain.average_d.net.parameters(), strict=True)
    )
    assert not torch.equal(next(again.D.parameters()), next(honest.D.parameters()))
