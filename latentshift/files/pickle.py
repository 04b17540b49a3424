"""StyleGAN network pickles, read without running them.

    tree, notes = read_pickle(Source(fd, size=n, label="ffhq.pkl"))
    tree["G_ema"].class_name, tree["G_ema"].state["_modules"]

The tree holds dicts, lists, tuples, numbers, texts, tensors and `PersistentObject` records. Classes of other projects are
`Opaque` records: a part that holds one cannot be used, the others can.
"""

from __future__ import annotations

from typing import Any

from ..errors import DamagedFileError, FileError, UnsafeFileError
from .builders import FileBuilders
from .opcodes import Machine
from .sources import Source
from .storages import Allowance
from .values import Opaque, PersistentObject, RefusalError, SourceText, check_tree

#: Lengths of the source texts of the published generations of the container; any other length earns a note.
KNOWN_SOURCES = {37394, 26375, 40302, 26208, 26617}


def error_of(refusal: RefusalError, where: str) -> FileError:
    """Return the error that a refusal means where no byte offset is known."""
    kind = UnsafeFileError if refusal.unsafe else DamagedFileError
    return kind(refusal.what, where=where, way_out=refusal.way_out)


def read_pickle(source: Source) -> tuple[Any, list[str]]:
    """Return the tree of a network pickle and notes about it.

    Raises UnsafeFileError for code and for resource bombs, DamagedFileError for broken or trailing bytes; each says the byte
    offset. Takes at most the memory of the tensors and some MiB for names.
    """
    builders = FileBuilders(Allowance(source.size), container=True)
    machine = Machine(source, builders)
    tree = machine.run()
    if machine.end != source.size:
        raise DamagedFileError(
            f"{source.size - machine.end:,} bytes follow the end of the pickle", where=f"{source.label}, byte {machine.end}"
        )
    try:
        foreign = check_tree(tree)
    except RefusalError as refusal:
        raise error_of(refusal, source.label) from None
    notes = foreign_notes(tree, foreign)
    for record in networks(tree):
        if record.source.length not in KNOWN_SOURCES:
            notes.append(
                f"the source text kept with {record.class_name} ({record.source.length:,} bytes, sha256 "
                f"{record.source.sha256[:12]}) is of no version that we know; it was not run"
            )
            break
    return tree, notes


def networks(tree: Any) -> list[PersistentObject]:
    """Return the network records at the top of a tree: the root itself, or the values of a dict."""
    if isinstance(tree, PersistentObject):
        return [tree]
    return [v for v in tree.values() if isinstance(v, PersistentObject)] if isinstance(tree, dict) else []


def find(root: Any, wanted: type, limit: int = 20) -> list[tuple[str, Any]]:
    """Return up to `limit` objects of type `wanted` in a checked tree with the path to each, such as `D._modules.head`."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", root)]
    while stack and len(found) < limit:
        path, node = stack.pop()
        if isinstance(node, wanted):
            found.append((path, node))
            continue
        if not isinstance(node, dict | list | tuple | PersistentObject) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, PersistentObject):
            stack.append((path, node.state))
        else:
            items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
            stack.extend((f"{path}.{str(k)[:80]}" if path else str(k)[:80], v) for k, v in reversed(items))
    return found


def foreign_notes(tree: Any, foreign: list[Opaque]) -> list[str]:
    """Return one note a foreign class: its name, its place in the tree and its offset."""
    if not foreign:
        return []
    notes: dict[str, str] = {}
    for path, record in find(tree, Opaque, limit=200):
        notes.setdefault(
            str(record), f"{path or 'the whole file'} holds {record} (byte {record.offset}), a class that was not built"
        )
    return list(notes.values())[:10]


__all__ = ["KNOWN_SOURCES", "SourceText", "error_of", "find", "foreign_notes", "networks", "read_pickle"]
