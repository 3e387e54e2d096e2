"""One writer per run folder: whoever trains there holds a lock on `FOLDER/process`, which says its process number.

The lock ends with the last process that holds the file open, however it ends; a number alone could meanwhile belong to
another process. `launch` takes the lock for the process that it starts.
"""

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from t2ilib.errors import InputError

PROCESS = "process"
LEFT = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # what `files.atomic` writes to before it renames


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; InputError when another one is training in it, or nothing can be written."""
    with opened(folder) as file:
        if take(file, patience=0.5):  # whoever only looks (`held`) lets go at once
            sign(file, os.getpid())
            sweep(folder)
        elif owner(folder) not in (os.getpid(), os.getppid()):  # those for which `launch` has taken it
            raise busy(folder)
        yield


@contextmanager
def opened(folder: Path) -> Iterator[IO]:
    """Open a run folder's lock file, and make the folder where it is not there yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / PROCESS, "a", encoding="ascii")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); nothing in it has changed; choose another folder"
        ) from error
    with file:
        yield file


def busy(folder: Path) -> InputError:
    """Return the error of who would be a second writer."""
    return InputError(f"{folder}: is being trained by another process; follow it, stop it (t2i stop), or wait")


def take(file: IO, patience: float = 0.0) -> bool:
    """Lock an open file; False when another process holds it, and after `patience` seconds still does."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)


def sign(file: IO, number: int) -> None:
    """Write the number of the process that holds the lock."""
    try:
        os.ftruncate(file.fileno(), 0)
        told = str(number).encode()
        if os.write(file.fileno(), told) < len(told):  # half a number would be another process
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise InputError(f"{file.name}: cannot be written ({error.strerror}); no step was taken; make room") from error


def sweep(folder: Path) -> None:
    """Remove what killed writers of a run's files left half written; for who holds the lock, thus the only writer."""
    if not (folder / "config.yaml").is_file():
        return  # no run yet: the files are somebody else's
    for left in (*folder.glob(".*.part"), *folder.glob("*/.*.part")):
        if LEFT.fullmatch(left.name) and left.is_file():
            left.unlink(missing_ok=True)


def held(folder: Path) -> bool:
    """Whether a process on this machine is training in the folder."""
    if not (folder / PROCESS).is_file():
        return False
    with open(folder / PROCESS, encoding="ascii") as file:  # a folder that may only be read has a writer, too
        return not take(file)


def owner(folder: Path) -> int | None:
    """Return the number of the process that holds the folder, None where it does not say."""
    text = (folder / PROCESS).read_text(encoding="ascii", errors="replace")
    return int(text) if text.isascii() and text.isdigit() else None
