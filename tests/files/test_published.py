"""Published models: the names are known without torch, and a file behind an address is fetched, read and refined."""

import functools
import http.server
import threading
from dataclasses import replace

import pytest

from latentshift import registry
from latentshift.commands import run
from latentshift.errors import DownloadError, RequestError, UnknownNameError
from latentshift.files.names import ALIASES, pair_names, resolve
from latentshift.files.published import Published


@pytest.fixture
def server(reference, tmp_path, monkeypatch):
    folder = reference("reference", "stylegan")
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        asked = []  # noqa: RUF012

        def log_message(self, *args):
            pass

        def do_GET(self):
            self.asked.append(self.path)
            super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", Quiet.asked
        httpd.shutdown()
        thread.join()


def published():
    return {n: t for n, t in registry.everything("models")[0].items() if isinstance(t, Published)}


def test_names_agree_with_their_entries():
    found = published()
    assert len(found) == 39
    assert len({thing.url for thing in found.values()}) == 39
    for name, thing in found.items():
        assert thing.name == name
        assert thing.url.startswith("https://")
        assert thing.url.endswith(".pkl")
        assert "licence" in thing.card()
        assert "License" in thing.line
    assert all(target in found for target in ALIASES.values())
    with pytest.raises(UnknownNameError, match="Did you mean 'stylegan2-afhqcat'"):
        resolve("stylegan2-afhqcatt")
    assert set(found) <= set(pair_names())
    with pytest.raises(RequestError, match=r"published for TensorFlow.*legacy\.py"):
        resolve("stylegan2-church")


def test_an_address_is_fetched_once_read_and_refined(server, tmp_path, capsys):
    base, asked = server
    url = f"{base}/sg2ada-emaonly-16.pkl"
    pair = resolve(url)
    assert pair.source == url
    assert pair.critic is None
    full = Published("mine", f"{base}/sg2ada-default-32.pkl", "a test network, 32 px", "none")
    loaded = full.load()
    assert (loaded.name, loaded.source) == ("mine", full.url)
    assert loaded.critic is not None
    assert "licence: none" in capsys.readouterr().err
    asked.clear()
    replace(full).load()
    assert not asked, "what lies in the cache is not asked for again"
    out = tmp_path / "out"
    args = ["refine", "--model", full.url, "--num", "2", "--steps", "1", "--quiet", "--no-report", "--outdir", str(out)]
    assert run(args) == 0
    assert (out / "seed0001.png").exists()


def test_what_is_not_there(server):
    base, _ = server
    with pytest.raises(DownloadError, match="404"):
        resolve(f"{base}/nothing.pkl")


def test_without_a_network_the_name_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(["refine", "--model", "stylegan2-afhq", "--steps", "150", "--outdir", str(tmp_path / "out")]) == 5
    err = capsys.readouterr().err
    assert "stylegan2-afhq stands for stylegan2-afhqcat" in err
    assert "the network is off" in err.splitlines()[-1]
