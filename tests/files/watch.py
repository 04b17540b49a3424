"""Run in a child process: read files under an audit hook and print one JSON line a file.

Reads lines `KIND PATH` from stdin (KIND `reader` or `stylegan`). A result has `error` (class name or null), `status`, `line`,
`seconds`, `peak` (bytes that the process grew by), `events`: whatever ran, was imported, or was opened for writing, and
`tensors`: name -> [dtype and shape, digest of the bytes] of what was read (of the networks that were built, for `stylegan`).
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


def table(tensors: Any) -> dict[str, list[str]]:
    """Return name -> [dtype and shape, digest of the bytes] of (name, tensor) pairs."""
    import hashlib

    out = {}
    for name, t in tensors:
        raw = t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        out[name] = [f"{t.dtype} {tuple(t.shape)}", hashlib.sha256(raw).hexdigest()[:16]]
    return out


def networks(path: str) -> dict[str, list[str]]:
    """Return the table of the networks that a style file's pair is made of."""
    made = load_stylegan(path)
    parts = {"G": made.G, "D": made.D} if made.D is not None else {"G": made.G}
    return table((f"{part}.{k}", v) for part, net in parts.items() for k, v in net.state_dict().items())


def contents(path: str) -> dict[str, list[str]]:
    """Return the table of all tensors of a file."""
    from latentshift.files.pickle import find

    return table(find(read_tensors(path).tree, torch.Tensor, limit=1 << 20))


def warm_up() -> None:
    """Import whatever reading imports, so that later imports are the file's doing."""
    with tempfile.TemporaryDirectory() as folder:
        save_file({"a": torch.ones(2)}, f"{folder}/a.safetensors")
        np.savez(f"{folder}/a.npz", a=np.ones(2))
        torch.save({"a": torch.ones(2)}, f"{folder}/a.pt")
        torch.save({"a": torch.ones(2)}, f"{folder}/b.pt", _use_new_zipfile_serialization=False)
        for name in ("a.safetensors", "a.npz", "a.pt", "b.pt"):
            contents(f"{folder}/{name}")
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
        result: dict[str, Any] = {"error": None, "status": 0, "line": "", "tensors": {}}
        try:
            result["tensors"] = networks(path) if kind == "stylegan" else contents(path)
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
