"""`latentshift models | strategies | critics | recipes [NAME]`: one line each, or a card. No torch."""

from __future__ import annotations

import inspect
import json
import textwrap
from typing import Any

import click

from .. import registry
from ..errors import LatentshiftError, UnknownNameError
from .common import general


def _table(rows: list[tuple[str, str]]) -> None:
    width = min(28, max((len(n) for n, _ in rows), default=0))
    for name, line in rows:
        room = max(20, 78 - width)
        first, *more = textwrap.wrap(line, room) or [""]
        click.echo(f"{name:<{width}}  {first}" if len(name) <= width else f"{name}\n{'':<{width}}  {first}")
        for text in more:
            click.echo(f"{'':<{width}}  {text}")


def _paragraphs(text: str) -> str:
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else textwrap.fill(" ".join(p.split()), 80) for p in parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent="    ", break_long_words=False)


def _show(rows: list[tuple[str, str]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"name": n, "line": line} for n, line in rows], indent=2))
    else:
        _table(rows)


@click.command(short_help="what can be loaded")
@click.argument("name", required=False)
@general
def models(name: str | None, as_json: bool, quiet: bool, debug: bool) -> None:
    """What can be loaded, one line each; with NAME, its card.

    \b
    Examples:
      latentshift models
      latentshift models ring
    """
    found, _ = registry.everything("models")
    if name is None:
        return _show([(n, registry.one_line(m)) for n, m in found.items()], as_json)
    if name not in found:
        raise UnknownNameError("model", name, found)
    thing = found[name]
    card = thing.card() if hasattr(thing, "card") else {"line": registry.one_line(thing)}
    card = {k: v for k, v in card.items() if k != "layers"}
    if as_json:
        click.echo(json.dumps(card, indent=2, ensure_ascii=False))
        return None
    click.echo(_wrapped(f"{name}: {registry.one_line(thing)}") + "\n")
    _tree(card)


def _tree(value: Any, indent: int = 0) -> None:
    pad = "  " * indent
    for key, item in value.items():
        if isinstance(item, dict):
            click.echo(f"{pad}{key}:")
            _tree(item, indent + 1)
        elif isinstance(item, list) and any(isinstance(v, str | dict) for v in item):
            click.echo(f"{pad}{key}:")
            for v in item:
                text = v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
                click.echo(textwrap.fill(text, 80, initial_indent=f"{pad}  - ", subsequent_indent=f"{pad}    "))
        else:
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
            click.echo(textwrap.fill(f"{key}: {text}", 80, initial_indent=pad, subsequent_indent=pad + "    "))


@click.command(short_help="the methods")
@click.argument("name", required=False)
@click.option("--for", "model", metavar="MODEL", help="Only those that apply to this model as it stands.")
@general
def strategies(name: str | None, model: str | None, as_json: bool, quiet: bool, debug: bool) -> None:
    """The refinement methods, one line each; with NAME: options, cost, source, when to use it.

    \b
    Examples:
      latentshift strategies
      latentshift strategies ifgsm
      latentshift strategies --for ring
    """
    if name is None:
        found, _ = registry.everything("strategies")
        if model is not None:
            from ..doctor.examine import applicable
            from ..files.names import resolve

            why = applicable(resolve(model))
            found = {n: s for n, s in found.items() if not why[n]}
        return _show([(n, registry.one_line(s)) for n, s in found.items()], as_json)
    kind = registry.get("strategies", name)
    docs = registry.option_docs(kind)
    try:
        cost = kind().cost()
    except LatentshiftError:  # it cannot be made without its options, as a chain
        cost = None
    source = getattr(kind, "source", "")
    if as_json:
        rows = {k: {"default": d.default, "help": d.help} for k, d in docs.items()}
        click.echo(
            json.dumps(
                {"name": name, "doc": kind.__doc__, "source": source, "options": rows, "cost": cost and cost._asdict()},
                indent=2,
                default=str,
            )
        )
        return None
    click.echo(f"{name}\n\n{_paragraphs(kind.__doc__ or '')}\n\n" + textwrap.fill(f"Source: {source}", 80))
    if cost is not None:
        least = "" if cost.exact else "at most "
        text = (
            f"Cost per sample with these defaults: {least}{cost.g_forward:g} forward passes of G, {cost.d_forward:g} of D, "
            f"{cost.g_backward:g} backward; the final image is one G more."
        )
        click.echo(textwrap.fill(text, 80))
    click.echo("\nOptions (--option KEY=VALUE):")
    for doc in docs.values():
        default = "none" if doc.default is None else doc.default
        click.echo(textwrap.fill(f"{doc.name} = {default}  {doc.help}", 80, initial_indent="  ", subsequent_indent="      "))
    return None


@click.command(short_help="the critics")
@click.argument("name", required=False)
@general
def critics(name: str | None, as_json: bool, quiet: bool, debug: bool) -> None:
    """The critics for --critic, one line each; with NAME, what it is.

    \b
    Examples:
      latentshift critics
    """
    found, _ = registry.everything("critics")
    rows = [("D", "the pair's own discriminator (the default)"), ("FOLDER", "the D of any pair folder")]
    if name is None:
        return _show(rows + [(n, registry.one_line(c)) for n, c in found.items()], as_json)
    if name not in found:
        raise UnknownNameError("critic", name, found)
    if as_json:
        click.echo(json.dumps({"name": name, "doc": found[name].__doc__ or ""}, indent=2))
        return None
    click.echo(f"{name}\n\n{_paragraphs(found[name].__doc__ or '')}")
    return None


@click.command(short_help="named settings")
@click.argument("name", required=False)
@click.option("--toml", "as_toml", is_flag=True, help="Print the recipe as TOML.")
@general
def recipes(name: str | None, as_toml: bool, as_json: bool, quiet: bool, debug: bool) -> None:
    """Named settings with their source, one line each; with NAME: every option and the evidence.

    \b
    Examples:
      latentshift recipes
      latentshift recipes auto
      latentshift recipes advlatgan-z/stl10 --toml
    """
    from ..budget import TABLE
    from ..recipe import AUTO, get_recipe, recipes

    if name is None:
        return _show([(n, r.line) for n, r in recipes().items()], as_json)
    recipe = get_recipe(name)
    if as_json:
        click.echo(json.dumps(recipe.as_dict(), indent=2))
    elif as_toml:
        click.echo(recipe.toml(), nl=False)
    else:
        click.echo(_wrapped(f"{recipe.name}: {recipe.line}") + "\n")
        _tree({k: v for k, v in recipe.as_dict().items() if k not in ("name", "line") and v not in ("", None)})
        if recipe is AUTO:
            click.echo(
                "\n" + _wrapped("By kind of pair and --budget (evaluations per sample); without one a kind's first line:")
            )
            _tree({f"{e.kind}, {e.evaluations}": f"{e.recipe} ({e.how})" for e in TABLE}, 1)
    return None
