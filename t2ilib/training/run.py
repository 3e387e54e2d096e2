"""The run folder: everything that a run writes, and all that is needed to continue it.

config.yaml        the resolved recipe
environment.json   hardware, versions, commit, and which weights it began with
records.jsonl      one line per `log_every` steps
samples/           grids of fixed captions and noise
checkpoints/       the last two
results/           one JSON file per evaluation
encoders/          by role: the run folders of encoders that were trained for this run
tensorboard/       the same records for TensorBoard
process            locked by the process that trains here, and its number (see lock.py)
log.txt            what a process in the background printed, the first of several; log_1.txt and so on: the others
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from t2ilib.errors import InputError, one_line, unwritten, warn
from t2ilib.files import RUNS, atomic, no_link, read_json, write_json, write_text
from t2ilib.training.bar import telling
from t2ilib.training.checkpoints import check_encoders, read_about, read_checkpoint, write_checkpoint
from t2ilib.training.lock import CONFIG, writing
from t2ilib.training.recipe import Recipe, load_recipe, plain, recipe_from

KEPT = 2
ENCODERS, CHECKPOINTS, ENVIRONMENT = "encoders", "checkpoints", "environment.json"
ABSENT = "absent"
# keys that two recipes of one run may differ in
FREE = ("about", *(f"training.{name}" for name in ("steps", "sample_every", "checkpoint_every", "evaluate_every")))
SHOWN, LETTERS = 5, 60  # differences that a message tells, and letters of a value


def recorded_start(folder: Path) -> dict | None:
    """Return source, step and SHA-256 of the weights that the run in `folder` began with, as it noted; None: random.

    Raises InputError for a damaged note.
    """
    path, remedy = folder / ENVIRONMENT, "remove it, the run goes on without"
    found = read_json(path, remedy) if path.exists() else {}
    start = found.get("start") if isinstance(found, dict) else found
    if not isinstance(start, dict | None) or not isinstance(found, dict):
        raise InputError(f"{path}: damaged (it must be a mapping, and so must its start); {remedy}")
    return start


class Run:
    """A run folder; `Run.create` makes or continues one, `Run.open` reads one."""

    def __init__(self, folder: str | Path, checkpoint: Path | None = None):
        self.folder, self.checkpoint = Path(folder), checkpoint
        self.known: Recipe | None = None  # the recipe, where it was made for this run: the file may be edited meanwhile
        self.encoders: dict[str, str] = {}  # role -> fingerprint of what it is trained with, where that is known

    @classmethod
    def create(cls, folder: str | Path, recipe: Recipe) -> "Run":
        """Make the folder, or continue it when its recipe is the same but for the number of steps.

        Raises InputError, naming the keys, when the folder holds a run of another recipe, unless that one never took a
        step; and when more steps are done than `recipe` asks for, or their checkpoints are gone.
        """
        run = cls(folder)
        config = run.folder / CONFIG
        old = load_recipe(config) if config.is_file() else None
        if old and (run.records() or run.checkpoints()):
            run.check_continues(recipe, old)
            if not run.checkpoints():
                run.forget_after(0)  # it begins anew
        write_text(config, recipe.to_yaml())
        run.known = recipe
        return run

    @classmethod
    def join(cls, folder: str | Path, recipe: Recipe) -> "Run":
        """Return the run that another process of the same training has created."""
        run = cls(folder)
        run.known = recipe
        return run

    def check_continues(self, recipe: Recipe, old: Recipe) -> None:
        """Raise InputError where a run of the recipe `old` cannot be continued with `recipe`."""
        if found := differences(old, recipe):
            raise InputError(
                f"{self.folder}: holds a run of another recipe ({told(found, 'there', 'now')}); "
                "set them as they are there (--set), or choose another folder (--folder)"
            )
        self.check_kept(old)
        done = max(map(step_of, self.checkpoints()), default=0)
        if recipe.training.steps < done:
            raise _too_few(self.folder, done, recipe)

    def check_kept(self, recipe: Recipe) -> None:
        """Raise InputError where the records tell of checkpoints that are not there: nothing is begun over them."""
        every, steps = recipe.training.checkpoint_every, recipe.training.steps
        if (self.folder / CHECKPOINTS).exists() and not (self.folder / CHECKPOINTS).is_dir():
            raise InputError(f"{self.folder / CHECKPOINTS}: is no folder; remove it, or choose another run folder")
        due = [r["step"] for r in self.records() if r["step"] == steps or (every and r["step"] % every == 0)]
        if due and not self.checkpoints():
            raise InputError(
                f"{self.folder / 'checkpoints'}: is empty, but records.jsonl tells of step {due[-1]}; put the "
                "checkpoints back, or begin anew in another folder (--folder)"
            )

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run by path, by its name under the folder of runs, or as it was at one of its checkpoints.

        The checkpoint may lie anywhere: beside it there are no encoders then.
        """
        path = Path(folder)
        if path.suffix == ".safetensors":
            return cls(path.parent.parent if path.parent.name == CHECKPOINTS else path.parent, path)
        for candidate in (path, RUNS / folder):
            if (candidate / CONFIG).is_file():
                return cls(candidate)
        raise InputError(f"{folder}: not a run folder (no config.yaml); runs lie in {RUNS}")

    @classmethod
    def branch(cls, source: str | Path, folder: str | Path, steps: int | None = None) -> "Run":
        """Make a run in `folder` that goes on from a checkpoint, or from the newest one of another run.

        The checkpoint says with which recipe, but for the number of `steps` if one is given. Encoders that were trained
        for the old run come along, and the note of which weights it began with. Raises InputError for a file that is no
        whole checkpoint with optimisers, for fewer steps than it has done, and for a folder that holds a run already.
        """
        tensors, about, path = cls.open(source).newest_whole()
        if not any(name.startswith("optimizer.") for name in tensors):
            raise InputError(f"{path}: holds a generator alone, without optimisers; give a checkpoint of a run")
        recipe = recipe_from(about["recipe"], str(path))
        recipe = recipe if steps is None else recipe.override(**{"training.steps": steps})
        if recipe.training.steps < about["step"]:
            raise _too_few(path, about["step"], recipe)
        folder = Path(folder)
        if (folder / CONFIG).is_file():
            raise InputError(f"{folder}: holds a run already; choose another folder")
        copy = folder / CHECKPOINTS / f"step_{about['step']:08d}.safetensors"
        start = recorded_start(path.parent.parent)
        with writing(folder):
            try:
                if (path.parent.parent / ENCODERS).is_dir():
                    shutil.copytree(path.parent.parent / ENCODERS, folder / ENCODERS, dirs_exist_ok=True)
            except OSError as error:
                raise unwritten(folder, error, f"{path} is unchanged; make room, or choose another folder") from error
            with atomic(copy) as temporary:
                shutil.copyfile(path, temporary)
            run = cls.create(folder, recipe)
            if start:
                write_json(folder / ENVIRONMENT, {"start": start})
            if record := about.get("record"):
                run.append(record)
        return run

    @property
    def recipe(self) -> Recipe:
        """The recipe that the folder was written with."""
        return self.known or load_recipe(self.folder / CONFIG)

    def records(self) -> list[dict]:
        """Return the records so far; a last line that a kill cut short is left out."""
        path = self.folder / "records.jsonl"
        if not path.is_file():
            return []
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            found = [json.loads(line) for line in lines if line]
        except (ValueError, RecursionError, OSError) as error:
            raise InputError(f"{path}: damaged ({error}); remove it, the checkpoints are enough to go on") from None
        for number, record in enumerate(found, 1):
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                raise InputError(
                    f"{path}: line {number} is no record; remove the file, the checkpoints are enough to go on"
                )
        return found

    def append(self, record: Mapping) -> None:
        """Add one record to `records.jsonl`."""
        path = self.folder / "records.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8", opener=no_link) as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritten(path, error, "checkpoints are safe; make room, the run goes on") from error

    def forget_after(self, step: int) -> None:
        """Drop the records later than `step`: the run continues from there."""
        kept = [record for record in self.records() if record["step"] <= step]
        write_text(self.folder / "records.jsonl", "".join(json.dumps(record) + "\n" for record in kept))

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        if self.checkpoint:
            return [self.checkpoint]
        found = (self.folder / CHECKPOINTS).glob("step_*.safetensors")
        return sorted(path for path in found if re.fullmatch(r"step_[0-9]{8,}", path.stem))

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping) -> Path:
        """Write the checkpoint of `step`, then remove all but the last two; later ones are damaged, and renamed."""
        path = self.folder / CHECKPOINTS / f"step_{step:08d}.safetensors"
        details = {**about, "step": step, "recipe": plain(self.recipe), "encoders": self.encoders}
        with telling("writing"):
            write_checkpoint(path, tensors, details)
        there = self.checkpoints()
        for damaged in there[there.index(path) + 1 :]:  # else the run would have gone on from it
            damaged.replace(damaged.with_suffix(".damaged"))
        for old in there[: there.index(path) + 1][:-KEPT]:
            old.unlink()
        return path

    def restore(self) -> tuple[dict[str, Tensor], dict, Path] | None:
        """Return tensors, `about` and path of the newest whole checkpoint, or None when there is none.

        InputError when all are damaged or gone, and when the folder's recipe is no longer theirs.
        """
        if not self.checkpoints():
            self.check_kept(self.recipe)
            return None
        tensors, about, path = self.newest_whole()
        if not self.checkpoint:
            self._check_recipe(about, path)
        check_encoders(self.encoders, about, path)
        return tensors, about, path

    def check_recipe(self) -> None:
        """Raise InputError where config.yaml says something else than the newest checkpoint that can be read."""
        for path in reversed(self.checkpoints()):
            try:
                about = read_about(path)
            except InputError:  # `restore` tells of it, and takes the one before
                continue
            self._check_recipe(about, path)
            return

    def _check_recipe(self, about: Mapping, path: Path) -> None:
        if found := differences(recipe_from(about["recipe"], str(path)), self.recipe):
            raise InputError(
                f"{self.folder / CONFIG}: says something else than {path} "
                f"({told(found, 'there', 'now')}); put it back, or go on from the checkpoint in a new folder "
                "(t2i resume CHECKPOINT --folder NEW)"
            )

    def newest_whole(self) -> tuple[dict[str, Tensor], dict, Path]:
        """Return tensors, `about` and path of the newest whole checkpoint.

        A damaged newest file is passed over for the one before it, and a warning says so; when none is whole, the
        InputError is that of the newest, and of a run without any it says so.
        """
        damage = None
        for path in reversed(self.checkpoints()):
            try:
                tensors, about = read_checkpoint(path)
            except InputError as error:
                damage = damage or error
                continue
            if damage:
                warn(f"{damage}; {path.name} is used instead")
            return tensors, about, path
        raise damage or InputError(f"{self.folder}: has no checkpoint yet; train it first")


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint's name tells."""
    return int(checkpoint.stem.removeprefix("step_"))


def same(recipe: Recipe, other: Recipe) -> bool:
    """Whether two recipes decide the same run."""
    return not differences(recipe, other)


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two recipes decide another run, with both values; ABSENT where one lacks it.

    How many steps it shall have, how often it is looked at, and what is said about it, decide nothing.
    """
    flat, other = (dict(_flat(plain(recipe))) for recipe in (old, new))
    keys = [key for key in (flat | other) if key not in FREE]
    holders = {key[:place] for key in keys for place, letter in enumerate(key) if letter == "."}
    pairs = {key: (flat.get(key, ABSENT), other.get(key, ABSENT)) for key in keys if key not in holders}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def told(found: Mapping[str, tuple[Any, Any]], before: str, after: str) -> str:
    """Say differences in a few words: `training.seed: 0 there, 1 now`."""
    shown = [f"{key}: {_short(old)} {before}, {_short(new)} {after}" for key, (old, new) in found.items()]
    return "; ".join(shown[:SHOWN]) + (f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")


def _too_few(where: Path, done: int, recipe: Recipe) -> InputError:
    return InputError(
        f"{where}: {done} steps are done, training.steps = {recipe.training.steps} are fewer; give more (--steps), or "
        "choose another folder (--folder)"
    )


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    return ABSENT if value is ABSENT else one_line(repr(value), LETTERS)
