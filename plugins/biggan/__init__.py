"""BigGAN: the networks of BigGAN-PyTorch (G, G_ema, D) and of pytorch-pretrained-BigGAN (G only).

`FAMILY` is what the entry point names; nothing here imports torch before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..family import Family

if TYPE_CHECKING:
    from ..loaded import Files, Loaded


class BigGAN(Family):
    """BigGAN-PyTorch runs and pytorch-pretrained-BigGAN folders. Options: `latentshift_plugins.biggan.load.Options`."""

    name = "biggan"
    line = "BigGAN-PyTorch runs (G_ema and D), pytorch-pretrained-BigGAN folders (G only)"

    def recognises(self, path: Path, tree: Mapping[str, Any] | None = None) -> bool:
        """Return whether `path` is a run's folder, or `tree` a network of this family."""
        from . import load, run

        return run.is_folder(path) if path.is_dir() else isinstance(tree, Mapping) and load.recognise(tree) is not None

    def _options(self) -> type:
        from .load import Options

        return Options

    def _loaded(self, path: Path, files: Files, critic: Path | None, options: Any) -> Loaded:
        from .run import load_path

        return load_path(path, files, critic, options)

    def _critic(self, tree: Any, where: str) -> tuple[Any, int | None, str]:
        from .load import critic_of

        return critic_of(tree, where)

    def _rebuild(self, config: Mapping[str, Any], G: Mapping[str, Any], D: Mapping[str, Any] | None) -> Loaded:
        from .load import rebuild

        return rebuild(config, G, D)


FAMILY = BigGAN()
