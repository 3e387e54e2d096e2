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
from t2ilib.training.lock import PROCESS, held, owner, sign, take
from t2ilib.training.recipe import Recipe
from t2ilib.training.run import Run

LOG = "log.txt"


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
        if not take(lock):
            raise InputError(f"{folder}: is being trained by another process; follow it, stop it, or wait")
        run = Run.create(folder, recipe)
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
        sign(lock, child.pid)
    return run, child


def running(run: Run) -> bool:
    """Whether a process on this machine is training `run`, however it was started."""
    return held(run.folder)


def stop(run: Run) -> bool:
    """Ask the process that trains `run` to end, after its step and with a checkpoint; return whether there was one."""
    number = owner(run.folder) if running(run) else None
    if number is None:
        return False
    if os.getpgid(number) == number:  # the first of its group: what it has started ends, too
        os.killpg(number, signal.SIGTERM)
    else:
        os.kill(number, signal.SIGTERM)
    return True


def last_lines(run: Run, count: int = 15) -> str:
    """Return the end of what the process printed, without progress bars."""
    path = run.folder / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.rstrip() for line in text.replace("\r", "\n").split("\n")]
    return "\n".join([line for line in lines if line and "step/s" not in line and "s/step" not in line][-count:])
