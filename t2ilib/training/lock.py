"""One writer per run folder: whoever trains there holds a lock on `FOLDER/process`, which says its process number.

The lock ends with the last process that holds the file open, however it ends; a number alone could meanwhile belong to
another process. `launch` takes the lock for the process that it starts.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from t2ilib.errors import InputError

PROCESS = "process"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; InputError when another one is training in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / PROCESS, "a", encoding="ascii") as file:
        if take(file, patience=0.5):  # whoever only looks (`held`) lets go at once
            sign(file, os.getpid())
        elif owner(folder) not in (os.getpid(), os.getppid()):  # those for which `launch` has taken it
            raise InputError(f"{folder}: is being trained by another process; follow it, stop it, or wait")
        yield


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
    file.truncate(0)
    file.write(str(number))
    file.flush()


def held(folder: Path) -> bool:
    """Whether a process on this machine is training in the folder."""
    if not (folder / PROCESS).is_file():
        return False
    with open(folder / PROCESS, "a", encoding="ascii") as file:
        return not take(file)


def owner(folder: Path) -> int | None:
    """Return the number of the process that holds the folder, None where it does not say."""
    text = (folder / PROCESS).read_text(encoding="ascii", errors="replace")
    return int(text) if text.isascii() and text.isdigit() else None
