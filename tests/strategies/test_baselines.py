"""Collaborative sampling, polarity, truncation, pair mining and AE-OT against closed forms (methods O16, O18, O19)."""

import math

import numpy as np
import pytest
import torch

from latentshift import Pair
from latentshift.engine.run import Engine
from latentshift.errors import FileError, LatentshiftWarning, RequestError, ShapeError, UsageError
from latentshift.landscape import landscape_of
from latentshift.noise import Draw
from latentshift.objective import Ratio
from latentshift.space import EmpiricalGaussian, Normal, Space, Sphere, TruncatedNormal, Uniform
from latentshift.strategies.aeot import AEOT
from latentshift.strategies.collaborative import Collaborative
from latentshift.strategies.mining import PairMining
from latentshift.strategies.polarity import Polarity, Truncation, directions
from latentshift.testing.oracles import column, function_pair, linear_pair, refined


def generator_pair(g, size, prior, pixels):
    """A pair of a bare generator of points, with a critic that is constant."""
    return function_pair(lambda x: 0 * x[:, 0], size, prior).replaced(G=g, image_shape=(pixels,))


# ---- collaborative sampling


def test_collaborative_follows_its_formula():
    pair = linear_pair()
    start, _ = refined(Collaborative(steps=0), pair, 32)
    points, _ = refined(Collaborative(steps=3, step_size=0.2, iterate="last"), pair, 32)
    v = torch.tensor((0.3, -0.25))
    h, velocity = start, torch.zeros_like(start)
    for _ in range(3):
        velocity = 0.9 * velocity + 0.2 * torch.sigmoid(-(h @ v)).unsqueeze(1) * v
        h = h + velocity
    torch.testing.assert_close(points, h, atol=1e-6, rtol=1e-5)


def test_collaborative_keeps_the_best_iterate_and_tells_the_distance():
    pair = function_pair(lambda x: -20 * (x[:, 0] - 0.1).square(), 1, Normal())  # overshoots
    best, run = refined(Collaborative(steps=3, step_size=0.05, loss="score"), pair, 256)
    start, _ = refined(Collaborative(steps=0), pair, 256)
    last, _ = refined(Collaborative(steps=3, step_size=0.05, loss="score", iterate="last"), pair, 256)
    score = lambda z: pair.logit(z)  # noqa: E731
    assert (score(best) >= score(start)).all()
    assert (score(best) >= score(last)).all()
    assert (score(best) > score(last)).float().mean() > 0.9
    relative = (best - start).norm(dim=1) / start.norm(dim=1)
    torch.testing.assert_close(column(run, "relative"), relative, atol=1e-5, rtol=1e-4)
    assert run.ledger.as_tuple()[1:] == (4 * 256, 3 * 256, 3 * 256)


def test_collaborative_random_iterate_is_spread_over_the_path():
    pair = linear_pair((((1.0, 0.0), (0.0, 1.0))), (1.0, 0.0))
    start, _ = refined(Collaborative(steps=0), pair, 4000)
    points, _ = refined(Collaborative(steps=4, step_size=1.0, mu=0.0, loss="score", iterate="random"), pair, 4000)
    counts = torch.bincount((points - start)[:, 0].round().long(), minlength=5)
    assert len(counts) == 5  # the start and the four iterates
    assert (counts - 800).abs().max() < 4 * math.sqrt(800)


def test_error_14_a_bound_of_zero_is_a_bound():
    pair = linear_pair(w=(-3.0, 4.0), prior=Uniform(0, 1))
    points, _ = refined(Collaborative(steps=20, step_size=0.3), pair, 64)
    assert points.min() == 0


# ---- polarity and truncation


@pytest.mark.parametrize("rho", [0.5, -0.4, 1.0])
def test_o16_polarity_of_a_square(rho):
    pair = generator_pair(lambda z: z.square(), 1, Uniform(0, 1), 1)
    points, run = refined(Polarity(steps=64, rho=rho), pair, 20_000)
    mean, square = (rho + 1) / (rho + 2), (rho + 1) / (rho + 3)
    error = math.sqrt((square - mean**2) / 20_000)
    assert abs(float(points.mean()) - mean) < 3 * error + 0.001  # a pool of 64 leaves a bias of about 0.02 / 64
    assert run.ledger.as_tuple() == (66 * 20_000, 2 * 20_000, 64 * 20_000, 0)  # one pixel: one backward pass a draw


def test_error_21_weights_of_many_singular_values_do_not_saturate():
    size = 30  # volume = prod(1000 z_j): 1e200 would clip
    pair = generator_pair(lambda z: 500 * z.square() * 1e12, size, Uniform(0.5, 1), size)
    land = landscape_of(pair, torch.full((2, size), 0.6))
    weight = Polarity(rho=1.0, top=30).log_weight(torch.stack([torch.full((size,), 0.6), torch.full((size,), 0.9)]), land)
    assert float(weight[1] - weight[0]) == pytest.approx(size * math.log(0.9 / 0.6), rel=1e-4)
    assert float(weight[0]) == pytest.approx(size * math.log(1000 * 1e12 * 0.6), rel=1e-4)
    points, _ = refined(Polarity(rho=1.0, steps=32), pair, 256)
    assert abs(float(points.mean()) - 0.7778) < 0.005  # the law proportional to z; the prior's mean is 0.75


def test_polarity_uses_the_top_singular_values_of_a_projection():
    a = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    pair = generator_pair(lambda z: z @ a.T, 3, Normal(), 40)
    land = landscape_of(pair, torch.zeros(2, 3))
    full = torch.linalg.svdvals(a.double())
    weight = Polarity(rho=-2.0, top=2).log_weight(torch.zeros(2, 3), land)
    assert weight.tolist() == pytest.approx([-2 * float(full[:2].log().sum())] * 2, rel=1e-5)
    w = directions(40, 8)
    torch.testing.assert_close(w @ w.T, torch.eye(8, dtype=torch.float64))
    few = Polarity(rho=1.0, top=3, projection=8).log_weight(torch.zeros(2, 3), land)
    assert float(few[0]) == pytest.approx(float(torch.linalg.svdvals(w @ a.double()).log().sum()), rel=1e-5)
    assert land.ledger.g_backward == 2 * 40 + 2 * 8


def test_polarity_zero_is_the_prior_and_a_broken_jacobian_is_never_taken():
    pair = generator_pair(lambda z: z + 0 * (0.5 - z).sqrt(), 1, Normal(), 1)
    points, _ = refined(Polarity(rho=0.0, steps=30), pair, 4000)
    assert points.max() <= 0.5
    flat = generator_pair(lambda z: 2 * z, 1, Normal(), 1)
    points, _ = refined(Polarity(rho=0.0, steps=5), flat, 20_000)
    assert abs(float(points.mean())) < 3 / math.sqrt(20_000)
    assert abs(float(points.var()) - 1) < 3 * math.sqrt(2 / 20_000)


def test_truncation_redraws_and_does_not_clamp():
    pair = linear_pair()
    points, run = refined(Truncation(psi=0.5, form="redraw"), pair, 4000)
    start, _ = refined(Truncation(steps=0), pair, 4000)
    kept = start.abs() <= 0.5
    assert torch.equal(points[kept], start[kept])
    assert points.abs().max() <= 0.5
    assert (points.abs() == 0.5).float().mean() < 0.001  # clamping would pile up 62 % there
    truth = TruncatedNormal(0.5).scale()
    assert abs(float(points.std()) - truth) < 3 * truth / math.sqrt(8000)
    assert run.ledger.d_forward == 2 * 4000  # nothing but the looks at start and end


def test_truncation_by_prior():
    shrunk, _ = refined(Truncation(psi=0.7), linear_pair(), 64)
    start, _ = refined(Truncation(steps=0), linear_pair(), 64)
    torch.testing.assert_close(shrunk, 0.7 * start)
    boxed, _ = refined(Truncation(psi=0.5), linear_pair(prior=Uniform(0, 1)), 2000)
    assert boxed.min() >= 0.25
    assert boxed.max() <= 0.75
    assert abs(float(boxed.std()) - 0.5 / math.sqrt(12)) < 0.005
    cut, _ = refined(Truncation(psi=0.5), linear_pair(prior=TruncatedNormal(2.0)), 512)
    assert cut.abs().max() <= 1
    assert cut.abs().max() > 0.9
    mean = torch.tensor([1.0, 2.0])
    prior = EmpiricalGaussian(mean, torch.eye(2))
    space = Space("w", (2,), prior)
    land = landscape_of(linear_pair(), start, space=space)
    state = Truncation(psi=0.5).init(start, land, Draw(torch.arange(64)))
    moved = Truncation(psi=0.5).step(state, 0, land, Draw(torch.arange(64)))[0].point
    torch.testing.assert_close(moved, mean + 0.5 * (start - mean))


def test_truncation_refusals():
    with pytest.raises(RequestError, match="no meaning for a sphere prior"):
        Engine(Truncation(), function_pair(lambda x: x[:, 0], 4, Sphere()))
    with pytest.raises(UsageError, match="done once"):
        Truncation(steps=2)


# ---- pair mining


def diagonal():
    """G = diag(1/2, 2, 3): Eq. 8's ratio lies in [0.5, 3] and its extremes on the axes."""
    a = torch.tensor([0.5, 2.0, 3.0])
    return generator_pair(lambda z: z * a, 3, Normal(), 3)


@pytest.mark.parametrize(("form", "low", "high"), [("hard", 0.5, 0.6), ("easy", 2.9, 3.0)])
def test_o18_mining_reaches_the_extreme_ratio(form, low, high):
    pair = diagonal()
    strategy = PairMining(steps=400, eps=0.3, step_size=0.001, form=form)
    points, run = refined(strategy, pair, 256)
    start, _ = refined(PairMining(steps=0), pair, 256)
    moved = points - start
    assert moved.abs().max() <= 0.3 + 1e-6
    ratio = (moved * torch.tensor([0.5, 2.0, 3.0])).abs().mean(1) / moved.abs().mean(1)
    assert low - 1e-4 <= float(ratio.mean()) <= high
    assert run.ledger.as_tuple()[2:] == (400 * 256, 0)  # D is never walked back


def test_mining_needs_no_critic():
    pair = Pair(lambda z: 2 * z, None, Space("z", (2,), Normal()), image_shape=(2,))
    points, run = refined(PairMining(steps=5), pair, 8, objective=Ratio())
    assert torch.isfinite(points).all()
    assert run.ledger.d_forward == 0


def test_error_5_rows_do_not_share_a_ratio_unless_asked():
    pair = diagonal()
    plain = PairMining(steps=10, eps=0.3)
    alone = torch.cat([refined(plain, pair, 8, first=i)[0][:1] for i in range(4)])
    assert torch.equal(alone, refined(plain, pair, 64)[0][:4])
    with pytest.warns(LatentshiftWarning, match="couples the rows"):
        coupled = refined(PairMining(steps=10, eps=0.3, batch_mean=True, norm="2"), pair, 64)[0]
    with pytest.warns(LatentshiftWarning):
        fewer = refined(PairMining(steps=10, eps=0.3, batch_mean=True, norm="2"), pair, 8)[0]
    assert not torch.equal(coupled[:8], fewer)  # the published form does


# ---- AE-OT


def test_o19_heights_on_a_line():
    codes = torch.tensor([[-1.3], [0.2], [0.5], [2.0], [2.9]])
    pair = function_pair(lambda x: x[:, 0], 1, Uniform(0, 1))
    strategy = AEOT(codes=codes, mix=0.0, tolerance=0.005, iterations=3000)
    points, run = refined(strategy, pair, 4000)
    h = run.strategy.heights
    assert run.strategy.error < 0.02
    i = torch.arange(1, 5, dtype=torch.float64)
    want = -(i / 5) * (codes[1:] - codes[:-1])[:, 0]
    torch.testing.assert_close(h[1:] - h[:-1], want, atol=0.004 * 1.5, rtol=0)
    z, _ = refined(AEOT(steps=0, codes=codes), pair, 4000)
    cell = (z[:, 0] * 5).long().clamp(max=4)
    same = points[:, 0] == codes[cell, 0]
    assert same.float().mean() > 0.98  # monotone: the i-th fifth of the source goes to the i-th code


def test_aeot_mixes_neighbours_but_not_across_a_jump():
    codes = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]])
    pair = function_pair(lambda x: x[:, 0], 2, Normal())
    points, run = refined(AEOT(codes=codes, angle=0.2, iterations=1500, samples=2048), pair, 512)
    distance = torch.cdist(points, torch.cat([codes + torch.tensor([s * 0.05, 0.0]) for s in (-1, 0, 1)])).min(1).values
    assert distance.max() <= 0.05 + 1e-5  # on one of the two short segments, never between the groups
    assert len(points.unique(dim=0)) > 400  # mixed, not copied
    assert run.ledger.d_backward == 0
    share = (points[:, 1] > 2.5).float().mean()
    assert abs(float(share) - 0.5) < 0.1
    wide, _ = refined(AEOT(codes=codes, angle=3.1, mix=0.5, iterations=300, neighbours=1), pair, 64)
    assert torch.isfinite(wide).all()


def test_aeot_reads_codes_from_files_and_refuses_what_does_not_fit(tmp_path):
    pair = function_pair(lambda x: x[:, 0], 2, Normal())
    codes = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    np.save(tmp_path / "codes.npy", codes)
    np.savez(tmp_path / "codes.npz", other=np.zeros(3), codes=codes)
    options = {"iterations": 200, "samples": 512, "tolerance": 0.05}
    made = [
        refined(AEOT(codes=c, **options), pair, 16)[0]
        for c in (codes, str(tmp_path / "codes.npy"), str(tmp_path / "codes.npz"))
    ]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    with pytest.raises(RequestError, match=r"needs the latent codes.*Give codes=FILE"):
        Engine(AEOT(), pair)
    with pytest.raises(FileError, match="cannot read latent codes"):
        Engine(AEOT(codes=str(tmp_path / "none.npy")), pair)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="cannot read latent codes"):
        Engine(AEOT(codes=str(tmp_path / "object.npy")), pair)
    with pytest.raises(ShapeError, match="codes have shape"):
        Engine(AEOT(codes=torch.zeros(4, 3)), pair)
    with pytest.raises(RequestError, match="independent coordinates"):
        Engine(AEOT(codes=torch.zeros(4, 2)), function_pair(lambda x: x[:, 0], 2, Sphere()))
