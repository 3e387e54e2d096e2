"""Finished runs side by side: what each system reached over its seeds, all of one budget, beside what needs no network.

A run folder is named after its recipe; further seeds of the same run are called NAME_seed1, NAME_seed2, ...
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from t2ilib import models
from t2ilib.errors import InputError
from t2ilib.files import read_json
from t2ilib.metrics.results import entry, read_result
from t2ilib.training import Run
from t2ilib.training.run import ENVIRONMENT, same

HELD_OUT, SEEN_SPECIES = "test", "validation"  # splits: new species; new birds of species that training shows
PROTOCOL = (  # what is equal in a comparison
    *("version", "source", "reference_count", "real_size", "text_encoder", "judge_encoder", "extractor"),
    *("n", "truncation", "candidates", "diversity_captions", "per_caption"),
    *("resize", "protocol", "reference", "augmentation", "side"),
)
MEASURES = "measures"  # how each metric of a protocol came about
ALIKE = ("extractor", "resize", "reference", "reference_count", "groups", "splits", "subsets", "subset_size", "k")
BESIDE = {"one_colour": "one colour", "real": "real pictures"}  # what results hold beside the system's numbers
ENCODERS = ("text_encoder", "judge_encoder")
Number = tuple[float, float, float]  # mean over the seeds, and the lowest and highest bound of their intervals


@dataclass(frozen=True)
class Finished:
    """One finished run: its folder and its last results, by the split that its captions are of."""

    run: Run
    results: Mapping[str, Mapping]

    @property
    def name(self) -> str:
        """The name of its folder, without the seed: that of its recipe."""
        return re.sub(r"_seed\d+$", "", self.run.folder.name)

    @property
    def budget(self) -> dict:
        """All that has to be equal before two systems are compared: what was seen and read, and measured by whom."""
        recipe, last = self.run.recipe, (self.run.records() or [{}])[-1]
        if type(last.get("images")) is not int:
            path = self.run.folder / "records.jsonl"
            raise InputError(f"{path}: its last record does not say how many images were shown; train the run again")
        told = {"pictures seen": last["images"], "start": self.start, "data": recipe.data}
        for split, result in self.results.items():
            told |= {f"{name}, {split}": result["protocol"].get(name) for name in PROTOCOL}
            told |= {f"{MEASURES}, {split}": measured_by(result["protocol"])}
        return told

    @property
    def start(self) -> str:
        """Which weights it began with: step and SHA-256 where it kept them, else the name in its recipe."""
        name, path = self.run.recipe.training.start, self.run.folder / ENVIRONMENT
        if not name:
            return "random"
        kept = read_json(path, "put it back").get("start") if path.is_file() else None
        return f"step {kept['step']}, SHA-256 {kept['sha256']}" if kept else name

    def result(self, split: str = HELD_OUT) -> Mapping:
        """Return the last results on a split; InputError where it was not measured."""
        if split not in self.results:
            seed, folder = self.run.recipe.training.seed, self.run.folder
            remedy = f"t2i evaluate {folder} --split {split} --seed {seed} --out {folder / 'results'}"
            raise InputError(f"{folder / 'results'}: no results of the split {split}; {remedy}")
        return self.results[split]


def measured_by(protocol: Mapping) -> dict[str, dict]:
    """Return by metric what has to be equal of how it came about: extractor, resize, reference, sizes of subsets."""
    found = protocol.get(MEASURES) or {}
    return {name: {key: details[key] for key in ALIKE if key in details} for name, details in sorted(found.items())}


def open_finished(folder: str | Path) -> Finished:
    """Read a finished run and the newest results of its last step on each split; InputError where there are none."""
    run = Run.open(folder)
    last = [record["step"] for record in run.records()][-1:]
    newest = {split_of(result): result for result in results_of(run) if result["protocol"].get("step") in last}
    if not newest:
        raise InputError(f"{run.folder / 'results'}: no results of the last step; evaluate the run (t2i evaluate)")
    return Finished(run, newest)


def open_all(folder: Path, pattern: str) -> list[Finished]:
    """Open the finished runs of systems in a folder whose names match, in the order of their names."""
    folders = sorted(path for path in folder.glob(pattern) if (path / "config.yaml").is_file())
    found = [open_finished(path) for path in folders if Run(path).recipe.task in models.SYSTEMS]
    if not found:
        raise InputError(f"{folder}: no finished run {pattern}")
    return found


def results_of(run: Run) -> list[dict]:
    """Return all results that lie in a run's folder, oldest first; InputError names a file that is none."""
    paths = sorted((run.folder / "results").glob("*.json"), key=lambda path: (len(path.name), path.name))
    return sorted(map(read_result, paths), key=lambda result: result["protocol"].get("date") or "")


def newest_result(folder: Path) -> Mapping:
    """Return the newest results of a run's last measured step, on the split that its recipe names."""
    run = Run(folder)
    steps = {record["step"] for record in run.records()}
    found = [
        result
        for result in results_of(run)
        if result["protocol"].get("step") in steps and split_of(result) == run.recipe.data.reference
    ]
    if not found:
        raise InputError(f"{folder / 'results'}: no results of any step that it recorded; evaluate the run")
    last = max(result["protocol"]["step"] for result in found)
    return [result for result in found if result["protocol"]["step"] == last][-1]


def split_of(result: Mapping) -> str:
    """Return the split that results are of."""
    split = result["protocol"]["reference_split"]
    return split if isinstance(split, str) else "+".join(split)


def same_budget(runs: Sequence[Finished], encoders: bool = True) -> dict:
    """Return the budget that all runs had; InputError names the first two that differ, and in what.

    Seeds of one system have to be that: one recipe, trained from different seeds. Without `encoders` each run may have
    been read and scored by its own: then their pictures compare, and their scores do not.
    """
    check_seeds(runs)
    first = runs[0]
    for other in runs[1:]:
        for key in differing((first, other), encoders):
            told = f"{first.run.folder.name} {first.budget.get(key)}, {other.run.folder.name} {other.budget.get(key)}"
            raise InputError(f"{key}: {told}; runs of different budgets do not compare")
    return first.budget


def check_seeds(runs: Sequence[Finished]) -> None:
    """Raise InputError for no runs, and for runs of one name that are not one recipe trained from different seeds."""
    if not runs:
        raise InputError("no runs to compare; name at least one")
    systems: dict[str, list] = {}
    for one in runs:
        earlier = systems.setdefault(one.name, [])
        recipe = one.run.recipe
        if earlier and not same(recipe.override(**{"training.seed": earlier[0].training.seed}), earlier[0]):
            raise InputError(f"{one.run.folder.name}: is no seed of {one.name}, its recipe is another; rename the run")
        if recipe.training.seed in [each.training.seed for each in earlier]:
            raise InputError(f"{one.run.folder.name}: has the seed of another run of {one.name}; train another seed")
        earlier.append(recipe)


def differing(runs: Sequence[Finished], encoders: bool = True) -> list[str]:
    """Return the keys of the budget in which not all runs are equal; without `encoders` these may differ."""
    own = () if encoders else tuple(f"{name}, " for name in ENCODERS)
    budgets = [one.budget for one in runs]
    keys = [key for key in dict.fromkeys(chain.from_iterable(budgets)) if not key.startswith(own)]
    return [key for key in keys if any(budget.get(key) != budgets[0].get(key) for budget in budgets)]


def measured(one: Finished, split: str = HELD_OUT) -> list[dict]:
    """Return what a run had reached whenever it was measured on a split, by the protocol of its last results.

    Each is the step, images and seconds of the record, the metrics, and `earlier`: whether an older version of the
    measures, or one that does not say all of its protocol, found them. Other judges' results are left out.
    """
    final, newest = one.result(split)["protocol"], {}
    for result in results_of(one.run):
        told = result["protocol"]
        known = {key for key in PROTOCOL if key != "version" and key in told}
        if split_of(result) == split and all(told[key] == final.get(key) for key in known):
            newest[told.get("step")] = result
    found = []
    for record in one.run.records():
        if record["step"] in newest:
            result = newest[record["step"]]
            earlier = any(result["protocol"].get(key) != final.get(key) for key in PROTOCOL)
            spent = {key: record.get(key) for key in ("step", "images", "seconds")}
            found.append({**spent, "metrics": result["metrics"], "earlier": earlier})
    return found


def chance(metrics: Sequence[Mapping], key: str) -> float | None:
    """Return what guessing reaches in a number, averaged over several evaluations; None where they do not say so."""
    told = [found for each in metrics if (found := _guessed(each, key)) is not None]
    return sum(told) / len(told) if told else None


def _guessed(metrics: Mapping, key: str) -> float | None:
    """Return the chance that stands beside a number; that of a plain number stands under `chance`, where it is told."""
    found = (metrics.get("attribute_accuracy") or {}).get(key) if key == "composition" else metrics.get(key)
    return found.get("chance") if isinstance(found, Mapping) else (metrics.get("chance") or {}).get(key)


def over_seeds(metrics: Sequence[Mapping], key: str) -> Number | None:
    """Return the mean of a number over runs and how far their intervals reach; None where one lacks it."""
    found = [entry(each, key) for each in metrics]
    if not found or any(value is None for value, _ in found):
        return None
    mean = sum(value for value, _ in found) / len(found)
    bounds = [interval for _, interval in found]
    if None in bounds:  # the range of the seeds is another thing than their intervals
        return mean, mean, mean
    return mean, min(low for low, _ in bounds), max(high for _, high in bounds)


def shown(number: Number | None) -> str:
    """Return a number as tables show it: the mean, and in brackets how far the intervals of its seeds reach."""
    if number is None:
        return ""
    mean, low, high = number
    digits = 3 if abs(mean) < 2 else 1
    spread = f" ({low:.{digits}f} to {high:.{digits}f})" if low < high else ""
    return f"{mean:.{digits}f}{spread}"
