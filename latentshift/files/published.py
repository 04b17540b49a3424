"""Models that their publishers offer for download: a name, an address, and the licence that is shown when it is used.

Nothing is fetched before a user asks for the model by name. The files carry no version and no digest is published, so the
sha256 that was seen stands in the run's record.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import Pair


@dataclass(frozen=True)
class Published:
    """A file at a publisher's address, read by the family that recognises it."""

    name: str
    url: str
    what: str  # content and resolution
    licence: str
    kind: str = "pair"

    @property
    def line(self) -> str:
        """Return the one line of listings."""
        return f"{self.what} (downloads on request; {self.licence})"

    def card(self) -> dict[str, Any]:
        """Return what is known without the file."""
        return {"name": self.name, "content": self.what, "address": self.url, "licence": self.licence}

    def fetched(self) -> Path:
        """Return the file, fetched into the cache where it is not there yet; the licence is named either way."""
        from .fetch import cached_path, fetch
        from .offline import is_off

        print(f"note: {self.name}: {self.what}; licence: {self.licence}", file=sys.stderr)
        if not cached_path(self.url).exists() and not is_off():
            print(f"note: fetching {self.url}", file=sys.stderr)
        return fetch(self.url)

    def load(self) -> Pair:
        """Return the pair; fetches the file where it is not there yet."""
        from .names import read_path

        return read_path(self.fetched()).replaced(name=self.name, source=self.url)
