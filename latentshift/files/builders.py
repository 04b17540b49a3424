"""The allowlist: what each name of a file may build, and with which arguments.

Names are matched exactly, module and name both. A name that is not on the list is either refused at once (anything of the
standard library, of torch or numpy, a known name under a false module, a dotted name) or, for the classes of other people's
networks, becomes an `Opaque` that absorbs everything; the part of the file that holds one cannot be used, the rest can.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .storages import STORAGES, Allowance, Storage, StorageIds, read_nested, view, whole
from .values import Blob, Global, Opaque, Pending, PersistentObject, RefusalError, SourceText, Table

PERSISTENCE_VERSION = 6
_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_TORCH_DTYPES = {
    n: getattr(torch, n)
    for n in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
}
#: Names that stand only as arguments of other calls.
_INERT = {
    *(("torch", s) for s in STORAGES),
    *((m, n) for m in ("builtins", "__builtin__") for n in ("list", "dict", "int", "float", "str", "tuple", "bool")),
    ("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("numpy", "ndarray"),
}  # fmt: skip
#: Harmless classes of the standard library that people keep beside their weights; they become opaque, not refused.
_BYSTANDERS = {
    ("argparse", "Namespace"), ("types", "SimpleNamespace"), ("datetime", "datetime"), ("datetime", "timedelta"),
    ("datetime", "date"), ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"), ("pathlib", "Path"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath"), ("collections", "deque"),
    ("numpy.random._pickle", "__randomstate_ctor"), ("numpy.random._pickle", "__generator_ctor"),
    ("numpy.random._pickle", "__bit_generator_ctor"), ("numpy.random._mt19937", "MT19937"),
}  # fmt: skip
_OPAQUE_ROOTS = ("torch.nn.modules.", "torch.nn.parallel.", "torch.nn.utils.", "torch.optim.", "torchvision.")
_TENSORFLOW = {("dnnlib.tflib.network", "Network"), ("dnnlib.tflib", "Network")}


def _no_hooks(value: Any) -> None:
    if value is not None and (not isinstance(value, dict) or value):
        raise RefusalError("a tensor with hooks, which are code", unsafe=True)


class FileBuilders(StorageIds):
    """Builders for the outer pickle: StyleGAN containers (`nested` storages) and torch files (persistent ids)."""

    def __init__(self, allowance: Allowance, *, container: bool) -> None:
        super().__init__(allowance)
        self.container = container
        self.foreign: list[Opaque] = []
        self._sources: dict[int, tuple[Any, SourceText]] = {}
        self._calls: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): self._ordered_dict,
            ("collections", "defaultdict"): self._defaultdict,
            ("collections", "Counter"): self._plain_dict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor"): self._old_tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter_with_state,
            ("torch._tensor", "_rebuild_from_type_v2"): self._from_type,
            ("torch", "Size"): self._size,
            ("torch", "device"): self._device,
            ("torch.serialization", "_get_layout"): self._layout,
            ("_codecs", "encode"): self._encode,
        }
        for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
            self._calls[module, "scalar"] = self._scalar
            self._calls[module, "_reconstruct"] = self._array
        for module in ("numpy._core.numeric", "numpy.core.numeric"):
            self._calls[module, "_frombuffer"] = self._frombuffer
        self._calls["numpy", "dtype"] = self._dtype
        for module in ("builtins", "__builtin__"):
            self._calls[module, "set"] = self._set
            self._calls[module, "bytes"] = self._bytes
            self._calls[module, "bytearray"] = self._bytes
        if container:
            self._calls["torch_utils.persistence", "_reconstruct_persistent_obj"] = self._persistent_object
            self._calls["torch.storage", "_load_from_bytes"] = self._nested
        self._special = {n for _, n in self._calls if n.startswith("_")} | {"OrderedDict", "encode", "scalar"}
        self._easy = {("dnnlib.util", "EasyDict"), ("dnnlib", "EasyDict")}

    # -- the four things a machine asks for ----------------------------------------------------------------------------

    def lookup(self, module: str, name: str, offset: int) -> Any:
        key = (module, name)
        if key in self._calls or key in _INERT or (key in self._easy and self.container):
            return Global(module, name, offset)
        if module == "torch" and name in _TORCH_DTYPES:
            return _TORCH_DTYPES[name]
        if key in _TENSORFLOW:
            raise RefusalError(
                "a TensorFlow network",
                way_out="Convert it with the publisher's legacy.py (StyleGAN2 configs E and F, stylegan2-ada).",
            )
        root = module.partition(".")[0]
        if "." in name or not name or not module:
            raise RefusalError(f"the dotted name {module}.{name} walks attributes", unsafe=True)
        if key not in _BYSTANDERS:
            forbidden = root in sys.stdlib_module_names or root in ("__builtin__", "copy_reg", "exceptions", "nt")
            forbidden = forbidden and module != "__main__"
            if root in ("torch", "numpy") and not module.startswith(_OPAQUE_ROOTS):
                forbidden = True
            if forbidden or name in self._special or (not self.container and root == "torch_utils"):
                raise RefusalError(f"the file asks for {module}.{name}, which could run code", unsafe=True)
        record = Opaque(module, name, offset)
        if not any(o.module == module and o.name == name for o in self.foreign[-50:]):
            self.foreign.append(record)
        return record

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        if isinstance(function, Opaque):
            return function
        handler = self._calls.get((function.module, function.name)) if isinstance(function, Global) else None
        if handler is None:
            raise RefusalError(f"REDUCE of {function if isinstance(function, Global) else 'a value'}", unsafe=True)
        try:
            return handler(*args)
        except TypeError:
            raise RefusalError(f"{function} with arguments that no honest file gives", unsafe=True) from None

    def new(self, cls: Any, args: tuple[Any, ...]) -> Any:
        if isinstance(cls, Opaque):
            return cls
        key = (cls.module, cls.name) if isinstance(cls, Global) else None
        if key in self._easy and not args:
            return {}
        if key == ("collections", "OrderedDict") and not args:
            return Table()
        raise RefusalError(f"NEWOBJ of {cls if isinstance(cls, Global) else 'a value'}", unsafe=True)

    def build(self, target: Any, state: Any) -> Any:
        if isinstance(target, Opaque):
            return target
        if isinstance(target, Pending):
            return self._finish_dtype(target, state) if target.kind == "dtype" else self._finish_array(target, state)
        if type(target) is Table and isinstance(state, dict) and list(state) == ["_metadata"]:
            # torch writes the versions of its layers beside a state dict, as an attribute.
            if not isinstance(state["_metadata"], dict):
                raise RefusalError("a state dict whose metadata is no dict", unsafe=True)
            target._metadata = state["_metadata"]
            return target
        raise RefusalError(f"BUILD on {target if isinstance(target, Global) else type(target).__name__}", unsafe=True)

    def persistent(self, pid: Any) -> Any:
        if self.container:
            raise RefusalError("a persistent id, which no network pickle has", unsafe=True)
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Opaque):
            return pid[1]  # a class with its source text beside it, as torch saved whole modules: no more than its name
        return super().persistent(pid)

    # -- plain containers ----------------------------------------------------------------------------------------------

    def _ordered_dict(self) -> Table:
        return Table()

    def _defaultdict(self, factory: Any = None) -> dict[Any, Any]:
        if factory is not None and not (isinstance(factory, Global) and factory.module in ("builtins", "__builtin__")):
            raise RefusalError("a defaultdict with a foreign factory", unsafe=True)
        return {}

    def _plain_dict(self, value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise RefusalError("a Counter of something that is no dict", unsafe=True)
        return value

    def _set(self, items: Any) -> set[str]:
        if type(items) is not list or not all(type(i) is str for i in items):
            raise RefusalError("a set of something else than texts", unsafe=True)
        return set(items)

    def _bytes(self, value: Any = b"") -> Any:
        if not isinstance(value, bytes | Blob):
            raise RefusalError("bytes made from something that is no bytes", unsafe=True)
        return value

    def _encode(self, text: Any, encoding: Any) -> Any:
        if encoding != "latin1":
            raise RefusalError(f"text encoded as {str(encoding)[:40]!r}", unsafe=True)
        if isinstance(text, Blob) and text.text and not text.latin1:
            return Blob(text.source, text.offset, text.length, True, True)
        if type(text) is not str:
            raise RefusalError("an encoding of something that is no text", unsafe=True)
        try:
            return text.encode("latin-1")
        except UnicodeError:
            raise RefusalError("text that stands for bytes holds characters that are no bytes") from None

    # -- torch ---------------------------------------------------------------------------------------------------------

    def _nested(self, data: Any) -> Storage:
        return read_nested(data, self.allowance)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, meta: Any = None) -> Any:
        if meta is not None and meta != {}:
            raise RefusalError("a tensor with extra metadata (conjugated or negated)")
        _no_hooks(hooks)
        return self._old_tensor(storage, offset, size, stride)

    def _old_tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
        if not isinstance(storage, Storage):
            raise RefusalError("a tensor without a storage", unsafe=True)
        return view(storage, offset, size, stride, self.allowance)

    def _parameter(self, data: Any, grad: Any, hooks: Any) -> Any:
        _no_hooks(hooks)
        if not isinstance(data, torch.Tensor | Opaque):
            raise RefusalError("a parameter that is no tensor", unsafe=True)
        return data

    def _parameter_with_state(self, data: Any, grad: Any, hooks: Any, state: Any) -> Any:
        return self._parameter(data, grad, hooks)

    def _from_type(self, function: Any, cls: Any, args: Any, state: Any) -> Any:
        rebuild = isinstance(function, Global) and function.module == "torch._utils"
        known = isinstance(cls, Global) and cls.name in ("Tensor", "Parameter")
        if not (rebuild and known and isinstance(args, tuple)):
            raise RefusalError("a tensor of a foreign class", unsafe=True)
        return self.call(function, args)

    def _size(self, size: Any) -> tuple[int, ...]:
        if not isinstance(size, tuple | list):
            raise RefusalError("a torch.Size that is no tuple")
        return tuple(whole(n, "a size") for n in size)

    def _device(self, kind: Any, index: Any = None) -> str:
        if type(kind) is not str or len(kind) > 32:
            raise RefusalError("a device that is no text")
        return kind if index is None else f"{kind}:{index}"

    def _layout(self, name: Any) -> str:
        if name != "torch.strided":
            raise RefusalError(f"a tensor layout {str(name)[:40]!r}; only dense tensors are read")
        return str(name)

    # -- numpy ---------------------------------------------------------------------------------------------------------

    def _dtype(self, code: Any, align: Any, copy: Any) -> Pending:
        if code not in _DTYPES or align not in (False, 0) or copy not in (True, 1):
            raise RefusalError(f"a numpy dtype {str(code)[:40]!r}; only plain numbers are read", unsafe=True)
        return Pending("dtype", (code,))

    def _finish_dtype(self, pending: Pending, state: Any) -> np.dtype[Any]:
        code: str = pending.args[0]
        order = "|" if code[1] == "1" else "<"
        if state != (3, order, None, None, None, -1, -1, 0):
            raise RefusalError(f"a numpy dtype {code!r} with foreign fields or byte order", unsafe=True)
        return np.dtype(code if order == "|" else order + code)

    def _scalar(self, dtype: Any, raw: Any) -> Any:
        if not isinstance(dtype, np.dtype) or type(raw) is not bytes or len(raw) != dtype.itemsize:
            raise RefusalError("a numpy number whose bytes do not fit its dtype", unsafe=True)
        return self._array_of(dtype, (), raw).item()

    def _array(self, cls: Any, shape: Any, code: Any) -> Pending:
        if not isinstance(cls, Global) or str(cls) != "numpy.ndarray" or shape != (0,) or code not in (b"b", "b"):
            raise RefusalError("a numpy array of a foreign class", unsafe=True)
        return Pending("array", ())

    def _finish_array(self, pending: Pending, state: Any) -> np.ndarray[Any, Any]:
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or type(state[3]) is not bool:
            raise RefusalError("a numpy array with a foreign state", unsafe=True)
        return self._array_of(state[2], state[1], state[4], "F" if state[3] else "C")

    def _frombuffer(self, raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
        if order not in ("C", "F"):
            raise RefusalError("a numpy array of a foreign order")
        return self._array_of(dtype, shape, raw, order)

    def _array_of(self, dtype: Any, shape: Any, raw: Any, order: str = "C") -> np.ndarray[Any, Any]:
        if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(shape, tuple) or len(shape) > 16:
            raise RefusalError("a numpy array that is not plain numbers", unsafe=True)
        shape = tuple(whole(n, "a size of a numpy array") for n in shape)
        size = math.prod(shape) * dtype.itemsize
        length = raw.length if isinstance(raw, Blob) and not raw.text else len(raw) if isinstance(raw, bytes) else None
        if isinstance(raw, Blob) and raw.latin1:
            raw = raw.read()
            length = len(raw)
        if length is None or length != size:
            raise RefusalError(f"a numpy array of {size:,} bytes with {length} bytes of content", unsafe=True)
        self.allowance.view(size)
        content = raw.read() if isinstance(raw, Blob) else raw
        if dtype.kind == "b" and content and max(content) > 1:
            raise RefusalError("truth values that are neither 0 nor 1")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")

    # -- the StyleGAN container ----------------------------------------------------------------------------------------

    def _persistent_object(self, meta: Any) -> PersistentObject:
        if not isinstance(meta, dict) or set(meta) != {"type", "version", "module_src", "class_name", "state"}:
            raise RefusalError("a network object of foreign form", unsafe=True)
        if meta["type"] != "class" or type(meta["class_name"]) is not str or not meta["class_name"].isidentifier():
            raise RefusalError("a network object that is no class", unsafe=True)
        if meta["version"] != PERSISTENCE_VERSION:
            raise RefusalError(f"a network container of version {str(meta['version'])[:20]}; version 6 is read")
        source = meta["module_src"]
        if not isinstance(source, str | Blob) or (isinstance(source, Blob) and not source.text):
            raise RefusalError("a network object whose source is no text")
        if not isinstance(meta["state"], dict):
            raise RefusalError("a network object without its state")
        if id(source) not in self._sources:
            # The text is kept as well: an id is unique only while its object lives.
            self._sources[id(source)] = (source, SourceText.of(source))
        return PersistentObject(meta["class_name"], self._sources[id(source)][1], meta["state"])
