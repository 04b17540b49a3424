"""The small classic GANs: pytorch-gan-collections, AdvLatGAN, mimicry, the PyTorch DCGAN example and its copies.

`FAMILY` is what the entry point names; nothing here imports torch before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..family import Family

if TYPE_CHECKING:
    from ..loaded import Files, Loaded


class Classic(Family):
    """The classic families, recognised from shapes. Options: `latentshift_plugins.classic.load.Options`."""

    name = "classic"
    explains = True
    line = "state dicts of pytorch-gan-collections, AdvLatGAN, mimicry, the PyTorch DCGAN example and its copies"

    def recognises(self, path: Path, tree: Mapping[str, Any] | None = None) -> bool:
        """Return whether `path` is a run's folder, or `tree` a network of one of these families."""
        from . import files, load

        return (
            files.run_files(path) is not None
            if path.is_dir()
            else isinstance(tree, Mapping) and load.recognise(tree) is not None
        )

    def _options(self) -> type:
        from .load import Options

        return Options

    def _loaded(self, path: Path, files: Files, critic: Path | None, options: Any) -> Loaded:
        from .files import load_path

        return load_path(path, files, critic, options)

    def _critic(self, tree: Any, where: str) -> tuple[Any, int | None, str]:
        from .load import critic_of

        return critic_of(tree, where)

    def _rebuild(self, config: Mapping[str, Any], G: Mapping[str, Any], D: Mapping[str, Any] | None) -> Loaded:
        from .load import rebuild

        return rebuild(config, G, D)


FAMILY = Classic()
