"""`--factory FILE.py:FUNCTION`: a pair from the user's own code. Naming it on the command line is the consent to run it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FileError, RequestError, ShapeError, UsageError

if TYPE_CHECKING:
    from ..model import Pair

_WAY = "Write --factory FILE.py:FUNCTION, or --factory MODULE:FUNCTION."


def pair_of_factory(
    reference: str,
    z_size: str | None = None,
    returns: str | None = None,
    weights: Path | None = None,
    d_weights: Path | None = None,
) -> Pair:
    """Return the pair that a user's function makes: it returns (G, D), a Pair, or a G alone.

    `weights` is a checkpoint of both (or of G, with D's in `d_weights`) that is loaded into what the function makes.
    """
    from ..model import Pair

    made = _function(reference)()
    if isinstance(made, Pair):
        if weights is not None:
            raise RequestError(
                f"{reference} returned a Pair, which has its weights", way_out="Return (G, D), or leave --model out."
            )
        return made.replaced(source=made.source or reference, sha256=made.sha256 or weights_sha256(made.G, made.critic))
    G, D = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not callable(G):
        raise RequestError(
            f"{reference} returned {type(made).__name__}", way_out="Return (G, D), two modules or functions, or a Pair."
        )
    if weights is not None:
        _fill(G, D, weights, d_weights, reference)
    return wrapped(G, D, reference, z_size, returns)


def pair_of_programs(path: Path, critic: Path | None, z_size: str | None = None, returns: str | None = None) -> Pair:
    """Return the pair of files that are programs (G, and D where it is given), which runs their code."""
    from ..files.cache import known_sha256
    from ..files.programs import run_program

    D = run_program(critic) if critic is not None else None
    pair = wrapped(run_program(path), D, str(path), z_size, returns)
    return pair.replaced(name=path.stem, sha256=known_sha256(path))


def _fill(G: Any, D: Any, weights: Path, d_weights: Path | None, reference: str) -> None:
    import torch

    from ..files.weights import load_weights, read_parts

    if not isinstance(G, torch.nn.Module):
        raise RequestError(f"{reference} returned a function, which takes no weights", way_out="Return modules.")
    parts = read_parts(weights)
    load_weights(G, parts, "G", str(weights))
    if isinstance(D, torch.nn.Module):
        load_weights(D, parts if d_weights is None else read_parts(d_weights), "D", str(d_weights or weights))


def wrapped(G: Any, D: Any, reference: str, z_size: str | None, returns: str | None) -> Pair:
    """Return the Pair of two callables, with z's size and the ranges found out where they are not given."""
    import torch

    from ..model import Pair

    for part in (G, D):  # made for this run alone: evaluation mode is what is meant
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if returns is None:
        returns = "probability" if _ends_in_sigmoid(D) else "logit"
    span = (0.0, 1.0) if _ends_in_sigmoid(G) else (-1.0, 1.0)
    name = reference.rpartition(":")[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    shapes = [_typed(z_size)] if z_size else _guesses(G)
    if not shapes:
        raise UsageError(f"the size of z cannot be seen from {reference}", way_out="Give --z-size N, as in --z-size 128.")
    failed: Exception | None = None
    for shape in shapes:
        try:
            pair = Pair.wrap(G, D, z_size=shape, name=name, returns=returns, image_range=span)
        except ShapeError as error:
            if D is not None and "D " in str(error)[:3]:
                raise
            failed = failed or error
            continue
        return pair.replaced(source=reference, sha256=weights_sha256(G, D))
    raise ShapeError(f"z of shape {shapes[0]} does not fit", where=reference, way_out=f"Give --z-size. ({failed})") from failed


def weights_sha256(*parts: Any) -> str:
    """Return a hash of the tensors of modules, so that a changed model is seen; empty where there are none."""
    import torch

    total, seen = hashlib.sha256(), False
    for part in parts:
        module = part if isinstance(part, torch.nn.Module) else getattr(part, "call", None)
        if isinstance(module, torch.nn.Module):
            for name, tensor in module.state_dict().items():
                seen = True
                total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest() if seen else ""


def _function(reference: str) -> Any:
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise UsageError(f"cannot read the factory {reference!r}", way_out=_WAY)
    try:
        if place.endswith(".py"):
            path = Path(place).expanduser()
            if not path.is_file():
                raise FileError("no such file", where=place, way_out=_WAY)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            sys.path.insert(0, str(path.resolve().parent))  # the file may import its neighbours
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
    except (ImportError, SyntaxError) as error:
        raise RequestError(f"{place} cannot be imported: {type(error).__name__}: {error}", way_out=_WAY) from error
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise RequestError(f"{place} has no function {name!r}", way_out=f"It has: {', '.join(names) or 'none'}.")
    return found


def _typed(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(v) for v in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"cannot read the size {text!r}", where="--z-size", way_out="Write N, or N,1,1.")
    return shape


def _guesses(G: Any) -> list[tuple[int, ...]]:
    import torch

    from ..files.programs import Program

    if isinstance(G, Program):  # its first weight tells, where it has any
        first = next((p for p in G.call.parameters() if p.ndim in (2, 4)), None)  # type: ignore[attr-defined]
        if first is None:
            return []
        size = first.shape[1] if first.ndim == 2 else first.shape[0]
        return [(size,), (size, 1, 1)]

    for name in ("z_size", "z_dim", "latent_dim", "nz"):
        size = getattr(G, name, None)
        if isinstance(size, int):
            return [(size,), (size, 1, 1)]
    for module in G.modules() if isinstance(G, torch.nn.Module) else ():
        if isinstance(module, torch.nn.Linear):
            return [(module.in_features,)]
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            return [(module.in_channels, 1, 1), (module.in_channels,)]
    return []


def _ends_in_sigmoid(D: Any) -> bool:
    import torch

    leaves = [m for m in D.modules() if not any(m.children())] if isinstance(D, torch.nn.Module) else []
    return bool(leaves) and isinstance(leaves[-1], torch.nn.Sigmoid)
