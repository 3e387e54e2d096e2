"""Run the whole course (`t2i course`): every chapter, in order, then the figures; and the scale at which chapters run.

The environment variable T2I_SCALE is `smoke` (seconds, for the tests), `cpu` (minutes on two cores, the default) or
`gpu` (the paper's length). Each chapter runs in a kernel of its own, and its executed copy goes to `runs/course`: the
committed notebooks stay as they are. When one fails the others still run, and the exit status is 1. A copy carries its
scale (executed.py) and can be committed; `solutions` runs the solutions of the exercises in the chapters' place.
"""

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from t2ilib import executed, files
from t2ilib.errors import InputError, one_line

Value = TypeVar("Value")
SCALES = ("smoke", "cpu", "gpu")
REMEDY = "remove it, or put it back from the repository"  # of a damaged file of the course


@dataclass(frozen=True)
class Step:
    """One chapter, or the figures: what to run, how long it should take, and where its output lies."""

    name: str  # "03_dcgan": the key of times.json
    title: str
    seconds: float | None  # expected; None: it was never timed
    output: Path
    run: Callable[[], None]  # raises when the step fails


@dataclass(frozen=True)
class Outcome:
    """How a step ended: seconds taken, and the last line of its error (None: it succeeded)."""

    step: Step
    seconds: float
    error: str | None


def chapter_title(path: Path) -> str:
    """Return the first Markdown heading of a notebook, or its file name where it has none."""
    try:
        for cell in files.read_json(path, REMEDY)["cells"]:
            for line in "".join(cell["source"]).splitlines():
                if cell["cell_type"] == "markdown" and line.startswith("# "):
                    return line[2:].strip()
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no notebook ({error!r}); {REMEDY}") from None
    return path.stem


def chapter_steps(notebooks: Path, output: Path, scale: str, only: str | None = None) -> list[Step]:
    """List the notebooks `NN_*.ipynb` of a folder (of solutions: `NN.ipynb`) as steps, or the one numbered `only`.

    Expected times come from `times.json` in the same folder: {"03_dcgan": {"cpu": seconds}}.
    Raises InputError when there is no such chapter.
    """
    if only is not None and not re.fullmatch("[0-9]{1,2}", only):
        raise InputError(f"chapter {one_line(repr(only))}: give its number, as --only 3")
    ending = ".ipynb" if notebooks.name == "solutions" else "_*.ipynb"
    paths = sorted(notebooks.glob(f"[0-9][0-9]{ending}"))
    chosen = [path for path in paths if only is None or path.name[:2] == only.zfill(2)]
    if not chosen:
        numbers = ", ".join(path.name[:2] for path in paths) or "none"
        raise InputError(f"chapter {only or '*'}: not in {notebooks}; the chapters there are: {numbers}")
    steps = []
    for path in chosen:
        copy = output / path.name
        seconds = expected_seconds(notebooks, path.stem, scale)
        steps.append(Step(path.stem, chapter_title(path), seconds, copy, partial(run_notebook, path, copy)))
    return steps


def expected_seconds(notebooks: Path, name: str, scale: str) -> float | None:
    """Return the measured seconds of a step at a scale; None where it was never timed."""
    return read_times(notebooks / "times.json").get(name, {}).get(scale)


def read_times(path: Path) -> dict[str, dict[str, float]]:
    """Return a file like `notebooks/times.json`, {"03_dcgan": {"cpu": seconds}}; empty where there is none."""
    times = files.read_json(path, REMEDY) if path.exists() else {}
    rows = times.values() if isinstance(times, dict) else [None]
    if not all(isinstance(row, dict) and all(_is_duration(value) for value in row.values()) for row in rows):
        raise InputError(f"{path}: damaged (it must give seconds by chapter and scale); {REMEDY}")
    return times


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def run_notebook(path: Path, copy: Path) -> None:
    """Execute a notebook from its own folder in a new kernel; `copy` holds what it did, also when it fails."""
    import papermill  # noqa: PLC0415 - slow to import, and `--help` should not be

    copy.parent.mkdir(parents=True, exist_ok=True)
    quiet = ["--IPKernelApp.log_level=ERROR"]  # no warning about local connections before each chapter
    bar = sys.stderr.isatty()
    papermill.execute_notebook(path, copy, cwd=path.parent, progress_bar=bar, extra_arguments=quiet)
    executed.finish(copy, scale())


def run_command(command: list[str], log: Path) -> None:
    """Run a command, keeping what it prints in `log`; raises RuntimeError with the last of it when it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    files.write_text(log, result.stdout)
    if result.returncode:
        raise RuntimeError(result.stdout.strip() or f"{' '.join(command)}: exit status {result.returncode}")


def run_step(step: Step) -> Outcome:
    """Run one step; an error becomes part of the outcome, so that the steps after it still run."""
    start = time.monotonic()
    try:
        step.run()
        error = None
    except Exception as caught:  # whatever a chapter can raise: only the exit status depends on it
        lines = [line for line in str(caught).splitlines() if line.strip()]
        error = lines[-1].strip() if lines else type(caught).__name__
    return Outcome(step, time.monotonic() - start, error)


def run_steps(steps: list[Step]) -> list[Outcome]:
    """Run the steps in order, saying before each one what it is and how long is left in all."""
    outcomes = []
    for position, step in enumerate(steps):
        waiting = [other.seconds for other in steps[position:]]
        expected = "not timed yet" if step.seconds is None else f"about {minutes(step.seconds)}"
        left = ("more than " if None in waiting else "") + minutes(sum(filter(None, waiting)))
        print(f"[{position + 1}/{len(steps)}] {step.title}: {expected}; {left} left in all", flush=True)
        outcomes.append(run_step(step))
        print(f"      {'failed' if outcomes[-1].error else 'ok'} after {minutes(outcomes[-1].seconds)}", flush=True)
    return outcomes


def minutes(seconds: float) -> str:
    """Return a duration in seconds as text, such as "4.0 min"."""
    return f"{seconds / 60:.1f} min"


def summary(outcomes: list[Outcome]) -> str:
    """Return the closing table: a line for each step, with its error's last line and where its output lies."""
    lines = []
    for outcome in outcomes:
        state = "failed" if outcome.error else "ok"
        lines.append(f"{state:6}  {minutes(outcome.seconds):>9}  {outcome.step.name:<24}  {outcome.step.output}")
        if outcome.error:
            lines.append(f"        {outcome.error}")
    return "\n".join(lines)


def save_times(outcomes: list[Outcome], scale: str, path: Path) -> None:
    """Merge the seconds of the steps that succeeded into a JSON file like `notebooks/times.json`."""
    times = read_times(path)
    for outcome in outcomes:
        if outcome.error is None:
            times.setdefault(outcome.step.name, {})[scale] = round(outcome.seconds, 1)
    files.write_json(path, dict(sorted(times.items())))


def run_course(scale: str = "cpu", only: str | None = None, solutions: bool = False) -> int:
    """Run all chapters and rebuild the figures, or run the chapter `only`; returns 0, or 1 when a step failed.

    `solutions` runs those of the exercises instead, without the figures.
    """
    if scale not in SCALES:
        raise InputError(f"scale {scale}: choose among {', '.join(SCALES)}")
    part = "solutions" if solutions else "."
    notebooks, output = files.ROOT / "notebooks" / part, files.RUNS / "course" / part
    steps = chapter_steps(notebooks, output, scale, only)
    read_times(output / "times.json")  # hours later it is too late to say that it is damaged
    if only is None and not solutions:
        log = output / "figures.log"
        command = [sys.executable, "-m", "t2ilib.cli", "figures"]
        seconds = expected_seconds(notebooks, "figures", scale)
        steps.append(
            Step("figures", "Figures of README and chapters", seconds, log, partial(run_command, command, log))
        )

    os.environ["T2I_SCALE"] = scale  # the kernels inherit both
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())
    outcomes = run_steps(steps)
    save_times(outcomes, scale, output / "times.json")
    print(summary(outcomes))
    return int(any(outcome.error for outcome in outcomes))


def scale() -> str:
    """Return the scale in force; InputError for a name that is none."""
    name = os.environ.get("T2I_SCALE", "cpu")
    if name not in SCALES:
        raise InputError(f"T2I_SCALE={name}: not a scale; set it to {', '.join(SCALES)}, or leave it unset for cpu")
    return name


def at_scale(smoke: Value, cpu: Value, gpu: Value) -> Value:
    """Return the argument that belongs to the scale in force."""
    return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[scale()]
