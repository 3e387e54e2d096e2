"""Start a run as a process of its own, on one device or several, so that a notebook kernel may die beside it."""

import subprocess
import sys
from pathlib import Path

from t2ilib.errors import InputError
from t2ilib.files import ROOT
from t2ilib.training.recipe import Recipe
from t2ilib.training.run import Run


def command(run: Run, processes: int = 1) -> list[str]:
    """Return the command line that trains `run`'s recipe in `processes` processes (one GPU each)."""
    train = ["t2ilib.cli", "resume", str(run.folder)]
    if processes == 1:
        return [sys.executable, "-m", *train]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    return [*launcher, "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", *train]


def launch(recipe: Recipe, folder: str | Path, processes: int = 1) -> tuple[Run, subprocess.Popen]:
    """Create or continue the run in `folder` in a child process; its output goes to `folder/log.txt`.

    The child survives its parent. Follow it with `t2ilib.training.sinks.follow(run, lambda: child.poll() is None)`.
    """
    if processes < 1:
        raise InputError(f"processes: {processes} must be at least 1")
    run = Run.create(folder, recipe)
    with open(run.folder / "log.txt", "ab") as log:
        child = subprocess.Popen(
            command(run, processes), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    return run, child
