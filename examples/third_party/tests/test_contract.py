"""What a family's tests are: the contract in one line, its own files, its own refusals."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tilegan import FAMILY
from tilegan.__main__ import write

from latentshift import Sampler, load
from latentshift.errors import DamagedFileError, LatentshiftError, RequestError
from latentshift.files.convert import convert
from latentshift.testing import check_critic, check_pair


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(str(tmp_path / "tiles.safetensors"))
    return tmp_path / "tiles.safetensors"


def test_contract(file: Path) -> None:
    check_pair(load(file))
    check_critic(FAMILY.read_critic(file), (3, 16, 16))


def test_refines_alike_alone_and_in_a_batch(file: Path) -> None:
    result = Sampler(load(file)).refine(seeds=range(9), strategy="ifgsm", steps=5, eps=0.2)
    assert (result.gain > 0).all()
    alone = Sampler(load(file)).refine(seeds=[8], strategy="ifgsm", steps=5, eps=0.2)
    assert torch.equal(alone.z[0], result.z[8])


def test_a_folder_gives_the_same_bits(file: Path, tmp_path: Path) -> None:
    there, back = load(file), load(convert(str(file), tmp_path / "folder"))
    z = torch.randn(4, 12)
    assert torch.equal(there.generate(z), back.generate(z))
    assert torch.equal(there.logit(there.generate(z)), back.logit(back.generate(z)))


def test_refusals(file: Path, tmp_path: Path) -> None:
    tensors = load_file(file)
    spoilt = {**tensors, "painter.plan.weight": torch.zeros(1025, 12)}
    save_file(spoilt, tmp_path / "odd.safetensors")
    with pytest.raises(DamagedFileError, match="no square tile"):
        load(tmp_path / "odd.safetensors")
    alone = {k: v for k, v in tensors.items() if k.startswith("painter")}
    save_file(alone, tmp_path / "alone.safetensors")
    with pytest.raises(LatentshiftError, match="no critic"):
        load(tmp_path / "alone.safetensors").need_critic()
    with pytest.raises(RequestError, match="no judge"):
        FAMILY.read_critic(tmp_path / "alone.safetensors")
