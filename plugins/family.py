"""What a model family registers: a small object that says its line without torch and loads when it is asked to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentshift.errors import RequestError, UnknownNameError

if TYPE_CHECKING:
    from latentshift.model import Critic, Pair

    from .loaded import Files, Loaded, Rebuild


class Family:
    """The door of a family, named by an entry point of `latentshift.models`. Subclasses say what follows the line."""

    name: str
    line: str
    kind = "family"
    explains = False  # whether `read` of a file that no family recognises says best what was found instead

    def sniff(self, path: Path) -> bool:
        """Return whether a file or folder is of this family. Raises FileError for a file that no one should read on."""
        from .loaded import peek

        return self.recognises(path, None if path.is_dir() else peek(path))

    def recognises(self, path: Path, tree: Mapping[str, Any] | None = None) -> bool:
        """Return whether `path` is a model of this family; `tree` is what the reader found in it, where it is a file."""
        raise NotImplementedError

    def _options(self) -> type:
        raise NotImplementedError

    def _loaded(self, path: Path, files: Files, critic: Path | None, options: Any) -> Loaded:
        raise NotImplementedError

    def _rebuild(self, config: Mapping[str, Any], G: Mapping[str, Any], D: Mapping[str, Any] | None) -> Loaded:
        raise NotImplementedError

    def contents(self, path: str | Path, *, critic: str | Path | None = None, **options: Any) -> tuple[Loaded, str]:
        """Return what a file or folder holds, and the hash of the files read; `critic` is D's file where it is another one."""
        from .loaded import Files

        files = Files()
        chosen = options_of(self._options(), self.name, options)
        loaded = self._loaded(Path(path), files, Path(critic) if critic else None, chosen)
        return loaded.with_notes(*files.notes), files.sha256()

    def read(self, path: str | Path, *, critic: str | Path | None = None, **options: Any) -> Pair:
        """Return the pair in a file or folder.

        Raises FileError (status 4) for files that cannot be used, RequestError (status 3) for networks that do not fit.
        """
        loaded, sha256 = self.contents(path, critic=critic, **options)
        return loaded.pair(name=Path(path).stem or str(path), source=str(path), sha256=sha256)

    load = read

    def describe(self, path: Path) -> dict[str, Any]:
        """Return what `latentshift inspect` shows of a file; what keeps it from being a pair stands under `problem`."""
        from .describe import describe

        try:
            loaded, sha256 = self.contents(path)
        except RequestError as error:
            return {"problem": str(error)}
        return describe(loaded, self._options(), sha256)

    def _critic(self, tree: Any, where: str) -> tuple[Any, int | None, str]:
        raise NotImplementedError

    def read_critic(self, path: str | Path) -> Critic:
        """Return the discriminator in a file, for a generator from elsewhere. Raises RequestError where it holds none."""
        from latentshift.model import Critic

        from .loaded import Files

        D, classes, returns = self._critic(Files()(Path(path)), str(path))
        return Critic(D, Path(path).stem, returns, "high", bool(classes), True, getattr(D, "features", None), classes)

    def convert(self, path: str | Path, folder: str | Path, *, critic: str | Path | None = None, **options: Any) -> Path:
        """Write what `load` reads as a pair folder."""
        return self.contents(path, critic=critic, **options)[0].write(folder, Path(path).stem)

    def from_folder(self, folder: Path, card: Mapping[str, Any], **options: Any) -> Pair:
        """Return the pair of a pair folder whose card names this family; `options` are choices for this load alone."""
        from .loaded import from_folder

        return from_folder(folder, card, self._rebuilder(options, str(folder)))

    def _rebuilder(self, options: Mapping[str, Any], where: str) -> Rebuild:
        if options:
            text = f"a pair folder of {self.name} takes no options ({', '.join(options)})"
            raise RequestError(text, where=where, way_out="Give them when it is converted (--model-option).")
        return self._rebuild


def options_of(kind: type, family: str, given: Mapping[str, Any]) -> Any:
    """Return a family's options; raises UnknownNameError for one that it does not have, with near matches."""
    known = [f.name for f in dataclasses.fields(kind)]
    for name in given:
        if name not in known:
            way_out = f"It takes: {', '.join(known)}."
            raise UnknownNameError("option", name, known, where=f"model family {family!r}", way_out=way_out)
    return kind(**given)
