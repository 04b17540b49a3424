"""The guard: each rule stops where it says, goes back where it was content, and keeps the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import latentshift
from latentshift.commands import run as command
from latentshift.errors import LatentshiftError, RequestError, UsageError
from latentshift.model import Critic, Pair
from latentshift.objective import Displacement, Quality
from latentshift.recipe import get_recipe
from latentshift.sampler import Sampler, load
from latentshift.strategies.gradient import IFGSM
from latentshift.strategies.guard import Guard, SecondCritic
from latentshift.testing.contracts import check_strategy

WALK = IFGSM(steps=12, step_size=0.05, eps=None, support="free")


@dataclass
class Low:
    """A critic that likes small images."""

    name = "low"
    differentiable = True
    higher_is_better = True

    def score(self, images, labels=None):
        return -(images.flatten(1) ** 2).mean(1)


@pytest.mark.parametrize("guard", [Guard(inner=WALK, limit=0.15), Guard(inner=WALK, rule="critic", judge=Quality(Low()))])
def test_contract(guard):
    check_strategy(guard)


def test_contract_on_pictures():
    check_strategy(Guard(inner=IFGSM(steps=3, step_size=0.05, eps=None), rule="views"), load("fashion32"), rows=9)


def refined(guard, **kw):
    return Sampler(load("fashion32"), recipe="advlatgan-z/cifar10").refine(seeds=range(24), strategy=guard, **kw)


def test_displacement_is_never_passed():
    for limit in (0.05, 0.15):
        r = refined(Guard(inner=WALK, limit=limit))
        moved = (r.z - r.z0).norm(dim=1) / r.z0.norm(dim=1)
        assert float(moved.max()) <= limit + 1e-6
        stopped = torch.tensor([s == "guard" for s in r.stopped])
        assert bool(stopped.any())
        assert float(moved[stopped].min()) > limit - 0.06, "stopped long before the limit"
    free = refined(Guard(inner=WALK, limit=100.0))
    assert torch.equal(free.z, refined(WALK).z), "a guard that never fires changed the walk"


def test_reals_stop_at_their_lower_quartile():
    pair = load("fashion32")
    raw = refined(WALK, before=True)
    reals = raw.images0 if isinstance(raw.images0, torch.Tensor) else torch.from_numpy(raw.images0)
    r = Sampler(pair).refine(seeds=range(24), strategy=Guard(inner=WALK, rule="reals"), reals=reals)
    target = float(torch.quantile(raw.score0.float(), 0.25))
    stopped = torch.tensor([s == "guard" for s in r.stopped])
    assert bool((r.score[stopped] >= target - 1e-5).all())
    assert torch.equal(r.z[r.score0 >= target + 1e-5], r.z0[r.score0 >= target + 1e-5]), "rows above it need not move"
    with pytest.raises(RequestError, match="real images"):
        refined(Guard(inner=WALK, rule="reals"))


def test_a_second_critic_has_a_veto():
    """The walk leads away from small images; the judge that likes them stops it at the start, and lets the reverse go on."""
    G = torch.nn.Identity().eval()

    def pair(sign):
        return Pair.wrap(G, Critic(lambda x: sign * (x.flatten(1) ** 2).mean(1)), z_size=4)

    z = torch.linspace(0.5, 2.0, 32).reshape(8, 4)
    guard = Guard(inner=IFGSM(steps=5, step_size=0.01, eps=None, support="free"), rule="critic", judge=Quality(Low()))
    up = Sampler(pair(1.0)).refine(z, strategy=guard)
    assert torch.equal(up.z, z)
    assert set(up.stopped) == {"guard"}
    down = Sampler(pair(-1.0)).refine(z, strategy=guard)
    assert torch.allclose(down.z, z - 0.05, atol=1e-6)
    assert set(down.stopped) == {"steps"}


def test_what_the_guard_saw_is_recorded(tmp_path):
    out = tmp_path / "out"
    words = ["refine", "--num", "4", "--recipe", "advlatgan-z/cifar10", "--guard", "displacement", "--quiet", "--no-report"]
    assert command([*words, "--outdir", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert all(0 < row["extra"]["guard"] <= 0.3 for row in rows)
    assert all(row["stopped"] in ("guard", "steps") for row in rows)
    assert json.loads((out / "run.json").read_text())["recipe"]["guard"] == "displacement"


WORDS = ["refine", "--num", "8", "--recipe", "advlatgan-z/cifar10", "--steps", "8", "--no-report", "--quiet"]


def test_a_second_critic_on_the_command_line(tmp_path):
    """The other D of the same G, from its folder: rows stop as in Python, the record names it, and resume finds it."""
    folder = Path(latentshift.__file__).parent / "data" / "fashion32-sn"
    out = tmp_path / "out"
    assert command([*WORDS, "--guard", f"critic:{folder}", "--outdir", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    inner = get_recipe("advlatgan-z/cifar10").changed(steps=8).build()
    guard = Guard(inner=inner, rule="critic", judge=SecondCritic(load(folder).critic))
    by_hand = Sampler(load("fashion32")).refine(seeds=range(8), strategy=guard)
    assert [r["stopped"] for r in rows] == list(by_hand.stopped)
    assert "guard" in by_hand.stopped
    assert [r["score_after"] for r in rows] == pytest.approx(by_hand.score.tolist(), abs=1e-5)
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"]["guard"] == record["request"]["guard"] == f"critic:{folder}"
    sharded = tmp_path / "sharded"
    assert command([*WORDS, "--guard", f"critic:{folder}", "--shard-size", "4", "--outdir", str(sharded)]) == 0
    parts = [np.load(p)["z"] for p in sorted(sharded.glob("latents-*.npz"))]
    assert np.array_equal(np.load(out / "latents.npz")["z"], np.concatenate(parts))


@pytest.mark.parametrize(
    ("rule", "status", "line"),
    [
        ("critic", 2, "which critic"),
        ("critic:", 2, "which critic"),
        ("moon", 2, "unknown rule 'moon'"),
        ("critic:no-such", 3, "unknown critic 'no-such'"),
        ("critic:ring", 3, ""),
        ("critic:fashion32", 0, ""),
        ("critic:D", 3, "the one that is climbed"),
    ],
)
def test_rules_on_the_command_line(rule, status, line, tmp_path, capsys):
    assert command([*WORDS[:5], "--steps", "1", *WORDS[-2:], "--guard", rule, "--outdir", str(tmp_path / "out")]) == status
    said = capsys.readouterr().err
    assert line in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == (status != 0)
    assert (tmp_path / "out" / "run.json").exists() == (status == 0)


@pytest.mark.parametrize(
    "wrong",
    [{"rule": "moon"}, {"limit": 0.0}, {"rule": "reals", "share": 2.0}, {"rule": "critic"}, {"judge": Displacement()}],
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError):
        Guard(inner=WALK, **wrong)


def test_views_need_pictures():
    with pytest.raises(LatentshiftError, match="points"):
        Sampler(load("ring")).refine(seeds=range(4), strategy=Guard(inner=WALK, rule="views"))
