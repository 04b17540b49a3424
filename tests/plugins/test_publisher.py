"""Files that the publisher's own code writes, in settings beyond the reference files: equal in double precision.

The publisher's code is no part of this project. The tests run it from a clone beside the checkout, named by the environment:
LATENTSHIFT_STYLEGAN2 (NVlabs/stylegan2-ada-pytorch) and LATENTSHIFT_STYLEGAN3 (NVlabs/stylegan3). Without one they skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latentshift_plugins.stylegan2.loading import load_stylegan

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL: dict[str, Any] = {"channel_base": 256, "channel_max": 16}


def case(module: str = "networks", *, protocol: int = 4, c: int = 0, res: int = 32, ch: int = 3, z: int = 8, **o: Any) -> Any:
    """Return a case: what differs from a small network of the usual settings."""
    image = {"c_dim": c, "img_resolution": res, "img_channels": ch}
    size = {"channel_base": 512, "channel_max": 16} if module.endswith("3") else SMALL
    synthesis = {**size, **o.get("G", {})}
    synthesis = {"synthesis_kwargs": synthesis} if module == "networks" else synthesis
    return {
        "protocol": protocol,
        "G_module": module,
        "D_module": module.replace("stylegan3", "stylegan2"),
        "G": {"z_dim": z, "w_dim": 16, **image, "mapping_kwargs": o.get("mapping", {"num_layers": 2}), **synthesis},
        "D": {**image, **SMALL, **o.get("D", {})},
    }


def blocks(**o: Any) -> dict[str, Any]:
    return {"block_kwargs": o}


ADA = {
    "8 px, protocol 2": case(res=8, protocol=2),
    "128 px, protocol 3": case(res=128, G={"channel_max": 8}, D={"channel_max": 8}, protocol=3),
    "clamps that act": case(G={"conv_clamp": 0.7}, D={"conv_clamp": 0.9}, protocol=5),
    "orig": case(G={"architecture": "orig"}, D={"architecture": "orig"}),
    "resnet and skip": case(G={"architecture": "resnet"}, D={"architecture": "skip"}),
    "labels": case(c=5, mapping={"num_layers": 3, "embed_features": 7, "layer_features": 11}, D={"cmap_dim": 6}),
    "no mapping layer": case(z=16, mapping={"num_layers": 0}),
    "swish and softplus": case(G={"activation": "swish"}, D=blocks(activation="softplus")),
    "whole batch, two planes": case(D={"epilogue_kwargs": {"mbstd_group_size": None, "mbstd_num_channels": 2}}),
    "no statistic": case(D={"epilogue_kwargs": {"mbstd_num_channels": 0}}),
    "5 taps": case(G={"resample_filter": [1, 4, 6, 4, 1]}, D=blocks(resample_filter=[1, 2, 1])),
    "8 taps and 2-D": case(G={"resample_filter": [1, 7, 21, 35, 35, 21, 7, 1]}, D=blocks(resample_filter=[[1, 2], [3, 5]])),
    "no noise, kernel 5": case(G={"use_noise": False, "kernel_size": 5}),
    "half precision": case(
        G={"num_fp16_res": 3, "fp16_channels_last": True}, D={"num_fp16_res": 3, **blocks(fp16_channels_last=True)}
    ),
    "frozen layers": case(D=blocks(freeze_layers=10)),
    "four channels": case(ch=4, z=5),
}
R = {"conv_kernel": 1, "use_radial_filters": True}
SG3 = {
    "StyleGAN2, usual": case("networks_stylegan2"),
    "StyleGAN2, labels, orig": case(
        "networks_stylegan2", c=3, res=16, protocol=5, G={"architecture": "orig"}, D={"architecture": "orig"}
    ),
    "T": case("networks_stylegan3", res=64),
    "T, labels, 8 layers": case(
        "networks_stylegan3", c=3, G={"num_layers": 8, "num_critical": 3, "margin_size": 6}, protocol=2
    ),
    "T, other rates": case("networks_stylegan3", res=16, G={"lrelu_upsampling": 4, "filter_size": 4, "num_layers": 6}),
    "T, cutoffs": case("networks_stylegan3", G={"first_cutoff": 3, "first_stopband": 7.1, "last_stopband_rel": 1.5}),
    "R": case("networks_stylegan3", G=R, protocol=5),
    "R, labels, clamps that act": case("networks_stylegan3", c=2, res=16, G={**R, "conv_clamp": 0.3, "num_layers": 6}),
}


def written(clone: Path, cases: dict[str, Any], out: Path) -> None:
    """Let the publisher's code write the files of all cases."""
    command = [sys.executable, "-W", "ignore", str(HERE / "publisher.py"), str(clone), str(out)]
    done = subprocess.run(command, input=json.dumps(cases), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def relative(a: torch.Tensor, b: np.ndarray) -> float:
    assert tuple(a.shape) == b.shape
    return float(np.abs(a.detach().numpy() - b).max() / np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "cases"), [("LATENTSHIFT_STYLEGAN2", ADA), ("LATENTSHIFT_STYLEGAN3", SG3)])
def test_what_the_publisher_writes_is_read_exactly(variable: str, cases: dict[str, Any], tmp_path: Path) -> None:
    clone = Path(os.environ.get(variable, "absent"))
    if not (clone / "training").is_dir():
        pytest.skip(f"{variable} names no clone of the publisher's code")
    written(clone, cases, tmp_path)
    for name in cases:
        with np.load(tmp_path / f"{name}.npz") as arrays:
            want = dict(arrays)
        item = load_stylegan(tmp_path / f"{name}.pkl")
        G, D = item.G.double(), item.need_critic().double()
        z, c = torch.tensor(want["z"], requires_grad=True), torch.tensor(want["c"]) if "c" in want else None
        images = G(z, c)
        logits = D(images, c, grouping="group")
        errors = {
            "images": relative(images, want["images"]),
            "logits": relative(logits, want["logits"]),
            "gradient": relative(torch.autograd.grad(logits.sum(), z)[0], want["gradient"]),
            "truncated": relative(G.synthesis(G.mapping(z, c, 0.6, 2)), want["truncated"]),
        }
        assert max(errors.values()) < 1e-12, (name, errors)


@pytest.mark.slow
def test_the_speed_beside_the_publisher(tmp_path: Path) -> None:
    """The script that measures the ratio: its networks agree and its table has every variant."""
    clone = os.environ.get("LATENTSHIFT_STYLEGAN2", "absent")
    if not Path(clone, "training").is_dir():
        pytest.skip("LATENTSHIFT_STYLEGAN2 names no clone of the publisher's code")
    script, out = ROOT / "examples/stylegan_speed.py", tmp_path / "speed.json"
    small = ["--resolution", "16", "--channel-base", "256", "--rounds", "2", "--steps", "2", "--out", str(out)]
    command = [sys.executable, "-W", "ignore", str(script), "--publisher", clone, *small]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(out.read_text())
    assert len(told["rounds"]) == 2
    assert set(told["rounds"][0]) == set(told["agreement"]["variants"]) == {
        "publisher, unfused", "publisher, fused", "engine fp32", "engine bf16",
    }  # fmt: skip
    assert done.stdout.count("\n| ") == 6


@pytest.fixture(scope="module")
def speed() -> Any:
    """The script that measures the ratio."""
    spec = importlib.util.spec_from_file_location("stylegan_speed", ROOT / "examples/stylegan_speed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_speed_script_asks_for_a_clone(speed: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no clone of stylegan2-ada-pytorch"):
        speed.publisher(tmp_path)


def test_the_page_shows_the_measured_speed(speed: Any) -> None:
    result = json.loads((ROOT / "docs/stylegan-speed.json").read_text("utf-8"))
    assert result["rounds"]
    assert speed.table(result) in (ROOT / "docs/models.md").read_text("utf-8")
