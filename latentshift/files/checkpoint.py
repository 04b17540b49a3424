"""One door for files of tensors: `read_tensors` reads any of them into plain data, without running anything.

    contents = read_tensors("model.pth")
    contents.kind        'torch-zip'
    contents.tree        {'state_dict': {'fc.weight': tensor(...)}, 'epoch': 3}

Kinds: 'torch-zip' and 'torch-legacy' (the two forms of torch.save), 'safetensors', 'npz', 'stylegan-pickle'. The tree holds
dicts, lists, tuples, tensors and plain values; classes that we do not know are `Opaque` records, named in the notes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .arrays import read_npz, read_safetensors
from .builders import FileBuilders
from .cache import known_sha256
from .opcodes import Machine
from .pickle import error_of, find, foreign_notes, networks, read_pickle
from .sniff import open_regular, recognise
from .sources import Source
from .storages import Allowance, Storage, read_legacy
from .values import Opaque, RefusalError, check_tree
from .zips import Member, check_crc, content, read_directory

MAX_PICKLE_MEMBER = 256 << 20
_TRUST = (
    "A program can do anything that you can do: run it only if you trust who made it, with --trust-code. "
    "Safer: save a state_dict (torch.save(model.state_dict(), path)) and name its class with --factory module:function."
)

#: Modules that name another project of the same container.
_PROJECTS = (
    ("networks.", "StyleGAN-T, which is driven by text"),
    ("pg_modules.networks_fastgan", "Projected GAN with FastGAN"),
    ("pg_modules.", "Projected GAN or StyleGAN-XL"),
    ("training.triplane", "EG3D, which needs cameras"),
)


@dataclass(frozen=True)
class FileContents:
    """What a file holds. `size` in bytes; `sha256` is computed when it is first asked for."""

    kind: str
    tree: Any
    notes: tuple[str, ...]
    size: int
    path: Path = field(default_factory=Path)

    @cached_property
    def sha256(self) -> str:
        """The digest of the file in hexadecimal."""
        return known_sha256(self.path)


def read_tensors(path: str | Path) -> FileContents:
    """Read a checkpoint of any known kind, recognised by its content and not by its name.

    Nothing of the file is run or imported; memory stays under three times the file and a fixed floor.
    Raises UnsafeFileError (code, resource bombs), DamagedFileError (broken, or not what it claims), FileError (cannot be
    opened); each says the reason and, where there is one, the byte offset.
    """
    fd, size = open_regular(path)
    try:
        source = Source(fd, size=size, label=str(path))
        kind = recognise(source.read(0, min(size, 512)), size, str(path))
        try:
            if kind == "zip":
                kind, tree, notes = _read_zip(source)
            elif kind == "safetensors":
                tree, notes = read_safetensors(source, path)
            elif kind == "torch-legacy":
                builders = FileBuilders(Allowance(size), container=False)
                tree = read_legacy(source, builders, builders.allowance)
                notes = _check_torch(tree)
            else:
                kind = "stylegan-pickle"
                tree, notes = read_pickle(source)
                _check_container(tree)
        except RefusalError as refusal:
            raise error_of(refusal, str(path)) from None
        notes += _non_finite(tree)
    finally:
        os.close(fd)
    return FileContents(kind, tree, tuple(notes), size, Path(path))


class _ZipBuilders(FileBuilders):
    """Builders whose storages lie in members of the same zip."""

    def __init__(self, source: Source, members: dict[str, Member], root: str) -> None:
        super().__init__(Allowance(source.size), container=False)
        self.source, self.members, self.root = source, members, root

    def loaded(self, storage: Storage) -> None:
        member = self.members.get(f"{self.root}data/{storage.key}")
        if member is None:
            raise RefusalError(f"storage {storage.key[:40]!r} is not in the file")
        if member.size != storage.nbytes:
            raise RefusalError(
                f"storage {storage.key[:40]!r} has {member.size:,} bytes where {storage.nbytes:,} were declared", unsafe=True
            )
        storage.fill(self.source, member.offset)
        check_crc(member, storage.bytes_view())


def _read_zip(source: Source) -> tuple[str, Any, list[str]]:
    members = read_directory(source)
    names = list(members)
    pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
    if any(n.endswith("constants.pkl") or "/code/" in n for n in names):
        raise RefusalError("a TorchScript archive, which is a program", unsafe=True, way_out=_TRUST)
    if any(n.rpartition("/")[2] in ("archive_format", "serialized_exported_program.json") for n in names):
        raise RefusalError("a torch.export archive, which is a program", unsafe=True, way_out=_TRUST)
    if names and all(n.endswith(".npy") for n in names):
        tree, notes = read_npz(source, members)
        return "npz", tree, notes
    if len(pickles) != 1:
        what = f"a zip that is neither a torch file nor .npz (it holds {', '.join(names[:3]) or 'nothing'})"[:200]
        raise RefusalError(what, way_out="Unpack it, and give the model that lies in it.")
    root = pickles[0][: -len("data.pkl")]
    member = members[pickles[0]]
    stored = all(m.method == 0 for n, m in members.items() if n.startswith(root))
    if not stored:
        raise RefusalError("a torch file whose members are compressed", way_out="Save it again with torch.save.")
    order = members.get(f"{root}byteorder")
    if order is not None and content(source, order).strip() != b"little":
        raise RefusalError("a torch file that is not little-endian")
    if member.size > MAX_PICKLE_MEMBER:
        raise RefusalError(f"a torch file whose list of names takes {member.size:,} bytes", unsafe=True)
    content(source, member)  # its checksum
    machine = Machine(
        source.part(member.offset, member.size, f"{source.label}, {member.name}"), _ZipBuilders(source, members, root)
    )
    tree = machine.run()
    if machine.end != member.size:
        raise RefusalError(f"{member.size - machine.end:,} bytes follow the end of {member.name}")
    return "torch-zip", tree, _check_torch(tree)


def _check_torch(tree: Any) -> list[str]:
    foreign = check_tree(tree)
    notes = foreign_notes(tree, foreign)
    top = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else [tree]
    if any(isinstance(v, Opaque) for v in top) and not find(tree, Tensor, limit=1):
        names = ", ".join(dict.fromkeys(str(o) for o in foreign[:5]))
        raise RefusalError(f"a whole module was saved (classes {names}), which is a program", unsafe=True, way_out=_TRUST)
    return notes


def _check_container(tree: Any) -> None:
    if networks(tree):
        return
    foreign = list(dict.fromkeys(str(o) for _, o in find(tree, Opaque)))
    if foreign:
        likely = next((project for start, project in _PROJECTS if any(f.startswith(start) for f in foreign)), "")
        looks = f"; it looks like {likely}" if likely else ""
        raise RefusalError(
            f"a pickle of classes that we do not know ({', '.join(foreign)[:160]}){looks}", unsafe=True, way_out=_TRUST
        )
    raise RefusalError("a pickle without a network in it", way_out="Save tensors with torch.save or as safetensors.")


def _non_finite(tree: Any) -> list[str]:
    notes = []
    for path, tensor in find(tree, Tensor, limit=1 << 30):
        if not tensor.is_floating_point() or not tensor.numel() or all(m.isfinite() for m in torch.aminmax(tensor)):
            continue
        count = sum(int((~row.isfinite()).sum()) for row in tensor.reshape(-1).split(1 << 20))
        notes.append(f"{path}: {count:,} of {tensor.numel():,} values are NaN or infinite")
    return notes[:50]
