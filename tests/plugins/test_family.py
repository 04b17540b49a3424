"""The one door: files and folders of the families through the general resolver, one reading for all families."""

from __future__ import annotations

import pytest
import torch
from latentshift_plugins import loaded
from latentshift_plugins.biggan import FAMILY as BIGGAN
from latentshift_plugins.classic import FAMILY as CLASSIC

from latentshift.errors import DamagedFileError, FileError, UnsafeFileError
from latentshift.files.names import resolve
from latentshift.testing import check_pair

PLACES = {
    "biggan/bgp-32-plain": "critic",
    "biggan/bgp-128-hier-shared-attn/G_ema_best1.pth": "critic",
    "biggan/hf-deep-32": None,
    "classic/gc-dcgan-cnn32": "logit",
    "classic/gc-dcgan-cnn32/model.pt": "logit",
    "classic/advlat-sngan-cnn48/models/model20.pt": "critic",
    "classic/mimicry-sagan-32": "critic",
    "classic/mimicry-sagan-32/checkpoints/netG/netG_3_steps.pth": "critic",
}


@pytest.mark.shared
@pytest.mark.parametrize("place", PLACES)
def test_resolver_finds_the_family(place, reference):
    kind, case, *rest = place.split("/")
    path = reference(f"{kind}/{case}").joinpath(*rest)
    pair = resolve(str(path))
    assert (pair.critic.returns if pair.critic else None) == PLACES[place]
    assert len(pair.sha256) == 64
    assert pair.source == str(path)
    assert [f.name for f in (BIGGAN, CLASSIC) if f.sniff(path)] == [kind]
    check_pair(pair)


@pytest.mark.shared
def test_a_file_is_read_once_and_let_go(reference, monkeypatch):
    path = reference("biggan/bgp-32-plain") / "G.pth"
    read = []
    monkeypatch.setattr(loaded, "read_tensors", lambda p, real=loaded.read_tensors: (read.append(p.name), real(p))[1])
    loaded._PEEKED.clear()
    assert not CLASSIC.sniff(path)
    assert BIGGAN.sniff(path)
    BIGGAN.read(path)
    assert sorted(read) == ["D.pth", "G.pth", "state_dict.pth"]
    assert loaded._PEEKED == []


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"a.weight": torch.ones(2)}, path)
    assert list(loaded.peek(path)) == ["a.weight"]
    torch.save({"b.weight": torch.ones(200)}, path)
    assert list(loaded.peek(path)) == ["b.weight"]


def test_reasons_are_kept(tmp_path):
    """A file that no family takes is refused with the reader's reason, or with what it holds."""
    page = tmp_path / "page.pth"
    page.write_text("<html><body>please log in</body></html>")
    with pytest.raises(FileError, match="web page"):
        resolve(str(page))
    whole = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 3), whole)
    with pytest.raises(UnsafeFileError, match="whole module"):
        resolve(str(whole))
    other = tmp_path / "other.pth"
    torch.save({"encoder.weight": torch.ones(2, 3)}, other)
    with pytest.raises(
        FileError, match=r"no known family of networks \(1 tensors, 6 numbers; first keys: encoder.weight \(2, 3\)"
    ):
        resolve(str(other))
    cut = tmp_path / "cut.pth"
    cut.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(DamagedFileError):
        resolve(str(cut))
