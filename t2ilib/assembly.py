"""From a recipe to its parts: pictures, encoders by role, and the task, ready to be trained or to paint."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from t2ilib import data, encoders, files, models, weights
from t2ilib.data.batches import Augment, Batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import this_process
from t2ilib.encoders.clip import build_encoder, describe
from t2ilib.encoders.contrastive import Contrastive
from t2ilib.encoders.encoder import CaptionFeatures, TextEncoder
from t2ilib.encoders.guidance import ClipGuidance
from t2ilib.encoders.vocabulary import check_reads, remarks
from t2ilib.errors import InputError, one_line, warn
from t2ilib.memory import check_memory, size_of
from t2ilib.metrics.judge_training import JudgeTraining
from t2ilib.task import System, Task
from t2ilib.training.checkpoints import check_encoders
from t2ilib.training.recipe import TRAINED_HERE, Recipe, load_recipe
from t2ilib.training.run import ENCODERS, Run

TASKS: dict[str, type[Task]] = {**models.SYSTEMS, "clip": Contrastive, "judge": JudgeTraining}
# what an encoder can be for; "start": a CLIP that is trained further
ROLES = ("text", "clip", "damsm", "judge", "start")
JUDGE = "judge"  # the one that is asked about finished pictures only
TRAINED_COPIES = 4  # of a network that is trained: weights, gradients, Adam's two moments
Stored = tuple[Mapping[str, Tensor], Mapping[str, Any], Path]  # tensors, about and path of a checkpoint


@dataclass
class Experiment:
    """What a recipe names, loaded."""

    recipe: Recipe
    run: Run
    training: CaptionedImages  # the split that is trained on
    reference: CaptionedImages  # the split that captions for samples and metrics are drawn from
    encoders: dict[str, TextEncoder]  # by role; frozen, on this process's device
    task: Task

    @property
    def is_system(self) -> bool:
        """Whether the task paints."""
        return isinstance(self.task, System)


def assemble(recipe: Recipe, folder: str | Path) -> Experiment:
    """Load pictures and encoders, build the task; the encoders that are trained for this run must be there already."""
    check(recipe)
    with this_process().main_process_first():
        dataset = data.load(recipe.data.source, recipe.data.size, **recipe.data.options)
        training, reference = dataset.split(recipe.data.split), reference_split(dataset, recipe)
        run = Run.create(folder, recipe) if this_process().is_main_process else Run.join(folder, recipe)
    found = {role: encoder.to(this_process().device) for role, encoder in load_encoders(recipe, run.folder).items()}
    _report_unread(recipe, run, found, training)
    run.encoders = {role: encoder.fingerprint for role, encoder in found.items() if role != JUDGE}
    _check_size(recipe, found)
    _check_kept(recipe, run, found)
    torch.manual_seed(recipe.training.seed)
    return Experiment(recipe, run, training, reference, found, build(recipe, found, training))


def _report_unread(recipe: Recipe, run: Run, found: Mapping[str, TextEncoder], training: CaptionedImages) -> None:
    """Say which captions the encoders cannot read; InputError where nothing could be learnt and nothing is yet."""
    captions, begun = list(chain.from_iterable(training.captions)), bool(run.checkpoints())
    lines = unread(recipe, found, captions, refuse=not begun)
    if this_process().is_main_process and not begun:
        for encoder in {id(encoder): encoder for role, encoder in found.items() if role != JUDGE}.values():
            lines += remarks(encoder, captions)
    for line in lines if this_process().is_main_process else ():
        warn(line)


def unread(
    recipe: Recipe, found: Mapping[str, TextEncoder], captions: Iterable[str], *, refuse: bool = True
) -> list[str]:
    """Return a line for each encoder (by role) that does not know some of the captions' words.

    With `refuse` InputError is raised where more is unknown than the recipe allows, except by an encoder that only
    scores: a run can be measured again by another.
    """
    lines, seen = [], []
    for role in sorted(found, key=lambda role: role == JUDGE):
        if found[role] not in seen:
            most = recipe.encoder(role)[1].unknown if refuse and role != JUDGE else 1.0
            lines.append(check_reads(role, found[role], captions, most))
        seen.append(found[role])
    return [line for line in lines if line]


def _check_kept(recipe: Recipe, run: Run, found: Mapping[str, TextEncoder]) -> None:
    """Raise InputError where the newest checkpoint is of other networks than the recipe's, before these are built."""
    for path in run.checkpoints()[-1:] if is_system(recipe) else ():
        try:
            stored = weights.shapes_of(path)
        except (SafetensorError, OSError):  # whoever reads it says so
            return
        network = TASKS[recipe.task].outline(model_values(recipe), found)
        for name, value in network.state_dict().items():
            if stored.get(name) != tuple(value.shape):
                told = f"{one_line(name)} is {stored.get(name, 'missing')}, not {tuple(value.shape)}"
                raise InputError(f"{path}: {told}, as this recipe's; resume with the recipe that wrote the checkpoint")


def check(recipe: Recipe, *, trained: bool = True) -> None:
    """Raise InputError for an unknown task, role or hyper-parameter, and for sizes that contradict each other.

    So it does for networks that find no room on this machine, be it to be trained or, without `trained`, to paint.
    """
    if recipe.task not in TASKS:
        raise InputError(f"{recipe.task}: no such task; choose among {', '.join(TASKS)}")
    if unknown := [role for role in recipe.encoders if role not in ROLES]:
        raise InputError(f"encoders: unknown role {', '.join(unknown)}; there are {', '.join(ROLES)}")
    side, given = recipe.data.side, recipe.model.get("image_size")
    if is_system(recipe) and given not in (None, side):
        raise InputError(
            f"model.image_size = {given}, but data.crop and data.size say {side}; drop it, or change those"
        )
    if recipe.clip.weight and not is_system(recipe):
        raise InputError(f"clip.weight: {recipe.task} paints nothing that a CLIP loss could score; leave it 0")
    config = TASKS[recipe.task].configure(model_values(recipe))
    TASKS[recipe.task].check_steps(config, recipe.training.steps)
    with suppress(LookupError, AttributeError):  # sizes that encoders decide: `assemble` looks again, with these
        _check_size(recipe, {}, trained)
    for role, chosen in recipe.encoders.items():
        own = encoder_recipe(recipe, role) if chosen.name == TRAINED_HERE else None
        try:
            check(own, trained=trained) if own else encoders.check_options(chosen.name, chosen.options)
        except InputError as error:
            raise InputError(f"encoders.{role}.options: {error}") from None
    owners = {role: recipe.encoder(role)[0] for role in TASKS[recipe.task].encoders}
    for owner in dict.fromkeys(owner for owner in owners.values() if recipe.encoder(owner)[1].name == TRAINED_HERE):
        encoder = _foreseen(recipe, owner)
        _check_size(recipe, {role: encoder for role in owners if owners[role] == owner}, trained)


def _foreseen(recipe: Recipe, role: str) -> TextEncoder:
    """Return the CLIP that is to be trained for the run, on the device "meta", without words: its sizes count."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build_encoder(describe(Contrastive.configure(encoder_recipe(recipe, role).model), ()))


def _check_size(recipe: Recipe, found: Mapping[str, TextEncoder], trained: bool = True) -> None:
    """Raise InputError for networks that are larger than the memory that is free, before they take any."""
    copies = TRAINED_COPIES if trained and not torch.accelerator.is_available() else 1
    size = copies * size_of(TASKS[recipe.task].outline(model_values(recipe), found))
    check_memory(size, f"model: {recipe.task} of these sizes", "choose smaller ones")


def is_system(recipe: Recipe) -> bool:
    """Whether the recipe's task paints."""
    return issubclass(TASKS[recipe.task], System)


def build(recipe: Recipe, found: Mapping[str, TextEncoder], dataset: CaptionedImages | None = None) -> Task:
    """Return the recipe's task with fresh weights, the CLIP loss included; `found` are its encoders by role."""
    task = TASKS[recipe.task].build(model_values(recipe), found, dataset)
    if recipe.clip.weight:
        task.guidance = ClipGuidance(found["clip"], **asdict(recipe.clip))
    return task


def model_values(recipe: Recipe) -> dict[str, Any]:
    """Return the hyper-parameters that the recipe gives; a system's pictures are as large as the data's."""
    return recipe.model | ({"image_size": recipe.data.side} if is_system(recipe) else {})


def build_system(recipe: Recipe, folder: Path | None, stored: Stored) -> tuple[System, dict[str, TextEncoder]]:
    """Return the recipe's system with fresh weights and its encoders by role, on the CPU, without any pictures.

    InputError names the file of what is `stored` where that is of other encoders or networks: before these are built.
    """
    check(recipe, trained=False)
    if not is_system(recipe):
        raise InputError(f"{recipe.task}: paints nothing; choose a run of {', '.join(models.SYSTEMS)}")
    found = load_encoders(recipe, folder, TASKS[recipe.task].encoders)
    painter_state(recipe, found, stored)
    return TASKS[recipe.task].build(model_values(recipe), found), found


def painter_state(
    recipe: Recipe, found: Mapping[str, TextEncoder], stored: Stored, *, halved: bool = False
) -> dict[str, Tensor]:
    """Return the entries of a checkpoint that paint, the moving average where there is one; with `halved` as exported.

    InputError names the file and the entry that does not fit the recipe's networks, or is not sound, and the encoders
    (by role) that it was not trained with.
    """
    tensors, about, path = stored
    digests, names = ({role: getattr(one, key) for role, one in found.items()} for key in ("fingerprint", "name"))
    check_encoders(digests, about, path, names)
    task = TASKS[recipe.task]
    network = getattr(task.outline(model_values(recipe), found), task.averaged)
    part = "ema." if any(name.startswith("ema.") for name in tensors) else f"{task.averaged}."
    own = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
    remedy = "take another checkpoint, or one that this recipe wrote"
    if halved:
        return weights.exportable(own, network, path, remedy)
    if wrong := weights.fault(own, network):
        raise InputError(f"{path}: {part}{wrong}; {remedy}")
    return own


def trained_state(recipe: Recipe, found: Mapping[str, TextEncoder], stored: Stored) -> dict[str, Tensor]:
    """Return the entries of all trained networks of a checkpoint in half precision, as exported whole."""
    tensors, _, path = stored
    outline, state = TASKS[recipe.task].outline(model_values(recipe), found), {}
    for role in TASKS[recipe.task].trained:
        own = {key.removeprefix(f"{role}."): value for key, value in tensors.items() if key.startswith(f"{role}.")}
        if not own:
            raise InputError(f"{path}: holds no {role}; give a checkpoint of a run")
        small = weights.exportable(own, getattr(outline, role), path, "give a checkpoint of a run")
        state |= {f"{role}.{key}": value for key, value in small.items()}
    return state


def load_encoders(recipe: Recipe, folder: Path | None, roles: tuple[str, ...] = ()) -> dict[str, TextEncoder]:
    """Return the encoders of `roles`, by default of all that a run needs; roles of one encoder share it."""
    needed = roles or tuple(dict.fromkeys((*TASKS[recipe.task].encoders, *recipe.encoders)))
    if is_system(recipe) and not roles:
        needed = tuple(dict.fromkeys((*needed, "judge", *(["clip"] if recipe.clip.weight else []))))
    owners = {role: recipe.encoder(role)[0] for role in needed}
    loaded = {owner: load_encoder(recipe, owner, folder) for owner in dict.fromkeys(owners.values())}
    return {role: loaded[owner] for role, owner in owners.items()}


def load_encoder(recipe: Recipe, role: str, folder: Path | None) -> TextEncoder:
    """Return the encoder that serves `role`, on the CPU; one that was trained for the run lies in its folder."""
    owner, settings = recipe.encoder(role)
    if settings.name != TRAINED_HERE:
        return encoders.load_encoder(settings.name, **settings.options)
    if folder is None:
        raise InputError(f"encoders.{owner}: {TRAINED_HERE} lies in the run folder, with its weights; give the folder")
    return encoders.load_encoder(str(folder / ENCODERS / owner))


def encoder_recipe(recipe: Recipe, role: str) -> Recipe:
    """Return the recipe of the CLIP that is trained for a run: its pictures, and the options that the role gives."""
    options, where = dict(recipe.encoders[role].options), f"encoders.{role}.options"
    pictures = {f"data.{key}": getattr(recipe.data, key) for key in ("source", "size", "split", "reference", "options")}
    if both := [key for key in options if key in pictures]:
        raise InputError(f"{where}: {', '.join(both)} is the run's own; leave it out")
    name = options.pop("recipe", "clip_small")
    if not isinstance(name, str):
        raise InputError(f"{where}: recipe = {name!r} is no name of a recipe")
    try:
        found = load_recipe(name).override(**pictures, **options)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if found.task != "clip":
        raise InputError(f"{where}: a recipe of {found.task}, which is no encoder; choose one of clip")
    return found


def make_batches(experiment: Experiment) -> Batches:
    """Return the experiment's batches for this process, captions encoded once and kept under DATA/text."""
    recipe, process, features, targets = experiment.recipe, this_process(), None, None
    with process.main_process_first():
        if "text" in type(experiment.task).encoders:
            features = encoded(experiment.encoders["text"], experiment.training, experiment.task.needs.words)
        if recipe.clip.weight:
            targets = encoded(experiment.encoders["clip"], experiment.training)
    return Batches(
        experiment.training,
        features,
        experiment.task.config.batch_size,
        process.device,
        needs=experiment.task.needs,
        targets=targets,
        augment=Augment(recipe.data.crop or None, recipe.data.flip, recipe.data.shift),
        seed=recipe.training.seed,
        rank=process.process_index,
        world=process.num_processes,
    )


def encoded(encoder: TextEncoder, dataset: CaptionedImages, words: bool = False) -> CaptionFeatures:
    """Return the features of all captions, from the cache where they lie there."""
    return encoders.encode_dataset(encoder, dataset, cache_folder=files.DATA / "text", words=words)


def reference_split(dataset: CaptionedImages, recipe: Recipe, split: str | None = None) -> CaptionedImages:
    """Return the split that is measured against, cut to the size that the system draws."""
    reference = dataset.split(split or recipe.data.reference)
    return reference.centre_crop(recipe.data.crop) if recipe.data.crop else reference
