"""Write docs/reference.md from the code: every command with its help, every strategy with its options, every recipe.

python docs/make_reference.py            # writes it
python docs/make_reference.py --check    # says whether it is stale (status 1)
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from latentshift import registry
from latentshift.commands import COMMANDS, group
from latentshift.recipe import recipes

OUT = Path(__file__).parent / "reference.md"


def help_of(name: str) -> str:
    """Return a command's help, 80 columns wide."""
    command = group.get_command(click.Context(group), name)
    assert command is not None
    context = click.Context(command, info_name=f"latentshift {name}", help_option_names=["-h", "--help"], terminal_width=80)
    return command.get_help(context)


def ours(name: str, place: str) -> bool:
    """Whether a name comes from this package: other plug-ins that are installed do not belong here."""
    return registry.package_of(place, name).startswith("latentshift ")


def reference() -> str:
    """Return the page."""
    parts = ["# Reference\n\nMade from the code by `docs/make_reference.py`; a test compares them.\n\n## Commands\n"]
    for name in COMMANDS:
        parts.append(f"### latentshift {name}\n\n```text\n{help_of(name)}\n```\n")
    parts.append("## Strategies\n\nOptions are given by `--option KEY=VALUE`, in a recipe, or as keywords in Python.\n")
    for name in registry.names("strategies"):
        if not ours(name, "strategies"):
            continue
        kind = registry.get("strategies", name)
        parts.append(
            f"### {name}\n\n{registry.one_line(kind)}\nSource: {kind.source or 'none'}.\n\n"
            "| option | default | |\n| --- | --- | --- |"
        )
        rows = [
            f"| `{o.name}` | {'none' if o.default is None else o.default} | {o.help} |"
            for o in registry.option_docs(kind).values()
        ]
        parts.append("\n".join(rows) + "\n")
    parts.append("## Recipes\n\n| name | |\n| --- | --- |")
    parts.append("\n".join(f"| `{r.name}` | {r.line} |" for r in recipes().values()) + "\n")
    return "\n".join(line.rstrip() for line in "\n".join(parts).splitlines()) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(
            0
            if OUT.is_file() and OUT.read_text("utf-8") == reference()
            else "docs/reference.md is stale: run docs/make_reference.py"
        )
    OUT.write_text(reference(), "utf-8")
