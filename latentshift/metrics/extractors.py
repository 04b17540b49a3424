"""Feature extractors by name: what `--features` takes. Listing them imports no torch.

    inception            the FID's network, fetched on request; inception:FILE reads its weights from a local file
    pixels, pixels32     the pixels themselves, at the images' own size or another
    dinov2               DINOv2 through the extra `latentshift[dinov2]` (its weights come from the hub on request)
    FILE                 a network file: SqueezeNet 1.0, a CIFAR ResNet, the small CNN (safetensors), Inception (.pth)
    JUDGE                the network of a judge folder or of a bundled judge (fashion32-judge)
    NAME                 a plug-in's, registered under the entry point group `latentshift.features`

A plug-in registers an object with `line` and `make(argument) -> Features`, where `argument` is what stands behind a colon,
or empty.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..errors import FileError, RequestError, UnknownNameError

if TYPE_CHECKING:
    from .features import Features


@dataclass(frozen=True)
class Extractor:
    """What is registered: one line for listings, and the making."""

    line: str
    make: Callable[[str], Features]


def _inception(argument: str) -> Features:
    from .inception import fetch_inception, load_inception

    return load_inception(argument) if argument else fetch_inception()


def _pixels(argument: str) -> Features:
    from .features import pixels

    parts = re.fullmatch(r"(\d*)(?:x([13]))?", argument)
    if parts is None:
        raise RequestError(f"cannot read 'pixels:{argument}'", way_out="Write pixels:32, or pixels:32x1 for grey images.")
    return pixels(int(parts[2] or 3), int(parts[1] or 32))


def _dinov2(argument: str) -> Features:
    from .dinov2 import load_dinov2

    return load_dinov2(argument)


INCEPTION = Extractor("the FID's Inception network, 2048 features (95 MB, fetched on request; inception:FILE)", _inception)
PIXELS = Extractor("the pixels themselves (pixels:32, grey pixels:32x1)", _pixels)
DINOV2 = Extractor("DINOv2, 1024 features (extra latentshift[dinov2]; weights from the hub on request)", _dinov2)


def load_extractor(name: str) -> Features:
    """Return the extractor of a name, a network file or a judge.

    Raises UnknownNameError with near matches, FileError for a path that is none or a file that is no network.
    """
    kind, _, argument = name.partition(":")
    if (short := re.fullmatch(r"pixels(\d+)", kind)) and not argument:
        kind, argument = "pixels", short[1]
    if kind in registry.names("features"):
        made: Features = registry.get("features", kind).make(argument)
        return made
    from .judge import bundled_judges, load_judge

    path = Path(name)
    if name in bundled_judges() or (path / "judge.safetensors").is_file():
        return load_judge(name).network
    if path.is_file():
        return _of_file(path)
    if path.exists() or "/" in name or path.suffix in (".safetensors", ".pth", ".pt"):
        raise FileError("no such network file", where=name, way_out="Give a safetensors or .pth file of a known network.")
    known = [*registry.names("features"), *bundled_judges()]
    raise UnknownNameError("feature extractor", name, known, way_out=f"Known: {', '.join(known)}, or a network file.")


def _of_file(path: Path) -> Features:
    from .inception import load_inception
    from .networks import load_network

    if path.suffix in (".pth", ".pt"):
        return load_inception(path)
    return load_network(path)


def fingerprint(network: Features) -> str:
    """A digest of a network's name and all its numbers: statistics made with it belong to no other one.

    A plug-in without `net` gives its own `fingerprint`, else its name alone counts.
    """
    digest = hashlib.sha256(network.name.encode())
    own: Any = getattr(network, "fingerprint", None)
    if isinstance(own, str):
        digest.update(own.encode())
    net = getattr(network, "net", None)
    if net is not None:
        for key, value in sorted(net.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
