"""The command line, `t2i`: data, train, sample, evaluate, export, and the course itself.

The library is imported inside the commands, so that `--help` answers at once.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from t2ilib.errors import InputError
from t2ilib.files import RUNS

app = typer.Typer(
    help="Train, sample and measure text-to-image GANs. Start with: t2i train gancls --steps 200",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a recipe key, as --set training.seed=3 or --set model.ngf=32; repeatable."),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--data", help='Pictures: "toy", a folder or zip with metadata.jsonl, CUB in AttnGAN\'s layout, a packed set.'
    ),
]

Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default the accelerator, where there is one.")]
Truncation = Annotated[
    float | None,
    typer.Option(help="Leave out noise beyond 2 sigma, scale the rest by this; DF-GAN is evaluated at 0.88."),
]


@app.command()
def data(
    source: Annotated[str, typer.Argument(help='"toy", or a path: folder or zip with metadata.jsonl, CUB folder.')],
    size: Annotated[int, typer.Option(help="Side of the packed pictures, in pixels.")] = 64,
    allow_missing: Annotated[
        bool, typer.Option(help="Take the pictures that are there of those the lists name.")
    ] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a PNG with 64 of the pictures here.")] = None,
) -> None:
    """Pack captioned images once, and say what is in them.

    Later commands open the packed set, under data/packed, in no time.

    Example: t2i data toy --sheet birds.png
    """
    import numpy as np

    from t2ilib import data as datasets
    from t2ilib.plots import contact_sheet

    options = {"allow_missing": True} if allow_missing else {}
    dataset = datasets.load(source, size, **options)
    typer.echo(f"{len(dataset)} pictures of {dataset.size}x{dataset.size}, {len(dataset.class_names)} classes")
    for split in sorted(set(dataset.splits.tolist())):
        typer.echo(f"  {split}: {int((dataset.splits == split).sum())}")
    typer.echo(f'first caption: "{dataset.captions[0][0]}"')
    if sheet:
        rows = np.linspace(0, len(dataset) - 1, min(64, len(dataset))).astype(int)
        contact_sheet(dataset.images[rows], columns=8, path=sheet)
        typer.echo(f"wrote {sheet}")


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="A system (gancls, wgan, ...), an encoder (clip), or the judge.")],
    recipe: Annotated[str | None, typer.Option(help="Shipped recipe or .yaml file; default TASK_toy.")] = None,
    source: Source = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps, of the generator in a system; default the recipe's.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/RECIPE. Continued if it exists.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes, one GPU each.")] = 1,
    changes: Set = None,
) -> None:
    """Train a system or an encoder; the same command again continues where it stopped.

    Interrupt with Ctrl-C at any time. The run folder holds records, checkpoints, results, and grids of samples.

    Example: t2i train gancls --steps 200 --folder runs/first
    """
    from t2ilib.assembly import check
    from t2ilib.training import load_recipe

    recipe = recipe or f"{task}_toy"
    given = {"data.source": source, "training.steps": steps}
    overrides = {"data.options": {}} if source else {}  # those of the recipe are its own pictures'
    overrides |= _parse(changes) | {key: value for key, value in given.items() if value is not None}
    settings = load_recipe(recipe, **overrides)
    if settings.task != task:
        raise InputError(f"{recipe}: is a recipe of {settings.task}, not of {task}")
    check(settings)
    folder = folder or RUNS / Path(recipe).stem
    if processes != 1:
        from t2ilib.training.launch import launch

        run, child = launch(settings, folder, processes)
        typer.echo(f"{processes} processes; their output goes to {run.folder / 'log.txt'}")
        raise typer.Exit(_wait(run, child))
    _train(settings, folder)


@app.command()
def resume(
    source: Annotated[Path, typer.Argument(help="A run folder with a config.yaml, or a checkpoint of any run.")],
    folder: Annotated[Path | None, typer.Option(help="New run folder; a checkpoint needs one.")] = None,
    steps: Annotated[int | None, typer.Option(help="Generator steps in all; default the recipe's.")] = None,
) -> None:
    """Continue a run with the recipe in its folder, or go on from any checkpoint in a new folder.

    Example: t2i resume runs/first/checkpoints/step_00000100.safetensors --folder runs/second --steps 400
    """
    from t2ilib.training import Run

    if source.suffix == ".safetensors" and folder is None:
        raise InputError(f"{source}: is a checkpoint; name the new run's folder with --folder")
    run = Run.open(source) if folder is None else Run.branch(source, folder)
    _train(run.recipe if steps is None else run.recipe.override(**{"training.steps": steps}), run.folder)


@app.command()
def sample(
    source: Annotated[str, typer.Argument(help="A run folder, a checkpoint, or shipped weights (gancls_toy).")],
    captions: Annotated[list[str] | None, typer.Argument(help="Captions, each in quotes.")] = None,
    file: Annotated[Path | None, typer.Option(help="Text file with one caption per line.")] = None,
    out: Annotated[
        Path, typer.Option(help="PNG to write, one row per caption; or a folder, for one square grid per caption.")
    ] = Path("samples.png"),
    per_caption: Annotated[int, typer.Option(min=1, help="Pictures of each caption.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    truncation: Truncation = None,
    device: Device = None,
) -> None:
    """Draw pictures of captions with a trained system.

    Example: t2i sample gancls_toy "a red bird with black wings and a white belly."
    """
    from t2ilib.encoders.vocabulary import remarks
    from t2ilib.sampling import check_drawing, load_sampler
    from t2ilib.sheets import Captions, check_target, write_sheets

    check_drawing(seed, per_caption, truncation)
    lines = Captions(captions or [], file)
    check_target(out, len(lines))
    sampler = load_sampler(source, device)
    for remark in remarks(sampler.encoder, lines):
        typer.echo(f"warning: {remark}", err=True)
    typer.echo(write_sheets(sampler, lines, out, seed, per_caption, truncation))


@app.command()
def evaluate(
    source: Annotated[str, typer.Argument(help="A run folder, a checkpoint, or shipped weights (gancls_toy).")],
    data_source: Source = None,
    split: Annotated[str | None, typer.Option(help="Split of captions and reference pictures.")] = None,
    n: Annotated[int | None, typer.Option(min=2, help="Pictures, one caption each; default the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of captions and noise.")] = 0,
    truncation: Truncation = None,
    judge: Annotated[
        str | None, typer.Option(help="CLIP that scores the fit: toy-clip, toy-clip-resnet, clip, a folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results file.")] = RUNS / "results",
    device: Device = None,
) -> None:
    """Measure a trained system on captions it has not seen; print the numbers and write a results file.

    Example: t2i evaluate gancls_toy
    """
    from t2ilib.encoders import load_encoder
    from t2ilib.measurement import check_evaluation, evaluate_sampler
    from t2ilib.metrics.results import check_folder, write_result
    from t2ilib.sampling import load_sampler

    check_evaluation(n, seed, truncation)
    check_folder(out)
    judge_encoder = load_encoder(judge) if judge else None
    drawn = {"n": n, "seed": seed, "truncation": truncation}
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
        sampler = load_sampler(source, device)
        result = evaluate_sampler(sampler, data_source, split, judge_encoder=judge_encoder, **drawn)
    typer.echo(yaml.safe_dump(result["metrics"], sort_keys=False))
    typer.echo(f"wrote {write_result(out, **result)}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path, typer.Option(help="File to write, .safetensors; of an encoder or judge a folder.")],
    about: Annotated[str, typer.Option(help="One line, with a system: data, length, result.")] = "",
) -> None:
    """Write what a run was for, in half precision: a system's averaged generator, an encoder, the judge."""
    from t2ilib.sampling import export as write
    from t2ilib.training import Run

    typer.echo(f"wrote {write(Run.open(folder), to, about)}")


@app.command()
def course(
    scale: Annotated[str, typer.Option(help="How long the chapters train: smoke, cpu (minutes) or gpu.")] = "cpu",
    only: Annotated[
        str | None, typer.Option(help="Run the chapter of this number alone, and leave the figures.")
    ] = None,
) -> None:
    """Run every chapter in order, then rebuild the figures; executed copies go to runs/course."""
    from t2ilib.course import run_course

    raise typer.Exit(run_course(scale, only))


@app.command()
def figures(
    names: Annotated[list[str] | None, typer.Argument(help="Figures to rebuild; default all.")] = None,
) -> None:
    """Rebuild the figures and tables of README and chapters from shipped weights and the files of runs."""
    from t2ilib.figures import rebuild

    for name in rebuild(names or []):
        typer.echo(f"figures/{name}")


def _train(recipe: Any, folder: Path) -> None:
    from t2ilib.devices import this_process
    from t2ilib.experiment import run_recipe
    from t2ilib.training.sinks import progress, tensorboard
    from t2ilib.training.stopping import stoppable

    records = run_recipe(recipe, folder)
    if this_process().is_main_process:
        typer.echo(f"{folder}: loading pictures and encoders; the first record follows")
        records = progress(tensorboard(records, Path(folder) / "tensorboard"), recipe.training.steps)
    last = None
    with stoppable():
        for record in records:
            last = record
    if last is None:
        typer.echo(f"{folder}: all {recipe.training.steps} steps are done; raise --steps to go on")
    elif this_process().is_main_process:
        typer.echo(f"{folder}: {last['step']} steps, {last['images']} pictures, {last['seconds']:.0f} s")


def _wait(run: Any, child: Any) -> int:
    """Wait for the processes of a run and return their exit status, with their last words where they failed.

    A signal to this process ends them, too.
    """
    from t2ilib.training.launch import last_lines, stop
    from t2ilib.training.stopping import Stopped, stoppable

    try:
        with stoppable():
            status = child.wait()
    except Stopped:
        stop(run)
        child.wait()
        raise
    if status:
        typer.echo(last_lines(run), err=True)
    return status


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


def main() -> None:
    """Run the command line; bad input ends with one line and exit status 2 instead of a traceback.

    A signal ends it in order, with the signal's status: what was trained is in a checkpoint, the same command goes on.
    """
    from t2ilib.training.stopping import Stopped

    try:
        app()
    except Stopped as stopped:
        typer.echo(f"{stopped}; the same command goes on from the last checkpoint", err=True)
        sys.exit(128 + stopped.number)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"error: {error.filename}: {error.strerror}; what was written before is safe", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
