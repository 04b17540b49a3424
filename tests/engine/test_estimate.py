"""The estimate: exact numbers of chunks, steps and looks times what one of each takes, and no trace in the run's ledger."""

import pytest
import torch

from latentshift.engine.estimate import estimate
from latentshift.engine.run import Engine, Settings
from latentshift.strategies.evolution import EvolGAN
from latentshift.strategies.gradient import IFGSM, PGD
from latentshift.strategies.wrappers import KeepBest
from latentshift.testing import counted, linear_pair
from latentshift.testing.again import Again


@pytest.mark.parametrize(
    ("strategy", "rows", "chunks", "looks"),
    [
        (IFGSM(steps=7, eps=None, step_size=0.1), 64, 4, 1),
        (IFGSM(steps=7, eps=None, step_size=0.1), 67, 4.5, 1),  # three more rows cost eight
        (IFGSM(steps=7, eps=None, step_size=0.1), 3, 1, 1),
        (KeepBest(inner=IFGSM(steps=3, eps=None, step_size=0.1)), 16, 1, 1),
        (EvolGAN(steps=9), 32, 2, 1),
        (PGD(steps=3), 32, 2, 2),  # a random start does not tell the start's score
        (IFGSM(steps=0), 16, 1, 1),
    ],
)
def test_the_numbers_of_steps_and_looks_are_exact(strategy, rows, chunks, looks):
    ticks = iter(range(10**6))
    engine = Engine(strategy, linear_pair(), settings=Settings(chunk=16))
    z, seeds = torch.randn(rows, *engine.pair.space.shape), list(range(rows))
    told = estimate(engine, z, seeds, clock=lambda: float(next(ticks)))
    assert (told.chunks, told.steps, told.looks) == (chunks, strategy.rounds, looks)
    assert told.seconds == chunks * (strategy.rounds * (strategy.rounds > 0) + looks)  # every call takes one tick
    assert engine.run_.ledger.as_tuple() == (0, 0, 0, 0)


def test_it_is_what_the_run_then_calls():
    """The clock counts evaluated rows, so the run can be compared with the estimate to the last one."""
    count = counted(linear_pair())
    engine = Engine(IFGSM(steps=5, eps=None, step_size=0.1), count.pair, settings=Settings(chunk=16, prepare=False))
    z, seeds = torch.randn(64, *engine.pair.space.shape), list(range(64))
    told = estimate(engine, z, seeds, clock=lambda: float(count.g_rows))
    count.g_rows = 0
    engine.run(z, seeds)
    assert told.seconds == count.g_rows


def test_a_chunk_that_takes_no_time_is_done_and_timed_whole():
    """The same clock a million times as quick; looks and steps of a whole chunk are then in one figure."""
    count = counted(linear_pair())
    engine = Engine(IFGSM(steps=5, eps=None, step_size=0.1), count.pair, settings=Settings(chunk=16, prepare=False))
    z, seeds = torch.randn(64, *engine.pair.space.shape), list(range(64))
    told = estimate(engine, z, seeds, clock=lambda: count.g_rows / 1e6)
    assert engine.run_.ledger.as_tuple() == (0, 0, 0, 0)
    assert engine.run_.chunks == []
    count.g_rows = 0
    engine.run(z, seeds)
    assert told.seconds == pytest.approx(count.g_rows / 1e6)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_run_tells_once_what_it_will_take_and_pays_nothing_for_it(recorded):
    pair, strategy = linear_pair(), IFGSM(steps=7, eps=None, step_size=0.1)
    z, seeds = torch.randn(67, *pair.space.shape), list(range(67))
    told = []
    plain = Engine(strategy, pair, settings=Settings(chunk=16)).run(z, seeds)
    engine = Engine(strategy, pair, settings=Settings(chunk=16), graphs=Again() if recorded else None)
    run = engine.run(z, seeds, foretell=told.append)
    assert run.ledger == plain.ledger
    (found,) = told
    assert (found.chunks, found.steps, found.looks) == (4.5, 7, 1)
    assert found.seconds == pytest.approx(4.5 * 7.5 * found.step)
    assert 0 < found.step < 1


def test_too_few_steps_tell_nothing():
    pair, told = linear_pair(), []
    engine = Engine(IFGSM(steps=2, eps=None, step_size=0.1), pair)
    engine.run(torch.randn(8, *pair.space.shape), list(range(8)), foretell=told.append)
    assert told == []
