"""The commands that train: train and resume."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from t2ilib.commands.options import Device, Missing, Processes, Set, Source, echo
from t2ilib.errors import InputError
from t2ilib.files import RUNS


def train(
    task: Annotated[str, typer.Argument(help="A system (gancls, wgan, ...), an encoder (clip), or the judge.")],
    recipe: Annotated[str | None, typer.Option(help="Shipped recipe or .yaml file; default TASK_toy.")] = None,
    source: Source = None,
    allow_missing: Missing = False,
    steps: Annotated[
        int | None, typer.Option(help="Steps, of the generator in a system; default the recipe's.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/RECIPE. Continued if it exists.")
    ] = None,
    processes: Processes = 1,
    device: Device = None,
    changes: Set = None,
) -> None:
    """Train a system or an encoder; the same command again continues where it stopped.

    Interrupt with Ctrl-C at any time. The run folder holds records, checkpoints, results, and grids of samples.

    Example: t2i train gancls --steps 200 --folder runs/first
    """
    from t2ilib.assembly import TASKS, check
    from t2ilib.training import load_recipe

    if task not in TASKS:
        raise InputError(f"{task}: no such system; choose among {', '.join(TASKS)} (t2i list says more)")
    recipe = f"{task}_toy" if recipe is None else recipe
    given = {"data.source": source and _as_seen_from_here(source), "training.steps": steps}
    overrides = {"data.options": {}} if source else {}  # those of the recipe are its own pictures'
    overrides |= _parse(changes) | {key: value for key, value in given.items() if value is not None}
    overrides |= {"data.options.allow_missing": True} if allow_missing else {}
    settings = load_recipe(recipe, **overrides)
    if settings.task != task:
        raise InputError(f"{recipe}: is a recipe of {settings.task}, not of {task}")
    if recipe.endswith((".yaml", ".yml")):  # one's own: what it names lies here, too
        settings = settings.override(**{"data.source": _as_seen_from_here(settings.data.source)})
    check(settings)
    _train(settings, folder or RUNS / Path(recipe).stem, processes, device)


def resume(
    source: Annotated[Path, typer.Argument(help="A run folder with a config.yaml, or a checkpoint of any run.")],
    folder: Annotated[Path | None, typer.Option(help="New run folder; a checkpoint needs one.")] = None,
    steps: Annotated[int | None, typer.Option(help="Generator steps in all; default the recipe's.")] = None,
    processes: Processes = 1,
    device: Device = None,
) -> None:
    """Continue a run with the recipe in its folder, or go on from any checkpoint in a new folder.

    Example: t2i resume runs/first/checkpoints/step_00000100.safetensors --folder runs/second --steps 400
    """
    from t2ilib.training import Run

    if source.suffix == ".safetensors" and folder is None:
        raise InputError(f"{source}: is a checkpoint; name the new run's folder with --folder")
    _check_machine(processes, device)
    run = Run.open(source) if folder is None else Run.branch(source, folder, steps)
    recipe = run.recipe if steps is None else run.recipe.override(**{"training.steps": steps})
    _train(recipe, run.folder, processes, device)


def _train(recipe: Any, folder: Path, processes: int = 1, device: str | None = None) -> None:
    """Train in this process, or in several; a signal ends it in order, with the signal's exit status."""
    from t2ilib.training.stopping import Stopped, stoppable

    _check_machine(processes, device)
    try:
        with stoppable():
            if processes == 1:
                _train_here(recipe, folder, device)
            else:
                _train_together(recipe, folder, processes)
    except Stopped as stopped:
        echo(f"{stopped}; t2i resume {shlex.quote(str(folder))} goes on from the last checkpoint", err=True)
        raise typer.Exit(128 + stopped.number) from None


def _train_here(recipe: Any, folder: Path, device: str | None) -> None:
    from t2ilib.devices import device_named, this_process
    from t2ilib.experiment import run_recipe
    from t2ilib.training.bar import progress
    from t2ilib.training.sinks import tensorboard
    from t2ilib.training.workers import end_with_parent

    end_with_parent()
    if device is not None:
        this_process().device = device_named(device)
    main, last = this_process().is_main_process, None
    records = run_recipe(recipe, folder)
    if main:
        echo(f"{folder}: loading pictures and encoders; the first record follows")
        records = progress(tensorboard(records, Path(folder) / "tensorboard"), recipe.training.steps)
    for record in records:
        last = record
    if main and last is None:
        echo(f"{folder}: all {recipe.training.steps} steps are done; raise --steps to go on")
    elif main:
        echo(f"{folder}: {last['step']} steps, {last['images']} pictures, {last['seconds']:.0f} s")


def _train_together(recipe: Any, folder: Path, processes: int) -> None:
    from t2ilib.experiment import begun_with
    from t2ilib.training import Run
    from t2ilib.training.launch import command, environment
    from t2ilib.training.lock import writing
    from t2ilib.training.workers import log_of, train_together

    begun_with(recipe, Path(folder))
    with writing(folder) as lock:
        run = Run.create(folder, recipe)
        echo(f"{folder}: {processes} processes; t2i follow shows records and what is in {log_of(run, 0)}")
        train_together(run, processes, command(run), environment(), lock)
    echo(f"{folder}: {recipe.training.steps} steps are done")


def _check_machine(processes: int, device: str | None) -> None:
    """Raise InputError for devices that this machine does not have, before anything is written."""
    from t2ilib.devices import device_named
    from t2ilib.training.workers import check_processes

    check_processes(processes)
    if device is not None and processes > 1:
        raise InputError(f"device {device}: each of {processes} processes has a device of its own; leave --device out")
    if device is not None:
        device_named(device)


def _as_seen_from_here(source: str) -> str:
    """Return the absolute path of a source in the working folder: the run may be continued from another one.

    A source that is not there stays as it is; who loads it says so.
    """
    try:
        path = Path(source).expanduser()
        return str(path.resolve()) if source != "toy" and path.exists() else source
    except (OSError, RuntimeError):  # a name that is too long; "~name" without a home
        return source


def _parse(changes: list[str] | None) -> dict[str, Any]:
    """Return `key=value` strings as a mapping; values are read as YAML: 3, 0.5, true, text."""
    from t2ilib.training.recipe import parse_yaml

    parsed = {}
    for change in changes or []:
        key, separator, value = change.partition("=")
        if not (key and separator):
            raise InputError(f"--set {change}: write it as key=value, for example training.seed=3")
        parsed[key.strip()] = parse_yaml(value, f"--set {key.strip()}")
    return parsed
