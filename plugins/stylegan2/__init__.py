"""StyleGAN2 and StyleGAN2-ada: network pickles as pairs.

`FAMILY` is what the entry point names; nothing here imports torch before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..family import Family, options_of

if TYPE_CHECKING:
    from latentshift.model import Critic

    from ..loaded import Files, Loaded, Rebuild


class StyleGAN(Family):
    """Network pickles of StyleGAN2-ada, StyleGAN2 and StyleGAN3. Options: `latentshift_plugins.stylegan2.adapter.Options`."""

    def __init__(self, name: str, line: str) -> None:
        self.name, self.line = name, line

    def recognises(self, path: Path, tree: Mapping[str, Any] | None = None) -> bool:
        """Return whether `tree`, as `read_tensors` gives it, holds networks of this family."""
        from .loading import code_of

        return code_of(tree) == self.name

    def _options(self) -> type:
        from .adapter import Options

        return Options

    def _loaded(self, path: Path, files: Files, critic: Path | None, options: Any) -> Loaded:
        from .adapter import load_path

        return load_path(path, files, critic, options)

    def _rebuilder(self, options: Mapping[str, Any], where: str) -> Rebuild:
        from .adapter import rebuild

        options_of(self._options(), self.name, options)  # refuses what it does not know
        return partial(rebuild, changes=options)

    def read_critic(self, path: str | Path) -> Critic:
        """Return the discriminator in a network pickle, for a generator from elsewhere."""
        from .adapter import read_critic

        return read_critic(Path(path))


FAMILY = StyleGAN("stylegan2", "StyleGAN2 and StyleGAN2-ada network pickles (.pkl): z, w, w+ and noise maps, with their D")
