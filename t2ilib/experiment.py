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
from t2ilib.training import Recipe, Run, Samples, train
from t2ilib.training.loop import Generate, this_process

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


def prepare(recipe: Recipe, folder: str | Path) -> Experiment:
    """Load data and text encoder (training a small CLIP first where the recipe asks for one) and build the system."""
    with this_process().main_process_first():
        dataset = data.load(recipe.data.source, recipe.data.size, **recipe.data.options)
        training, reference = dataset.split(recipe.data.split), dataset.split(recipe.data.reference)
        run = Run.create(folder, recipe)
        if recipe.text.encoder == "contrastive" and not (run.folder / "text" / "model.safetensors").is_file():
            _train_encoder(recipe, training, run.folder / "text")
    encoder = load_recipe_encoder(recipe, run.folder).to(this_process().device)
    torch.manual_seed(recipe.training.seed)
    system = models.build(recipe.system, **model_config(recipe, encoder))
    return Experiment(recipe, run, training, reference, encoder, system)


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
    batches = Batches(
        experiment.dataset,
        features,
        experiment.system.config.batch_size,
        process.device,
        seed=recipe.training.seed,
        augment=Augment(flip=recipe.data.flip),
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
    settings = evaluation.EvaluationSettings(
        n=n, seed=experiment.recipe.training.seed, noise_size=experiment.system.config.noise_dim
    )
    result = _evaluate(generate, experiment.reference, experiment.encoder, settings)
    write_result(experiment.run.folder / "results", result["metrics"], {**result["protocol"], "step": step})
    return {f"metric/{name}": value for name, value in headline(result["metrics"]).items()}


def evaluate_sampler(
    sampler: Sampler, source: str | None = None, split: str | None = None, n: int = 1000, seed: int = 0
) -> dict[str, dict]:
    """Evaluate a trained system on the reference split of its recipe, or of another source or split.

    Returns {"metrics": ..., "protocol": ...}, as `t2ilib.metrics.results.write_result` takes them.
    """
    wanted = sampler.recipe.data
    options = wanted.options if source is None else {}
    reference = data.load(source or wanted.source, wanted.size, **options).split(split or wanted.reference)
    settings = evaluation.EvaluationSettings(n=n, seed=seed, noise_size=sampler.system.config.noise_dim)
    result = _evaluate(sampler.system.generate, reference, sampler.encoder, settings)
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


def _evaluate(generate: Generate, reference: CaptionedImages, encoder, settings) -> dict[str, dict]:
    judge = load_judge() if reference.attributes is not None else None
    return evaluation.evaluate(generate, reference, encoder, judge, settings)


def _train_encoder(recipe: Recipe, dataset: CaptionedImages, folder: Path) -> None:
    """Train the recipe's small CLIP on the training split alone; a half-trained one is never left behind."""
    try:
        config = ClipConfig(**recipe.text.options)
    except TypeError as error:
        raise InputError(f"text.options: {error}; known are {', '.join(asdict(ClipConfig()))}") from None
    unfinished = folder.with_name("text.unfinished")
    for record in train_clip(dataset, config, unfinished, this_process().device):
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in record.items() if name != "step")
        print(f"text encoder, step {record['step']} of {config.steps}: {numbers}", flush=True)
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
