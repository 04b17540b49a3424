"""From the options of a run, or from its record, to an engine that makes shards: for every process that works on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import __version__, registry
from ..engine.run import Engine, Settings, default_chunk
from ..errors import DamagedFileError, FileError, RequestError
from ..files.run import SCHEMA, refuse_changes
from ..model import Pair
from ..recipe import Recipe
from ..sampler import _labels
from ..seeds import SeedRanges
from ..shards import fitted
from ..shards.maker import Maker
from ..shards.plan import ShardPlan
from ..shards.store import Store, open_store
from .common import MODEL_KEYS, pair_of
from .guard import judge_of
from .method import recipe_of
from .sharded import place_of


@dataclass
class Parts:
    """What a run is made of, before anything is fitted."""

    pair: Pair
    recipe: Recipe
    plan: ShardPlan
    typed: dict[str, Any]
    judge: Any = None  # what the guard `critic` asks

    @classmethod
    def of(cls, typed: dict[str, Any]) -> Parts:
        """Return the parts that options ask for; raises what is wrong with them."""
        plan = plan_of(typed)
        recipe_of(typed)  # refuses what is wrong before a model is loaded
        pair = pair_of(**{k: typed[k] for k in MODEL_KEYS})
        recipe = recipe_of(typed, pair.image_shape)
        if recipe.space not in pair.spaces:
            raise RequestError(f"{pair.name!r} has no space {recipe.space!r}", way_out=f"It has: {', '.join(pair.spaces)}.")
        _labels(list(plan.classes) or None, len(plan.classes), pair)
        return cls(pair, recipe, plan, typed, judge_of(recipe, pair))

    def built(self) -> Any:
        """Return the recipe's strategy, not fitted."""
        return self.recipe.build(self.judge)

    def engine(self, chunk: int | None, *, reals: Any = None, found: dict[str, Any] | None = None) -> Engine:
        """Return the engine: with what a fit has `found`, or fitted anew where that is None."""
        strategy = self.built()
        if found is not None:
            strategy = fitted.restored(strategy, found)
        chunk = chunk or default_chunk(self.pair.device, strategy.width)
        return Engine(
            strategy,
            self.pair,
            objective=self.recipe.objective(),
            space=self.pair.spaces[self.recipe.space],
            settings=Settings(chunk=chunk, images=False, precision=self.typed.get("precision") or "fp32"),
            reals=reals,
            fitted=None if found is None else strategy,
        )

    def maker(self, engine: Engine, store: Store) -> Maker:
        """Return what makes this run's shards."""
        text = {"Software": f"latentshift {__version__}", "model": self.pair.name, "recipe": self.recipe.name}
        quiet = self.typed["no_metadata"]
        return Maker(self.plan, engine, store, before=self.typed["save_before"], text=None if quiet else text)

    def identity(self) -> dict[str, Any]:
        """Return what must not change between a cut and its resume, or between workers."""
        return {
            "latentshift": __version__,
            "model_sha256": self.pair.sha256,
            "recipe": self.recipe.as_dict(),
            "space": self.recipe.space,
            "versions": versions(self.typed["model"]),
        }


def versions(model: str) -> dict[str, str]:
    """Return the packages that the model comes from, with their versions: of a name its own, of a file all that know files."""
    names = registry.names("models")
    packages = {registry.package_of("models", n) for n in ([model] if model in names else names)}
    out = {}
    for package in sorted(packages):
        name = package.rpartition(" ")[0]
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def plan_of(typed: Mapping[str, Any]) -> ShardPlan:
    """Return the plan that options ask for."""
    from ..errors import UsageError

    given = [name for name, v in (("--seeds", typed["seeds"]), ("--num", typed["num"])) if v is not None]
    for name in ("latents", "projected_w"):
        if typed.get(name) is not None:
            where = f"--{name.replace('_', '-')}"
            raise UsageError("shards are made from seeds", where=where, way_out="Give --seeds, or leave --shard-size out.")
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} both choose the start points", way_out="Give one of them.")
    if typed["num"] is not None:
        if typed["num"] < 1:
            raise UsageError(f"--num is at least 1, not {typed['num']}")
        seeds = SeedRanges.parse(f"0-{typed['num'] - 1}")
    else:
        seeds = SeedRanges.parse(typed["seeds"] or "0-63")
    return ShardPlan(seeds, typed["shard_size"], typed["shards_as"], tuple(typed["classes"] or ()))


def read_record(store: Store) -> dict[str, Any]:
    """Return the record of a sharded run; raises FileError where there is none."""
    data = store.read("run.json")
    if data is None:
        raise FileError("not a run: it has no run.json", where=store.name)
    try:
        record = json.loads(data)
    except ValueError as error:
        raise DamagedFileError(f"the record is no JSON: {error}", where=f"{store.name}/run.json") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("shards"), dict):
        raise FileError("not a run in shards of this version", where=store.name)
    return record


class Opened(NamedTuple):
    """A run in shards that is looked at: where it lies, its record, and the plan that its options stand for."""

    place: str
    store: Store
    record: dict[str, Any]
    plan: ShardPlan


def opened(folder: Path) -> Opened:
    """Return the run in shards of `folder`; raises FileError where there is none or its record lacks something."""
    place = place_of(folder)
    store = open_store(place)
    record = read_record(store)
    try:
        return Opened(place, store, record, plan_of(typed_of(record)))
    except KeyError as error:
        raise FileError(f"the record lacks {error}", where=f"{place}/run.json") from None


def typed_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a record keeps, as they were typed."""
    then = dict(record["request"])
    for key in ("classes", "more"):
        then[key] = tuple(then.get(key) or ())
    then["latents"] = Path(then["latents"]) if then.get("latents") else None
    return then


def found_of(record: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Return what the fit of a run learned."""
    kinds = dict(record["shards"]["learned"])
    return fitted.unpack(kinds, store.read(fitted.NAME) if kinds else None)


def open_maker(place: str, who: str, device: str, record: dict[str, Any] | None = None, fit: bytes | None = None) -> Maker:
    """Return the maker of a run that is under way in `place`; the model is loaded and checked, nothing is fitted.

    `record` and `fit` are the run's record and fit.npz where the caller has them already. Raises RequestError where this
    process would make other samples: another model file, version or plug-in.
    """
    if not device.startswith("cuda"):
        torch.set_num_threads(1)
    store = open_store(place, who)
    record = read_record(store) if record is None else record
    typed = {**typed_of(record), "device": device}
    parts = Parts.of(typed)
    try:
        refuse_changes(record, parts.identity(), Path(place))
    except RequestError as error:
        what = error.what.replace("cannot go on with this run", f"{who} cannot work on this run")
        raise RequestError(what, where=error.where, way_out="Install the same versions and files on all workers.") from None
    kinds = dict(record["shards"]["learned"])
    found = fitted.unpack(kinds, fit) if fit is not None else found_of(record, store)
    return parts.maker(parts.engine(record["chunk_asked"], found=found), store)
