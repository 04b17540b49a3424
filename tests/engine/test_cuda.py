"""The plan for a card, on a stand-in that calls recorded work again: buffers, tails, compaction, order, what is lost."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from latentshift import noise, registry
from latentshift.engine.cuda import CannotRecordError, Recorded, Shape
from latentshift.engine.graphs import can_record
from latentshift.engine.run import Engine, Settings
from latentshift.errors import DeviceError
from latentshift.landscape import Landscape
from latentshift.noise import Draw, latents
from latentshift.sampler import load
from latentshift.space import Context
from latentshift.strategies.base import over_rows
from latentshift.strategies.chain import Chain
from latentshift.strategies.gradient import IFGSM, MIFGSM
from latentshift.strategies.guard import Guard
from latentshift.strategies.wrappers import KeepBest, StopAt
from latentshift.testing import linear_pair
from latentshift.testing.again import Again

LINE = "steps run one kernel at a time, slower where networks are small: "


def start(pair, rows):
    seeds = list(range(rows))
    return torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior)), seeds


def results(engine, rows):
    run = engine.run(*start(engine.pair, rows))
    keys = ("point", "score0", "score", "stopped", "evaluations", "images", "trace")
    found = {k: np.concatenate([getattr(c, k) for c in run.chunks], 1 if k == "trace" else 0) for k in keys}
    return found, run


def both(strategy, pair, rows, graphs, **settings):
    """Run eagerly and recorded, demand the same bits and counts, and return the recorded run."""
    fitted = Engine(strategy, pair).strategy
    eager, told = results(Engine(strategy, pair, settings=Settings(trace=True, **settings), fitted=fitted), rows)
    engine = Engine(strategy, pair, settings=Settings(trace=True, **settings), fitted=fitted, graphs=graphs)
    mine, run = results(engine, rows)
    for key, value in eager.items():
        assert np.array_equal(value, mine[key], equal_nan=True), key
    assert told.ledger == run.ledger
    return run


SKIPPED = {
    "ae-ot": "wants codes",
    "dot-target": "moves images",
    "chain": "wants stages",
    "collaborative": "moves a hidden layer",
    "dgflow": "",
    "pair-mining": "wants a companion",
}


@pytest.mark.parametrize("name", sorted(n for n in registry.names("strategies") if not SKIPPED.get(n)))
def test_every_method_has_the_same_bits_recorded(name):
    pair, graphs = linear_pair(), Again()
    try:
        strategy = registry.make_strategy(name, steps=1 if name == "truncation" else 6)
        run = both(strategy, pair, 20, graphs, check_every=4)
    except Exception as error:  # a method that this pair does not suit says so; nothing else may pass
        if type(error).__module__ != "latentshift.errors":
            raise
        pytest.skip(f"not for this pair: {error}")
    assert graphs.rows
    assert graphs.rows == sorted(graphs.rows, reverse=True)
    assert run.plan.endswith(", steps recorded")
    assert not [n for n in run.notes if LINE in n]


def test_finished_rows_leave_for_smaller_shapes_and_the_largest_is_recorded_first():
    pair, graphs = load("ring"), Again()
    middle = float(np.median(results(Engine(IFGSM(steps=0), pair), 64)[0]["score"]))
    strategy = StopAt(inner=MIFGSM(steps=12, step_size=0.05, eps=None), target=middle)
    both(strategy, pair, 64, graphs, chunk=64, check_every=3)
    assert graphs.rows == sorted(graphs.rows, reverse=True)
    assert set(graphs.rows) <= {64, 32, 16}
    assert len(graphs.rows) > 1


def test_the_tail_is_padded_to_a_shape_and_nothing_is_recorded_twice():
    pair, graphs = load("ring"), Again()
    strategy = KeepBest(inner=IFGSM(steps=4, step_size=0.05, eps=None))
    both(strategy, pair, 70, graphs, chunk=32)
    assert graphs.rows == [32, 8]
    engine = Engine(strategy, pair, settings=Settings(chunk=32), graphs=graphs)
    first, _ = results(engine, 70)
    shape = engine.stepper.shapes[32]
    where = [x.data_ptr() for x in (shape.state.point, shape.told, shape.context.point0)]
    engine.run_.chunks.clear()
    again, _ = results(engine, 70)
    assert np.array_equal(first["point"], again["point"])
    assert where == [x.data_ptr() for x in (shape.state.point, shape.told, shape.context.point0)]
    assert graphs.rows == [32, 8] * 2
    assert graphs.forgotten == 0


def test_a_trained_pair_and_its_noise():
    both(registry.make_strategy("ddls", steps=3, slope=1.0), load("fashion32"), 20, Again(), chunk=16)


class Refuses(Again):
    def record(self, work, reset):
        reset()
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Stale(Again):
    def record(self, work, reset):
        super().record(work, reset)
        return lambda: None


@pytest.mark.parametrize(
    ("graphs", "why"),
    [
        (Refuses(), "recording failed (operation not permitted when stream is capturing)"),
        (Stale(), "a replayed step gave other values"),
    ],
)
def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_one_line_says_so(graphs, why):
    run = both(KeepBest(inner=IFGSM(steps=4, step_size=0.05, eps=None)), load("ring"), 40, graphs, chunk=16)
    assert [n for n in run.notes if n.startswith(LINE)] == [LINE + why]


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: Guard(inner=s)])
def test_steps_that_are_not_alike_are_not_recorded(wrap):
    stages = (IFGSM(steps=2, step_size=0.05, eps=None), registry.make_strategy("ddls", steps=2))
    graphs = Again()
    run = both(wrap(Chain(stages=stages)), linear_pair(), 10, graphs)
    assert graphs.rows == []
    assert LINE + "the method's steps are not alike" in run.notes


def test_too_little_memory_takes_smaller_shapes_and_then_none():
    strategy = IFGSM(steps=3, step_size=0.05, eps=None)
    graphs = Again(most=16)
    run = both(strategy, load("ring"), 40, graphs, chunk=32)
    assert graphs.rows == [16, 8]
    assert run.chunk == 16
    run = both(strategy, load("ring"), 20, Again(most=4), chunk=16)
    assert LINE + "too little memory to record them" in run.notes
    pair = linear_pair()

    def G(z):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(DeviceError, match="not even 8 rows"):
        Engine(strategy, pair.replaced(G=G), settings=Settings(prepare=False), graphs=Again()).run(*start(pair, 20))


def test_there_are_no_graphs_on_a_cpu():
    assert can_record("cpu") == "no graphs on cpu"
    assert not isinstance(Engine(IFGSM(steps=1), linear_pair()).stepper, Recorded)


@pytest.mark.parametrize(
    "name", sorted(n for n in registry.names("strategies") if n not in {k for k, v in SKIPPED.items() if v})
)
def test_no_step_waits_for_the_device(name, monkeypatch):
    """Under fake tensors nothing has a value: what a card would have to be asked for raises."""

    def polar(a, b):
        angle = b * (2 * torch.pi)
        return (-2 * a.log()).sqrt(), (angle.cos(), angle.sin())

    pair = linear_pair()
    try:
        strategy = Engine(registry.make_strategy(name, steps=1 if name == "truncation" else 3), pair).strategy
    except Exception as error:
        if type(error).__module__ != "latentshift.errors":
            raise
        pytest.skip(f"not for this pair: {error}")
    monkeypatch.setattr(noise, "_polar", polar)
    seed = torch.arange(8)
    z = torch.randn(8, *pair.space.shape)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        land = Landscape(pair, Context(seed=mode.from_tensor(seed), point0=mode.from_tensor(z)))
        state = strategy.init(land.context.point0, land, Draw(land.context.seed))
        shape = Shape(strategy, land, over_rows(lambda x: x, state))
        shape.work()
        with pytest.raises(Exception, match="_local_scalar_dense"):
            float(shape.t)


def test_a_waiting_step_is_seen():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        int(torch.zeros(()))
    assert issubclass(CannotRecordError, Exception)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_on_a_card_replays_give_the_gain_of_eager_steps(precision):
    pair = load("fashion32").to("cuda")
    strategy = IFGSM(steps=20, step_size=0.05, eps=None)
    gains = []
    for plan in (False, True):
        engine = Engine(strategy, pair, settings=Settings(chunk=64, plan=plan, precision=precision))
        found, run = results(engine, 100)
        gains.append(float((found["score"] - found["score0"]).mean()))
    assert not [n for n in run.notes if LINE in n]
    assert gains[1] == pytest.approx(gains[0], rel=0.03)
