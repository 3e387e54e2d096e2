"""Trained systems, ready for captions: from a run folder or from shipped weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ilib import assembly
from t2ilib.encoders import TextEncoder
from t2ilib.errors import InputError, one_line, warn
from t2ilib.files import WEIGHTS, sha256
from t2ilib.provenance import relative
from t2ilib.released import is_released, open_released, released_file
from t2ilib.sampler import Sampler, placed
from t2ilib.task import System, Task
from t2ilib.training.checkpoints import check_encoders, load_module, read_checkpoint
from t2ilib.training.recipe import TRAINED_HERE, Recipe, plain, recipe_from
from t2ilib.training.run import ENCODERS, Run
from t2ilib.weights import check_exportable, copy_network, fault, save_tensors

START = "training.start"  # the key that names weights to begin with
ANOTHER = "name another start"
PATH = 300  # letters of a path that a message shows: its end says most
OTHER_SIZES = f"set model and data.size as in that file's recipe, or {ANOTHER}"


def load_sampler(source: str | Path, device: torch.device | str | None = None) -> Sampler:
    """Return the sampler of a run (folder or name), a checkpoint file, or shipped weights by name (`gancls_toy`).

    "dfgan:FILE" and "galip:FILE" are checkpoints that the authors released (`t2ilib.released`). It lies on `device`, by
    default the accelerator where there is one. Raises InputError when there is no such source, and names a file that is
    damaged.
    """
    if is_released(source):
        return open_released(str(source), device)
    path, folder = weights_file(source)
    tensors, about = read_checkpoint(path)
    recipe = recipe_from(about["recipe"], str(path))
    if folder is None and recipe.encoder("text")[1].name == TRAINED_HERE:
        raise InputError(
            f"{path}: reads with an encoder that was trained for its run, in {beside(path)}, which is missing; put "
            "that folder beside the file, export the run again (t2i export writes both), or give the run folder"
        )
    system, encoders = assembly.build_system(recipe, folder, (tensors, about, path))
    part = "ema" if any(name.startswith("ema.") for name in tensors) else system.averaged
    load_module(getattr(system, system.averaged), part, _floats(tensors, part), path)
    return placed(Sampler(system, encoders["text"], recipe, about["step"], folder), device)


def weights_told(source: str | Path) -> dict[str, str]:
    """Return which weights a source names, for result files: their file and its SHA-256; raises as `load_sampler`."""
    path = released_file(str(source))[1] if is_released(source) else weights_file(source)[0]
    return {"weights": relative(path), "weights_sha256": sha256(path)}


def beside(path: Path) -> Path:
    """Return the folder, beside an exported system, of the encoders that were trained for its run."""
    return path.with_suffix(".parts")


def check_start(recipe: Recipe) -> dict[str, Any]:
    """Return source, step and SHA-256 of the weights that a recipe's training begins with, before anything is written.

    InputError, naming training.start, where nothing whole is there, and where it is of another task, other networks or
    other encoders; those that are trained for a run, which are not there yet, must be set alike in both recipes.
    """
    kind, source = assembly.TASKS[recipe.task], recipe.training.start
    tensors, about, path = _stored_start(source, kind)
    there = recipe_from(about["recipe"], f"{START}: {path}")
    found = _readers_of_start(recipe, there, path)
    _check_readers(found, about, path)
    own = kind.outline(assembly.model_values(recipe), found)
    if len(found) == len(kind.encoders) and assembly.is_system(recipe):
        for role in kind.trained:
            _check_fits(tensors, role, getattr(own, role), path)
    else:  # nobody knows yet how many words there are, or how long a sentence's vector is
        other = kind.outline(assembly.model_values(there), found)
        sizes, theirs = ({key: value.shape for key, value in one.state_dict().items()} for one in (own, other))
        if sizes != theirs or not (sizes or recipe.data.side == there.data.side):  # the judge's follow the pictures'
            raise InputError(f"{START}: {path}: holds networks of other sizes; {OTHER_SIZES}")
    return {"source": source, "step": about["step"], "sha256": sha256(path)}


def load_start(task: Task, source: str | Path, found: Mapping[str, TextEncoder]) -> None:
    """Give all networks that `task` trains the weights of a checkpoint, or of a file exported whole.

    `found` are the encoders by role; those that the task reads with must be those that the weights were trained with.
    Optimisers and step are left alone. InputError names a file that holds a generator alone, or other networks.
    """
    tensors, about, path = _stored_start(source, type(task))
    _check_readers({role: found[role] for role in task.encoders if role in found}, about, path)
    for role in task.trained:
        _check_fits(tensors, role, getattr(task, role), path)
    for role in task.trained:
        load_module(getattr(task, role), role, _floats(tensors, role), path)


def _stored_start(source: str | Path, kind: type[Task]) -> assembly.Stored:
    """Return tensors, `about` and path of weights to begin with; they must be all that this kind of task trains."""
    try:
        path, _ = weights_file(source)
        tensors, about = read_checkpoint(path)
        held = recipe_from(about["recipe"], str(path)).task
    except InputError as error:
        raise InputError(f"{START}: {error}") from None
    names = {other: name for name, other in assembly.TASKS.items()}
    if kind in names and held != names[kind]:
        raise InputError(f"{START}: {path} holds {held}, not {names[kind]}; name weights of {names[kind]}")
    for role in kind.trained:
        if not any(name.startswith(f"{role}.") for name in tensors):
            whole = ", or a file of t2i export --whole" if issubclass(kind, System) else ""
            raise InputError(f"{START}: {path}: holds no {role}; name a run, or a checkpoint{whole}")
    return tensors, about, path


def _readers_of_start(recipe: Recipe, there: Recipe, path: Path) -> dict[str, TextEncoder]:
    """Return the encoders, by role, that a recipe's task reads with and that are there before it is trained.

    InputError where one is still to be trained, and not as the recipe of the weights in `path` says.
    """
    found = {}
    for role in assembly.TASKS[recipe.task].encoders:
        (owner, mine), (theirs, its) = recipe.encoder(role), there.encoder(role)
        if mine.name != TRAINED_HERE:
            found[role] = assembly.load_encoder(recipe, role, None)
        elif its.name != TRAINED_HERE or (
            assembly.encoder_recipe(recipe, owner) != assembly.encoder_recipe(there, theirs)
        ):
            raise InputError(
                f"{START}: {path}: was trained with another {role} encoder than encoders.{owner} trains; "
                f"set encoders.{owner} and data as in that file's recipe, or {ANOTHER}"
            )
    return found


def _check_readers(found: Mapping[str, TextEncoder], about: Mapping, path: Path) -> None:
    """Raise InputError where weights to begin with were trained with other encoders than these, by role."""
    digests, names = ({role: getattr(one, key) for role, one in found.items()} for key in ("fingerprint", "name"))
    try:
        check_encoders(digests, about, path, names, "set encoders.{role} to the encoder of that file, or " + ANOTHER)
    except InputError as error:
        raise InputError(f"{START}: {error}") from None


def _check_fits(tensors: Mapping[str, Tensor], role: str, network: nn.Module, path: Path) -> None:
    """Raise InputError where the entries of a role do not fit its network, or are not sound."""
    own = {name.removeprefix(f"{role}."): value for name, value in tensors.items() if name.startswith(f"{role}.")}
    if wrong := fault(own, network):
        raise InputError(f"{START}: {path}: {role}.{wrong}; {OTHER_SIZES}")


def _floats(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the entries `part.*`, those of half precision in float32."""
    own = {name: value for name, value in tensors.items() if name.startswith(f"{part}.")}
    return {name: value.float() if value.dtype == torch.half else value for name, value in own.items()}


def export(run: Run, path: str | Path, about: str, whole: bool = False) -> Path:
    """Write the averaged generator of `run`'s newest checkpoint alone, in half precision, to `path`.

    `whole` writes all trained networks in its place, as they are, for other training to begin with.

    `about` is stored with it: what it was trained on, how long, with which result; so are the fingerprints of the
    encoders that it reads with, without which it would paint something else. Of a task that is no system (a CLIP,
    the judge) the folder is written that its readers expect, as the run last measured it; it has no place for `about`.
    An encoder that was trained for the run goes into a folder beside the file, which a warning names.
    """
    path, restored = Path(path), run.restore()
    if restored is None:
        raise InputError(f"{run.folder}: has no checkpoint yet; train it first")
    _, details, source = restored
    recipe = recipe_from(details["recipe"], str(source))
    paints = assembly.is_system(recipe)
    if paints != (path.suffix == ".safetensors"):
        raise InputError(f"{path}: give a .safetensors file for a system, a folder for an encoder or the judge")
    if any(map(_is_run, (path, beside(path), *path.absolute().parents))):
        raise InputError(f"{path}: lies in a run folder, whose files it could replace; choose another place")
    if not paints:
        if about:
            raise InputError(f"about: {recipe.task} is written without such a line; leave it out")
        if whole:
            raise InputError(f"whole: {recipe.task} is always written whole; leave it out")
        copy_network(run.folder, path)
        return path
    check_exportable(path)
    used = {role: assembly.load_encoder(recipe, role, run.folder) for role in assembly.TASKS[recipe.task].encoders}
    digests = {role: encoder.fingerprint for role, encoder in used.items()}
    state = assembly.painter_state(recipe, used, restored, halved=True)
    small = {f"ema.{name}": value for name, value in state.items()}
    if whole:
        small = assembly.trained_state(recipe, used, restored)
    details = {"recipe": plain(recipe), "step": details["step"], "about": about, "encoders": digests}
    own = {owner for owner, settings in map(recipe.encoder, used) if settings.name == TRAINED_HERE}
    for owner in own:
        copy_network(run.folder / ENCODERS / owner, beside(path) / ENCODERS / owner)
    save_tensors(path, small, {"t2ilib": json.dumps(details)})
    if own:
        warn(f"{path} reads with the encoder in {beside(path)}; whoever gets the file needs that folder beside it")
    return path


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's: many a folder holds a config.yaml of something else."""
    try:
        return (folder / "config.yaml").is_file() and bool(Run(folder).checkpoints() or Run(folder).recipe)
    except InputError:
        return False


def weights_file(source: str | Path) -> tuple[Path, Path | None]:
    """Return the weights file of `source`, of a run its newest whole checkpoint, and its encoders' folder, if any.

    InputError where nothing of that name is there.
    """
    try:
        found = _file_named(source)
    except OSError as error:  # a name that no file system takes
        raise InputError(f"{one_line(source, PATH)}: {error.strerror or error}; {_shipped()}") from None
    if found:
        return found
    try:
        run = Run.open(source)
    except InputError:
        raise InputError(
            f"{one_line(source, PATH)}: no run, checkpoint or shipped weights of that name; {_shipped()}"
        ) from None
    return run.newest_whole()[2], run.folder


def _file_named(source: str | Path) -> tuple[Path, Path | None] | None:
    """Return the file that `source` names itself, and its encoders' folder; None where it may name a run."""
    shipped, path = WEIGHTS / f"{source}.safetensors", Path(source)
    if shipped.is_file():
        return shipped, None
    if path.suffix != ".safetensors":
        return None
    if not path.is_file():
        raise InputError(f"{one_line(source, PATH)}: {'is no file' if path.exists() else 'no such file'}; {_shipped()}")
    if beside(path).is_dir():
        return path, beside(path)
    return path, path.parent.parent if path.parent.name == "checkpoints" else None


def _shipped() -> str:
    """Say what can be named instead."""
    return f"shipped: {', '.join(sorted(path.stem for path in WEIGHTS.glob('*.safetensors')))}"
