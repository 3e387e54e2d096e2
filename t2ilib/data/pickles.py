"""A reader for pickles that strangers made: plain data is read, anything else is refused before it can act.

Whatever is wrong becomes an `InputError` that names the file; nothing in it is ever executed.
"""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from t2ilib.data import reading
from t2ilib.errors import InputError

LIMIT = 8 << 20  # bytes of a pickle; the names of COCO's training pictures take 3 MB
CONTAINERS_LIMIT = 1_500_000  # lists and dictionaries of a pickle: all captions of COCO are 620,000
STEPS_LIMIT = 1_000_000  # pieces that are read from it; those names take 500,000
WINDOWS = re.compile(rb"\([ld]p\d+\r\n")  # how a pickled list or dictionary of the oldest form then begins
ARRAYS = ("_reconstruct", "_frombuffer")  # the functions of numpy that make arrays
LONGEST_NUMBER = 4096  # bits of a whole number


def restricted_load(path: str | Path, limit: int = LIMIT, steps: int = STEPS_LIMIT) -> object:
    """Return what a pickle holds: lists, tuples, dicts, strings, bytes, numbers, None and numpy numbers, nothing else.

    Strings written by Python 2 are read as latin-1. Every other content raises `InputError` before it can do anything,
    and so does a file of more than `limit` bytes, or of more than `steps` pieces.
    """
    path, data = Path(path), reading.read_bytes(path, limit=limit)
    if WINDOWS.match(data):
        raise InputError(
            f"{path}: a program changed its line ends to those of Windows; get it again, and do not edit it"
        )
    try:
        value = _Unpickler(_Whole(data, steps), encoding="latin-1").load()
        _check_plain(value)
        return value
    except _Refused as error:
        raise InputError(f"{path}: refused, it {error}; only lists, strings and numbers are read") from None
    except EOFError:
        raise InputError(f"{path}: truncated after {len(data)} bytes; get it again") from None
    except Exception as error:  # a malformed pickle can fail in any way
        raise InputError(f"{path}: not a readable pickle ({type(error).__name__}: {error}); get it again") from error


class _Whole(io.BytesIO):
    """Bytes of which no more can be read than are there: the end within an item is an EOFError.

    They are read in so many pieces at most: an empty list takes one byte of a file, and sixty of memory.
    """

    def __init__(self, data: bytes, most: int):
        super().__init__(data)
        self.steps, self.most = 0, most

    def read(self, size: int | None = -1) -> bytes:
        self.steps += 1
        if self.steps > self.most:
            raise _Refused(f"holds over {self.most:,} items")
        found = super().read(size)
        if size is not None and len(found) < size:
            raise EOFError
        return found

    def readline(self, size: int | None = -1) -> bytes:
        found = super().readline(size)
        if not found.endswith(b"\n"):
            raise EOFError
        return found


class _Refused(Exception):
    """A pickle asks for something that is not data."""


def _check_plain(value: object) -> None:
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, tuple, dict)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, (list, tuple, dict, str, bytes, int, float, np.generic, type(None))):
            raise _Refused("holds an object that is not data")
        elif isinstance(item, int) and item.bit_length() > LONGEST_NUMBER:
            raise _Refused(f"holds a number of {item.bit_length()} bits")


class _Kind:
    """Stands for a numpy dtype while unpickling."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|=]?([iufc](1|2|4|8|16)|b1|\?)", str(code)):
            raise _Refused(f"holds a numpy value of type {code!r}")
        self.dtype = np.dtype(code)


def _scalar(kind: _Kind, data: str | bytes) -> np.generic:
    data = data.encode("latin-1") if isinstance(data, str) else data
    if len(data) != kind.dtype.itemsize:
        raise _Refused("holds a numpy number of the wrong length")
    return np.frombuffer(data, kind.dtype)[0]


def _encode(text: str, _: str = "latin-1") -> bytes:
    return text.encode("latin-1")  # how Python 3 writes bytes with old protocols


def _no_bytes() -> bytes:
    return b""  # and how it writes none


ADMITTED = {
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle._Unpickler):
    """Python's own reference unpickler (its memo cannot be blown up), without the opcodes that data does not need."""

    def find_class(self, module: str, name: str) -> Callable:
        if module.startswith("numpy.") and name in ARRAYS:
            raise _Refused("holds a numpy array: pickle its tolist() instead")
        if (module, name) not in ADMITTED:
            raise _Refused(f"wants to run {module}.{name}")
        return ADMITTED[module, name]

    containers = 0

    def _count(self) -> None:
        self.containers += 1
        if self.containers > CONTAINERS_LIMIT:
            raise _Refused(f"holds over {CONTAINERS_LIMIT:,} lists")

    def load_empty_list(self) -> None:
        self._count()
        self.append([])

    def load_empty_dict(self) -> None:
        self._count()
        self.append({})

    def load_list(self) -> None:
        self._count()
        items = self.pop_mark()  # which replaces the stack
        self.append(items)

    def persistent_load(self, _: object) -> object:
        raise _Refused("holds a persistent reference")

    def refuse(self) -> None:
        raise _Refused("holds an instruction that plain data does not need")

    def load_inst(self) -> None:
        """Name the class of an object in the oldest form, and refuse it."""
        module, name = (self.readline()[:-1].decode("ascii", "replace") for _ in range(2))
        raise _Refused(f"wants to run {module}.{name}")

    def load_build(self) -> None:
        """Set the state of a dtype: its byte order, the second entry; no other object has a state here."""
        state, kind = self.stack.pop(), self.stack[-1]
        if type(kind) is not _Kind or not isinstance(state, tuple) or state[1] not in ("<", ">", "|", "="):
            raise _Refused("holds an object with a state")
        kind.dtype = kind.dtype.newbyteorder(state[1])

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function not in ADMITTED.values():
            raise _Refused("holds a call")
        self.append(function(*arguments))

    def load_setitem(self) -> None:
        self._put([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def load_dict(self) -> None:
        self._count()
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _put(self, items: list) -> None:
        keys, values = items[::2], items[1::2]
        if type(self.stack[-1]) is not dict or not all(type(key) in (str, int, float, bytes) for key in keys):
            raise _Refused("holds a dictionary whose keys are not names or numbers")
        self.stack[-1].update(zip(keys, values, strict=True))

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise _Refused("holds an object that is not a list")
        self.stack[-1].extend(items)


def _dispatch() -> dict:
    data = "MARK STOP POP POP_MARK PROTO FRAME NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT"
    data += " BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES"
    data += " SHORT_BINBYTES BINBYTES8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST EMPTY_DICT GET BINGET"
    data += " LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL"
    kept = {getattr(pickle, name)[0] for name in data.split()}
    table = {c: f if c in kept else _Unpickler.refuse for c, f in pickle._Unpickler.dispatch.items()}
    own = ["inst", "build", "reduce", "setitem", "setitems", "append", "appends", "dict"]
    own += ["empty_list", "empty_dict", "list"]
    return table | {getattr(pickle, name.upper())[0]: getattr(_Unpickler, f"load_{name}") for name in own}


_Unpickler.dispatch = _dispatch()
