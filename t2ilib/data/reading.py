"""Reading files that strangers made: regular ones that lie in their folder, of a sensible size, in UTF-8.

Whatever is wrong becomes an `InputError` that names the file, and its line where there is one.
"""

import codecs
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from t2ilib.errors import InputError
from t2ilib.files import parse_json

FILE_LIMIT = 256 << 20  # bytes of a file that is read whole: a picture, a list
LINE_LIMIT = 1 << 20  # bytes of one line of a list
MARKS = {codecs.BOM_UTF32_LE: 32, codecs.BOM_UTF32_BE: 32, codecs.BOM_UTF16_LE: 16, codecs.BOM_UTF16_BE: 16}


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


class OldLines:
    r"""A binary file whose lines end at "\n", "\r\n", or "\r" alone, as old Macs wrote them; for `lines`."""

    def __init__(self, file: BinaryIO):
        """Read `file`, each byte as one letter, with all of Python's line ends."""
        self.text = io.TextIOWrapper(file, "latin-1", newline=None)

    def readline(self, size: int) -> bytes:
        r"""Return the next line, or its first `size` bytes; its end is "\n"."""
        return self.text.readline(size).encode("latin-1")


def lines(
    file: BinaryIO | OldLines,
    name: str | Path,
    limit: int = LINE_LIMIT,
    each: str = "picture",
    errors: str = "strict",
) -> Iterator[tuple[int, str]]:
    r"""Yield number and text of each line that is not blank; only "\n" ends one, and a byte-order mark is left out.

    InputError names a line of more than `limit` bytes; the remedy says of what there is one `each`. Bytes that are not
    UTF-8 raise it, too, or become U+FFFD if `errors` is "replace".
    """
    remedy = f"save it as UTF-8 text, one {each} per line"
    for number, line in enumerate(iter(lambda: file.readline(limit + 1), b""), start=1):
        marks = [bits for mark, bits in MARKS.items() if number == 1 and line.startswith(mark)]
        if marks:  # UTF-16's is the beginning of UTF-32's, which comes first
            raise InputError(f"{name}: not UTF-8 but UTF-{marks[0]}; {remedy}")
        if b"\0" in line:
            raise InputError(f"{name} line {number}: holds NUL bytes, so it is not UTF-8 text; {remedy}")
        if len(line) > limit:
            raise InputError(f"{name} line {number}: longer than {limit} bytes; {remedy}")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors)
        except UnicodeDecodeError as error:
            raise InputError(f"{name} line {number}: not UTF-8 ({error.reason}); {remedy}") from None
        if text.strip():
            yield number, text


def parse_line(text: str, where: str) -> Any:
    """Return what a line of JSON says, as `files.parse_json` does; InputError names `where` it is."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON that can be read ({error}); correct it") from None


def check_text(text: str, where: str | Path) -> str:
    """Return `text`; InputError for half a character (a lone surrogate) or a NUL in it, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: half a character (a lone surrogate) in {text!r}; correct it") from None
    if "\0" in text:
        raise InputError(f"{where}: a NUL character in {text!r}; remove it")
    return text
