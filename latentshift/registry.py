"""Names to things, through entry points: models, strategies, critics, recipes. Listing imports nothing heavy.

A built-in comes through the same door as a stranger's. A broken plug-in is reported by name and skipped.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

from .errors import LatentshiftWarning, UnknownNameError

GROUPS = ("models", "strategies", "critics", "recipes", "features", "trunks")


@dataclass(frozen=True)
class Broken:
    """A plug-in that could not be loaded."""

    name: str
    group: str
    package: str
    why: str


@functools.cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {p.name: p for p in sorted(entry_points(group=f"latentshift.{group}"), key=lambda p: p.name)}


def names(group: str) -> list[str]:
    """Return the registered names of a group."""
    return list(_points(group))


def package_of(group: str, name: str) -> str:
    """Return the distribution that registered a name."""
    dist = _points(group)[name].dist
    return _titled(dist) if dist else "unknown"


@functools.cache
def _titled(dist: Distribution) -> str:
    """Return name and version; each asks for the whole metadata to be parsed anew, once for every name that it registers."""
    told = dist.metadata
    return f"{told['Name']} {told['Version']}"


def get(group: str, name: str) -> Any:
    """Return the object registered under `name`; raises UnknownNameError with near matches."""
    points = _points(group)
    if name not in points:
        raise UnknownNameError(
            {"strategies": "strategy"}.get(group, group.rstrip("s")),
            name,
            points,
            way_out=f"'latentshift {group}' lists all.",
        )
    try:
        return points[name].load()
    except Exception as error:
        raise UnknownNameError(
            group.rstrip("s"),
            name,
            [],
            way_out=f"Its plug-in ({package_of(group, name)}) cannot be loaded: {type(error).__name__}: {error}.",
        ) from error


def everything(group: str) -> tuple[dict[str, Any], list[Broken]]:
    """Return all loadable objects of a group by name, and what could not be loaded (a warning names each)."""
    found: dict[str, Any] = {}
    broken = []
    for name, point in _points(group).items():
        try:
            found[name] = point.load()
        except Exception as error:
            broken.append(Broken(name, group, package_of(group, name), f"{type(error).__name__}: {error}"))
            warnings.warn(
                f"plug-in {name!r} of {broken[-1].package} cannot be loaded and is skipped: {broken[-1].why}",
                LatentshiftWarning,
                stacklevel=2,
            )
    return found, broken


def one_line(thing: Any) -> str:
    """Return the one line that says what a thing is: its `line`, or the first line of its docstring."""
    line = getattr(thing, "line", None)
    return str(line) if isinstance(line, str) else (thing.__doc__ or "").strip().splitlines()[0] if thing.__doc__ else ""


def make_strategy(name: str, **options: Any) -> Any:
    """Return a strategy by name with options; unknown options are refused by name."""
    kind = get("strategies", name)
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    for option in options:
        if option not in known:
            raise UnknownNameError(
                "option", option, known, where=f"strategy {name!r}", way_out=f"It takes: {', '.join(known)}."
            )
    return kind(**options)


@dataclass(frozen=True)
class OptionDoc:
    """One option of a strategy, as its source says it."""

    name: str
    kind: str
    default: Any
    help: str


def option_docs(kind: type) -> dict[str, OptionDoc]:
    """Return the options of a strategy class by name; the help is the comment behind each field, base classes first."""
    comments: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        for line in inspect.getsource(cls).splitlines():
            if match := re.match(r"    (\w+): .*?  # (.+)$", line):
                comments[match[1]] = match[2]
    return {
        f.name: OptionDoc(f.name, str(f.type), f.default, comments.get(f.name, ""))
        for f in dataclasses.fields(kind)
        if f.init and f.name != "inner"
    }
