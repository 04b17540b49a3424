"""`latentshift stats DATA`: statistics of real images, made once, kept by the digest of their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from ..errors import Interrupted, UsageError
from .common import Talk, device_of, general
from .evaluate import NO_FEATURES, Steps, feature_options, images_of


@click.command(short_help="statistics of real images, once")
@click.argument("data", metavar="DATA")
@feature_options
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write them here too.  [default: the cache]")
@general
def command(**typed: Any) -> None:
    """Work out the features and moments of real images once; `evaluate` finds them again by the content of the images.

    The file is a plain npz: mu, sigma, count, network, fingerprint, features, logits, labels, sha256.

    \b
    Examples:
      latentshift stats photos --features pixels:32x1
      latentshift stats photos --features pixels:32x1 --out statistics.npz
    """
    talk = Talk(typed["quiet"], typed["as_json"])
    if typed["features"] is None:
        raise UsageError("which features?", where="--features", way_out=NO_FEATURES)
    out: Path | None = typed["out"]
    if out is not None and out.suffix != ".npz":
        raise UsageError(f"statistics are an npz, not {out.name!r}", where="--out", way_out="Name it FILE.npz.")
    if out is None and typed["no_cache"]:
        raise UsageError("--no-cache without --out would keep nothing", way_out="Give --out FILE.npz.")
    from ..files.write import output_errors
    from ..metrics.extractors import load_extractor
    from ..metrics.store import Store, save_statistics

    network = load_extractor(typed["features"])
    device = str(device_of(typed["device"]))
    store = Store(network, None, device) if typed["no_cache"] else Store.default(network, device)
    images = images_of(typed["data"], typed)
    for note in images.notes:
        talk.note(f"note: {images.name}: {note}")
    path = store.statistics_path(images)
    known = path is not None and path.is_file()
    try:
        reference, kept = store.reference(images, Steps(talk).features(images.name))
    except KeyboardInterrupt:
        raise Interrupted("interrupted", way_out="Run the same again: it goes on where it was.") from None
    if out is not None:
        if kept is None:
            save_statistics(out, reference, store.fingerprint, images.sha256())
        else:
            with output_errors(out):
                out.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(kept, out)
    store.drop()
    where = out or kept
    assert where is not None
    m = reference.moments
    if talk.as_json:
        told = {"statistics": str(where), "network": network.name, "count": m.count, "size": m.mean.size}
        told |= {"sha256": images.sha256(), "fingerprint": store.fingerprint, "cached": known, "bytes": where.stat().st_size}
        click.echo(json.dumps(told, indent=2))
    talk.fact(f"{'found' if known else 'made'} {where}: {m.count} images, {m.mean.size} features of {network.name}")
