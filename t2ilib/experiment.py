"""From a recipe to a trained and measured run: data, text features, system, loop, samples, results.

The command line, `notebooks/train.ipynb` and the chapters all start runs here.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from t2ilib import data, files, models, text
from t2ilib.data.batches import Augment, Batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.files import write_json, write_text
from t2ilib.metrics import evaluate as evaluation
from t2ilib.metrics.attributes import load_judge
from t2ilib.metrics.results import commit, hardware, write_result
from t2ilib.plots import contact_sheet
from t2ilib.sampling import Sampler, load_recipe_encoder, model_config
from t2ilib.text.contrastive import ClipConfig, train_clip
from t2ilib.text.guidance import ClipGuidance
from t2ilib.training import Recipe, Run, Samples, train
from t2ilib.training.loop import Generate, this_process

ROLES = ("text", "clip", "evaluation")  # groups of a recipe that may name an encoder
GRID = (8, 4)  # captions, pictures per caption in the periodic grid


@dataclass
class Experiment:
    """What a recipe names, loaded: ready to train."""

    recipe: Recipe
    run: Run
    dataset: CaptionedImages  # the split that is trained on
    reference: CaptionedImages  # the split that captions for samples and metrics are drawn from
    encoder: text.TextEncoder
    system: models.System
    judge_encoder: text.TextEncoder  # R-precision and CLIP score are measured with


def prepare(recipe: Recipe, folder: str | Path) -> Experiment:
    """Load data and text encoder (training a small CLIP first where the recipe asks for one) and build the system."""
    with this_process().main_process_first():
        dataset = data.load(recipe.data.source, recipe.data.size, **recipe.data.options)
        training, reference = dataset.split(recipe.data.split), _reference(dataset, recipe)
        run = Run.create(folder, recipe)
        for role in ROLES:
            if getattr(recipe, role).encoder == "contrastive":
                _train_encoder(recipe, role, training, run.folder / role)
    named = [role for role in ROLES if role == "text" or getattr(recipe, role).encoder]
    found = {role: load_recipe_encoder(recipe, run.folder, role).to(this_process().device) for role in named}
    encoders = [found.get(role, found["text"]) for role in ROLES]
    torch.manual_seed(recipe.training.seed)
    system = models.build(recipe.system, **model_config(recipe, encoders[0]))
    if recipe.clip.weight:
        settings = {key: value for key, value in asdict(recipe.clip).items() if key not in ("encoder", "options")}
        system.guidance = ClipGuidance(encoders[1], **settings)
    return Experiment(recipe, run, training, reference, encoders[0], system, encoders[2])


def run_recipe(recipe: Recipe, folder: str | Path, n: int = 1000) -> Iterator[dict]:
    """Train `recipe` in `folder`, continuing where the folder stopped, and yield the records of the loop.

    Writes environment, grids of fixed captions, checkpoints, and a results file of `n` pictures per evaluation.
    """
    experiment = prepare(recipe, folder)
    process = this_process()
    if process.is_main_process:
        write_json(experiment.run.folder / "environment.json", _environment(process))
    with process.main_process_first():
        cache, words = files.DATA / "text", recipe.text.words
        features = text.encode_dataset(experiment.encoder, experiment.dataset, cache_folder=cache, words=words)
        targets = None
        if experiment.system.guidance:
            teacher = experiment.system.guidance.encoder
            targets = text.encode_dataset(teacher, experiment.dataset, cache_folder=cache)
    batches = Batches(
        experiment.dataset,
        features,
        experiment.system.config.batch_size,
        process.device,
        seed=recipe.training.seed,
        augment=Augment(recipe.data.crop or None, recipe.data.flip),
        targets=targets,
        rank=process.process_index,
        world=process.num_processes,
    )
    yield from train(
        experiment.system,
        batches,
        recipe.training,
        experiment.run,
        samples=fixed_samples(experiment),
        evaluate=lambda step, generate: measure(experiment, generate, step, n),
    )


def fixed_samples(experiment: Experiment) -> Samples:
    """Return the grid of the run: eight captions of the reference split, four pictures each, one noise per row."""
    captions = grid_captions(experiment.reference)
    folder = experiment.run.folder / "samples"
    write_text(folder / "captions.txt", "\n".join(captions) + "\n")
    generator = torch.Generator().manual_seed(experiment.recipe.training.seed)
    noise = experiment.system.noise(GRID[1], generator).repeat_interleave(len(captions), 0)
    sentence = experiment.encoder.encode(captions * GRID[1]).sentence

    def save(step: int, pictures: torch.Tensor) -> None:
        contact_sheet(pictures, columns=len(captions), path=folder / f"step_{step:08d}.png")

    return Samples(sentence, noise, save)


def grid_captions(reference: CaptionedImages) -> list[str]:
    """Return the first caption of eight pictures spread over the reference split."""
    rows = torch.linspace(0, len(reference) - 1, GRID[0]).long().tolist()
    return [reference.captions[row][0] for row in rows]


def measure(experiment: Experiment, generate: Generate, step: int, n: int) -> dict[str, float]:
    """Evaluate `generate` on the reference split, write the results file, return the numbers for the record."""
    recipe = experiment.recipe
    settings = evaluation.EvaluationSettings(
        n=n,
        seed=recipe.training.seed,
        noise_size=experiment.system.config.noise_dim,
        truncation=recipe.evaluation.truncation or None,
    )
    result = _evaluate(generate, experiment.reference, experiment.encoder, experiment.judge_encoder, settings)
    write_result(experiment.run.folder / "results", result["metrics"], {**result["protocol"], "step": step})
    return {f"metric/{name}": value for name, value in headline(result["metrics"]).items()}


def evaluate_sampler(  # noqa: PLR0913
    sampler: Sampler,
    source: str | None = None,
    split: str | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    truncation: float | None = None,
    judge_encoder: text.TextEncoder | None = None,
) -> dict[str, dict]:
    """Evaluate a trained system on the reference split of its recipe, or of another source or split.

    `truncation` (as in `System.noise`; 0: plain normal noise) and the CLIP that scores the fit are the recipe's where
    none is given.

    Returns {"metrics": ..., "protocol": ...}, as `t2ilib.metrics.results.write_result` takes them.
    """
    wanted = sampler.recipe.data
    options = wanted.options if source is None else {}
    dataset = data.load(source or wanted.source, wanted.size, **options)
    settings = evaluation.EvaluationSettings(
        n=n,
        seed=seed,
        noise_size=sampler.system.config.noise_dim,
        truncation=(sampler.recipe.evaluation.truncation if truncation is None else truncation) or None,
    )
    reference = _reference(dataset, sampler.recipe, split)
    judge_encoder = judge_encoder or load_recipe_encoder(sampler.recipe, sampler.folder, "evaluation")
    result = _evaluate(sampler.system.generate, reference, sampler.encoder, judge_encoder, settings)
    result["protocol"] |= {"system": sampler.recipe.system, "step": sampler.step}
    return result


def headline(metrics: dict) -> dict[str, float]:
    """Return the few numbers of an evaluation that a record or a table shows."""
    numbers = {
        "attribute_accuracy": (metrics.get("attribute_accuracy") or {}).get("mentioned"),
        "r_precision": (metrics.get("r_precision") or {}).get("mean"),
    }
    numbers |= {name: metrics.get(name) for name in ("clip_score", "toy_fd", "clip_fd", "diversity")}
    return {name: value for name, value in numbers.items() if isinstance(value, float)}


def _reference(dataset: CaptionedImages, recipe: Recipe, split: str | None = None) -> CaptionedImages:
    """Return the split that is measured against, cut to the size that the system draws."""
    reference = dataset.split(split or recipe.data.reference)
    return reference.centre_crop(recipe.data.crop) if recipe.data.crop else reference


def _evaluate(generate: Generate, reference: CaptionedImages, encoder, judge_encoder, settings) -> dict[str, dict]:
    judge = load_judge() if reference.attributes is not None else None
    return evaluation.evaluate(generate, reference, encoder, judge, settings, judge_encoder)


def _train_encoder(recipe: Recipe, role: str, dataset: CaptionedImages, folder: Path) -> None:
    """Train a small CLIP of the recipe on the training split alone, once; a half-trained one is never left behind."""
    if (folder / "model.safetensors").is_file():
        return
    try:
        config = ClipConfig(**getattr(recipe, role).options)
    except TypeError as error:
        raise InputError(f"{role}.options: {error}; known are {', '.join(asdict(ClipConfig()))}") from None
    unfinished = folder.with_name(f"{role}.unfinished")
    for record in train_clip(dataset, config, unfinished, this_process().device):
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in record.items() if name != "step")
        print(f"{role} encoder, step {record['step']} of {config.steps}: {numbers}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _environment(process) -> dict:
    return {
        "hardware": hardware(),
        "processes": process.num_processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
    }
