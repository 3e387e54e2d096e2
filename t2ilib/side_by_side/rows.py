"""A row of the comparison: a system over its seeds, or what needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from t2ilib.comparison import BESIDE, Finished, Number, chance, measured, over_seeds
from t2ilib.devices import CPU_BATCH
from t2ilib.encoders.vocabulary import remarks
from t2ilib.errors import InputError, warn
from t2ilib.files import read_json
from t2ilib.metrics.results import entry
from t2ilib.pictures import to_uint8
from t2ilib.sampling import load_sampler
from t2ilib.side_by_side import costs
from t2ilib.side_by_side.systems import Seeds, settings_of, source_name, weights_of
from t2ilib.training.run import ENVIRONMENT

FIRST = "attribute_accuracy", "composition", "toy_fd", "clip_fd", "r_precision", "clip_score", "diversity"
OTHER = (*BESIDE, "intervals", "chance")  # entries of metrics that are no metric
MEMORY, TRAINING = f"MiB to paint {CPU_BATCH}", "MiB to train"  # costs
UNKNOWN = "an unknown machine"


@dataclass(frozen=True)
class Row:
    """A system over its seeds, or what stands beside the systems: that has no seeds, costs nor pictures."""

    name: str
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)  # those in which the rows of the comparison differ
    costs: Mapping[str, float | None] = field(default_factory=dict)
    numbers: Mapping[str, Number | None] = field(default_factory=dict)  # metric -> mean, lowest and highest bound
    points: tuple[tuple[dict, ...], ...] = ()  # per seed what it had reached at each measured step
    pictures: np.ndarray | None = None  # (captions, H, W, 3) bytes
    painted_by: str = ""  # the file of the weights, as in the comparison's sources
    missing: str = ""  # why nothing is painted
    hardware: tuple[str, ...] = ()  # that it was trained on


def row_of(system: Seeds, differing: Sequence[str], captions: Sequence[str], seed: int) -> Row:
    """Return the row of a system: numbers over its seeds, costs, and a picture per caption if its weights are there."""
    metrics = [one.result(split)["metrics"] for one in system.runs for split in one.results]
    settings = settings_of(system)
    painter = next(((one, path) for one in system.runs if (path := weights_of(one))), None)
    name = system.runs[0].run.folder.name
    painted = _painted(*painter, captions, seed) if painter else {}
    nowhere = f"no weights of step {system.step:,}, neither in {name}/checkpoints nor among the shipped"
    return Row(
        system.name,
        tuple(one.run.recipe.training.seed for one in system.runs),
        {key: settings.get(key, "") for key in differing},
        {**_trained(system), **painted.pop("costs", {})},
        {key: over_seeds(metrics, key) for key in measures(metrics)},
        tuple(tuple(_points(one)) for one in system.runs),
        missing="" if painter else nowhere,
        hardware=tuple(sorted({_hardware(one) for one in system.runs})),
        **painted,
    )


def rows_beside(systems: Sequence[Seeds], differing: Sequence[str]) -> list[Row]:
    """Return the rows of chance, of birds in one colour and of real pictures, averaged over the runs' own captions.

    Where settings of the protocol are `differing`, there are such rows for each of their combinations.
    """
    groups: dict[tuple, list[Mapping]] = {}
    for system in systems:
        settings = settings_of(system)
        combination = tuple((key, settings.get(key, "")) for key in differing)
        found = [one.result(split)["metrics"] for one in system.runs for split in one.results]
        groups.setdefault(combination, []).extend(found)
    rows = []
    for combination, metrics in groups.items():
        guessed = {key: chance(metrics, key) for key in measures(metrics)}
        numbers = {key: (value, value, value) for key, value in guessed.items() if value is not None}
        rows += [Row("chance", settings=dict(combination), numbers=numbers)] if numbers else []
        for kind, title in BESIDE.items():
            own = [each.get(kind) or {} for each in metrics]
            found = {key: over_seeds(own, key) for key in measures(own)}
            rows += [Row(title, settings=dict(combination), numbers=found)] if found else []
    return rows


def measures(metrics: Sequence[Mapping]) -> list[str]:
    """Return the names of the numbers that evaluations hold, the best known first."""
    names = dict.fromkeys(key for found in metrics for key in (*FIRST, *sorted(found)) if key not in OTHER)
    return [key for key in names if any(_number(found, key) is not None for found in metrics)]


def _number(metrics: Mapping, key: str) -> float | None:
    value = entry(metrics, key)[0]
    return value if isinstance(value, int | float) else None


def _points(one: Finished) -> list[dict]:
    """Return what a run had reached at each measured step: images, seconds, every number, and whether by `earlier`."""
    (split,), found = one.results, []
    for point in measured(one, split):
        if not all(isinstance(point[key], int | float) for key in ("images", "seconds")):
            continue
        numbers = {key: _number(point["metrics"], key) for key in measures([point["metrics"]])}
        found.append({key: point[key] for key in ("step", "images", "seconds", "earlier")} | numbers)
    return found


def _trained(system: Seeds) -> dict[str, float | None]:
    """Return what training cost, the mean over the seeds, and how many weights there are, where that can be said."""
    shown = system.runs[0].budget["pictures seen"]
    mean = float(np.mean([one.run.records()[-1]["seconds"] for one in system.runs]))
    memory = max(record.get("peak_memory") or 0 for one in system.runs for record in one.run.records())
    try:
        counted = costs.parameters(system.runs[0].run)
        sizes = {"generator": counted.generator, "discriminator": counted.discriminator, "frozen": counted.frozen}
    except InputError as error:
        warn(f"{system.name}: its weights are not counted: {error}")
        sizes = dict.fromkeys(("generator", "discriminator", "frozen"))
    spent = {
        "hours": mean / 3600,
        "s per 1,000 pictures": 1000 * mean / shown,
        TRAINING: memory or None,
    }  # older runs do not say
    return {**sizes, "pictures seen": shown, **spent}


def _painted(one: Finished, weights: Path, captions: Sequence[str], seed: int) -> dict:
    """Return the pictures of the captions and what painting costs, by weights of a run."""
    sampler, (split,) = load_sampler(weights), one.results
    for line in remarks(sampler.encoder, captions):
        warn(line)
    truncation = one.result(split)["protocol"].get("truncation") or None
    noise = sampler.noise(len(captions), torch.Generator().manual_seed(seed), truncation=truncation)
    pictures = to_uint8(torch.cat(list(sampler.draw(captions, noise))))
    paid = {
        "painted per second": costs.pictures_per_second(sampler, captions),
        MEMORY: costs.painting_memory(sampler, captions) / 2**20,
    }
    return {"costs": paid, "pictures": pictures, "painted_by": source_name(one, weights)}


def _hardware(one: Finished) -> str:
    """Return what a run was trained on, where it kept that."""
    path = one.run.folder / ENVIRONMENT
    found = read_json(path, "put it back") if path.is_file() else {}
    told = found.get("hardware") if isinstance(found, dict) else None
    return told if isinstance(told, str) else UNKNOWN
