"""One writer per run folder: whoever trains there holds a lock on `FOLDER/process`, which says who that is.

The lock ends with the last process that holds the file open, however it ends. Who starts a process that shall train in
the folder takes the lock for it and passes the open file on (`handed_on`).
"""

import errno
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from t2ilib.errors import InputError, unwritten
from t2ilib.files import no_link
from t2ilib.training import stopping

try:
    import fcntl
except ModuleNotFoundError:  # Windows: pictures can be drawn there, and nothing trained
    fcntl = None

PROCESS, CONFIG = "process", "config.yaml"
# what may lie in a run folder before its config.yaml does: ours, and what systems leave in any folder
OURS = re.compile(r"process|encoders|log(_\d+)?\.txt|\.DS_Store|Thumbs\.db|desktop\.ini|\.gitkeep|lost\+found|\.nfs.*")
LEFT = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # what `files.atomic` writes to before it renames
HANDED = "T2I_HANDED"  # environment variable: the run folder whose lock a process was started with
SIGNED = 1024  # bytes of the lock that are read
_mine: set[Path] = set()  # folders that this process trains in


@dataclass(frozen=True)
class Owner:
    """The process that holds a folder; `listens`: a signal ends it in order, with a checkpoint."""

    number: int
    listens: bool


@contextmanager
def writing(folder: Path) -> Iterator[IO]:
    """Hold a run folder for this process, and yield the open lock.

    InputError when somebody is training in the folder, when it holds files of no run, or cannot be written.
    """
    place = folder.resolve()
    if place in _mine:
        raise busy(folder)
    with opened(folder) as file:
        if take(file):
            sign(file, os.getpid(), stopping.listening())
            sweep(folder)
        elif os.environ.get(HANDED) != str(place):
            raise busy(folder)
        _mine.add(place)
        try:
            yield file
        finally:
            _mine.remove(place)


@contextmanager
def opened(folder: Path) -> Iterator[IO]:
    """Open a run folder's lock file, and make the folder where it is not there yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in folder.iterdir()]
        if CONFIG not in names and not all(_is_ours(folder / name) for name in names):
            raise InputError(f"{folder}: holds files and no {CONFIG}, so they are of no run; choose another folder")
        file = open(folder / PROCESS, "a", encoding="ascii", opener=no_link)  # noqa: SIM115
    except OSError as error:
        raise unwritten(folder, error, "nothing in it has changed; choose another folder") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(f"{file.name}: is no file; remove it, or choose another folder")
        yield file


def _is_ours(path: Path) -> bool:
    """Whether a run folder may hold `path` before its config.yaml; a list of one's own called "process" is not ours."""
    if path.name != PROCESS:
        return bool(OURS.fullmatch(path.name) or LEFT.fullmatch(path.name))
    text = _signature(path)
    return not text or text.isdigit() or text.startswith('{"process": ')


def _signature(path: Path) -> str:
    with open(path, encoding="ascii", errors="replace", opener=no_link) as file:
        return file.read(SIGNED)


def handed_on(folder: Path) -> dict[str, str]:
    """Return the environment of a process that is started with the open lock of `folder`."""
    return {HANDED: str(folder.resolve())}


def busy(folder: Path) -> InputError:
    """Return the error of who would be a second writer."""
    return InputError(f"{folder}: is being trained already; follow it, stop it (t2i stop), or wait")


def take(file: IO, patience: float = 0.5) -> bool:
    """Lock an open file; False when another process still holds it after `patience` seconds: lookers let go at once."""
    end = time.monotonic() + patience
    while not _locked(file, "LOCK_EX"):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def sign(file: IO, number: int, listens: bool) -> None:
    """Write which process holds the lock."""
    try:
        os.ftruncate(file.fileno(), 0)
        told = json.dumps({"process": number, "listens": listens}).encode()
        if os.write(file.fileno(), told) < len(told):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise unwritten(file.name, error, "no step was taken; make room") from error


def sweep(folder: Path) -> None:
    """Remove what killed writers of a run's files left half written; for who holds the lock, thus the only writer."""
    if not (folder / CONFIG).is_file():
        return  # no run yet: the files are somebody else's
    for left in (*folder.glob(".*.part"), *folder.glob("*/.*.part")):
        if LEFT.fullmatch(left.name) and left.is_file():
            left.unlink(missing_ok=True)


def held(folder: Path) -> bool:
    """Whether a process on this machine is training in the folder; to look keeps nobody else from looking."""
    if fcntl is None or not (folder / PROCESS).is_file():
        return False
    with open(folder / PROCESS, encoding="ascii") as file:  # a folder that may only be read has a writer, too
        return not _locked(file, "LOCK_SH")


def owner(folder: Path) -> Owner | None:
    """Return who holds the folder; None where the file does not say, or names a process that has it not open.

    So nobody is taken for the owner who only has a number that a killed one had.
    """
    path = folder / PROCESS
    try:
        told = json.loads(_signature(path))
        opened_there = {file.path for file in psutil.Process(told["process"]).open_files()}
        return Owner(told["process"], told["listens"] is True) if str(path.resolve()) in opened_there else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError, psutil.Error):
        return None


def _locked(file: IO, kind: str) -> bool:
    """Try to lock an open file; InputError where the system, or the folder's file system, has no such locks."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no file locks")
        fcntl.flock(file, getattr(fcntl, kind) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"{Path(file.name).parent}: cannot be locked ({error.strerror}); train on Linux, macOS or WSL, in a folder "
            "on a local disk"
        ) from error
    return True
