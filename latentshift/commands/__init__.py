"""The command line: one file per command, thin: parse, call, print. Loaded when asked for; `--help` never imports torch."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from typing import Any

import click

from .. import __version__
from ..errors import LatentshiftError

#: command -> (module, one line); the module has an attribute `command`
COMMANDS: dict[str, tuple[str, str]] = {
    "refine": ("refine", "refine samples; write pictures, latents and a record"),
    "score": ("score", "score and rank seeds or saved latents"),
    "doctor": ("doctor", "examine a pair: is it sound, what will refining do"),
    "status": ("status", "how far a run in shards is"),
    "verify": ("verify", "check a run in shards"),
    "top": ("top", "the best samples over all shards"),
    "evaluate": ("evaluate", "raw against refined, or any two sets of images"),
    "stats": ("stats", "statistics of real images, made once"),
    "critic": ("critic", "fit an honest critic to real images, for a frozen G"),
    "report": ("report", "make the page of a run again from its record"),
    "inspect": ("inspect", "what a file holds; no network is built"),
    "convert": ("convert", "any readable model to a pair folder"),
    "train": ("train", "train a pair, or go on with one"),
    "fetch": ("fetch", "download and check a file, no more"),
    "models": ("listing", "what can be loaded, one line each; a card"),
    "strategies": ("listing", "the methods, one line each; options, cost, source"),
    "critics": ("listing", "the critics, one line each"),
    "recipes": ("listing", "named settings, one line each; a card"),
    "bench": ("bench", "measure a step beside the published-style loop on this machine"),
    "plugins": ("plugins", "what is installed and what it adds"),
    "completion": ("completion", "the completion script of bash, zsh or fish"),
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
        found: click.Command = getattr(module, name if COMMANDS[name][0] == "listing" else "command")
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from ..errors import UnknownNameError

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            error = UnknownNameError("command", args[0], COMMANDS, way_out="'latentshift --help' lists all.")
            raise click.UsageError(str(error).rstrip("."))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="latentshift", message="%(prog)s %(version)s")
def group() -> None:
    """Better samples from a pretrained GAN, after training.

    \b
    Examples:
      latentshift refine
      latentshift refine --model ring --recipe advlatgan-z/toy --steps 100 --num 500
      latentshift strategies ifgsm
    """


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run the command line; return its exit status (see `latentshift.errors`)."""
    debug = "--debug" in argv
    out, err = sys.stdout, sys.stderr
    warnings.showwarning = _show_warning

    def terminate(*_: Any) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, terminate)
    try:
        group.main(argv, prog_name="latentshift", standalone_mode=False, auto_envvar_prefix="LATENTSHIFT")
        sys.stdout.flush()
        return 0
    except LatentshiftError as error:
        return _fail(error.line(), error.exit_status, debug, argv)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _fail("latentshift: error: interrupted.", 130, debug, argv)
    except click.ClickException as error:
        text = error.format_message().replace("\n", " ").rstrip(".")
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "latentshift"
        return _fail(f"latentshift: error: {text}. '{command} --help' shows the options.", 2, debug, argv)
    except BrokenPipeError:
        return _unread()
    except SystemExit:  # click's own answer to a closed pipe, with other streams in place
        if sys.stdout is out:
            raise
        sys.stdout, sys.stderr = out, err
        return _unread()
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        hint = "Please report it with the output of --debug."
        return _fail(f"latentshift: error: a fault of latentshift itself: {text}. {hint}", 1, debug, argv)


def _unread() -> int:
    """Nobody reads on: end quietly, and let nothing that is still buffered fail at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _fail(line: str, status: int, debug: bool, argv: list[str]) -> int:
    if debug and status != 130:
        traceback.print_exc()
    print(line, file=sys.stderr)
    if "--json" in argv:
        print(json.dumps({"error": line.removeprefix("latentshift: error: "), "status": status}))
    return status
