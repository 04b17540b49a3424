"""The pair folder: the reference folders load as they are, what we write reads back, and what lies is refused."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentshift.errors import DamagedFileError, FileError
from latentshift.files.folder import is_pair_folder, read_critic, read_pair, write_pair
from latentshift.files.names import BundledPair
from latentshift.layers import LayerNet


def probe(pair):
    n = pair.space.shape[0]
    z = torch.tensor([[2 * (i * n + j) / (2 * n) - 1 for j in range(n)] for i in range(2)])
    label = torch.tensor([0, 1]) if pair.classes else None
    images = pair.generate(z, label)
    return images, pair.logit(images, label)


def test_reference_folders_reproduce_their_cards(pair_name, reference):
    folder = reference("reference", "pairs", pair_name)
    pair = read_pair(folder)
    card = json.loads((folder / "card.json").read_text())
    check = card["metrics"]["rebuild_check_eval"]
    images, score = probe(pair)
    assert tuple(images.shape[1:]) == tuple(card["image"][k] for k in ("channels", "height", "width"))
    assert images.flatten(1).mean(1).tolist() == pytest.approx(check["image_mean"], abs=2e-6)
    assert images.flatten(1).std(1).tolist() == pytest.approx(check["image_sd"], abs=2e-4)
    sign = -1 if card["critic"]["real_is"] == "low" else 1
    assert (sign * score).tolist() == pytest.approx(check["D_logit"], rel=1e-5, abs=2e-5)
    low, high = card["image"]["range"]
    assert float(images.min()) >= low - 1e-6
    assert float(images.max()) <= high + 1e-6


@pytest.mark.parametrize("name", ["fashion32", "fashion32-sn", "ring", "grid"])
def test_bundled_folders_load_and_say_what_they_are(name):
    pair = BundledPair(name, "").load()
    for field in ("licence", "data", "training", "metrics", "source"):
        assert pair.card[field], f"the card of {name} lacks {field}"
    images, score = probe(pair)
    assert torch.isfinite(score).all()
    assert images.shape[1:] == pair.image_shape
    total = sum(f.stat().st_size for f in BundledPair(name, "").folder.iterdir())
    assert total < 20 * 2**20


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(BundledPair("ring", "").folder, tmp_path / "ring")
    return tmp_path / "ring"


def test_round_trip_keeps_tensors_and_unknown_fields(folder, tmp_path):
    pair = read_pair(folder)
    card = {**pair.card, "my_field": {"a": 1}}
    write_pair(tmp_path / "copy", card, pair.G, pair.D)
    again = read_pair(tmp_path / "copy")
    assert again.card["my_field"] == {"a": 1}
    for a, b in ((pair.G, again.G), (pair.D, again.D)):
        assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())
    assert torch.equal(probe(pair)[1], probe(again)[1])
    write_pair(tmp_path / "half", card, pair.G, pair.D, half=True)
    assert torch.allclose(probe(read_pair(tmp_path / "half"))[1], probe(pair)[1], rtol=0.01)


def test_half_a_folder(folder):
    critic = read_critic  # a critic alone is no pair
    (folder / "D.safetensors").unlink()
    assert read_pair(folder).critic is None
    with pytest.raises(FileError, match=r"no D\.safetensors"):
        critic(folder)
    (folder / "G.safetensors").unlink()
    assert is_pair_folder(folder)
    with pytest.raises(FileError, match=r"no G\.safetensors"):
        read_pair(folder)


def change(folder, **fields):
    card = json.loads((folder / "card.json").read_text())
    for key, value in fields.items():
        card[key] = value
    (folder / "card.json").write_text(json.dumps(card))


CARDS = {
    "another schema": ({"schema": 2}, "schema 2"),
    "no z_size": ({"z_size": None}, "z_size"),
    "huge z_size": ({"z_size": 10**12}, "z_size is 1000000000000"),
    "an unknown prior": ({"z_prior": {"kind": "cauchy"}}, "unknown prior 'cauchy'"),
    "a prior with words": ({"z_prior": {"kind": "uniform", "low": "a"}}, "z_prior"),
    "classes as text": ({"classes": "ten"}, "classes is 'ten'"),
    "a critic of another kind": ({"critic": {"returns": "stars"}}, "stars"),
    "no critic": ({"critic": {}}, "critic.returns"),
    "an empty list": ({"layers": {"G": [], "D": []}}, "empty layer list"),
    "layers as text": ({"layers": {"G": "x"}}, "layers.G"),
    "code as an operation": ({"layers": {"G": [{"op": "os.system", "kw": {}}]}}, "unknown operation 'os.system'"),
    "an argument that is none": ({"layers": {"G": [{"op": "ReLU", "kw": {"inplace": True}}]}}, "takes no argument 'inplace'"),
    "images that G does not make": (
        {"image": {"channels": 1, "height": 9, "width": 9, "range": [-1, 1]}},
        r"\(1, 9, 9\).*\(2,\)",
    ),
    "a range upside down": ({"image": {"channels": 1, "height": 9, "width": 9, "range": [1, -1]}}, "range"),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_that_lie_are_refused(folder, name):
    fields, text = CARDS[name]
    change(folder, **fields)
    with pytest.raises(FileError, match=text):
        read_pair(folder)


def test_card_against_tensors_names_both_values(folder):
    card = json.loads((folder / "card.json").read_text())
    card["layers"]["G"][0]["kw"]["out_features"] = 101
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(DamagedFileError, match=r"\(100, 2\) in the file and \(101, 2\) in the layer list"):
        read_pair(folder)
    shutil.copy(BundledPair("ring", "").folder / "card.json", folder)
    tensors = load_file(folder / "G.safetensors")
    first = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != first}, folder / "G.safetensors")
    with pytest.raises(DamagedFileError, match="missing"):
        read_pair(folder)
    save_file({**tensors, "more": torch.zeros(1)}, folder / "G.safetensors")
    with pytest.raises(DamagedFileError, match="'more' belongs to no layer"):
        read_pair(folder)


def test_a_layer_list_that_claims_the_moon_takes_no_memory(folder):
    card = json.loads((folder / "card.json").read_text())
    card["layers"]["G"][0]["kw"]["out_features"] = 2**30
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(DamagedFileError, match="1073741824"):
        read_pair(folder)


FILES = {
    "empty": b"",
    "web page": b"<!DOCTYPE html><html>sign in</html>",
    "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n",
    "header beyond the file": struct.pack("<Q", 10**9) + b"{}",
    "header of 100 GB": struct.pack("<Q", 10**11) + b"{}",
    "not json": struct.pack("<Q", 4) + b"abcd",
    "offsets out of range": struct.pack("<Q", 62)
    + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'.ljust(62)
    + b"1234",
    "overlap": struct.pack("<Q", 120)
    + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}'.ljust(120)
    + b"123456",
    "unknown dtype": struct.pack("<Q", 60) + b'{"a":{"dtype":"X32","shape":[1],"data_offsets":[0,4]}}'.ljust(60) + b"1234",
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_tensors_are_refused(folder, name):
    (folder / "G.safetensors").write_bytes(FILES[name])
    with pytest.raises(FileError):
        read_pair(folder)


def test_truncated_at_any_byte(folder):
    data = (folder / "G.safetensors").read_bytes()
    for cut in (1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        (folder / "G.safetensors").write_bytes(data[:cut])
        with pytest.raises(FileError):
            read_pair(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": 1}', "\xff"])
def test_damaged_cards_are_refused(folder, text):
    (folder / "card.json").write_text(text, encoding="latin-1")
    with pytest.raises(FileError):
        read_pair(folder)


def test_conditional_layers():
    net = LayerNet(
        [
            {"op": "Embedding", "key": "e", "kw": {"num_embeddings": 3, "embedding_dim": 2}, "as": "vector"},
            {"op": "Linear", "key": "l", "kw": {"in_features": 4, "out_features": 1}},
        ]
    )
    assert net.needs_label
    assert sorted(net.tensors()) == ["e.weight", "l.bias", "l.weight"]
    assert net(torch.zeros(5, 2), torch.tensor([0, 1, 2, 0, 1])).shape == (5, 1)
