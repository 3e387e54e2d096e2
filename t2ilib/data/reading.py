"""Reading files that strangers made: regular ones that lie in their folder, of a sensible size, in UTF-8.

Whatever is wrong becomes an `InputError` that names the file, and its line where there is one.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from t2ilib.errors import InputError

FILE_LIMIT = 256 << 20  # bytes of a file that is read whole: a picture, a list
LINE_LIMIT = 1 << 20  # bytes of one line of a list


def is_file(path: str | Path, inside: str | Path | None = None) -> bool:
    """Whether a file is at `path`; InputError for what is no regular file, or a link that leads out of `inside`."""
    try:
        kind = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # the latter: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be reached ({reason}); check the path") from None
    if not stat.S_ISREG(kind):
        raise InputError(f"{path}: a {_kind(kind)}, not a file; replace or remove it")
    if inside and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(inside)):
        raise InputError(f"{path}: a link that leads out of {inside}; put the file itself there")
    return True


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def read_bytes(path: str | Path, inside: str | Path | None = None, limit: int = FILE_LIMIT) -> bytes:
    """Return the content of a file that `is_file` admits, of at most `limit` bytes."""
    if not is_file(path, inside):
        raise InputError(f"{path}: no such file; check the path")
    try:
        if os.path.getsize(path) > limit:
            raise InputError(f"{path}: larger than {limit} bytes; no file of this kind is, shrink or remove it")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable, or get it again") from None


def lines(file: BinaryIO, name: str | Path, errors: str = "strict") -> Iterator[tuple[int, str]]:
    r"""Yield number and text of each line that is not blank; only "\n" ends one, and a byte-order mark is left out.

    Bytes that are not UTF-8 raise InputError, or become U+FFFD if `errors` is "replace".
    """
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{name}: not UTF-8 but UTF-16; save it as UTF-8")
        if b"\0" in line:
            raise InputError(f"{name} line {number}: holds NUL bytes, so it is not UTF-8 text; save it as UTF-8")
        if len(line) > LINE_LIMIT:
            raise InputError(f"{name} line {number}: longer than {LINE_LIMIT} bytes; write one picture per line")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors)
        except UnicodeDecodeError as error:
            raise InputError(f"{name} line {number}: not UTF-8 ({error.reason}); save it as UTF-8") from None
        if text.strip():
            yield number, text


def parse_json(text: str, where: str) -> Any:
    """Return what JSON says; InputError names `where`, also for deep nesting and for a key that is there twice."""
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"{where}: not JSON that can be read ({reason}); correct it")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def check_text(text: str, where: str | Path) -> str:
    """Return `text`; InputError for half a character (a lone surrogate) or a NUL in it, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: half a character (a lone surrogate) in {text!r}; correct it") from None
    if "\0" in text:
        raise InputError(f"{where}: a NUL character in {text!r}; remove it")
    return text
