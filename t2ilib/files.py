"""Where the project's files lie, and how they are written: whole or not at all."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2ilib.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("T2I_DATA", ROOT / "data"))  # downloads, packed sets, shipped weights
RUNS = Path(os.environ.get("T2I_RUNS", ROOT / "runs"))  # one folder per training run
WEIGHTS = ROOT / "data" / "weights"  # the small weights that the repository ships
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
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        what = error.strerror or error
        raise InputError(f"{path}: cannot be written ({what}); what was there before is unchanged") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what writers of files beside `path` left over a day ago, when they were killed."""
    for left in path.parent.glob(".*.part"):
        if left.is_file() and time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
