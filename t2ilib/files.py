"""Where the project's files lie, and how they are written: whole or not at all."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from t2ilib.errors import InputError, one_line, unwritten

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("T2I_DATA", ROOT / "data"))  # downloads, packed sets, shipped weights
RUNS = Path(os.environ.get("T2I_RUNS", ROOT / "runs"))  # one folder per training run
WEIGHTS = ROOT / "data" / "weights"  # the small weights that the repository ships
JSON_LIMIT = 16 << 20  # bytes; what is read as JSON is far smaller
ABANDONED_SECONDS = 24 * 3600  # age at which a temporary file is nobody's any more


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it to disk and rename it, else remove it.

    A reader sees the old file or the new one, never half of one, whenever the process is killed. InputError names
    `path` where the disk is full or nothing may be written there.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise unwritten(path, error, "what was there before is unchanged") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@lru_cache(maxsize=64)
def _sweep(folder: Path) -> None:
    """Remove what writers of files in `folder` left over a day ago, when they were killed; once in a process.

    A folder of a hundred thousand files takes a while to look through.
    """
    for left in abandoned(folder, ".*.part"):
        if left.is_file():
            left.unlink(missing_ok=True)


def abandoned(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield what matches `pattern` in `folder` and nobody has changed for a day; others may be removing it, too."""
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                yield left


def no_link(path: str, flags: int) -> int:
    """Open a file of the library's own, for `open(opener=...)`: never through a link, nor waiting for a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically; halves of characters, as in odd file names, are written as \\udcff."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, remedy: str, what: str = "damaged") -> Any:
    """Return what a JSON file (UTF-8) holds; InputError, in one line, names the file, `what` is wrong, and `remedy`.

    Refused, beside what is not JSON: what is no file, more than `JSON_LIMIT` bytes, deep nesting, and a key that is
    there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        with open(path, "rb") as file:
            content = file.read(JSON_LIMIT + 1)
        if len(content) > JSON_LIMIT:
            raise ValueError(f"larger than {JSON_LIMIT >> 20} MiB")
        return parse_json(content.decode("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: {what} ({one_line(error)}); {remedy}") from None


def parse_json(text: str) -> Any:
    """Return what JSON says; ValueError also for deep nesting, and for a key that is there twice."""
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {one_line(repr(name))} is there twice")
        found[name] = value
    return found


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
