"""What a network, a card or a folder cannot do: one line says what was lost, and the results stay."""

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentshift.engine import chunk, precision
from latentshift.engine.chunk import chunk_for, searched
from latentshift.engine.precision import chosen, networks
from latentshift.engine.run import Engine, Settings
from latentshift.errors import LatentshiftWarning
from latentshift.model import Pair
from latentshift.strategies.gradient import IFGSM
from latentshift.testing import linear_pair
from latentshift.testing.again import Again

CLIMB = IFGSM(steps=3, eps=None, step_size=0.05, support="free")


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class Net(nn.Module):
    """A little of everything that cannot be planned, by `kind`."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv, self.norm = kind, nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 64, 1)

    def forward(self, x):
        h = self.norm(self.conv(x))
        if self.kind == "branch" and float(h.detach().mean()) > 1e9:
            h = -h
        if self.kind == "custom":
            h = _Twice.apply(h)
        if self.kind == "dropout":
            h = F.dropout(h, 0.5, training=True)
        return self.linear(F.relu(h).flatten(1))


def pair_of(kind):
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(16, 3 * 64), nn.Unflatten(1, (3, 8, 8)), nn.Tanh())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if kind == "dropout" else "error", LatentshiftWarning)  # rows alone score otherwise
        return Pair.wrap(G.eval(), Net(kind).eval(), z_size=16, name=kind)


def refined(pair, **settings):
    z = torch.randn(16, *pair.space.shape, generator=torch.Generator().manual_seed(1))
    graphs = settings.pop("graphs", None)
    engine = Engine(CLIMB, pair, settings=Settings(**settings), graphs=graphs)
    run = engine.run(z, list(range(16)))
    return np.concatenate([c.score for c in run.chunks]), run


@pytest.mark.parametrize("kind", ["branch", "custom"])
def test_a_network_that_cannot_be_planned_stays_prepared_with_the_same_scores(kind):
    mine, run = refined(pair_of(kind))
    theirs, _ = refined(pair_of(kind), prepare=False)
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    (line,) = run.plan.splitlines()
    assert "as prepared: " in line or "packed" in line
    if kind == "branch":
        assert "D as prepared: " in line


def test_dropout_left_on_is_named_and_the_run_goes_on():
    scores, run = refined(pair_of("dropout"))
    (line,) = [n for n in run.notes if "as given" in n]
    assert "its scores change from call to call (dropout left on" in line
    assert np.isfinite(scores).all()


def test_dropout_left_on_cannot_be_recorded():
    _, run = refined(pair_of("dropout"), graphs=Again())
    (line,) = [n for n in run.notes if n.startswith("steps run one kernel at a time")]
    assert line.endswith("a replayed step gave other values")


@pytest.mark.parametrize("word", ["bf16", "auto"])
def test_a_card_without_bfloat16(word, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    assert chosen(word, torch.device("cuda")) == ("fp32", "this card has no bfloat16: fp32 instead")
    assert chosen("tf32", torch.device("cuda")) == ("tf32", "")


def test_a_network_that_breaks_in_bfloat16_stays_in_float32():
    class Picky(Net):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise RuntimeError("expected float32\nand more")
            return super().forward(x)

    pair = pair_of("branch")
    pair = pair.replaced(critic=pair.critic.__class__(Picky("branch").eval(), "picky"))
    made = networks(pair, Settings(precision="bf16", plan=False))
    assert made.precision == "fp32"
    (line,) = [n for n in made.lost if "bfloat16" in n]
    assert line == "no bfloat16: expected float32; going on in float32"


def test_nothing_is_ever_compiled():
    from pathlib import Path

    for path in Path(chunk.__file__).parent.glob("*.py"):
        text = path.read_text("utf-8")
        assert not any(word in text for word in ("torch.compile(", "cpp_extension", "import triton")), path


def test_the_search_stops_where_rows_get_no_cheaper_and_where_memory_ends():
    assert searched(lambda n: 0.001 * max(n, 256), 64, 4096)[0] == 256
    assert searched(lambda n: 0.001 * n * n, 64, 4096)[0] == 64

    def small(n):
        if n > 128:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1.0

    assert searched(small, 64, 4096)[0] == 128
    assert searched(lambda n: small(n + 4096), 64, 4096)[0] == 64
    with pytest.raises(RuntimeError, match="else"):
        searched(lambda n: (_ for _ in ()).throw(RuntimeError("something else")), 64, 128)


def test_the_answer_is_kept_read_again_and_asked_for_anew_where_it_is_broken(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(chunk, "trial", lambda engine, rows: asked.append(rows) or 0.001 * max(rows, 32))

    def found(pair=None, **settings):
        engine = Engine(CLIMB, pair or linear_pair(), settings=Settings(**settings))
        rows = chunk_for(engine, 1000, tmp_path)
        return rows, engine.run_.notes[-1]

    rows, note = found()
    assert rows == 32
    assert "32 rows at a time by a search of" in note
    assert "ms a row at 64" in note
    assert asked == [8, 16, 32, 64]
    rows, note = found()
    assert rows == 32
    assert asked == [8, 16, 32, 64]
    assert "as found before" in note
    (place,) = tmp_path.iterdir()
    for broken in ("{", json.dumps({"rows": -3}), json.dumps({"key": {}, "rows": 64})):
        asked.clear()
        place.write_text(broken)
        assert found()[0] == 32
        assert asked, broken
    asked.clear()
    found(precision="bf16")
    assert asked, "another precision is another question"


def test_a_cache_that_cannot_be_written_costs_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(chunk, "trial", lambda engine, rows: 0.001 * max(rows, 32))
    wall = tmp_path / "file"
    wall.write_text("")
    engine = Engine(CLIMB, linear_pair())
    assert chunk_for(engine, 1000, wall / "chunks") == 32
    assert "is searched anew each run" in engine.run_.notes[-1]


def test_a_run_asks_only_where_it_is_told_to_and_changes_no_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path))
    z, seeds = torch.randn(70, 2, generator=torch.Generator().manual_seed(1)), list(range(70))
    points = []
    for settings in (Settings(), Settings(search=True), Settings(search=True, chunk=24)):
        run = Engine(CLIMB, linear_pair(), settings=settings).run(z, seeds)
        points.append(np.concatenate([c.point for c in run.chunks]))
        assert any("rows at a time" in n for n in run.notes) == (settings.chunk is None and bool(settings.search))
    assert np.array_equal(points[0], points[1])
    assert np.array_equal(points[0], points[2])
    assert run.chunk == 24
