"""`latentshift inspect` on every family's files: parts, sizes, config and what may be chosen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from latentshift.commands import run

WANT: dict[str, dict[str, Any]] = {
    "stylegan/sg2ada-resnetG-skipD-64.pkl": {"family": "stylegan2", "networks": "stylegan2-ada", "classes": 3,
        "image": "1x64x64", "noise_maps": 9, "num_ws": 10, "minibatch_std": {"group": 2, "channels": 2, "policy": "reference"}},
    "stylegan/sg2ada-emaonly-16.pkl": {"discriminator": False, "critic": None, "image": "4x16x16", "noise_maps": 0},
    "stylegan/sg3r-64.pkl": {"family": "stylegan3", "networks": "stylegan3-r", "image": "3x64x64", "noise_maps": 0},
    "biggan/bgp-32-plain": {"family": "biggan", "discriminator": True},
    "biggan/bgp-32-plain/D.pth": {"family": "biggan"},
    "biggan/hf-deep-32": {"discriminator": False, "z_prior": {"kind": "truncated-normal", "bound": 2.0}},
    "classic/gc-dcgan-cnn32/model.pt": {"family": "classic", "image": "3x32x32"},
    "classic/mimicry-sagan-32": {"family": "classic", "classes": 6},
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("place", WANT)
def test_inspect(place: str, reference: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kind, case, *rest = place.split("/")
    path = str(reference(f"{kind}/{case}").joinpath(*rest))
    assert run(["inspect", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {k: told.get(k) for k in WANT[place]} == WANT[place]
    if place.endswith("D.pth"):
        assert "only a discriminator" in told["problem"]
        return
    assert told["parts"]["G"]["parameters"] > 1000
    assert told["parts"]["G"]["dtypes"] == ["float32"]
    assert ("D" in told["parts"]) == told["discriminator"]
    assert len(told["sha256"]) == 64
    assert told["options"]
    assert run(["inspect", path]) == 0
    assert "options:" in capsys.readouterr().out
