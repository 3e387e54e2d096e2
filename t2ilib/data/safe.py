"""Readers for files that strangers made: pickles, archives and pictures.

Whatever is wrong with one of them becomes an `InputError` that names the file; nothing in it is ever executed.
"""

import io
import pickle
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from t2ilib.errors import InputError

PICKLE_LIMIT = 256 << 20  # bytes of a pickle
MEMBER_LIMIT = 2 << 30  # unpacked bytes of one member of an archive
TOTAL_LIMIT = 256 << 30  # unpacked bytes of a whole archive
RATIO_LIMIT, RATIO_FROM = 250, 16 << 20  # a member larger than the second shrinks by the first at most
PIXEL_LIMIT = 100_000_000  # pixels of one picture


def restricted_load(path: str | Path) -> object:
    """Return what a pickle holds: lists, tuples, dicts, strings, bytes, numbers, None and numpy numbers, nothing else.

    Strings written by Python 2 are read as latin-1. Every other content raises `InputError` before it can do anything.
    """
    path = Path(path)
    try:
        if path.stat().st_size > PICKLE_LIMIT:
            raise InputError(f"{path}: larger than {PICKLE_LIMIT >> 20} MiB; not a list of names or numbers, check it")
        with open(path, "rb") as file:
            value = _Unpickler(file, encoding="latin-1").load()
        _check_plain(value)
        return value
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except _Refused as error:
        raise InputError(f"{path}: refused, it holds {error}; only lists, strings and numbers are read") from None
    except Exception as error:  # a malformed pickle can fail in any way
        raise InputError(f"{path}: not a readable pickle ({type(error).__name__}: {error}); get it again") from error


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
            raise _Refused("an object that is not data")


class _Kind:
    """Stands for a numpy dtype while unpickling."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|=]?([iufc](1|2|4|8|16)|b1|\?)", str(code)):
            raise _Refused(f"a numpy value of type {code!r}")
        self.dtype = np.dtype(code)


def _scalar(kind: _Kind, data: str | bytes) -> np.generic:
    data = data.encode("latin-1") if isinstance(data, str) else data
    if len(data) != kind.dtype.itemsize:
        raise _Refused("a numpy number of the wrong length")
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
        if (module, name) not in ADMITTED:
            raise _Refused(f"a reference to {module}.{name}")
        return ADMITTED[module, name]

    def persistent_load(self, _: object) -> object:
        raise _Refused("a persistent reference")

    def refuse(self) -> None:
        raise _Refused("an instruction that plain data does not need")

    def load_build(self) -> None:
        """Set the state of a dtype: its byte order, the second entry; no other object has a state here."""
        state, kind = self.stack.pop(), self.stack[-1]
        if type(kind) is not _Kind or not isinstance(state, tuple) or state[1] not in ("<", ">", "|", "="):
            raise _Refused("an object with a state")
        kind.dtype = kind.dtype.newbyteorder(state[1])

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function not in ADMITTED.values():
            raise _Refused("a call")
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
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _put(self, items: list) -> None:
        keys, values = items[::2], items[1::2]
        if type(self.stack[-1]) is not dict or not all(type(key) in (str, int, float, bytes) for key in keys):
            raise _Refused("a dictionary whose keys are not names or numbers")
        self.stack[-1].update(zip(keys, values, strict=True))

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise _Refused("an object that is not a list")
        self.stack[-1].extend(items)


def _dispatch() -> dict:
    data = "MARK STOP POP POP_MARK PROTO FRAME NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT"
    data += " BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES"
    data += " SHORT_BINBYTES BINBYTES8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST EMPTY_DICT GET BINGET"
    data += " LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL"
    kept = {getattr(pickle, name)[0] for name in data.split()}
    table = {c: f if c in kept else _Unpickler.refuse for c, f in pickle._Unpickler.dispatch.items()}
    own = ["build", "reduce", "setitem", "setitems", "append", "appends", "dict"]
    return table | {getattr(pickle, name.upper())[0]: getattr(_Unpickler, f"load_{name}") for name in own}


_Unpickler.dispatch = _dispatch()


def check_name(name: str, inside: str | Path) -> str:
    """Return a relative path as written in a list or archive, normalised; `InputError` when it could lead outside."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\\" in name:
        raise InputError(f"{inside}: the name {name!r} leads outside; use relative names with '/' and without '..'")
    if any(ord(letter) < 32 for letter in name):
        raise InputError(f"{inside}: the name {name!r} holds control characters; rename that file")
    return str(path)


def open_archive(path: str | Path) -> zipfile.ZipFile:
    """Open a zip archive after checking every member's name, kind and declared size; `InputError` names the member."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable zip archive ({error}); get it again") from error
    try:
        for member in archive.infolist():
            _check_member(member, path)
        total = sum(member.file_size for member in archive.infolist())
        if total > TOTAL_LIMIT:
            raise InputError(f"{path}: unpacks to {total >> 30} GiB, over the limit of {TOTAL_LIMIT >> 30}; split it")
    except InputError:
        archive.close()
        raise
    return archive


def _check_member(member: zipfile.ZipInfo, path: str | Path) -> None:
    check_name(member.filename, path)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{path}: member {member.filename!r} is a link or device; pack the file itself")
    if member.flag_bits & 1:
        raise InputError(f"{path}: member {member.filename!r} is encrypted; unpack the archive and pack it openly")
    bomb = member.file_size > RATIO_FROM and member.file_size > RATIO_LIMIT * member.compress_size
    if bomb or member.file_size > MEMBER_LIMIT:
        size = f"{member.compress_size} bytes that unpack to {member.file_size}"
        raise InputError(f"{path}: member {member.filename!r} has {size}, a decompression bomb; remove it")


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of one member; `InputError` when it is missing or damaged."""
    try:
        return archive.read(name)
    except KeyError:
        raise FileNotFoundError(name) from None
    except Exception as error:  # zlib, lzma and zipfile each have their own
        raise InputError(f"{archive.filename}: member {name!r} is damaged ({error}); get the archive again") from error


def extract(path: str | Path, folder: str | Path) -> None:
    """Unpack a zip archive into a new or empty `folder`, checked as by `open_archive`; a failure leaves nothing."""
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; choose a new folder")
    with open_archive(path) as archive:
        try:
            for member in archive.infolist():
                target = folder / check_name(member.filename, path)
                (target if member.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
                if not member.is_dir():
                    target.write_bytes(read_member(archive, member.filename))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture file to upright RGB, whatever its kind; `InputError` names it when that cannot be done.

    Turned as its EXIF entry says; transparency over white; 16-bit grey scaled to 8 bits; CMYK and palettes converted.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > PIXEL_LIMIT:
            raise InputError(f"{name}: {picture.width} x {picture.height} pixels is too large; shrink or remove it")
        picture.load()
        return _rgb(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(f"{name}: not a readable picture ({error}); replace or remove it") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def square(picture: Image.Image, size: int, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Return (size, size, 3) uint8: the centre square of `box` (left, top, right, bottom; default the whole picture).

    The crop's short side is resized to `size` first, antialiased bilinear, as torchvision's Resize and CenterCrop do.
    """
    picture = picture.crop(box) if box else picture
    short = min(picture.size)
    width, height = (size * side // short for side in picture.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
