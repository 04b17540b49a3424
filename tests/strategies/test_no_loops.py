"""No Python loop over samples or candidates: a step issues the same operations whatever the number of rows or candidates."""

import ast
import pathlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import latentshift
from latentshift.landscape import landscape_of
from latentshift.noise import Draw
from latentshift.strategies.adam import Adam
from latentshift.strategies.chain import Chain
from latentshift.strategies.cma import Tarsier
from latentshift.strategies.collaborative import Collaborative
from latentshift.strategies.dot import DOT, DOTTarget
from latentshift.strategies.evolution import BestOfN, EvolGAN
from latentshift.strategies.flow import DGflow
from latentshift.strategies.gradient import IFGSM, MIFGSM, PGD
from latentshift.strategies.keep import TopShare
from latentshift.strategies.langevin import DDLS, MALA, REPGAN, Ex2MCMC
from latentshift.strategies.mining import PairMining
from latentshift.strategies.polarity import Polarity, Truncation
from latentshift.strategies.selection import DRS, MH, OBRS
from latentshift.strategies.wrappers import KeepBest, LowerShare, StopAt
from latentshift.testing.oracles import linear_pair

STEP = IFGSM(steps=2, eps=0.1)
METHODS = {
    "ifgsm": STEP,
    "adam": Adam(steps=2, eps=0.1),
    "mifgsm": MIFGSM(steps=2, eps=0.1),
    "pgd": PGD(steps=2, eps=0.1),
    "collaborative": Collaborative(steps=2),
    "ddls": DDLS(steps=2),
    "mala": MALA(steps=2, burn_in=1),
    "repgan": REPGAN(steps=2),
    "ex2mcmc": Ex2MCMC(steps=2),
    "dgflow": DGflow(steps=2),
    "dot": DOT(steps=2, k=1.0),
    "evolgan": EvolGAN(steps=4, offspring=2),
    "evolgan-portfolio": EvolGAN(steps=4, offspring=2, mutation="portfolio"),
    "best-of-n": BestOfN(steps=3),
    "tarsier": Tarsier(steps=2, population=4),
    "mh": MH(steps=2),
    "drs": DRS(steps=2, pilot_rows=24),
    "obrs": OBRS(steps=2, pilot_rows=24),
    "top-share": TopShare(steps=2, pilot_rows=24),
    "pair-mining": PairMining(steps=2, eps=0.1),
    "polarity": Polarity(steps=2),
    "truncation": Truncation(),
    "keep-best": KeepBest(inner=STEP),
    "stop-at": StopAt(inner=STEP, target=3.0),
    "lower-share": LowerShare(inner=STEP, rows=24),
    "chain": Chain(stages=(BestOfN(steps=2), STEP, OBRS(steps=1, pilot_rows=24)), tries=2),
}


class Count(TorchDispatchMode):
    """Counts the operations that are issued."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def operations(strategy, rows):
    pair = linear_pair()
    z = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
    land = landscape_of(pair, z)
    strategy = strategy.fit(land, Draw(land.context.seed))
    index = torch.arange(rows)
    land = land.select(index)
    draw = Draw(land.context.seed)
    with Count() as count:
        state = strategy.init(z[:rows], land, draw)
        for t in range(strategy.rounds):
            state, _ = strategy.step(state, t, land, draw)
        strategy.finish(state, land)
    return count.calls


@pytest.mark.parametrize("name", METHODS)
def test_the_work_is_one_batch_whatever_the_number_of_rows(name):
    few, many = operations(METHODS[name], 8), operations(METHODS[name], 24)
    assert few == many > 0


@pytest.mark.parametrize(
    ("few", "many"),
    [
        (EvolGAN(steps=8, offspring=2), EvolGAN(steps=16, offspring=4)),
        (EvolGAN(steps=8, offspring=2, mutation="gaussian"), EvolGAN(steps=16, offspring=4, mutation="gaussian")),
        (Tarsier(steps=2, population=4), Tarsier(steps=2, population=12)),
        (Ex2MCMC(steps=2, candidates=3), Ex2MCMC(steps=2, candidates=9)),
    ],
    ids=["evolgan", "evolgan-gaussian", "tarsier", "ex2mcmc"],
)
def test_candidates_are_an_axis_inside_the_row(few, many):
    assert operations(few, 8) == operations(many, 8)


def test_every_method_is_looked_at():
    from latentshift import registry

    left = {"ae-ot", "dot-target", "random-search"}  # codes and an image space; another name of best-of-n
    assert set(registry.names("strategies")) <= set(METHODS) | left
    assert DOTTarget.step is DOT.step


def test_states_are_never_taken_apart_in_python():
    """No `.item()`, `.tolist()` or iteration over a state's tensors in what the engine calls for every step."""
    folder = pathlib.Path(latentshift.__file__).parent / "strategies"
    for path in folder.glob("*.py"):
        for kind in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(kind, ast.FunctionDef) or kind.name not in ("step", "init", "finish"):
                continue
            for node in ast.walk(kind):
                call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                assert not (call and node.func.attr in ("item", "tolist", "unbind")), f"{path.name}:{node.lineno}"
                if isinstance(node, ast.For):
                    told = ast.unparse(node.iter)
                    assert told in ("range(self.local_steps)",), f"{path.name}:{node.lineno} loops over {told}"
