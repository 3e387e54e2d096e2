"""Measuring what a recipe trained: the systems by `t2ilib.metrics.evaluate`, other tasks by their own `measure`."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain

import torch

from t2ilib import data, encoders
from t2ilib.assembly import Experiment, load_encoder, reference_split, unread
from t2ilib.data.batches import Batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import CPU_BATCH, this_process
from t2ilib.encoders import TextEncoder, encode_dataset
from t2ilib.encoders.contrastive import Contrastive
from t2ilib.encoders.vocabulary import check_reads
from t2ilib.errors import InputError, warn
from t2ilib.features import Batch, Needs
from t2ilib.metrics import references
from t2ilib.metrics.attributes import attribute_accuracy, chance_of
from t2ilib.metrics.drawing import ALONE, EvaluationSettings, Team
from t2ilib.metrics.evaluate import evaluate, real_precision
from t2ilib.metrics.extractors import VIEWS, ClipExtractor, Extractor, JudgeExtractor, Shared
from t2ilib.metrics.halves import first_half, second_half
from t2ilib.metrics.inception import Inception
from t2ilib.metrics.judge import load_judge
from t2ilib.metrics.measured import Metric
from t2ilib.metrics.protocols import ANY, COMPARED, FEW, METRICS, find_protocol
from t2ilib.metrics.results import entry, write_result
from t2ilib.sampler import Sampler
from t2ilib.task import Painter, System, Task

HEADLINE = (  # of which an evaluation has some
    *("attribute_accuracy", "composition", "r_precision", "clip_score", "toy_fd", "clip_fd", "diversity"),
    *METRICS,
)


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


def evaluate_protocol(
    sampler: Sampler,
    name: str,
    source: str | None = None,
    *,
    seed: int | None = None,
    allow_missing: bool = False,
    team: Team = ALONE,
) -> dict[str, dict]:
    """Evaluate a trained system by a protocol of the literature (`t2ilib.metrics.protocols`).

    `source` is where the protocol's pictures lie, by default where recipes look for them; `seed` that of captions and
    noise. Of a `team` the first process returns all numbers. Returns as `evaluate_sampler` does; InputError for an
    unknown name, pictures that are missing, weights that can neither be found nor fetched.
    """
    protocol = find_protocol(name)
    options = {"allow_missing": True} if allow_missing else {}
    with this_process().main_process_first() if team.size > 1 else nullcontext():  # the others find what it has made
        dataset = data.load(source or protocol.source, protocol.size, **options).centre_crop(protocol.side)
        asked = dataset.split(protocol.captions)
        compared = dataset if protocol.reference == ANY else dataset.split(protocol.reference)
        clip = encoders.load_encoder(protocol.judge).to(sampler.device)
        extractor = _extractor(protocol.extractor, clip, sampler.device)
        given = compared, extractor, protocol.augmentation, references.FOLDER
        with_reference = COMPARED.intersection(protocol.metrics)
        reference = references.dataset_reference(*given) if with_reference else None
        drawn = protocol.seed if seed is None else seed
        real = compared, extractor, protocol, drawn, references.FOLDER
        half = second_half(*real) if asked.attributes is None else None
    number = protocol.count(len(asked))
    if "fid" in protocol.metrics and number <= extractor.size:
        told = f"{number} pictures are too few for a Frechet distance of {extractor.size} features"
        raise InputError(f"{name}: {told}; give a set with more captions")
    if "fid" in protocol.metrics and number < FEW:
        warn(f"{name}: a FID of {number:,} pictures lies far above one of the literature's 30,000")
    if line := check_reads("text", sampler.encoder, list(chain.from_iterable(asked.captions)), 1.0):
        warn(line)
    settings = EvaluationSettings(number, drawn, truncation=protocol.truncation)

    def more() -> dict[str, Metric]:
        return {each: METRICS[each](extractor, reference, number) for each in protocol.metrics}

    judge = load_judge(device=sampler.device) if asked.attributes is not None else None
    scorer = VIEWS[protocol.view](clip)
    kept = references.FOLDER
    result = evaluate(sampler, asked, sampler.encoder, judge, settings, scorer, more=more, team=team, folder=kept)
    if half is not None:
        watch = first_half(compared, extractor, half, protocol.metrics, drawn, team)
        result["metrics"]["real"] |= watch.numbers()
        result["protocol"]["real_measures"] = watch.details()
    told = {"protocol": name, "about": protocol.about, "reference": protocol.reference, "side": protocol.side}
    told |= {"view": protocol.view}
    told |= {"augmentation": protocol.augmentation and asdict(protocol.augmentation)}
    told |= {"system": sampler.recipe.task if sampler.recipe else type(sampler.system).__name__.lower()}
    result["protocol"] |= told | {"step": sampler.step, "painted_side": sampler.side, "processes": team.size}
    return result


def _extractor(kind: str, clip: TextEncoder, device: torch.device) -> Extractor:
    """Return what a protocol's distances look through; metrics that see the same batch share one look."""
    if kind == "judge":
        return Shared(JudgeExtractor(load_judge(device=device)))
    if kind == "clip":
        return Shared(ClipExtractor(clip))
    return Shared(Inception(kind.removeprefix("inception-"), device=device))


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
    return evaluate(painter, reference, encoder, judge, settings, judge_encoder, folder=references.FOLDER)
