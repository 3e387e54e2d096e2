"""Start a run as a process of its own, on one device or several, so that a notebook kernel may die beside it.

It holds the folder's lock (`lock.py`) as long as it lives: any other process can tell whether a run is being trained,
follow it, or stop it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from t2ilib.errors import InputError
from t2ilib.files import ROOT
from t2ilib.training.lock import PROCESS, busy, handed_on, held, opened, owner, sign, sweep, take
from t2ilib.training.recipe import Recipe
from t2ilib.training.run import Run
from t2ilib.training.workers import LOG, check_processes, open_log, printed

__all__ = ["LOG", "command", "environment", "last_lines", "launch", "running", "stop"]


def command(run: Run, processes: int = 1) -> list[str]:
    """Return the command line that trains `run`'s recipe in `processes` processes (one GPU each)."""
    train = [sys.executable, "-m", "t2ilib.cli", "resume", str(run.folder.resolve())]
    return train if processes == 1 else [*train, "--processes", str(processes)]


def environment() -> dict[str, str]:
    """Return the environment in which `command` finds this library, and none of what lies in the working folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def launch(recipe: Recipe, folder: str | Path, processes: int = 1) -> tuple[Run, subprocess.Popen]:
    """Create or continue the run in `folder` in a child process; its output goes to `folder/log.txt`.

    The child survives its parent and works in the same folder, so that relative paths mean the same. Follow it with
    `t2ilib.training.sinks.follow(run, lambda: running(run))`. Raises InputError when a process trains there already.
    """
    check_processes(processes)
    folder = Path(folder).resolve()
    with opened(folder) as lock:
        if not take(lock):
            raise busy(folder)
        sweep(folder)
        run = Run.create(folder, recipe)
        with open_log(folder / LOG) as log:
            child = subprocess.Popen(
                command(run, processes),
                env=environment() | handed_on(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        sign(lock, child.pid, listens=True)
    return run, child


def running(run: Run) -> bool:
    """Whether a process on this machine is training `run`, however it was started."""
    return held(run.folder)


def stop(run: Run) -> bool:
    """Ask the process that trains `run` to end, after its step and with a checkpoint; return whether there was one.

    Of several processes it is the one that started the others, which it takes along. Raises InputError where that
    process cannot be ended in order: a notebook or a script that trains by itself, or another user's.
    """
    if not running(run):
        return False
    trains = owner(run.folder)
    if trains is None:
        raise InputError(f"{run.folder / PROCESS}: does not say which process trains here; end it yourself")
    if not trains.listens:
        raise InputError(
            f"{run.folder}: process {trains.number}, a notebook or a script, trains it and would end without a "
            "checkpoint; interrupt it there"
        )
    try:
        os.kill(trains.number, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return False
    except PermissionError:
        raise InputError(f"{run.folder}: process {trains.number} trains it and is another user's; ask them") from None
    return True


def last_lines(run: Run, count: int = 15) -> str:
    """Return the end of what the process printed, without progress bars."""
    return "\n".join(printed(run.folder / LOG)[-count:])
