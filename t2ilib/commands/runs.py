"""The commands that look at runs, or end one: runs, follow, stop."""

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from t2ilib.commands.options import echo
from t2ilib.errors import InputError, printable
from t2ilib.files import RUNS

RunFolder = Annotated[Path, typer.Argument(help="A run folder, or the name of a run under runs.")]
LATEST = 3  # records that `follow` shows of the time before it


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder with run folders in it.")] = RUNS,
) -> None:
    """List the runs of a folder: name, task, steps done of those it shall have, when, running or not."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; train something first, or name another")
    found = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not found:
        echo(f"{folder}: holds no runs yet")
        return
    names = [printable(path.name) for path in found]
    width = max(map(len, names))
    for name, path in zip(names, found, strict=True):
        echo(f"{name:{width}}  {_described(path)}")


def follow(run: RunFolder) -> None:
    """Print a run's new records, and what its process says, until it ends; Ctrl-C ends the watching alone."""
    from t2ilib.training import Run
    from t2ilib.training.launch import running
    from t2ilib.training.workers import LOG, printed

    watched = Run.open(run)
    earlier = watched.records()
    step = earlier[-LATEST - 1]["step"] if len(earlier) > LATEST else 0
    said = len(printed(watched.folder / LOG))
    alive = True
    try:
        while alive:
            alive = running(watched)
            lines = printed(watched.folder / LOG)
            for line in lines[said:]:
                echo(line)
            said = len(lines)
            for record in watched.records():
                if record["step"] > step:
                    step = record["step"]
                    echo(_line(record))
            if alive:
                time.sleep(1)
    except KeyboardInterrupt:
        return
    echo(f"{watched.folder}: not running; {_done(watched)}")


def stop(run: RunFolder) -> None:
    """End a run of the command line after its step, with a checkpoint, and say what is safe; not a notebook's run."""
    from t2ilib.training import Run
    from t2ilib.training.launch import running
    from t2ilib.training.launch import stop as ask

    stopped = Run.open(run)
    if not ask(stopped):
        echo(f"{stopped.folder}: not running; {_done(stopped)}")
        return
    echo(f"{stopped.folder}: asked to end after its step; waiting")
    while running(stopped):
        time.sleep(0.2)
    echo(f"{stopped.folder}: has ended; {_done(stopped)}")


def _described(folder: Path) -> str:
    """Return the row of one run; of a damaged one it says what is damaged."""
    from t2ilib.training import Run
    from t2ilib.training.launch import running

    run = Run(folder)
    try:
        recipe, done = run.recipe, _steps(run)
        changed = max(path.stat().st_mtime for path in (folder, folder / "config.yaml", *run.checkpoints()))
        if (folder / "records.jsonl").is_file():
            changed = max(changed, (folder / "records.jsonl").stat().st_mtime)
        when = f"{datetime.fromtimestamp(changed):%Y-%m-%d %H:%M}"
        return f"{recipe.task:8}  {done:>7} of {recipe.training.steps:<7}  {when}  {'running' if running(run) else ''}"
    except (InputError, OSError) as error:
        return f"damaged: {error}"


def _steps(run: Any) -> int:
    """Return the steps that are done: those of the last record, or of the last checkpoint where that is later."""
    from t2ilib.training.run import step_of

    return max([record["step"] for record in run.records()[-1:]] + list(map(step_of, run.checkpoints())), default=0)


def _done(run: Any) -> str:
    """Say what a run has kept."""
    from t2ilib.training.run import step_of

    kept = run.checkpoints()
    if not kept:
        return "no checkpoint is written yet"
    return f"safe is {kept[-1]}, step {step_of(kept[-1])} of {run.recipe.training.steps}"


def _line(record: dict) -> str:
    numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
    speed = [f"{numbers['images_per_second']:g} pictures/s"] if "images_per_second" in numbers else []
    terms = [f"{key} {value:.3g}" for key, value in numbers.items() if "/" in key]
    return "  ".join([f"step {record['step']}", *speed, *terms])
