"""Downloads: to `name.part`, resumed, checked (size, sha256, not a web page), then renamed. Two processes share one download.

No token is ever sent, redirects go to http and https only and never from https to http, and `file:` is no address.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DownloadError, UsageError
from .cache import cache_folder, file_sha256
from .offline import is_off
from .write import output_errors

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all where known
BLOCK = 1 << 20
TRIES, PAUSE = 4, 0.2  # so often, so many seconds before the second try, four times as many before the next
_ROOM = "Free some, or let LATENTSHIFT_CACHE name a folder on another disk; what was fetched is kept."
_ELSEWHERE = "Let LATENTSHIFT_CACHE (or --out) name a folder of yours."
_BY_HAND = "Fetch it by hand and give the file's path."


def cached_path(url: str) -> Path:
    """Return where the download of an address lies, or will lie."""
    parts = _checked(url)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", urllib.parse.unquote(parts.path).rpartition("/")[2]).strip(".-")[-80:] or "file"
    return cache_folder() / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"


def fetch(
    url: str,
    out: Path | None = None,
    *,
    sha256: str | None = None,
    size: int | None = None,
    offline: bool = False,
    timeout: float = 30.0,
    wait: float = 600.0,
    progress: Progress | None = None,
) -> Path:
    """Return the path of a checked download; nothing is asked of the network where it is there already.

    `timeout` is that of one answer of the server, `wait` how long another process is waited for. Raises DownloadError with
    the address, what went wrong and what to try; UsageError for an address that is none.
    """
    _checked(url)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{sha256!r} is no sha256", way_out="It has 64 hexadecimal digits.")
    path = cached_path(url) if out is None else Path(out)
    with output_errors(path.parent, full=_ROOM, denied=_ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
    if _there(path, sha256, size):
        return path
    if offline or is_off():
        raise DownloadError("not in the cache, and the network is off", where=url, way_out=f"Leave --offline out. {_BY_HAND}")
    with _lock(path, wait):
        if not _there(path, sha256, size):  # another process may have brought it
            _download(url, path, sha256, size, timeout, progress)
    return path


def _checked(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{url!r} is no web address", way_out="It begins with https:// or http://.")
    if parts.username or parts.password:
        raise UsageError("an address with a name or password in it", way_out=f"Leave it out. {_BY_HAND}")
    if any(ord(c) <= 32 or ord(c) > 126 for c in url):
        raise UsageError(f"{url!r} holds spaces or signs that an address has not", way_out="Write them as %20 and the like.")
    return parts


def _there(path: Path, sha256: str | None, size: int | None) -> bool:
    if not path.is_file():
        return False
    if size is not None and path.stat().st_size != size:
        raise DownloadError(
            f"the file here has {path.stat().st_size} bytes, not the {size} promised", where=str(path), way_out="Delete it."
        )
    if sha256 is not None and (found := file_sha256(path)) != sha256.lower():
        what = f"the file here has sha256 {found[:16]}…, not {sha256[:16]}…"
        raise DownloadError(what, where=str(path), way_out="Delete it.")
    return True


class _Redirect(urllib.request.HTTPRedirectHandler):
    max_redirections = 6

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        to = urllib.parse.urlsplit(newurl)
        if to.scheme not in ("http", "https") or (req.type == "https" and to.scheme == "http"):
            raise DownloadError(f"the server redirects to {newurl[:80]!r}, which is not followed", where=req.full_url)
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None:
            for name in ("Range", "If-range"):
                if name in req.headers:
                    made.add_header(name, req.headers[name])
        return made


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()  # no handler for file:, ftp: or data:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirect(),
    ):
        opener.add_handler(handler)
    return opener


def _download(url: str, path: Path, sha256: str | None, size: int | None, timeout: float, progress: Progress | None) -> None:
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    failed = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(PAUSE * 4 ** (attempt - 1), 5.0))
        try:
            if _once(url, part, note, size, timeout, progress):
                break
            failed = f"the connection ended after {part.stat().st_size} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part is no beginning of what is there now
                part.unlink(missing_ok=True)
                failed = "the server refused to go on"
            elif error.code in (408, 429) or error.code >= 500:
                failed = f"the server answered {error.code} {error.reason}"
            else:
                what = f"the server answered {error.code} {error.reason}"
                raise DownloadError(what, where=url, way_out=_hint(error.code)) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            failed = str(getattr(error, "reason", "") or error) or type(error).__name__
    else:
        kept = part.stat().st_size if part.is_file() else 0
        again = f"Run the same again: {kept} bytes are kept. {_BY_HAND}" if kept else _BY_HAND
        raise DownloadError(f"the download failed {TRIES} times: {failed}", where=url, way_out=again)
    try:
        _accept(url, part, sha256, size)
    except DownloadError:
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        raise
    with output_errors(path, full=_ROOM, denied=_ELSEWHERE):
        os.replace(part, path)
    note.unlink(missing_ok=True)


def _hint(code: int) -> str:
    if code in (401, 403):
        return f"A login or a licence page may be in the way. {_BY_HAND}"
    return f"Check the address. {_BY_HAND}"


def _once(url: str, part: Path, note: Path, size: int | None, timeout: float, progress: Progress | None) -> bool:
    """Ask for what is missing; return whether the part is now whole."""
    mark = _mark(note)
    have = part.stat().st_size if part.is_file() and mark else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"latentshift/{__version__}", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark)
    with _opener().open(request, timeout=timeout) as answer:
        length = answer.headers.get("Content-Length", "")
        promised = int(length) if length.isdigit() else None
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if have and answer.status == 206 and span and int(span[1]) == have:
            total = int(span[2]) if span[2] != "*" else (None if promised is None else have + promised)
        else:
            if answer.status == 206:
                raise http.client.HTTPException("the server sent another part than was asked for")
            have, total = 0, promised
        if size is not None and total is not None and total != size:
            raise DownloadError(f"the server offers {total} bytes, not the {size} promised", where=url, way_out=_BY_HAND)
        validator = answer.headers.get("ETag", "")
        validator = "" if validator.startswith("W/") else validator or answer.headers.get("Last-Modified", "")
        with output_errors(part, full=_ROOM, denied=_ELSEWHERE):
            note.write_text(json.dumps({"url": url, "validator": validator}))
            with part.open("r+b" if have else "wb") as stream:
                if have:
                    stream.seek(have)
                    stream.truncate()
                limit = total if total is not None else size
                while block := answer.read(BLOCK):
                    have += len(block)
                    if limit is not None and have > limit:
                        raise DownloadError(f"the server sends more than the {limit} bytes promised", where=url)
                    stream.write(block)
                    if progress is not None:
                        progress(have, total)
                stream.flush()
                os.fsync(stream.fileno())
    return total is None or have == total


def _mark(note: Path) -> str:
    """Return what a resumed download must still match: the server's ETag or date; empty where it cannot be resumed."""
    try:
        return str(json.loads(note.read_text("utf-8"))["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _accept(url: str, part: Path, sha256: str | None, size: int | None) -> None:
    found = part.stat().st_size
    if size is not None and found != size:
        raise DownloadError(f"the server sent {found} bytes, not the {size} promised", where=url, way_out=_BY_HAND)
    if sha256 is not None and (digest := file_sha256(part)) != sha256.lower():
        raise DownloadError(f"the file has sha256 {digest[:16]}…, not {sha256[:16]}…", where=url, way_out="Do not use it.")
    with part.open("rb") as stream:
        head = stream.read(64).lstrip().lower()
    wanted = urllib.parse.urlsplit(url).path.lower().rpartition(".")[2]
    if not found:
        raise DownloadError("the server sent nothing", where=url, way_out=_BY_HAND)
    if head.startswith((b"<!doctype", b"<html", b"<?xml")) and wanted not in ("html", "htm", "xml", "svg"):
        raise DownloadError("the server sent a web page, not a file", where=url, way_out=_hint(403))
    if head.startswith(b"version https://git-lfs"):
        raise DownloadError("the server sent a git-LFS pointer, not the file", where=url, way_out=_BY_HAND)
    if head.startswith((b"{", b"[")) and wanted in ("pkl", "pt", "pth", "npz", "zip", "png"):
        raise DownloadError("the server sent a JSON document, not a file", where=url, way_out=_hint(403))


@contextlib.contextmanager
def _lock(path: Path, wait: float) -> Iterator[None]:
    """Hold `path.lock`; the system frees it when its holder dies, so a stale one stops nobody."""
    file = path.with_name(path.name + ".lock")
    with output_errors(file, full=_ROOM, denied=_ELSEWHERE):
        stream = file.open("a+b")
    try:
        end = time.monotonic() + wait
        while not _taken(stream):
            if time.monotonic() > end:
                raise DownloadError(f"another process has been downloading this for {wait:.0f} s", where=str(path))
            time.sleep(0.1)
        yield
    finally:
        stream.close()


def _taken(stream: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # no advisory locks on this system
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
