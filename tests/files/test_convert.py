"""`convert`: every family to a pair folder and back in, bit for bit; refusals; the command."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from latentshift.commands import run
from latentshift.errors import FileError, OutputError, RequestError
from latentshift.files.convert import convert
from latentshift.files.names import FASHION32, resolve
from latentshift.files.tensors import write_tensors

PLACES = (
    "stylegan/sg2ada-default-32.pkl", "stylegan/sg2ada-cifar-cond-32.pkl", "stylegan/sg2ada-resnetG-skipD-64.pkl",
    "stylegan/sg2ada-origG-freezeD-32.pkl", "stylegan/sg2ada-emaonly-16.pkl", "stylegan/sg2-sg3repo-cond-32.pkl",
    "stylegan/sg3t-32.pkl", "stylegan/sg3r-64.pkl", "biggan/bgp-32-plain", "biggan/bgp-128-hier-shared-attn",
    "biggan/bgp-64-shared-standing", "biggan/bgp-deep-32-hier", "biggan/hf-deep-32", "classic/gc-dcgan-cnn32/model.pt",
    "classic/gc-sngan-res32", "classic/advlat-sngan-cnn48/models/model20.pt", "classic/mimicry-cganpd-32",
    "classic/mimicry-infomax-64", "classic/mimicry-sagan-32", "classic/mimicry-sngan-32",
)  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("place", PLACES)
def test_back_in_with_the_same_bits(place: str, reference: Any, tmp_path: Path) -> None:
    path = reference("reference", *place.split("/"))
    there = resolve(str(path))
    folder = convert(str(path), tmp_path / "pair")
    back = resolve(str(folder))
    z = torch.from_numpy(np.random.RandomState(0).randn(2, *there.space.shape)).float()
    label = torch.tensor([0, 1]) if there.classes else None
    images, again = there.generate(z, label), back.generate(z, label)
    assert torch.equal(images, again)
    for name in ("classes", "image_shape", "image_range", "capabilities"):
        assert getattr(there, name) == getattr(back, name), name
    assert there.space.prior == back.space.prior
    assert list(there.spaces) == list(back.spaces)
    assert (there.critic is None) == (back.critic is None)
    if there.critic is not None and back.critic is not None:
        assert there.critic.returns == back.critic.returns
        assert torch.equal(there.logit(images, label), back.logit(images, label))
    assert not list(folder.glob("*.part"))


def test_a_pair_folder_is_copied(tmp_path: Path) -> None:
    folder = convert("fashion32", tmp_path / "a")
    for name in ("G.safetensors", "D.safetensors", "card.json"):
        assert (folder / name).read_bytes() == (FASHION32.folder / name).read_bytes()
    with pytest.raises(OutputError, match="the folder to read"):
        convert(str(folder), folder, overwrite=True)
    with pytest.raises(OutputError, match="holds a pair"):
        convert("fashion32-sn", folder)
    convert("fashion32-sn", folder, overwrite=True)
    assert resolve(str(folder)).name == "fashion32-sn"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds no pair"):
            convert("fashion32", tmp_path / "mine", overwrite=overwrite)
    with pytest.raises(RequestError, match="copied as it is"):
        convert("fashion32", tmp_path / "b", options={"trunc": 0.5})


@pytest.mark.shared
def test_choices_are_kept_in_the_card(reference: Any, tmp_path: Path) -> None:
    path = str(reference("reference", "stylegan", "sg2ada-cifar-cond-32.pkl"))
    folder = convert(path, tmp_path / "pair", options={"grouping": "alone", "trunc": 0.7})
    card = json.loads((folder / "card.json").read_text())
    assert card["config"]["options"] == {"grouping": "alone", "trunc": 0.7}
    assert card["source"] == "sg2ada-cifar-cond-32.pkl"
    assert len(card["converted"]["sha256"][0]) == 64
    z, label = torch.randn(2, 64)[:, : resolve(path).space.shape[0]], torch.tensor([0, 1])
    direct = resolve(path, options={"grouping": "alone", "trunc": 0.7})
    assert torch.equal(direct.generate(z, label), resolve(str(folder)).generate(z, label))
    typed = resolve(str(folder), options={"trunc": 1.0})  # what is typed wins
    assert torch.equal(typed.generate(z, label), resolve(path).generate(z, label))
    with pytest.raises(RequestError, match="unknown option 'trunk'"):
        resolve(str(folder), options={"trunk": 1.0})


@pytest.mark.shared
def test_a_turned_image_is_turned_once(reference: Any, tmp_path: Path) -> None:
    path = str(reference("reference", "stylegan", "sg3t-32.pkl"))
    folder = convert(path, tmp_path / "pair", options={"rotate": 30.0})
    z = torch.randn(1, 64)[:, : resolve(path).space.shape[0]]
    turned = resolve(path, options={"rotate": 30.0}).generate(z)
    assert torch.equal(resolve(str(folder)).generate(z), turned)
    assert not torch.allclose(turned, resolve(path).generate(z))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", "ring", str(tmp_path / "r"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["discriminator"]
    assert run(["convert", "ring", str(tmp_path / "r")]) == 6
    assert "--overwrite" in capsys.readouterr().err
    assert run(["convert", "nope", str(tmp_path / "n")]) == 3
    assert not (tmp_path / "n").exists()
    other = tmp_path / "other.pth"
    torch.save({"encoder.weight": torch.ones(2, 3)}, other)
    assert run(["convert", str(other), str(tmp_path / "n")]) == 4
    with pytest.raises(FileError, match="no known family of networks"):
        convert(str(other), tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_tensors_lie_where_kernels_want_them(tmp_path: Path) -> None:
    """Any reader of the format reads the file; all that can lie at a multiple of 64 bytes does."""
    made = {
        "scalar": torch.tensor(3.5), "odd": torch.arange(5.0), "wide": torch.randn(4, 16), "half": torch.randn(64).half(),
        "count": torch.tensor(7), "empty": torch.zeros(0, 3), "view": torch.randn(8, 32).t(),
        "flag": torch.tensor([True, False]), "bf16": torch.randn(32).bfloat16(), "double": torch.randn(3).double(),
    }  # fmt: skip
    path = tmp_path / "x.safetensors"
    write_tensors(path, made)
    got = load_file(path)
    assert set(got) == set(made)
    assert all(torch.equal(got[k], v) and got[k].dtype == v.dtype for k, v in made.items())
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    for name in ("wide", "half", "view", "bf16"):
        assert (8 + length + header[name]["data_offsets"][0]) % 64 == 0
    with pytest.raises(RequestError, match="complex"):
        write_tensors(path, {"c": torch.zeros(2, dtype=torch.complex64)})


@pytest.mark.slow
def test_a_folder_loads_in_a_tenth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time of 256 px at real widths (some 300 MB as a pickle), the pickle's digest computed, as for a new file."""
    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
    try:
        import container
    finally:
        sys.path.pop(0)
    from latentshift_plugins.stylegan2 import build
    from latentshift_plugins.stylegan2.container import Record

    common = {"c_dim": 0, "img_resolution": 256, "img_channels": 3}
    size = {"channel_base": 16384, "channel_max": 512}
    tree = {}
    for name in ("G", "D", "G_ema"):
        if name == "D":
            kwargs: dict[str, Any] = {**common, **size}
            net, facts = build.discriminator(Record("Discriminator", kwargs), "", clamp=None)
        else:
            kwargs = {"z_dim": 512, "w_dim": 512, **common, "mapping_kwargs": {}, "synthesis_kwargs": size}
            net, facts, _ = build.generator(Record("Generator", kwargs), "", clamp=None)  # type: ignore[assignment]
        container.randomise(net, 0)
        tree[name] = container.parts(net, facts, kwargs)
    path = container.write(tmp_path / "real.pkl", tree)
    folder = convert(str(path), tmp_path / "pair")
    (tmp_path / "cache").rename(tmp_path / "gone")

    def cost(place: Path) -> float:
        began = time.process_time()
        resolve(str(place))
        return time.process_time() - began

    for place in (path, folder):
        cost(place)
    rounds = []
    for _ in range(3):
        for note in (tmp_path / "cache/digests").iterdir():
            note.unlink()
        pickled = cost(path)
        resolve(str(folder))
        rounds.append((cost(folder), pickled))
    ratio = sorted(f / p for f, p in rounds)[1]
    print(f"folder against pickle, CPU: {ratio:.3f}")
    assert ratio <= 0.1
