"""`latentshift completion SHELL`: the script that makes a shell complete commands, options and names (click's own)."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_WHERE = {
    "bash": 'add to ~/.bashrc:  eval "$(latentshift completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(latentshift completion zsh)"',
    "fish": "latentshift completion fish > ~/.config/fish/completions/latentshift.fish",
}


@click.command(short_help="completion for a shell")
@click.argument("shell", type=click.Choice(list(_WHERE)))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    To install it:
      bash: add to ~/.bashrc  eval "$(latentshift completion bash)"
      zsh:  add to ~/.zshrc   eval "$(latentshift completion zsh)"
      fish: latentshift completion fish > ~/.config/fish/completions/latentshift.fish

    \b
    Examples:
      latentshift completion bash
    """
    from . import group

    kind = get_completion_class(shell)
    assert kind is not None
    text = kind(group, {}, "latentshift", "_LATENTSHIFT_COMPLETE").source()
    click.echo(f"# {_WHERE[shell]}\n{text}")
