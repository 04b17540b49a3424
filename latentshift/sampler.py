"""The one door for people: `Sampler(G, D).refine(z)`, `.score(z)`, `.stream(seeds=...)`, and `load`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import noise
from .budget import settled
from .critics import as_critic
from .engine.run import Engine, Run, Settings
from .errors import RequestError, ShapeError, UnknownNameError, UsageError
from .files.names import resolve
from .files.pictures import grid, to_bytes
from .files.reals import read_reals
from .files.record import Recorder
from .head import fit_head, wants_head
from .landscape import Ledger
from .model import Critic, Pair, check_finite
from .objective import Realness, Term
from .recipe import AUTO_REALS, Recipe, get_recipe, stage_of
from .registry import make_strategy
from .space import Context, Prior, Space
from .strategies.base import REASONS, Stay, Strategy, options, strategy_name
from .strategies.keep import compose

Latents = Tensor | np.ndarray[Any, Any]


def load(reference: str | Path) -> Pair:
    """Return the pair that a reference names: a known name, a pair folder, a file of a known family.

    >>> load("ring").space.shape
    (2,)
    """
    return resolve(str(reference))


@dataclass
class Result:
    """Refined samples, rows in the order of the input; tensors in its dtype and on its device (arrays for arrays).

    `images` (rows, C, H, W) in the pair's range, `z` and `z0` (rows, ...) after and before, `score` and `score0` (rows,)
    logits, `gain` their difference, `stopped` a reason word per row, `evaluations` forward passes per row, `ledger` the work
    counted in rows, `trace` (steps + 1, rows) scores on the way (one column of means unless asked for).
    """

    images: Any
    z: Any
    z0: Any
    score: Any
    score0: Any
    seeds: list[int]
    labels: Any
    stopped: list[str]
    evaluations: np.ndarray[Any, Any]
    ledger: Ledger
    trace: np.ndarray[Any, Any]
    run: Run = field(repr=False)
    pair: Pair = field(repr=False)
    recipe: dict[str, Any] = field(default_factory=dict, repr=False)
    images0: Any = field(default=None, repr=False)
    accepted: Any = None
    by_seed: bool = True
    space: Space | None = field(default=None, repr=False)  # where the points lie; None: the pair's own
    honest: dict[str, Any] | None = field(default=None, repr=False)  # what the honest critic's card says, where one was fitted

    @property
    def gain(self) -> Any:
        """Score after minus score before, per row."""
        return self.score - self.score0

    def __len__(self) -> int:
        return len(self.seeds)

    def names(self) -> list[str]:
        """Return a file stem per row: `seed0085` as StyleGAN names them, `row0003` where latents came without seeds."""
        return row_names(self.seeds, self.by_seed)

    def grid(self, columns: int = 8) -> Any:
        """Return a picture (PIL) of the samples, before above after (`before=True` in refine keeps the former)."""
        rows = slice(0, 8 * columns)
        before = None if self.images0 is None else to_bytes(np.asarray(self.images0)[rows], self.pair.image_range)
        after = to_bytes(np.asarray(self.images)[rows], self.pair.image_range)
        return grid(before, after, self.names()[rows], np.asarray(self.gain)[rows].tolist(), columns=columns)

    def save(self, folder: str | Path, *, overwrite: bool = False, noise: bool = False) -> Path:
        """Write pictures, `latents.npz`, `samples.jsonl`, `run.json` and `grid.png` into `folder` and return it.

        `noise` adds a style model's noise maps to `latents.npz`.
        """
        folder = Path(folder)
        space = self.space or self.pair.space
        if noise and not getattr(space, "noise_shapes", None):
            raise RequestError(f"{self.pair.name!r} has no noise maps", way_out="Leave noise= out.")
        recorder = Recorder(folder, self.pair, self.recipe, self.seeds, self.names(), self.labels, space=space, noise=noise)
        if self.honest is not None:
            recorder.more["honest"] = {k: v for k, v in self.honest.items() if k != "parts"}
        recorder.prepare(overwrite=overwrite)
        recorder.begin()
        for chunk in self.run.chunks:
            recorder.put(chunk, Ledger())
        recorder.finish(self.run, ledger=self.ledger)
        return folder

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page of this result to `path` and return it.

        Unrefined images that were not kept (`before=True` keeps them) are made again.
        """
        import tempfile

        from .report.page import write_report

        with tempfile.TemporaryDirectory() as folder:
            self._with_before().save(folder)
            return write_report(folder, path)[0]

    def _with_before(self) -> Result:
        if self.images0 is not None:
            return self
        chunks, space = [], self.space or self.pair.space
        for c in self.run.chunks:
            point = torch.from_numpy(c.point0).to(self.pair.device, self.pair.compute_dtype)
            label = None if self.labels is None else torch.as_tensor(self.labels)[torch.from_numpy(c.rows)].to(point.device)
            seed = torch.tensor([self.seeds[i] for i in c.rows], device=point.device)
            with torch.no_grad():
                images0 = space.decode(self.pair, point, Context(seed, label, point0=point))
            chunks.append(c._replace(images0=images0.cpu().numpy()))
        return dataclasses.replace(self, run=dataclasses.replace(self.run, chunks=chunks))


def row_names(seeds: Sequence[int], by_seed: bool = True) -> list[str]:
    """Return file stems: seeds with four digits or as many as the largest needs, or row numbers."""
    if by_seed:
        digits = max(4, *(len(str(s)) for s in seeds)) if seeds else 4
        return [f"seed{s:0{digits}d}" for s in seeds]
    digits = max(4, len(str(max(len(seeds) - 1, 0))))
    return [f"row{i:0{digits}d}" for i in range(len(seeds))]


class Sampler:
    """Refines and scores the samples of a pair.

    `Sampler(G, D)` takes any two modules or callables, `Sampler(pair)` a Pair. `recipe` is a name ('auto') or a Recipe;
    `budget` the evaluations per sample, forward and backward, that `auto` may take (`latentshift.budget`);
    `strategy` a name or a Strategy and takes the recipe's place; further keywords are options of the strategy (`steps`,
    `step_size`, `eps`, `norm`, ...). `objective` is climbed (default: the critic's logit). `critic` replaces the pair's own.

    >>> G = torch.nn.Linear(4, 6).eval()
    >>> D = torch.nn.Linear(6, 1).eval()
    >>> result = Sampler(G, D, recipe="advlatgan-z/ball").refine(torch.zeros(3, 4), steps=2, step_size=0.1)
    >>> bool((result.gain > 0).all()), result.ledger.g_backward
    (True, 6)
    """

    def __init__(
        self,
        G: Any,
        D: Any = None,
        *,
        recipe: str | Recipe = "auto",
        budget: int | None = None,
        strategy: str | Strategy | None = None,
        objective: Term | None = None,
        critic: Critic | Any | None = None,
        space: str | Space | None = None,
        device: Any = None,
        chunk: int | None = None,
        compact: bool = True,
        prepare: bool = True,
        precision: str = "fp32",
        z_size: int | tuple[int, ...] | None = None,
        prior: Prior | None = None,
        classes: int | None = None,
        returns: str = "logit",
        real_is: str = "high",
        image_range: tuple[float, float] = (-1.0, 1.0),
        **changes: Any,
    ) -> None:
        if isinstance(G, Pair):
            if D is not None:
                raise UsageError("a Pair has its own critic", way_out="Give another one with critic=.")
            pair = G
        else:
            pair = Pair.wrap(
                G, D, z_size=z_size, prior=prior, classes=classes, returns=returns, real_is=real_is, image_range=image_range
            )
        if critic is not None:
            pair = pair.replaced(
                critic=critic if isinstance(critic, Critic) else as_critic(critic, image_range=pair.image_range)
            )
        if device is not None:
            pair = pair.to(device)
        self.pair = pair
        self.recipe = recipe if isinstance(recipe, Recipe) else get_recipe(recipe)
        self.budget = budget
        settled(self.recipe, pair.image_shape, budget)  # refuses
        self.strategy = strategy
        self.changes = changes
        self._critic = critic
        self._fit: tuple[Any, Any, Any] | None = None  # the last honest critic, and for what it was fitted
        self.objective = objective
        self.space_name = space
        self.settings = Settings(chunk=chunk, compact=compact, prepare=prepare, precision=precision)
        if chunk is not None and chunk < 1:
            raise UsageError(f"chunk is at least 1, not {chunk}")

    def plan(self, strategy: str | Strategy | None = None, **changes: Any) -> tuple[Strategy, dict[str, Any]]:
        """Return the strategy that `refine` would run, and the recipe as plain values."""
        strategy = strategy if strategy is not None else self.strategy
        changes = {**self.changes, **changes}
        if isinstance(strategy, Strategy):
            then, keep, drop = changes.pop("then", ()), changes.pop("keep", None), changes.pop("drop", False)
            known = [f.name for f in dataclasses.fields(strategy) if f.init]
            for name in changes:
                if name not in known:
                    raise UnknownNameError(
                        "option", name, known, way_out=f"{strategy_name(strategy)!r} takes: {', '.join(known)}."
                    )
            strategy = dataclasses.replace(strategy, **changes) if changes else strategy
            told = {"name": "custom", "strategy": strategy_name(strategy), "options": options(strategy), "drop": drop}
            stages = [s if isinstance(s, Strategy) else stage_of(s) for s in then]
            return compose(strategy, stages, share=keep, drop=drop), told
        if self.budget is not None and (strategy is not None or changes):
            raise UsageError("a budget chooses a recipe as it stands", way_out="Leave budget, or strategy and options, out.")
        base = settled(self.recipe, self.pair.image_shape, self.budget)  # auto by the kind of pair
        recipe = base.changed(strategy=strategy, **changes)
        built: Strategy = recipe.build()
        return built, recipe.as_dict()

    def _pair_for(self, z: Any) -> Pair:
        pair = self.pair
        if not pair.space.shape:
            if z is None:
                raise UsageError("seeds need the latent's size", way_out="Give Sampler(G, D, z_size=...), or latents.")
            pair = self.pair = pair.probed(tuple(z.shape[1:]))
        return pair

    def _space(self, pair: Pair, recipe: dict[str, Any]) -> Space:
        if isinstance(self.space_name, Space):
            return self.space_name
        name = self.space_name or recipe.get("space", "z")
        if name not in pair.spaces:
            raise RequestError(f"{pair.name!r} has no space {name!r}", way_out=f"It has: {', '.join(pair.spaces)}.")
        return pair.spaces[name]

    def _start(self, z: Latents | None, seeds: Iterable[int] | None, labels: Any) -> tuple[Tensor, list[int], Any, Pair]:
        if z is None and seeds is None:
            raise UsageError("nothing to refine", way_out="Give latents z, or seeds=.")
        pair = self._pair_for(z)
        if z is None:
            assert seeds is not None
            numbers = noise.check_seeds(seeds)
            point = torch.from_numpy(noise.latents(numbers, pair.space.shape, pair.space.prior))
        else:
            point = torch.as_tensor(z).detach()
            if not point.dtype.is_floating_point:
                raise ShapeError(f"latents are {point.dtype}, not floating point")
            if point.ndim < 1 or len(point) == 0:
                raise ShapeError(f"latents have shape {tuple(point.shape)}: there is no row")
            (self.space_name if isinstance(self.space_name, Space) and self.space_name.entered else pair.space).check(point)
            check_finite(point, "latents")
            numbers = noise.check_seeds(seeds) if seeds is not None else noise.row_seeds(point.cpu().float().numpy())
        if len(numbers) != len(point):
            raise ShapeError(f"{len(numbers)} seeds for {len(point)} latents")
        return point, numbers, _labels(labels, len(point), pair), pair

    def refine(
        self,
        z: Latents | None = None,
        *,
        seeds: Iterable[int] | None = None,
        labels: Any = None,
        strategy: str | Strategy | None = None,
        objective: Term | None = None,
        trace: bool = False,
        before: bool = False,
        reals: Any = None,
        honest: bool | None = None,
        progress: Any = None,
        **changes: Any,
    ) -> Result:
        """Return refined samples of latents `z` (rows, *shape) or of `seeds` (as StyleGAN's generate.py draws them).

        `labels` (rows,) for conditional pairs, else drawn from the seed. `trace` keeps all rows' scores at all steps, `before`
        the unrefined images. With `reals` the recipe `auto` fits an honest critic to them (once) and climbs that, or leaves the
        samples alone; `honest` True asks for it with any strategy, False never does. Else `reals` are for methods that
        calibrate the critic. They are real images in the pair's range (n, C, H, W), (images, labels) for a conditional
        critic, or the path of a set of images. `keep=SHARE` accepts a share of the samples
        and draws rejected ones again; with `drop=True` it only marks them (`Result.accepted`; `save` writes no pictures of
        them, `stream` leaves them out). `then=` names stages that follow. Raises LatentshiftError and its children for what a
        caller can cause.
        """
        if reals is not None and self._wants_honest(honest, strategy, objective, z):
            found = self._guided(reals, strategy, changes, z)
            guide = Sampler(found.pair, recipe=found.recipe, objective=objective or self.objective, space=self.space_name)
            guide.settings = self.settings
            more: dict[str, Any] = {"trace": trace, "before": before, "progress": progress}
            return dataclasses.replace(guide.refine(z, seeds=seeds, labels=labels, **more), honest=found.honest)
        point, numbers, label, pair = self._start(z, seeds, labels)
        built, recipe = self.plan(strategy, **changes)
        goal = objective or self.objective or (Realness(link=recipe["link"]) if "link" in recipe else Realness())
        if pair.critic is None and isinstance(goal, Realness):
            pair.need_critic()
        settings = dataclasses.replace(self.settings, trace=trace)
        if isinstance(reals, str | Path):
            reals = read_reals(reals, pair).for_critic(pair)
        if wants_head(built) and reals is not None:
            pair, reals = pair.replaced(critic=fit_head(pair, reals).critic), None
        engine = Engine(built, pair, objective=goal, space=self._space(pair, recipe), settings=settings, reals=reals)
        run = engine.run(point, numbers, label, images0=before, progress=progress)
        return self._result(
            run, point, z, numbers, label if label is not None else engine.labels_of(numbers), recipe, seeds, pair, engine.space
        )

    def _wants_honest(self, honest: bool | None, strategy: Any, objective: Any, z: Any) -> bool:
        """Whether real images mean an honest critic: asked for, or the plain recipe `auto` on images."""
        if honest is not None:
            return honest
        plain = self.recipe.name == "auto" and not (strategy or self.strategy or objective or self.objective or self._critic)
        return plain and len(self._pair_for(z).image_shape or ()) == 3

    def _guided(self, reals: Any, strategy: Any, changes: dict[str, Any], z: Any) -> Any:
        """Return the pair with its honest critic and the recipe that climbs it; the last fit is kept."""
        from .train.auto import guided  # a look upward, as `Result.report` is

        pair = self._pair_for(z)
        changes = {**self.changes, **changes}
        chosen = strategy if strategy is not None else self.strategy
        if isinstance(chosen, Strategy):
            raise UsageError(
                "honest= needs a strategy by name", way_out="Fit a critic with latentshift.train.honest.fit_critic."
            )
        plain = chosen is None and self.recipe.name == "auto"
        base = AUTO_REALS if plain else self.recipe
        recipe = base.changed(strategy=chosen, **changes)
        key = (id(reals), recipe)
        if self._fit is None or self._fit[0] != key:
            use = None if recipe is AUTO_REALS else make_strategy(recipe.strategy, **recipe.options)
            name = self.space_name.name if isinstance(self.space_name, Space) else self.space_name
            self._fit = (key, guided(pair, reals, recipe, strategy=use, space=name), reals)
        return self._fit[1]

    def _result(
        self,
        run: Run,
        point: Tensor,
        z: Latents | None,
        seeds: list[int],
        label: Any,
        recipe: Any,
        given: Any,
        pair: Pair,
        space: Space,
    ) -> Result:
        def back(parts: list[Any], like: bool = True) -> Any:
            whole = np.concatenate(parts)
            if isinstance(z, np.ndarray):
                return whole.astype(z.dtype) if like else whole
            out = torch.from_numpy(whole)
            if z is None:
                return out
            return out.to(point.device, point.dtype if like else out.dtype)

        c = run.chunks
        start = point.numpy() if isinstance(z, np.ndarray) else point
        widths = {x.trace.shape[1] for x in c}
        one = widths == {1} and len(c) > 0
        weights = np.array([len(x.rows) for x in c], float)
        trace = (
            np.average([x.trace[:, 0] for x in c], axis=0, weights=weights)[:, None]
            if one and len(c) > 1
            else np.concatenate([x.trace for x in c], 1)
        )
        return Result(
            images=back([x.images for x in c]),
            images0=None if c[0].images0 is None else back([x.images0 for x in c]),
            z=back([x.point for x in c]),
            z0=start if (self.space_name or recipe.get("space", "z")) == "z" else back([x.point0 for x in c]),
            score=back([x.score for x in c], like=False),
            score0=back([x.score0 for x in c], like=False),
            accepted=None if c[0].accepted is None else np.concatenate([x.accepted for x in c if x.accepted is not None]),
            seeds=seeds,
            labels=label,
            stopped=[REASONS[int(s)] for x in c for s in x.stopped],
            evaluations=np.concatenate([x.evaluations for x in c]),
            ledger=run.ledger,
            trace=trace,
            run=run,
            pair=pair,
            space=space,
            recipe=recipe,
            by_seed=given is not None,
        )

    def score(self, z: Latents | None = None, *, seeds: Iterable[int] | None = None, labels: Any = None) -> Any:
        """Return (rows,) scores of the samples as they are: a tensor, or an array for an array."""
        result = self.refine(z, seeds=seeds, labels=labels, strategy=Stay())
        return result.score

    def stream(
        self, *, seeds: Iterable[int], labels: Any = None, strategy: str | Strategy | None = None, **changes: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (z, images) chunk by chunk, in the order of `seeds`, in bounded memory; the same numbers as `refine`."""
        pair = self._pair_for(None)
        built, recipe = self.plan(strategy, **changes)
        goal = self.objective or (Realness(link=recipe["link"]) if "link" in recipe else Realness())
        engine = Engine(built, pair, objective=goal, space=self._space(pair, recipe), settings=self.settings)
        step = self.settings.chunk or 32
        batch: list[int] = []
        at = 0
        for seed in _ended(seeds):
            if seed is not None:
                batch.append(int(seed))
            if batch and (seed is None or len(batch) == step):
                rows = noise.check_seeds(batch)
                z = torch.from_numpy(noise.latents(rows, pair.space.shape, pair.space.prior))
                part = None if labels is None else _labels(labels[at : at + len(rows)], len(rows), pair)
                engine.run_.chunks.clear()
                run = engine.run(z, rows, part)
                for chunk in run.chunks:
                    kept = slice(None) if chunk.accepted is None or not recipe.get("drop") else chunk.accepted
                    yield torch.from_numpy(chunk.point[kept]), torch.from_numpy(chunk.images[kept])
                at += len(rows)
                batch = []


def _ended(seeds: Iterable[int]) -> Iterator[int | None]:
    yield from seeds
    yield None


def _labels(labels: Any, rows: int, pair: Pair) -> Tensor | None:
    if labels is None:
        return None
    if not pair.classes:
        raise RequestError(f"{pair.name!r} has no classes, but labels were given", way_out="Leave them out.")
    label = torch.as_tensor(labels, dtype=torch.long)
    if label.ndim == 0:
        label = label.expand(rows)
    if label.shape != (rows,):
        raise ShapeError(f"labels have shape {tuple(label.shape)} for {rows} latents")
    if int(label.min()) < 0 or int(label.max()) >= pair.classes:
        bad = int(label.max()) if int(label.max()) >= pair.classes else int(label.min())
        raise RequestError(f"class {bad} is out of range", where=pair.name, way_out=f"It has classes 0 to {pair.classes - 1}.")
    return label
