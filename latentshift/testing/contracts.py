"""Contract suites: what every strategy, pair, critic and space must hold. A plug-in author's test is one line each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..engine.run import Engine, Settings
from ..model import Critic, Pair
from ..noise import latents
from ..space import Context, Space
from ..strategies.base import REASONS, Strategy
from .oracles import linear_pair


def _run(strategy: Strategy, pair: Pair, z: torch.Tensor, seeds: list[int], **settings: Any) -> dict[str, np.ndarray[Any, Any]]:
    run = Engine(strategy, pair, settings=Settings(**settings)).run(z, seeds)
    keys = ("point", "score0", "score", "stopped", "evaluations")
    return {k: np.concatenate([getattr(c, k) for c in run.chunks]) for k in keys}


def check_strategy(strategy: Strategy, pair: Pair | None = None, *, rows: int = 21) -> None:
    """Check a strategy on a pair (default: a linear one): determinism, independent rows, counted cost, reasons, support.

    Raises AssertionError with what to do about it.
    """
    pair = pair or linear_pair()
    seeds = list(range(100, 100 + rows))
    z = torch.from_numpy(latents(seeds, pair.space.shape, pair.space.prior))
    kept = z.clone()
    whole = _run(strategy, pair, z, seeds)
    assert torch.equal(z, kept), "the strategy changed the latents that it was given: work on copies"
    again = _run(strategy, pair, z, seeds)
    for key in whole:
        same = np.array_equal(whole[key], again[key], equal_nan=True)
        assert same, f"two runs differ in {key!r}: take noise from `draw`, never from a global generator"
    order = np.random.default_rng(0).permutation(rows)
    ways = {
        "in chunks of 8": _run(strategy, pair, z, seeds, chunk=8),
        "without compaction": _run(strategy, pair, z, seeds, compact=False),
    }
    mixed = _run(strategy, pair, z[order], [seeds[i] for i in order])
    ways["in another order"] = {k: v[np.argsort(order)] for k, v in mixed.items()}
    alone = [_run(strategy, pair, z[i : i + 1], seeds[i : i + 1]) for i in (0, rows // 2, rows - 1)]
    for way, got in ways.items():
        for key in ("point", "score", "stopped"):
            assert np.array_equal(whole[key], got[key], equal_nan=True), f"{key!r} differs {way}: a row saw another row"
    for i, got in zip((0, rows // 2, rows - 1), alone, strict=True):
        for key in ("point", "score"):
            assert np.array_equal(whole[key][i : i + 1], got[key], equal_nan=True), f"row {i} differs alone in {key!r}"
    _check_cost(strategy, pair, z, seeds)
    known = set(range(len(REASONS)))
    assert set(whole["stopped"].tolist()) <= known, f"unknown reason codes {set(whole['stopped'].tolist()) - known}"
    if pair.space.prior.bounded and getattr(strategy, "support", "clamp") != "free":
        inside = pair.space.inside(torch.from_numpy(whole["point"]))
        assert bool(inside.all()), "points left the prior's support: clamp, reflect or refuse"


def _check_cost(strategy: Strategy, pair: Pair, z: torch.Tensor, seeds: list[int]) -> None:
    engine = Engine(strategy, pair, settings=Settings(prepare=False))
    fitted = engine.strategy
    run = engine.run(z, seeds)
    rows, cost, ledger = len(z), fitted.cost(), run.ledger
    # the engine itself looks at the start where the strategy does not tell its score, and makes the final images
    spare = 2
    for name, said, counted in zip(("g_forward", "d_forward"), cost[:2], ledger.as_tuple()[:2], strict=True):
        most = (said + spare) * rows + 1e-6
        assert counted <= most, f"{name}: {counted / rows:g} a row were counted, cost() says {said:g}"
        if cost.exact:
            assert counted >= said * rows - 1e-6, f"{name}: {counted / rows:g} a row were counted, cost() says {said:g}"
    for name, said, counted in zip(("g_backward", "d_backward"), cost[2:4], ledger.as_tuple()[2:], strict=True):
        ok = counted == said * rows if cost.exact else counted <= said * rows + 1e-6
        assert ok, f"{name}: {counted / rows:g} a row were counted, cost() says {said:g}"


def check_pair(pair: Pair, *, rows: int = 16) -> None:
    """Check a pair: shapes, finite images in the stated range, one number per image, rows independent of their batch."""
    z = torch.from_numpy(latents(list(range(rows)), pair.space.shape, pair.space.prior)).to(pair.device, pair.compute_dtype)
    label = torch.arange(rows, device=z.device) % pair.classes if pair.classes else None
    with torch.no_grad():
        images = pair.generate(z, label)
        assert images.shape[0] == rows, f"G made {images.shape[0]} images of {rows} latents"
        assert bool(torch.isfinite(images).all()), "G made NaN or infinite images"
        if pair.image_shape is not None:
            assert tuple(images.shape[1:]) == tuple(pair.image_shape), (
                f"images are {tuple(images.shape[1:])}, said {pair.image_shape}"
            )
        if images.ndim == 4:
            low, high = pair.image_range
            over = float(torch.maximum(images - high, low - images).max())
            assert over < 0.5 * (high - low), f"images leave {pair.image_range} by {over:.2g}: state another image_range"
        part = pair.generate(z[:8], None if label is None else label[:8])
        assert torch.allclose(part, images[:8], rtol=1e-4, atol=1e-4), "G's images depend on the batch"
        if pair.critic is not None:
            score = pair.logit(images, label)
            assert score.shape == (rows,), f"the critic gave {tuple(score.shape)} for {rows} images"
            few = pair.logit(images[:8], None if label is None else label[:8])
            assert torch.allclose(few, score[:8], rtol=1e-3, atol=1e-3), "the score of a row depends on its batch"


def check_critic(critic: Any, shape: tuple[int, ...] = (3, 32, 32), *, rows: int = 4) -> None:
    """Check a critic (`Critic`, or one with `score(images, labels)`): (rows,) finite numbers, rows independent, a gradient
    where it says so."""
    x = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if isinstance(critic, Critic):
        call, differentiable = critic.logit, critic.differentiable
    else:
        for name in ("name", "differentiable", "higher_is_better", "score"):
            assert hasattr(critic, name), f"a critic needs {name!r}"
        call, differentiable = critic.score, critic.differentiable
    with torch.no_grad():
        score = call(x, None)
    assert score.shape == (rows,), f"score gave {tuple(score.shape)} for {rows} images"
    assert bool(torch.isfinite(score).all()), "score gave NaN or infinity"
    with torch.no_grad():
        one = call(x[:1], None)
    assert torch.allclose(one, score[:1], rtol=1e-3, atol=1e-4), "the score of an image depends on its batch"
    if differentiable:
        y = x.clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(call(y, None).sum(), y)
        assert bool(torch.isfinite(grad).all()), "the gradient is NaN or infinite"


def check_space(space: Space, *, rows: int = 64) -> None:
    """Check a space: draws lie in the support, clamp and reflect bring points back, a projected point lies in its ball."""
    z = torch.from_numpy(latents(list(range(rows)), space.shape, space.prior))
    space.check(z)
    assert bool(space.inside(z).all()), "draws of the prior lie outside of its support"
    far = z + 5 * space.prior.scale() * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    for verb in ("clamp", "reflect"):
        assert bool(space.inside(getattr(space, verb)(far)).all()), f"{verb} leaves points outside of the support"
        assert torch.allclose(getattr(space, verb)(z), z, atol=1e-5), f"{verb} moves points that are inside"
    norms: tuple[Any, ...] = ("inf", "2")
    for norm in norms:
        ball = space.project(far, z, 0.1, norm)
        assert float((space.distance(ball, z, norm)).max()) <= 0.1 + 1e-6, f"project leaves the {norm} ball"
    q = z.double().requires_grad_(True)
    log_p = space.log_density(q)
    if log_p.requires_grad:
        (grad,) = torch.autograd.grad(log_p.sum(), q)
        assert torch.allclose(grad, space.prior.score(q.detach()), atol=1e-6), (
            "the prior's score is not the gradient of its log density"
        )
    assert Context(seed=torch.arange(rows), point0=z).select(torch.tensor([1, 0])).seed.tolist() == [1, 0]
