"""The one door: files and folders of the families through the general resolver, one reading for all families."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from latentshift_plugins import loaded
from latentshift_plugins.biggan import FAMILY as BIGGAN
from latentshift_plugins.biggan.load import load_tree as load_biggan
from latentshift_plugins.classic import FAMILY as CLASSIC
from latentshift_plugins.classic.load import load_tree as load_classic

from latentshift.errors import DamagedFileError, FileError, RequestError, UnsafeFileError
from latentshift.files.checkpoint import read_tensors
from latentshift.files.names import read_critic_path, resolve
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
def test_a_critic_from_another_file(reference):
    """The discriminator of a file scores the images of any generator of its size."""
    sngan, res = reference("classic/mimicry-sngan-32"), reference("classic/gc-sngan-res32")
    own = resolve(str(sngan))
    z = torch.randn(3, *own.space.shape)
    critic = read_critic_path(sngan / "checkpoints/netD/netD_3_steps.pth")
    assert torch.equal(critic.logit(own.generate(z)), own.logit(own.generate(z)))
    foreign = own.replaced(critic=read_critic_path(res / "model.pt"))
    assert foreign.logit(foreign.generate(z)).shape == (3,)
    with pytest.raises(RequestError, match="G has no classes, the critic 'netD_3_steps' has 6"):
        own.replaced(
            critic=read_critic_path(reference("classic/mimicry-sagan-32") / "checkpoints/netD/netD_3_steps.pth")
        ).probed()
    big = reference("biggan/bgp-32-plain")
    assert read_critic_path(big / "D.pth").labels
    with pytest.raises(RequestError, match="no discriminator in this file"):
        read_critic_path(big / "G.pth")
    with pytest.raises(RequestError, match="no discriminator in this file"):
        read_critic_path(sngan / "checkpoints/netG/netG_3_steps.pth")


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


def _spoil(tree: dict[str, Any], draw: random.Random) -> None:
    """Change one tensor of nested dicts: gone, renamed, another shape, another type."""
    owner = draw.choice(
        [t for t in (tree, *tree.values()) if isinstance(t, dict) and any(hasattr(v, "shape") for v in t.values())]
    )
    key = draw.choice([k for k, v in owner.items() if hasattr(v, "shape")])
    value = owner[key]
    kind = draw.randrange(6)
    if kind == 0:
        del owner[key]
    elif kind == 1:
        owner[key] = torch.zeros([draw.choice((0, 1, 2, n, 2 * n)) for n in value.shape])
    elif kind == 2:
        owner[key] = torch.zeros([draw.randrange(1, 5) for _ in range(draw.randrange(5))])
    elif kind == 3:
        owner[f"x.{key}"] = owner.pop(key)
    elif kind == 4:
        owner[key.replace(draw.choice("01234"), draw.choice("56789"))] = owner.pop(key)
    else:
        owner[key] = torch.ones(value.shape, dtype=torch.int64)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("place", [p for p in PLACES if p.endswith(("pth", "pt"))] + ["biggan/bgp-deep-32-hier/D.pth"])
def test_spoilt_tensors_never_crash(place, reference):
    """Whatever is wrong with names, shapes and types: a network that runs, or one of our refusals."""
    kind, case, *rest = place.split("/")
    tree = read_tensors(reference(f"{kind}/{case}").joinpath(*rest)).tree
    load = load_biggan if kind == "biggan" else load_classic
    draw = random.Random(place)
    refused = 0
    for _ in range(60):
        copied = {k: dict(v) if isinstance(v, dict) else v for k, v in tree.items() if "optim" not in str(k)}
        _spoil(copied, draw)
        try:
            made = load(copied)
        except (RequestError, FileError):
            refused += 1
            continue
        label = (torch.zeros(2, dtype=torch.long),) if made.classes else ()
        assert made.G(torch.zeros(2, made.z_size), *label).shape[1:] == made.image
    assert refused >= 30
