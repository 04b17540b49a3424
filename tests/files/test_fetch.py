"""Downloads from a server that misbehaves in every way it can."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentshift.commands import run
from latentshift.errors import DownloadError, UsageError
from latentshift.files import fetch as module
from latentshift.files.cache import file_sha256
from latentshift.files.fetch import cached_path, fetch

CONTENT = bytes(range(256)) * 4000  # about 1 MB
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; `seen` keeps (path, range) of every request."""

    seen: list[tuple[str, str | None, str | None]]
    changed = False

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        asked, self.tag = self.headers.get("Range"), '"two"' if type(self).changed else '"one"'
        self.seen.append((self.path, asked, self.headers.get("Authorization")))
        getattr(self, f"send_{kind.replace('-', '_')}")(asked)

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", self.tag)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def ranged(self, asked: str, body: bytes = CONTENT) -> None:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if self.headers.get("If-Range") != self.tag:
            return self.answer(body)
        return self.answer(body[start:], 206, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")

    def send_good(self, asked: str | None) -> None:
        self.ranged(asked) if asked else self.answer(CONTENT)

    def send_cut(self, asked: str | None) -> None:
        """The first answer ends too early."""
        self.ranged(asked) if asked else self.answer(CONTENT[:300_000], length=len(CONTENT))

    def send_cut_then_changed(self, asked: str | None) -> None:
        """The file is another one when the rest is asked for."""
        if not asked:
            type(self).changed = True
            return self.answer(b"x" * 1000, length=len(CONTENT))
        return self.ranged(asked)

    def send_always_cut(self, asked: str | None) -> None:
        self.answer(CONTENT[:1000], length=len(CONTENT))

    def send_wrong_part(self, asked: str | None) -> None:
        if asked:
            return self.answer(CONTENT[5:], 206, Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")
        return self.answer(CONTENT[:1000], length=len(CONTENT))

    def send_busy(self, asked: str | None) -> None:
        if len(self.seen) < 3:
            return self.answer(b"", 503)
        return self.answer(CONTENT)

    def send_missing(self, asked: str | None) -> None:
        self.answer(b"no", 404)

    def send_private(self, asked: str | None) -> None:
        self.answer(b"no", 403)

    def send_html(self, asked: str | None) -> None:
        self.answer(b"\n<!DOCTYPE html><title>Sign in</title>")

    def send_pointer(self, asked: str | None) -> None:
        self.answer(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")

    def send_json(self, asked: str | None) -> None:
        self.answer(b'{"error": "rate limited"}')

    def send_nothing(self, asked: str | None) -> None:
        self.answer(b"")

    def send_endless(self, asked: str | None) -> None:
        """No length, and more than was promised."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)

    def send_elsewhere(self, asked: str | None) -> None:
        self.answer(b"", 302, Location="file:///etc/passwd")

    def send_round(self, asked: str | None) -> None:
        self.answer(b"", 302, Location="/round/x")

    def send_moved(self, asked: str | None) -> None:
        self.answer(b"", 302, Location="/good/x.bin")

    def send_slow(self, asked: str | None) -> None:
        time.sleep(1.0)
        self.answer(CONTENT)

    def send_silent(self, asked: str | None) -> None:
        time.sleep(1.5)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server on this machine alone, and an empty cache."""
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    kind = type("Fresh", (Handler,), {"seen": []})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    made.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    made.seen = kind.seen  # type: ignore[attr-defined]
    made.url = f"http://127.0.0.1:{made.server_address[1]}"  # type: ignore[attr-defined]
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def leftovers(path: Path) -> list[str]:
    """Return what lies beside a download."""
    return sorted(p.name.removeprefix(path.name) for p in path.parent.iterdir() if p != path and not p.name.endswith(".lock"))


def test_a_download_is_checked_renamed_and_not_asked_for_again(server: Any) -> None:
    path = fetch(f"{server.url}/good/net.pkl", sha256=SHA, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert path == cached_path(f"{server.url}/good/net.pkl")
    assert path.name.endswith("-net.pkl")
    assert leftovers(path) == []
    fetch(f"{server.url}/good/net.pkl", sha256=SHA.upper())
    assert len(server.seen) == 1
    assert server.seen[0][2] is None  # no token
    with pytest.raises(DownloadError, match="sha256"):
        fetch(f"{server.url}/good/net.pkl", sha256="0" * 64)


@pytest.mark.parametrize("way", ["cut", "moved", "busy"])
def test_what_is_cut_or_busy_is_gone_on_with(server: Any, way: str) -> None:
    path = fetch(f"{server.url}/{way}/x.bin", sha256=SHA)
    assert file_sha256(path) == SHA
    if way == "cut":
        assert [r for _, r, _ in server.seen] == [None, "bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Any) -> None:
    assert fetch(f"{server.url}/cut-then-changed/x.bin").read_bytes() == CONTENT


def test_a_part_of_a_killed_process_is_used(server: Any) -> None:
    url = f"{server.url}/good/x.bin"
    path = cached_path(url)
    path.parent.mkdir(parents=True)
    Path(f"{path}.part").write_bytes(CONTENT[:5000])
    Path(f"{path}.part.json").write_text(json.dumps({"url": url, "validator": '"one"'}))
    Path(f"{path}.lock").write_bytes(b"")  # left by the dead
    assert fetch(url, sha256=SHA) == path
    assert server.seen[0][1] == "bytes=5000-"


@pytest.mark.parametrize(
    ("way", "options", "said"),
    [
        ("missing", {}, "404"),
        ("private", {}, "403 .*licence"),
        ("html", {}, "web page"),
        ("pointer", {}, "git-LFS"),
        ("json", {}, "JSON"),
        ("nothing", {}, "sent nothing"),
        ("good", {"sha256": "0" * 64}, "sha256"),
        ("good", {"size": 5}, "offers .* not the 5"),
        ("endless", {"size": 5}, "more than the 5"),
        ("elsewhere", {}, "file:"),
        ("round", {}, "302"),
    ],
)
def test_what_is_refused_leaves_nothing_under_the_name(server: Any, way: str, options: Any, said: str) -> None:
    url = f"{server.url}/{way}/net.pkl"
    with pytest.raises(DownloadError, match=said) as caught:
        fetch(url, **options)
    assert server.url in str(caught.value)
    assert not cached_path(url).exists()


@pytest.mark.parametrize("way", ["always-cut", "wrong-part", "silent"])
def test_after_some_tries_it_says_what_is_kept(server: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    url = f"{server.url}/{way}/net.pkl"
    with pytest.raises(DownloadError, match="failed 2 times") as caught:
        fetch(url, timeout=0.3)
    assert not cached_path(url).exists()
    if way != "silent":
        assert "1000 bytes are kept" in str(caught.value)


def test_two_processes_share_one_download(server: Any) -> None:
    url = f"{server.url}/slow/x.bin"
    code = f"from latentshift.files.fetch import fetch; print(fetch({url!r}))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [p.communicate(timeout=60)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert outs[0] == outs[1]
    assert len(server.seen) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{server.url}/good/net.pkl"
    path = cached_path(url)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    assert run(["fetch", url]) == 6
    said = capsys.readouterr().err
    assert "no space left on the disk" in said
    assert "LATENTSHIFT_CACHE" in said
    assert said.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "http://", "https://me:word@a/b", "http://a/ b", "http://[::/x"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError):
        fetch(url)


def test_command(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{server.url}/good/net.pkl"
    assert run(["fetch", url, "--offline"]) == 5
    assert "not in the cache" in capsys.readouterr().err
    assert run(["fetch", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"] == SHA
    assert run(["fetch", url, "--offline"]) == 0
    assert capsys.readouterr().out.strip() == told["path"]
    assert run(["fetch", f"{server.url}/missing/x"]) == 5
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["fetch", "file:///etc/passwd"]) == 2
    assert run(["fetch", "fashion23"]) == 3
    assert "fashion32" in capsys.readouterr().err
