"""`hf://` references through the hub's own library, against a server on this machine that speaks the hub's language."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentshift.errors import UsageError
from latentshift.files.hub import is_hub, parse
from latentshift.files.names import FASHION32

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {n: (FASHION32.folder / n).read_bytes() for n in ("card.json", "G.safetensors", "D.safetensors")}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf://some/gan/G.pkl", ("some/gan", None, "G.pkl")),
        ("hf://some/gan@v1.0/nets/G.pkl", ("some/gan", "v1.0", "nets/G.pkl")),
        ("hf://some/gan/nets/G.pkl@v1.0", ("some/gan", "v1.0", "nets/G.pkl")),
        ("hf://some/gan", ("some/gan", None, "")),
        ("hf://some/gan@main/", ("some/gan", "main", "")),
        ("https://huggingface.co/some/gan/blob/main/a/G.pkl", ("some/gan", "main", "a/G.pkl")),
        ("https://huggingface.co/some/gan/resolve/v2/G.pkl?download=true", ("some/gan", "v2", "G.pkl")),
        ("https://hf.co/some/gan", ("some/gan", None, "")),
    ],
)
def test_forms(text: str, found: tuple[str, str | None, str]) -> None:
    assert is_hub(text)
    assert parse(text) == found


@pytest.mark.parametrize(
    "text", ["hf://", "hf://gan", "hf://some/gan/../../x", "hf://some/gan/G.pkl@", "https://hf.co/a/b/c/d"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError, match="no place on the hub"):
        parse(text)


def test_other_addresses_are_not_the_hub() -> None:
    assert not is_hub("https://example.org/huggingface.co/a/b")
    assert not is_hub("https://huggingface.co.example.org/a/b")


class Handler(http.server.BaseHTTPRequestHandler):
    """Two repositories: a pair folder, and one that asks for terms."""

    asked: list[str]

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        place = self.path.partition("?")[0]
        names = [{"rfilename": n} for n in (*FILES, "notes.txt")]
        if place.startswith("/api/models/our/pair/revision/") or place == "/api/models/our/pair":
            body = json.dumps({"id": "our/pair", "sha": COMMIT, "siblings": names, "tags": [], "private": False}).encode()
            return self.answer(body)
        if place.startswith("/api/models/our/pair/tree/"):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()} for n, b in FILES.items()]
            return self.answer(json.dumps(tree).encode())
        owner, _, rest = place.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if owner == "our/gated":
            return self.answer(b"", 403, X_Error_Code="GatedRepo", X_Error_Message="terms")
        if owner != "our/pair":
            return self.answer(b"", 401, X_Error_Code="RepoNotFound", X_Error_Message="no")
        if revision not in ("main", "v1", COMMIT):
            return self.answer(b"", 404, X_Error_Code="RevisionNotFound", X_Error_Message="no")
        if name not in FILES:
            return self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Error_Message="no", X_Repo_Commit=COMMIT)
        tag = hashlib.sha1(FILES[name]).hexdigest()
        return self.answer(FILES[name], ETag=f'"{tag}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    kind = type("Fresh", (Handler,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.asked = kind.asked  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def command(home: Path, port: int, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own: the hub's library reads its settings when it is imported."""
    gone = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")
    env = {k: v for k, v in os.environ.items() if k not in gone}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": f"http://127.0.0.1:{port}", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    words = (sys.executable, "-m", "latentshift", *words)
    return subprocess.run(
        words, env={**env, "HF_HUB_DISABLE_TELEMETRY": "1", **more}, capture_output=True, text=True, check=False
    )


def test_a_file_and_a_whole_repository(hub: Any, tmp_path: Path) -> None:
    port = hub.server_address[1]
    done = command(tmp_path, port, "fetch", "hf://our/pair@v1/G.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(done.stdout)["path"])
    assert path.read_bytes() == FILES["G.safetensors"]
    assert path.is_relative_to(tmp_path)  # the hub's own cache
    assert any("/v1/" in line or COMMIT in line for line in hub.asked)
    out = tmp_path / "out"
    words = ("refine", "--model", "hf://our/pair", "--num", "2", "--steps", "1", "--no-report", "--quiet", "--outdir", str(out))
    done = command(tmp_path, port, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["source"] == "hf://our/pair"
    assert not any("notes.txt" in line for line in hub.asked)
    before = len(hub.asked)
    done = command(tmp_path, port, "fetch", "hf://our/pair@v1/G.safetensors", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert len(hub.asked) == before


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["hf://our/nothing/G.pkl"], 5, "no repository 'our/nothing'"),
        (["hf://our/pair/H.pkl"], 5, "our/pair has no file 'H.pkl'"),
        (["hf://our/pair@v9/G.safetensors"], 5, "no revision 'v9'"),
        (["hf://our/gated/G.pkl"], 5, "acceptance of terms"),
        (["hf://our/pair/D.safetensors", "--offline"], 5, "the network is off"),
        (["hf://our"], 2, "Write hf://owner/repo/file.pkl"),
    ],
)
def test_what_the_hub_does_not_give(words: list[str], status: int, text: str, hub: Any, tmp_path: Path) -> None:
    done = command(tmp_path, hub.server_address[1], "fetch", *words)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert text in done.stderr


def test_no_network(tmp_path: Path) -> None:
    done = command(tmp_path, 9, "fetch", "hf://our/pair/G.safetensors")  # nobody listens there
    assert done.returncode == 5, done.stderr
    assert done.stderr.splitlines()[-1].startswith("latentshift: error: ")
    assert "Fetch it by hand" in done.stderr
