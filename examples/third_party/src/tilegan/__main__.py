"""`python -m tilegan FILE`: write a small tile GAN with random weights, to try the package with."""

import sys

import torch
from safetensors.torch import save_file

from .networks import Judge, Painter, Sizes


def write(path: str) -> None:
    sizes = Sizes(z=12, width=16, tile=8)
    torch.manual_seed(0)
    nets = {"painter": Painter(sizes), "judge": Judge(sizes)}
    save_file({f"{part}.{k}": v for part, net in nets.items() for k, v in net.state_dict().items()}, path)


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else "tiles.safetensors")
