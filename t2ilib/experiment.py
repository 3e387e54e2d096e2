"""Running a recipe: encoders first, then the loop, with grids of samples and measurements on the way.

The command line, `notebooks/train.ipynb` and the chapters all start runs here.
"""

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from t2ilib.assembly import ROLES, Experiment, assemble, build, check, encoder_recipe, make_batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import this_process
from t2ilib.encoders import TextEncoder
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.files import write_json, write_text
from t2ilib.measurement import measure
from t2ilib.plots import contact_sheet
from t2ilib.provenance import commit, hardware, versions
from t2ilib.sampling import check_start, load_start
from t2ilib.task import System, Task
from t2ilib.training import Recipe, train
from t2ilib.training.bar import progress, telling
from t2ilib.training.lock import PROCESS, writing
from t2ilib.training.loop import Hook, Source
from t2ilib.training.recipe import TRAINED_HERE
from t2ilib.training.run import ENCODERS, ENVIRONMENT, Run, recorded_start

GRID = (8, 4)  # captions, pictures per caption in the periodic grid


def run_recipe(recipe: Recipe, folder: str | Path) -> Iterator[dict]:
    """Train `recipe` in `folder`, continuing where the folder stopped, and yield the records of the loop.

    Writes environment, grids of fixed captions, checkpoints and results; encoders that the recipe wants trained on its
    own pictures come first, in run folders of their own inside.
    """
    check(recipe)
    start = begun_with(recipe, Path(folder))
    with writing(Path(folder)) if this_process().is_main_process else nullcontext():
        if this_process().is_main_process:
            Run.create(folder, recipe).check_recipe()  # before anything is loaded or trained
        for role, settings in recipe.encoders.items():
            if settings.name == TRAINED_HERE:
                _train_encoder(recipe, role, Path(folder) / ENCODERS / role)
        experiment = assemble(recipe, folder)
        if recipe.training.start and not experiment.run.checkpoints():
            load_start(experiment.task, recipe.training.start, experiment.encoders)
        if this_process().is_main_process:
            write_json(experiment.run.folder / ENVIRONMENT, _environment(start))
        yield from train(
            experiment.task,
            make_batches(experiment),
            recipe.training,
            experiment.run,
            sample=fixed_samples(experiment) if experiment.is_system and this_process().is_main_process else None,
            evaluate=_evaluation(experiment),
        )


def begun_with(recipe: Recipe, folder: Path) -> dict | None:
    """Return source, step and SHA-256 of the weights that a run in `folder` begins with, or began with; None: random.

    Once there are checkpoints nobody looks at these weights again: they may be gone. Before, InputError says why they,
    or those of an encoder that is trained for the run, cannot be begun with; nothing is written.
    """
    for role, settings in recipe.encoders.items():
        if settings.name == TRAINED_HERE:
            try:
                begun_with(encoder_recipe(recipe, role), folder / ENCODERS / role)
            except InputError as error:
                raise InputError(f"encoders.{role}.options: {error}") from None
    if not recipe.training.start:
        return None
    if not Run(folder).checkpoints():
        return check_start(recipe)
    return recorded_start(folder)


@dataclass
class Fitted:
    """A system that `fit` trained, on the CPU, its records, and what it painted on the way."""

    system: System
    records: list[dict]
    grids: dict[int, Tensor]  # step -> pictures of the fixed texts and noise, on the CPU


def fit(
    recipe: Recipe,
    batches: Source,
    encoder: TextEncoder | Mapping[str, TextEncoder],
    folder: str | Path,
    *,
    grid: tuple[Text, Tensor] | None = None,
    probe: Hook | None = None,
) -> Fitted:
    """Train a recipe's system anew on given batches, in a run folder that is emptied first: for chapters.

    `encoder` serves every role, or there is a mapping of roles. `grid`, texts and noise, is painted every
    `sample_every` steps; `probe` joins the records every `evaluate_every`, and in the end.
    """
    check(recipe)
    folder = Path(folder)
    torch.manual_seed(recipe.training.seed)
    found = encoder if isinstance(encoder, Mapping) else dict.fromkeys(ROLES, encoder)
    system, grids = build(recipe, found), {}
    if recipe.training.start:
        load_start(system, recipe.training.start, {role: found[role] for role in system.encoders})

    def sample(step: int, system: System) -> None:
        grids[step] = system.generate(*(part.to(this_process().device) for part in grid)).cpu()

    with writing(folder):
        _empty(folder)
        run = Run.create(folder, recipe)
        measured = probe if recipe.training.evaluate_every else None
        records = list(train(system, batches, recipe.training, run, sample=sample if grid else None, evaluate=measured))
    return Fitted(system.cpu(), records, grids)


def _empty(folder: Path) -> None:
    """Remove all of a run but its lock, which is held."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != PROCESS:
            path.unlink()


def fixed_samples(experiment: Experiment) -> Hook:
    """Return the hook that draws the run's grid: eight captions of the reference split, four pictures each."""
    captions, folder = grid_captions(experiment.reference), experiment.run.folder / "samples"
    write_text(folder / "captions.txt", "\n".join(captions) + "\n")
    text = experiment.encoders["text"].encode(captions * GRID[1])
    generator = torch.Generator().manual_seed(experiment.recipe.training.seed)
    noise = experiment.task.noise(GRID[1], generator).repeat_interleave(len(captions), 0)  # one noise per row

    def sample(step: int, task: Task) -> None:
        with telling("drawing"):
            pictures = task.generate(text, noise.to(text.sentence.device))
            contact_sheet(pictures, columns=len(captions), path=folder / f"step_{step:08d}.png")

    return sample


def grid_captions(reference: CaptionedImages) -> list[str]:
    """Return the first caption of eight pictures spread over the reference split."""
    rows = torch.linspace(0, len(reference) - 1, GRID[0]).long().tolist()
    return [reference.captions[row][0] for row in rows]


def _evaluation(experiment: Experiment) -> Hook:
    """Return the hook that measures; without any evaluation, one that keeps what a task that paints nothing is for."""

    def evaluate(step: int, task: Task) -> dict[str, float]:
        if experiment.recipe.training.evaluate_every:
            with telling("evaluating"):
                return measure(experiment, task, step)
        if not experiment.is_system:
            task.save(experiment.run.folder)
        return {}

    return evaluate


def _train_encoder(recipe: Recipe, role: str, folder: Path) -> None:
    """Train the CLIP of a role, or what is left to train of it."""
    own = encoder_recipe(recipe, role)
    records = run_recipe(own, folder)
    for _ in progress(records, own.training.steps, f"{role} encoder") if this_process().is_main_process else records:
        pass
    this_process().wait_for_everyone()


def _environment(start: dict | None) -> dict:
    told = {} if start is None else {"start": start}
    return told | {
        "hardware": hardware(),
        "processes": this_process().num_processes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": versions(),
        "commit": commit(),
    }
