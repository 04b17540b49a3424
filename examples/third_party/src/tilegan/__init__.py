"""Tile GANs for latentshift. `FAMILY` is what the entry point names; torch is imported when a file is read, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class TileGAN:
    """The family: says what it is, recognises its files, reads them."""

    name = "tilegan"
    kind = "family"
    line = "tile GANs (.safetensors with painter.* and judge.*): one tile, painted and repeated"

    def sniff(self, path: Path) -> bool:
        """Return whether a file is of this family; by names alone, nothing is built."""
        from .files import is_ours

        return is_ours(path)

    def describe(self, path: Path) -> dict[str, Any]:
        """Return what `latentshift inspect` shows."""
        from .files import read_file

        file = read_file(path)
        return {
            "z_size": file.sizes.z,
            "image": f"3x{file.sizes.side}x{file.sizes.side}",
            "discriminator": file.judge is not None,
            "parameters": sum(t.numel() for t in (*file.painter.values(), *(file.judge or {}).values())),
        }

    def read(self, path: str | Path, *, critic: str | Path | None = None, repeats: int = 2) -> Any:
        """Return the pair of a file; `critic` is the file of another judge, `repeats` how often the tile is repeated a side."""
        from .files import pair_of, read_file

        return pair_of(read_file(Path(path)), None if critic is None else read_file(Path(critic)), repeats=repeats)

    def read_critic(self, path: str | Path) -> Any:
        """Return the judge of a file, for generators from elsewhere (`--critic FILE`)."""
        from .files import critic_of, read_file

        return critic_of(read_file(Path(path)))

    def convert(self, path: str | Path, folder: str | Path, *, critic: str | Path | None = None, repeats: int = 2) -> Path:
        """Write a file's pair as a pair folder."""
        from .files import write_folder

        return write_folder(self.read(path, critic=critic, repeats=repeats), Path(folder))

    def from_folder(self, folder: Path, card: dict[str, Any]) -> Any:
        """Return the pair of a pair folder whose card names this family."""
        from .files import from_folder

        return from_folder(folder, card)


FAMILY = TileGAN()
