"""What several commands share: options of models and of the work, talk on stderr, the pair that was asked for."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import FileError, UnknownNameError, UsageError
from ..files.names import DEFAULT_MODEL
from .own import OWN_KEYS, own_of, own_options
from .start import projected_option

if TYPE_CHECKING:
    from ..model import Pair

F = Callable[..., Any]

#: options that `pair_of` takes
MODEL_KEYS = (
    *("model", "factory", "z_size", "critic", "critic_sign", "returns", "image_range", "prior", "device"),
    *OWN_KEYS,
)


def options(*made: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds options in the order written."""

    def add(f: F) -> F:
        for option in reversed(made):
            f = option(f)
        return f

    return add


def _config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    try:
        rows = tomllib.loads(value.read_text("utf-8"))
    except OSError as error:
        raise FileError(f"cannot read the config: {error.strerror}", where=str(value)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"the config is no TOML: {error}", where=str(value)) from None
    known = {p.name for p in ctx.command.params if p.name}
    mine = rows.get(ctx.info_name or "", rows)
    for key in mine:
        if key.replace("-", "_") not in known:
            raise UnknownNameError(
                "option", key, sorted(known), where=str(value), way_out=f"'{ctx.command_path} --help' lists all."
            )
    # a list of --option values may be written as a table
    ctx.default_map = {
        k.replace("-", "_"): [f"{a}={b}" for a, b in v.items()] if isinstance(v, dict) else v for k, v in mine.items()
    }


def _offline(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from ..files.offline import switch_off

        ctx.call_on_close(switch_off())


def known(group: str) -> Callable[..., list[str]]:
    """Return what completes a name of a group (files still complete behind a `/` or a dot)."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from .. import registry

        if group == "recipes":
            from ..recipe import recipes

            names = list(recipes())
        else:
            names = registry.names(group)
        return [n for n in names if n.startswith(incomplete)] or [CompletionItem(incomplete, type="file")]

    return complete


general = options(
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_config,
        metavar="FILE",
        help="A TOML file with any of these options; what is typed wins.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."),
    click.option("--quiet", is_flag=True, help="Print warnings and errors only."),
    click.option("--debug", is_flag=True, help="Print the trace of an error."),
    click.option(
        "--offline",
        is_flag=True,
        expose_value=False,
        callback=_offline,
        help="Ask nothing of the network: what is not in the cache is an error at once.",
    ),
)

model_options = options(
    click.option(
        "--model",
        "--network",
        "model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="REF",
        shell_complete=known("models"),
        help="A name ('latentshift models'), a pair folder, or a file.",
    ),
    click.option(
        "--factory",
        metavar="FILE.py:FUNCTION",
        help="Your own code: a function that returns (G, D) or a Pair. It is run; --model FILE then gives the weights.",
    ),
    click.option("--z-size", metavar="N", help="The size of z for --factory, where it cannot be seen from G."),
    click.option(
        "--critic",
        metavar="REF",
        shell_complete=known("critics"),
        help="Another critic: a pair folder, or a name ('latentshift critics').",
    ),
    click.option("--critic-sign", type=click.Choice(["high", "low"]), help="Which way real is on D's scale."),
    click.option(
        "--returns", type=click.Choice(["logit", "probability", "critic", "least-squares"]), help="What D's last layer gives."
    ),
    click.option("--range", "image_range", metavar="LO,HI", help="The range of G's images."),
    click.option(
        "--prior", metavar="KIND", help="The prior of z: normal, uniform, uniform:LO,HI, truncated-normal:BOUND, sphere."
    ),
    *own_options,
)

start_options = options(
    click.option("--seeds", metavar="LIST", help="Seeds, as in 0-63,85,100-109.  [default: 0-63]"),
    click.option("--num", type=int, metavar="N", help="So many seeds from 0 on, in place of --seeds."),
    click.option(
        "--latents",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Saved latents (.npz of a run, or .npy) in place of seeds.",
    ),
    projected_option,
    click.option(
        "--class",
        "classes",
        type=int,
        multiple=True,
        metavar="N",
        help="A class for all samples, or one after the other (repeatable).",
    ),
)

work_options = options(
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1."),
    click.option("--chunk", type=int, metavar="N", help="Rows at a time."),
)


@dataclass(frozen=True)
class Talk:
    """What a command says: facts on stdout, talk on stderr."""

    quiet: bool = False
    as_json: bool = False

    def note(self, text: str) -> None:
        """Say something on stderr unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def fact(self, text: str) -> None:
        """Print a result on stdout, unless a JSON document takes its place."""
        if not self.quiet and not self.as_json:
            print(text)


def seeds_of(seeds: str | None, num: int | None, latents: Path | None, projected_w: Path | None = None) -> list[int] | None:
    """Return the seeds that were typed, or None where latents were given; refuses two ways at once."""
    from ..noise import parse_seeds

    given = [
        name
        for name, v in (("--seeds", seeds), ("--num", num), ("--latents", latents), ("--projected-w", projected_w))
        if v is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} both choose the start points", way_out="Give one of them.")
    if latents is not None or projected_w is not None:
        return None
    if num is not None:
        if num < 1:
            raise UsageError(f"--num is at least 1, not {num}")
        return list(range(num))
    return parse_seeds(seeds or "0-63")


def prior_of(text: str) -> Any:
    """Return the prior of a text such as 'uniform:-1,1'."""
    from ..space import prior_of_card

    kind, _, numbers = text.partition(":")
    names = {"uniform": ("low", "high"), "truncated-normal": ("bound", "factor")}.get(kind, ())
    try:
        values = [float(v) for v in numbers.split(",")] if numbers else []
    except ValueError:
        raise UsageError(f"cannot read the prior {text!r}", where="--prior") from None
    return prior_of_card({"kind": kind, **dict(zip(names, values, strict=False))})


def device_of(name: str) -> Any:
    """Return the device that was asked for; raises DeviceError where this machine has none such."""
    import torch

    from ..errors import DeviceError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}", where="--device", way_out="Write auto, cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(
            f"this machine has no device {name!r}",
            way_out=f"It has {torch.cuda.device_count()} CUDA devices; use --device cpu.",
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported", way_out="Use cpu or cuda.")
    return device


def pair_of(
    model: str,
    critic: str | None = None,
    critic_sign: str | None = None,
    returns: str | None = None,
    image_range: str | None = None,
    prior: str | None = None,
    device: str = "auto",
    factory: str | None = None,
    z_size: str | None = None,
    **own: Any,
) -> Pair:
    """Return the pair that the model options ask for, on its device."""
    from ..files.names import ALIASES, refuse_options

    if model in ALIASES and factory is None:
        others = " (others: afhqdog, afhqwild, stylegan2-afhqv2-512x512)" if model.endswith("afhq") else ""
        print(f"note: {model} stands for {ALIASES[model]}{others}", file=sys.stderr)
    where = device_of(device)
    mine = own_of(own)
    if factory is not None:
        from .factory import pair_of_factory

        refuse_options(mine, factory)
        weights, d_weights = (Path(model) if model != DEFAULT_MODEL else None), None
        if weights is not None and critic is not None and Path(critic).is_file():
            d_weights, critic = Path(critic), None
        pair = pair_of_factory(factory, z_size, returns, weights, d_weights)
        returns = None
    elif model.rpartition(":")[0].endswith(".py") or model.endswith(".py"):
        name = model if ":" in model else f"{model}:FUNCTION"
        raise UsageError(
            f"{model!r} is code, not a model file",
            where="--model",
            way_out=f"--factory {name} runs it (a function that returns G and D).",
        )
    elif own.get("trust_code") and Path(model).is_file() and _is_program(model):
        from .factory import pair_of_programs

        refuse_options(mine, model)
        d_file = Path(critic) if critic is not None and Path(critic).is_file() and _is_program(critic) else None
        critic = None if d_file is not None else critic
        pair = pair_of_programs(Path(model), d_file, z_size, returns)
        returns = None
    else:
        pair, critic = _with_critic(model, critic, mine)
    if critic is not None:
        from .critics import critic_of

        pair = pair.replaced(critic=critic_of(critic, pair))
        if Path(critic).exists():  # whether D fits G is found out now, and not in the middle of the work
            pair = pair.probed()
    if pair.critic is not None and (critic_sign or returns):
        changes: dict[str, Any] = {k: v for k, v in (("real_is", critic_sign), ("returns", returns)) if v}
        pair = pair.replaced(critic=replace(pair.critic, **changes))
    if image_range is not None:
        low, comma, high = image_range.partition(",")
        try:
            span = (float(low), float(high))
        except ValueError:
            span = (0.0, 0.0)
        if not comma or not span[0] < span[1]:
            raise UsageError(
                f"cannot read the range {image_range!r}", where="--range", way_out="Write LO,HI, as in -1,1 or 0,1."
            )
        pair = pair.replaced(image_range=span)
    if prior is not None:
        pair = pair.replaced(space=replace(pair.space, prior=prior_of(prior)))
    return pair.to(where)


def _with_critic(model: str, critic: str | None, own: dict[str, Any]) -> tuple[Pair, str | None]:
    """Return the pair of a reference, and the critic that is still to be put in its place.

    D's own file is read together with G's where both are of one family: some facts of D only its G tells.
    """
    from ..files.folder import is_pair_folder
    from ..files.names import family_of, local_path, resolve

    path = Path(critic) if critic is not None else None
    if path is not None and path.is_file() and not (source := local_path(model)[0] or Path()).is_dir() and source.is_file():
        theirs = family_of(path)
        if theirs is not None and family_of(source) is theirs and not is_pair_folder(source):
            return resolve(model, critic=path, options=own), None
    return resolve(model, options=own), critic


def _is_program(path: str) -> bool:
    from ..files.programs import program_kind

    return bool(program_kind(Path(path)))


class Progress:
    """Rows done, rate, time left and mean gain: a bar on a terminal, a plain line every 10 s elsewhere."""

    def __init__(self, total: int, already: int, talk: Talk) -> None:
        self.total, self.already, self.talk = total, already, talk
        self.began = self.last = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty() and not talk.quiet:
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=already, unit="sample", file=sys.stderr, dynamic_ncols=True)

    def __call__(self, done: int, rest: int, gain: float) -> None:
        if self.bar is not None:
            self.bar.update(done + self.already - self.bar.n)
            self.bar.set_postfix_str(f"mean gain {gain:+.3f}")
            return
        now = time.monotonic()
        if now - self.last >= 10:
            self.last = now
            rate = done / (now - self.began)
            left = (rest - done) / rate
            self.talk.note(
                f"{done + self.already} of {self.total} samples, {rate:.2f}/s, {left:.0f} s left, mean gain {gain:+.3f}"
            )

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
