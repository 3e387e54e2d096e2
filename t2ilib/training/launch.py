"""Start a run as a process of its own, on one device or several, so that a notebook kernel may die beside it.

The process holds a lock on `FOLDER/process` as long as it lives, and the file holds its number. So any other process
can tell whether a run is being trained, follow it, or stop it; a number alone could meanwhile belong to another.
"""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from t2ilib.errors import InputError
from t2ilib.files import ROOT
from t2ilib.training.recipe import Recipe
from t2ilib.training.run import Run

PROCESS, LOG = "process", "log.txt"


def command(run: Run, processes: int = 1) -> list[str]:
    """Return the command line that trains `run`'s recipe in `processes` processes (one GPU each)."""
    train = ["t2ilib.cli", "resume", str(run.folder)]
    if processes == 1:
        return [sys.executable, "-m", *train]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, "-m", *train]


def launch(recipe: Recipe, folder: str | Path, processes: int = 1) -> tuple[Run, subprocess.Popen]:
    """Create or continue the run in `folder` in a child process; its output goes to `folder/log.txt`.

    The child survives its parent and works in the repository's root. Follow it with
    `t2ilib.training.sinks.follow(run, lambda: running(run))`. Raises InputError when a process trains there already.
    """
    if processes < 1:
        raise InputError(f"processes: {processes} must be at least 1")
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / PROCESS, "a", encoding="ascii") as lock:
        if not _take(lock):
            raise InputError(f"{folder}: is being trained by another process; follow it, stop it, or wait")
        run = Run.create(folder, recipe)
        lock.truncate(0)
        with open(folder / LOG, "ab") as log:
            child = subprocess.Popen(
                command(run, processes),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        lock.write(str(child.pid))
    return run, child


def running(run: Run) -> bool:
    """Whether a process that `launch` started, here or elsewhere on this machine, is training `run`."""
    if not (run.folder / PROCESS).is_file():
        return False
    with open(run.folder / PROCESS, "a", encoding="ascii") as lock:
        return not _take(lock)


def stop(run: Run) -> bool:
    """End the process that trains `run`; return whether there was one. Steps since the last checkpoint are lost."""
    if not running(run):
        return False
    os.killpg(int((run.folder / PROCESS).read_text(encoding="ascii")), signal.SIGTERM)
    return True


def last_lines(run: Run, count: int = 15) -> str:
    """Return the end of what the process printed, without progress bars."""
    path = run.folder / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.rstrip() for line in text.replace("\r", "\n").split("\n")]
    return "\n".join([line for line in lines if line and "step/s" not in line and "s/step" not in line][-count:])


def _take(lock: IO) -> bool:
    """Lock an open file; False when another process holds it. The lock ends with the last process that inherits it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
