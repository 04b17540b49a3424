"""What the tests of strategies share: the reference pair of 25 Gaussians, where its file is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from latentshift import Pair
from latentshift.space import Uniform


def _folder() -> Path:
    told = os.environ.get("LATENTSHIFT_SHARED")
    roots = [Path(told)] if told else [p / "shared" for p in Path(__file__).resolve().parents]
    for root in roots:
        if (root / "reference" / "dot_25gaussians" / "pair.npz").is_file():
            return root / "reference" / "dot_25gaussians"
    pytest.skip("the reference pair dot_25gaussians is not beside this checkout (set LATENTSHIFT_SHARED)")


@pytest.fixture(scope="session")
def gaussians() -> Pair:
    """The WGAN-GP pair of 25 Gaussians: z uniform on the square, D a critic without a scale."""
    with np.load(_folder() / "pair.npz", allow_pickle=False) as data:
        arrays = {k: data[k] for k in data.files}

    def network(which: str) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for i in (0, 2, 4, 6):
            key = f"{which}.{i}"
            weight = arrays.get(f"{key}.weight")
            if weight is None:
                whole = arrays[f"{key}.hi"].astype(np.int32) * 2 ** int(arrays[f"{key}.shift"]) + arrays[f"{key}.lo"]
                weight = whole * arrays[f"{key}.scale"][:, None]
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
            tensors = {"weight": weight, "bias": arrays[f"{key}.bias"]}
            linear.load_state_dict({k: torch.from_numpy(np.float32(v)) for k, v in tensors.items()})
            layers += [linear, torch.nn.LeakyReLU(0.2)]
        return torch.nn.Sequential(*layers[:-1]).eval()

    return Pair.wrap(network("G"), network("D"), z_size=2, prior=Uniform(), returns="critic", image_range=(-2.0, 2.0))
