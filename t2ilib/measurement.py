"""Measuring what a recipe trained: the systems by `t2ilib.metrics.evaluate`, other tasks by their own `measure`."""

from collections.abc import Mapping
from itertools import chain

import torch

from t2ilib import data
from t2ilib.assembly import Experiment, load_encoder, reference_split, unread
from t2ilib.data.batches import Batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import CPU_BATCH, this_process
from t2ilib.encoders import TextEncoder, encode_dataset
from t2ilib.encoders.contrastive import Contrastive
from t2ilib.errors import InputError, warn
from t2ilib.features import Batch, Needs
from t2ilib.metrics.attributes import attribute_accuracy, chance_of
from t2ilib.metrics.evaluate import EvaluationSettings, evaluate, real_precision
from t2ilib.metrics.judge import load_judge
from t2ilib.metrics.results import entry, write_result
from t2ilib.sampler import Sampler
from t2ilib.task import Painter, System, Task

HEADLINE = ("attribute_accuracy", "composition", "r_precision", "clip_score", "toy_fd", "clip_fd", "diversity")


def measure(experiment: Experiment, task: Task, step: int) -> dict[str, float]:
    """Measure the task on the reference split, write the results file, return the numbers for the record.

    A task that is no system is written into its run folder as well: a CLIP there can be used by others.
    """
    recipe, folder = experiment.recipe, experiment.run.folder
    if not experiment.is_system:
        numbers = task.measure(experiment.reference)
        if isinstance(task, Contrastive):
            encoder = task.encoder().to(this_process().device)
            numbers |= {"r_precision": real_precision(encoder, experiment.reference)["mean"]}
        write_result(folder / "results", numbers, {"step": step, "reference_split": recipe.data.reference})
        task.save(folder)
    else:
        wanted = recipe.evaluation
        settings = EvaluationSettings(wanted.n, recipe.training.seed, truncation=wanted.truncation or None)
        readers = experiment.encoders["text"], experiment.encoders["judge"]
        result = _evaluate(task, experiment.reference, readers, settings)
        write_result(folder / "results", result["metrics"], {**result["protocol"], "step": step})
        numbers = headline(result["metrics"])
    return {f"metric/{name}": value for name, value in numbers.items()}


def evaluate_sampler(  # noqa: PLR0913
    sampler: Sampler,
    source: str | None = None,
    split: str | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    truncation: float | None = None,
    judge_encoder: TextEncoder | None = None,
    allow_missing: bool = False,
) -> dict[str, dict]:
    """Evaluate a trained system on the reference split of its recipe, or of another source or split.

    `n`, `truncation` (as in `System.noise`; 0: plain normal noise) and the CLIP that scores the fit are the recipe's
    where none is given; `allow_missing` is that of `t2ilib.data.load`. Returns {"metrics": ..., "protocol": ...}, as
    `t2ilib.metrics.results.write_result` takes them. Warns of an encoder that does not know the captions' words.
    """
    check_evaluation(n, seed, truncation)
    recipe = sampler.recipe
    if recipe is None:
        raise InputError("released weights: no recipe says on which captions they are measured, or by whom")
    options = (recipe.data.options if source is None else {}) | ({"allow_missing": True} if allow_missing else {})
    dataset = data.load(source or recipe.data.source, recipe.data.size, **options)
    cut = (recipe.evaluation.truncation if truncation is None else truncation) or None
    judge_encoder = judge_encoder or load_encoder(recipe, "judge", sampler.folder)
    reference = reference_split(dataset, recipe, split)
    settings = EvaluationSettings(recipe.evaluation.n if n is None else n, seed, truncation=cut)
    readers, captions = {"text": sampler.encoder, "judge": judge_encoder}, list(chain.from_iterable(reference.captions))
    for line in unread(recipe, readers, captions, refuse=False):
        warn(line)
    result = _evaluate(sampler, reference, (sampler.encoder, judge_encoder.to(sampler.device)), settings)
    result["protocol"] |= {"system": recipe.task, "step": sampler.step}
    return result


def check_evaluation(n: int | None, seed: int, truncation: float | None) -> None:
    """Raise InputError for what cannot be drawn, before anything is loaded; None and a truncation of 0 are defaults."""
    EvaluationSettings(seed=seed, truncation=truncation or None, **({} if n is None else {"n": n}))


class Probe:
    """A quick look at a system while it trains, for chapters: a hook of the loop.

    Captions and pictures are of a split that is not trained on. "mentioned": share of the mentioned attributes that the
    pictures show; "body": that of the body's colour; "told apart": how often the discriminator gives the higher score
    to the one of two real pictures that the caption belongs to (a coin: 0.5).
    """

    def __init__(self, dataset: CaptionedImages, encoder: TextEncoder, count: int = 200, seed: int = 0):
        self.judge = load_judge(device=encoder.device)
        self.captions = [own[0] for own in dataset.captions[:count]]
        self.chance = chance_of(self.captions, self.judge.config.attributes)  # of "mentioned", by guessing evenly
        self.text, self.seed = encoder.encode(self.captions), seed
        features = encode_dataset(encoder, dataset)
        needs = Needs(mismatched=True)
        self.pairs = Batches(dataset, features, count, encoder.device, needs=needs, seed=seed + 1).batch(0)

    @torch.no_grad()
    def __call__(self, step: int, system: System) -> dict[str, float]:
        """Return the three numbers of a system in evaluation mode."""
        noise = system.noise(len(self.captions), torch.Generator().manual_seed(self.seed), self.text.sentence.device)
        parts = torch.arange(len(self.captions)).split(CPU_BATCH)
        pictures = torch.cat([system.generate(self.text[part], noise[part]) for part in parts])
        found = attribute_accuracy(self.judge, pictures, self.captions)
        body = found["attributes"].get("body", {"accuracy": float("nan")})["accuracy"]
        return {"mentioned": found["mentioned"], "body": body, "told apart": told_apart(system, self.pairs)}


@torch.no_grad()
def told_apart(system: System, pairs: Batch) -> float:
    """Return how often a discriminator gives the higher score to the picture that the caption belongs to; a coin: 0.5.

    `pairs` is a batch with mismatched pictures; a tie counts one half.
    """
    own, other = (system.score(images, pairs.text) for images in (pairs.images, pairs.mismatched))
    return ((own > other).float() + (own == other).float() / 2).mean().item()


def headline(metrics: Mapping) -> dict[str, float]:
    """Return the few numbers of an evaluation that a record or a table shows."""
    numbers = {name: entry(metrics, name)[0] for name in HEADLINE}
    return {name: value for name, value in numbers.items() if isinstance(value, float)}


def _evaluate(
    painter: Painter, reference: CaptionedImages, readers: tuple[TextEncoder, TextEncoder], settings: EvaluationSettings
) -> dict[str, dict]:
    encoder, judge_encoder = readers
    judge = load_judge(device=encoder.device) if reference.attributes is not None else None
    return evaluate(painter, reference, encoder, judge, settings, judge_encoder)
