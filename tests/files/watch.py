"""Run in a child process: read files under an audit hook and print one JSON line a file.

Reads lines `KIND PATH` from stdin (KIND `reader` or `stylegan`). A result has `error` (class name or null), `status`, `line`,
`seconds`, `peak` (bytes that the process grew by), and `events`: whatever ran, was imported, or was opened for writing.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latentshift_plugins.stylegan2.loading import load_stylegan
from latentshift_plugins.stylegan3 import build as _build3  # noqa: F401  (what loading imports late is no file's doing)
from safetensors.torch import save_file

from latentshift.errors import LatentshiftError
from latentshift.files.checkpoint import read_tensors

HARMLESS = {"object.__getattr__", "sys._getframe", "builtins.id", "gc.get_objects", "os.listdir"}
WATCHED = (
    "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "exec", "compile", "import", "pickle.", "marshal.", "code.",
    "webbrowser.", "ftplib.", "urllib.", "pty.", "signal.", "object.__", "sys.", "builtins.",
)  # fmt: skip


def tree_digest(tree: Any) -> str:
    """Digest of all tensors of a tree, by path."""
    import hashlib

    from latentshift.files.pickle import find

    total = hashlib.sha256()
    for path, tensor in find(tree, torch.Tensor, limit=1 << 20):
        total.update(f"{path} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def warm_up() -> None:
    """Import whatever reading imports, so that later imports are the file's doing."""
    with tempfile.TemporaryDirectory() as folder:
        save_file({"a": torch.ones(2)}, f"{folder}/a.safetensors")
        np.savez(f"{folder}/a.npz", a=np.ones(2))
        torch.save({"a": torch.ones(2)}, f"{folder}/a.pt")
        torch.save({"a": torch.ones(2)}, f"{folder}/b.pt", _use_new_zipfile_serialization=False)
        for name in ("a.safetensors", "a.npz", "a.pt", "b.pt"):
            tree_digest(read_tensors(f"{folder}/{name}").tree)
        for name, text in (("bad.npz", b"PK\x03\x04junk"), ("bad.safetensors", b"\x08" + bytes(7) + b'{"a":1} ')):
            Path(f"{folder}/{name}").write_bytes(text)
            try:
                read_tensors(f"{folder}/{name}")
            except LatentshiftError as error:
                error.line()
    with torch.device("meta"):
        torch.empty(1)
    for path in sys.argv[1:]:
        try:
            load_stylegan(path)
        except LatentshiftError as error:
            error.line()


def main() -> None:
    torch.set_num_threads(1)
    warm_up()
    events: list[str] = []

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == "open":
            mode, flags = args[1], args[2]
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (mode is None and flags & (os.O_WRONLY | os.O_RDWR)):
                events.append(f"open {args[0]} {mode}")
        elif name == "import":
            if args[0] not in sys.modules:
                events.append(f"import {args[0]}")
        elif name.startswith(WATCHED) and name not in HARMLESS:
            events.append(name)

    sys.addaudithook(hook)
    for line in sys.stdin:
        kind, _, path = line.rstrip("\n").partition(" ")
        events.clear()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.perf_counter(), time.process_time()
        result: dict[str, Any] = {"error": None, "status": 0, "line": "", "digest": ""}
        try:
            if kind == "stylegan":
                load_stylegan(path)
            else:
                result["digest"] = tree_digest(read_tensors(path).tree)
        except LatentshiftError as error:
            result.update(error=type(error).__name__, status=error.exit_status, line=error.line())
        except BaseException as error:
            result.update(error=f"CRASH {type(error).__name__}: {error}", status=1)
        result["seconds"] = min(time.perf_counter() - began, time.process_time() - cpu)
        result["peak"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        result["events"] = list(events)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
