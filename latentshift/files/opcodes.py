"""A stack machine for pickles that can only build plain data.

Every opcode of protocols 2 to 5 that honest files use is here; all others are refused with their name and offset. A name
(GLOBAL, STACK_GLOBAL) is looked up in an allowlist and becomes an inert record; REDUCE, NEWOBJ and BUILD call the builder of
ours that belongs to the record. Nothing is imported, nothing of the file is called, long strings stay in the file.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any, Protocol

from .sources import Source
from .tape import Tape
from .values import (
    BASE_OPCODES,
    BYTES_PER_OPCODE,
    MAX_LONG_BYTES,
    MAX_MARKS,
    Opaque,
    Pending,
    RefusalError,
    Table,
)

_NAMES = {ord(o.code): o.name for o in pickletools.opcodes}
_U16, _I32, _U32, _U64, _F64 = (struct.Struct(f) for f in ("<H", "<i", "<I", "<Q", ">d"))
_INT64 = 1 << 63


class Builders(Protocol):
    """What the names of a file may mean: one set for the outer pickle, a much smaller one for nested storages."""

    def lookup(self, module: str, name: str, offset: int) -> Any:
        """Return a record for the name, or raise RefusalError."""

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """REDUCE: return plain data."""

    def new(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """NEWOBJ: return plain data."""

    def build(self, target: Any, state: Any) -> Any:
        """BUILD: return the finished object."""

    def persistent(self, pid: Any) -> Any:
        """BINPERSID: return a storage."""


class Machine(Tape):
    """Runs one pickle that starts at `start` of `source`; `run` returns its value, `end` is the offset after STOP."""

    def __init__(self, source: Source, builders: Builders, *, start: int = 0) -> None:
        super().__init__(source, start)
        self.builders = builders
        self.end = start
        self.opcodes = 0
        self.budget = BASE_OPCODES + (source.size - start) // BYTES_PER_OPCODE

    def run(self) -> Any:
        """Return the value of the pickle.

        Raises UnsafeFileError for anything that is not on the lists or would exhaust the machine, DamagedFileError for bytes
        that contradict each other; both say where.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._frame_end = 0
        try:
            self._protocol()
            return self._loop()
        except RefusalError as refusal:
            raise self._error(refusal.what, unsafe=refusal.unsafe, way_out=refusal.way_out) from None
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
            raise self._error(f"malformed pickle ({type(error).__name__})") from None

    def _protocol(self) -> None:
        head = self._take(2)
        if head[0] != 0x80 or not 2 <= head[1] <= 5:
            raise RefusalError("not a pickle of protocol 2 to 5")

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _loop(self) -> Any:
        table = _HANDLERS
        budget = self.budget
        count = 0
        while True:
            self._op_at = self._at
            low = self._at - self._base
            if low < len(self._window):
                code = self._window[low]
                self._at += 1
            else:
                code = self._take(1)[0]
            count += 1
            if count > budget:
                raise RefusalError(f"more than {budget:,} operations for {self.source.size:,} bytes", unsafe=True)
            if code == 0x2E:  # STOP
                break
            handler = table.get(code)
            if handler is None:
                name = _NAMES.get(code)
                if name is None:
                    raise RefusalError(f"byte {code:#04x} is no pickle operation")
                raise RefusalError(f"pickle operation {name} is not used by honest files", unsafe=True)
            handler(self)
        self.opcodes = count
        self.end = self._at
        if len(self._stack) != 1 or self._marks:
            raise RefusalError("the pickle ends with an unfinished stack")
        return self._stack[0]

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise RefusalError("an operation reaches below its mark")
        return self._stack.pop()

    def _top(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise RefusalError("an operation reaches below its mark")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        if not self._marks:
            raise RefusalError("no mark on the stack")
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    # -- operations ----------------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        if len(self._marks) >= MAX_MARKS:
            raise RefusalError(f"more than {MAX_MARKS} open marks", unsafe=True)
        self._marks.append(len(self._stack))

    def _long(self) -> None:
        n = self._take(1)[0]
        if n > MAX_LONG_BYTES:
            raise RefusalError(f"an integer of {n} bytes", unsafe=True)
        self._stack.append(int.from_bytes(self._take(n), "little", signed=True))

    def _frame(self) -> None:
        n = _U64.unpack(self._take(8))[0]
        if n > self.source.size - self._at or self._at < self._frame_end:
            raise RefusalError(f"a frame of {n:,} bytes where {self.source.size - self._at:,} are left")
        self._frame_end = self._at + n

    def _put(self, index: int) -> None:
        # Honest writers number 0, 1, 2, ...; a larger number only serves to blow up a table.
        if index > len(self._memo):
            raise RefusalError(f"memo entry {index} before entry {len(self._memo)}", unsafe=True)
        top = self._top()
        if isinstance(top, Pending):
            top.places.append(index)
        self._memo[index] = top

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise RefusalError(f"memo entry {index} is used before it is made")
        self._stack.append(self._memo[index])

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusalError("a global whose name is computed", unsafe=True)
        if len(module) + len(name) > 512 or not module.isprintable() or not name.isprintable():
            raise RefusalError("a global with an unprintable or overlong name", unsafe=True)
        self._stack.append(self.builders.lookup(module, name, self.source.base + self._op_at))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _global_line(self) -> None:
        module = self._line()
        self._global(module, self._line())

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(args, tuple):
            raise RefusalError("REDUCE without a tuple of arguments")
        self._stack.append(self.builders.call(function, args))

    def _newobj(self) -> None:
        args, cls = self._pop(), self._pop()
        if not isinstance(args, tuple):
            raise RefusalError("NEWOBJ without a tuple of arguments")
        self._stack.append(self.builders.new(cls, args))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        done = self.builders.build(target, state)
        if isinstance(target, Pending):
            for index in target.places:
                self._memo[index] = done
        self._stack.append(done)

    def _persid(self) -> None:
        self._stack.append(self.builders.persistent(self._pop()))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            return
        if type(target) is not list:
            raise RefusalError("APPEND on something that is no list", unsafe=True)
        target.extend(items)

    def _additems(self) -> None:
        items = self._to_mark()
        target = self._top()
        if isinstance(target, Opaque):
            return
        if type(target) is not set or not all(type(i) is str for i in items):
            raise RefusalError("ADDITEMS with something else than a set of texts", unsafe=True)
        target.update(items)

    def _setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._setitems([key, value])

    def _setitems_mark(self) -> None:
        self._setitems(self._to_mark())

    def _setitems(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            return
        if type(target) is not dict and type(target) is not Table:
            raise RefusalError("SETITEM on something that is no dict", unsafe=True)
        if len(items) % 2:
            raise RefusalError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            kind = type(key)
            # Other keys could be chosen to collide (a dict of them is quadratic), or compare in surprising ways.
            if kind is not str and key is not None and not (kind in (int, bool) and -_INT64 <= key < _INT64):
                if kind is float or kind is tuple or kind is bytes or kind is Opaque:
                    raise RefusalError(f"a {'foreign' if kind is Opaque else kind.__name__} key in a dict")
                raise RefusalError("a dict key that is neither text nor a number", unsafe=True)
            if kind is str and key in target:
                raise RefusalError(f"the key {key[:80]!r} is given twice")
            target[key] = value

    def _tuple(self, n: int) -> None:
        if n == 0:
            self._stack.append(())
            return
        if (self._marks and len(self._stack) - n < self._marks[-1]) or len(self._stack) < n:
            raise RefusalError("an operation reaches below its mark")
        self._stack[-n:] = [tuple(self._stack[-n:])]

    def _push(self, value: Any) -> None:
        self._stack.append(value)


def _table() -> dict[int, Callable[[Machine], None]]:
    m = Machine
    by_name: dict[str, Callable[[Machine], None]] = {
        "FRAME": m._frame,
        "MARK": m._mark,
        "NONE": lambda s: s._push(None),
        "NEWTRUE": lambda s: s._push(True),
        "NEWFALSE": lambda s: s._push(False),
        "BININT": lambda s: s._push(_I32.unpack(s._take(4))[0]),
        "BININT1": lambda s: s._push(s._take(1)[0]),
        "BININT2": lambda s: s._push(_U16.unpack(s._take(2))[0]),
        "LONG1": m._long,
        "BINFLOAT": lambda s: s._push(_F64.unpack(s._take(8))[0]),
        "SHORT_BINUNICODE": lambda s: s._push(s._span(s._take(1)[0], text=True)),
        "BINUNICODE": lambda s: s._push(s._span(_U32.unpack(s._take(4))[0], text=True)),
        "BINUNICODE8": lambda s: s._push(s._span(_U64.unpack(s._take(8))[0], text=True)),
        "SHORT_BINBYTES": lambda s: s._push(s._span(s._take(1)[0], text=False)),
        "BINBYTES": lambda s: s._push(s._span(_U32.unpack(s._take(4))[0], text=False)),
        "BINBYTES8": lambda s: s._push(s._span(_U64.unpack(s._take(8))[0], text=False)),
        "BYTEARRAY8": lambda s: s._push(s._span(_U64.unpack(s._take(8))[0], text=False)),
        "EMPTY_DICT": lambda s: s._push({}),
        "EMPTY_LIST": lambda s: s._push([]),
        "EMPTY_SET": lambda s: s._push(set()),
        "EMPTY_TUPLE": lambda s: s._tuple(0),
        "TUPLE1": lambda s: s._tuple(1),
        "TUPLE2": lambda s: s._tuple(2),
        "TUPLE3": lambda s: s._tuple(3),
        "TUPLE": lambda s: s._push(tuple(s._to_mark())),
        "APPEND": m._append,
        "APPENDS": m._appends,
        "ADDITEMS": m._additems,
        "SETITEM": m._setitem,
        "SETITEMS": m._setitems_mark,
        "BINGET": lambda s: s._get(s._take(1)[0]),
        "LONG_BINGET": lambda s: s._get(_U32.unpack(s._take(4))[0]),
        "BINPUT": lambda s: s._put(s._take(1)[0]),
        "LONG_BINPUT": lambda s: s._put(_U32.unpack(s._take(4))[0]),
        "MEMOIZE": lambda s: s._put(len(s._memo)),
        "GLOBAL": m._global_line,
        "STACK_GLOBAL": m._stack_global,
        "REDUCE": m._reduce,
        "NEWOBJ": m._newobj,
        "BUILD": m._build,
        "BINPERSID": m._persid,
    }
    codes = {name: code for code, name in _NAMES.items()}
    return {codes[name]: handler for name, handler in by_name.items()}


_HANDLERS = _table()
