"""Writing safetensors so that they can be used where they lie in the file: large tensors at multiples of 64 bytes.

A network whose tensors are used from the mapped file opens in the time of a few system calls. Kernels want them at aligned
addresses (see `latentshift.layers.aligned`), so those whose size keeps the rest aligned come first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import RequestError
from .write import write_whole

ALIGN = 64
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all; no more than one tensor is copied at a time.

    Raises RequestError for a dtype that the format does not have, OutputError where it cannot be written.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise RequestError(f"the tensor {name!r} is {tensor.dtype}, which safetensors files here do not hold")
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGN != 0, -tensors[name].itemsize))
    header: dict[str, Any] = {}
    at = 0
    for name in order:
        tensor = tensors[name]
        span = [at, at := at + tensor.nbytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)

    def fill(stream: IO[bytes]) -> None:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            tensor = tensors[name].detach().cpu().contiguous()
            if tensor.numel():
                raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
                stream.write(memoryview(raw))

    write_whole(path, fill)
