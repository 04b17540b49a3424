"""Files on the Hugging Face hub: `hf://owner/repo@revision/file.pkl`, and the web addresses that people paste.

The hub's own library fetches and caches them (HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT are its settings).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DownloadError, FileError, UsageError
from .offline import is_off

_BY_HAND = "Fetch it by hand and give the file's path."
_FORM = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")
_HTTP = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3", "hf_xet")
#: What a repository that is a model as a whole may consist of.
WHOLE = ("card.json", "*.safetensors", "grid.png", "config.json", "pytorch_model.bin")


def is_hub(reference: str) -> bool:
    """Return whether a reference is a place on the hub (its web pages count)."""
    return reference.startswith("hf://") or re.match(r"https://(www\.)?(huggingface\.co|hf\.co)/", reference) is not None


def parse(reference: str) -> tuple[str, str | None, str]:
    """Return (owner/repo, revision or None, file or an empty text) of a reference; raises UsageError for another form.

    >>> parse("hf://some/gan@v1/nets/G.pkl")
    ('some/gan', 'v1', 'nets/G.pkl')
    >>> parse("https://huggingface.co/some/gan/blob/main/G.pkl")
    ('some/gan', 'main', 'G.pkl')
    >>> parse("hf://some/gan/G.pkl@v1")
    ('some/gan', 'v1', 'G.pkl')
    """
    text = reference.partition("?")[0].rstrip("/") if reference != "hf://" else reference
    web = re.match(r"https://[^/]+/([\w.-]+/[\w.-]+)(?:/(?:blob|resolve|raw|tree)/([^/]+)(?:/(.+))?)?/?$", text)
    if web:
        return web[1], web[2], web[3] or ""
    m = _FORM.fullmatch(text)
    file = m["file"] or "" if m else ""
    revision = m["revision"] if m else None
    if m and revision is None and "@" in file:  # the revision behind the file is what people type, too
        file, _, revision = file.rpartition("@")
    if m is None or ".." in PurePosixPath(file).parts or revision == "":
        raise UsageError(
            f"{reference!r} is no place on the hub",
            way_out="Write hf://owner/repo/file.pkl or hf://owner/repo@revision/file.pkl.",
        )
    return m["repo"], revision, file


def fetch_hub(reference: str, *, offline: bool = False) -> Path:
    """Return the path of a file of the hub, or of a folder where the reference names a whole repository.

    Raises DownloadError with what went wrong and what to try, UsageError for a reference of another form.
    """
    repo, revision, file = parse(reference)
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    settings: dict[str, Any] = {
        "revision": revision,
        "endpoint": os.environ.get("HF_ENDPOINT") or None,
        "local_files_only": offline or is_off(),
    }
    try:
        if file:
            return Path(hf_hub_download(repo, file, **settings))
        return Path(snapshot_download(repo, allow_patterns=list(WHOLE), **settings))
    except errors.LocalEntryNotFoundError as error:
        cause = f" ({_short(error.__cause__)})" if error.__cause__ is not None else ""
        what = f"not in the hub's cache, and the network is off or out of reach{cause}"
        raise DownloadError(what, where=reference, way_out=_BY_HAND) from None
    except errors.GatedRepoError:
        way_out = "Accept its terms on the page of the model, log in with the hub's own tool (hf auth login), and try again."
        raise DownloadError("the hub asks for a login or the acceptance of terms", where=reference, way_out=way_out) from None
    except errors.RepositoryNotFoundError:
        way_out = "Check owner and name; a private one needs a login (hf auth login)."
        raise DownloadError(f"the hub has no repository {repo!r}", where=reference, way_out=way_out) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{repo} has no revision {revision!r}", where=reference, way_out="Leave @... out.") from None
    except errors.EntryNotFoundError:
        page = f"https://huggingface.co/{repo}/tree/{revision or 'main'}"
        raise DownloadError(f"{repo} has no file {file!r}", where=reference, way_out=f"{page} lists its files.") from None
    except errors.HFValidationError as error:
        raise UsageError(f"{reference!r} is no place on the hub: {_short(error)}") from None
    except OSError as error:
        if error.filename is not None or error.errno in (28, 13, 30, 122):  # the disk, not the network
            from .write import output_errors

            at = Path(str(error.filename or os.environ.get("HF_HOME", "the hub's cache")))
            with output_errors(at, full="Free some, or let HF_HOME name a folder on another disk.", denied="Set HF_HOME."):
                raise
        raise DownloadError(f"the download failed: {_short(error)}", where=reference, way_out=_BY_HAND) from None
    except Exception as error:  # the hub's library hands on what its HTTP library raises, which has changed before
        if type(error).__module__.partition(".")[0] not in _HTTP:
            raise
        raise DownloadError(f"the download failed: {_short(error)}", where=reference, way_out=_BY_HAND) from None


def only_file(path: Path, reference: str) -> Path:
    """Return the one network pickle of a folder that is no pair folder; raises FileError where it is not clear which."""
    if not path.is_dir() or (path / "card.json").is_file() or (path / "pytorch_model.bin").is_file():
        return path
    raise FileError("the repository is no pair folder", where=reference, way_out="Name a file in it: hf://owner/repo/file.pkl.")


def _short(error: object) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]
