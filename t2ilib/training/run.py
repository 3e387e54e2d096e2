"""The run folder: everything that a run writes, and all that is needed to continue it.

config.yaml        the resolved recipe
environment.json   hardware, versions, commit, command
records.jsonl      one line per `log_every` steps
samples/           grids of fixed captions and noise
checkpoints/       the last two
results/           one JSON file per evaluation
encoders/          by role: the run folders of encoders that were trained for this run
tensorboard/       the same records for TensorBoard
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.files import RUNS, atomic, write_text
from t2ilib.training.checkpoints import check_encoders, read_checkpoint, write_checkpoint
from t2ilib.training.recipe import Recipe, load_recipe, plain, recipe_from

KEPT = 2
ENCODERS = "encoders"


class Run:
    """A run folder; `Run.create` makes or continues one, `Run.open` reads one."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.encoders: dict[str, str] = {}  # role -> fingerprint of what it is trained with, where that is known

    @classmethod
    def create(cls, folder: str | Path, recipe: Recipe) -> "Run":
        """Make the folder, or continue it when its recipe is the same but for the number of steps.

        Raises InputError when the folder holds a run of another recipe, unless that one never took a step.
        """
        run = cls(folder)
        config = run.folder / "config.yaml"
        if config.is_file() and (run.records() or run.checkpoints()) and not same(recipe, load_recipe(config)):
            raise InputError(f"{run.folder}: holds a run of another recipe; choose another folder or remove it")
        write_text(config, recipe.to_yaml())
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run by path, or by its name under the folder of runs."""
        for candidate in (Path(folder), RUNS / folder):
            if (candidate / "config.yaml").is_file():
                return cls(candidate)
        raise InputError(f"{folder}: not a run folder (no config.yaml); runs lie in {RUNS}")

    @classmethod
    def branch(cls, source: str | Path, folder: str | Path) -> "Run":
        """Make a run in `folder` that goes on from a checkpoint, or from the newest one of another run.

        The checkpoint says with which recipe; encoders that were trained for the old run come along. Raises InputError
        for a file that is no whole checkpoint with optimisers, and for a folder that holds a run already.
        """
        source = Path(source)
        path = source if source.suffix == ".safetensors" else next(iter(cls.open(source).checkpoints()[::-1]), None)
        if path is None:
            raise InputError(f"{source}: has no checkpoint yet; train it first")
        tensors, about = read_checkpoint(path)
        if not any(name.startswith("optimizer.") for name in tensors):
            raise InputError(f"{path}: holds a generator alone, without optimisers; give a checkpoint of a run")
        folder = Path(folder)
        if (folder / "config.yaml").is_file():
            raise InputError(f"{folder}: holds a run already; choose another folder")
        copy = folder / "checkpoints" / f"step_{about['step']:08d}.safetensors"
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (path.parent.parent / ENCODERS).is_dir():
            shutil.copytree(path.parent.parent / ENCODERS, folder / ENCODERS)
        with atomic(copy) as temporary:
            shutil.copyfile(path, temporary)
        run = cls.create(folder, recipe_from(about["recipe"], str(path)))
        if record := about.get("record"):
            run.append(record)
        return run

    @property
    def recipe(self) -> Recipe:
        """The recipe that the folder was written with."""
        return load_recipe(self.folder / "config.yaml")

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
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "records.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget_after(self, step: int) -> None:
        """Drop the records later than `step`: the run continues from there."""
        kept = [record for record in self.records() if record["step"] <= step]
        write_text(self.folder / "records.jsonl", "".join(json.dumps(record) + "\n" for record in kept))

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        found = (self.folder / "checkpoints").glob("step_*.safetensors")
        return sorted(path for path in found if re.fullmatch(r"step_[0-9]{8,}", path.stem))

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping) -> Path:
        """Write the checkpoint of `step`, then remove all but the last two."""
        path = self.folder / "checkpoints" / f"step_{step:08d}.safetensors"
        told = {"step": step, "recipe": plain(self.recipe), "encoders": self.encoders}
        write_checkpoint(path, tensors, {**about, **told})
        for old in self.checkpoints()[:-KEPT]:
            old.unlink()
        return path

    def restore(self) -> tuple[dict[str, Tensor], dict, Path] | None:
        """Return tensors, `about` and path of the newest whole checkpoint, or None when there is none.

        A damaged newest file is passed over for the one before it; when none is whole, the InputError says so.
        """
        damage = None
        for path in reversed(self.checkpoints()):
            try:
                tensors, about = read_checkpoint(path)
            except InputError as error:
                damage = damage or error
                continue
            if not same(recipe_from(about["recipe"], str(path)), self.recipe):
                raise InputError(
                    f"{self.folder / 'config.yaml'}: says something else than {path}; put it back, or go on from the "
                    "checkpoint in a new folder (t2i resume CHECKPOINT --folder NEW)"
                )
            check_encoders(self.encoders, about, path)
            return tensors, about, path
        if damage:
            raise damage
        return None


def same(recipe: Recipe, other: Recipe) -> bool:
    """Whether two recipes decide the same run, however many steps it shall have and whatever is said about it."""
    return plain(recipe.override(**{"training.steps": other.training.steps, "about": other.about})) == plain(other)
