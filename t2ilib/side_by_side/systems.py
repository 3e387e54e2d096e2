"""Which runs are compared, which of them are seeds of one system, in what their budgets differ, and who paints."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from t2ilib import files, models
from t2ilib.comparison import MEASURES, PROTOCOL, Finished, check_seeds, open_all, open_finished, same_budget
from t2ilib.errors import InputError, one_line
from t2ilib.training.checkpoints import read_about
from t2ilib.training.lock import CONFIG
from t2ilib.training.recipe import recipe_from
from t2ilib.training.run import ENVIRONMENT, same, step_of

COMMITTED = files.ROOT / "figures" / "runs", "*_toy*"  # folder and names of what is compared by default
DIGEST, SHOWN = re.compile(r"[0-9a-f]{64}"), 12  # and of its digits those that are shown


@dataclass(frozen=True)
class Seeds:
    """One system: the finished runs of its seeds, lowest seed first."""

    name: str
    runs: tuple[Finished, ...]

    @property
    def step(self) -> int:
        """The last step, which is the measured one."""
        return self.runs[0].run.records()[-1]["step"]


def open_systems(folders: Sequence[str | Path], split: str, *, different: bool) -> list[Seeds]:
    """Open runs and put the seeds of each system together, in the order of their names.

    A folder may be a run, or hold several; none are the repository's toy runs. InputError where one is not finished or
    damaged, is no system's or no seed of the system that its name says; and unless they may be `different`, where their
    budgets are, naming the first difference.
    """
    found = open_all(*COMMITTED) if not folders else [one for folder in folders for one in _opened(folder)]
    for one in found:
        one.run.known = one.run.recipe  # it is asked for often, and read once
        if not isinstance(one.run.records()[-1].get("seconds"), int | float):
            raise InputError(f"{one.run.folder / 'records.jsonl'}: its last record has no seconds; train the run again")
    runs = {one.run.folder.resolve(): replace(one, results={split: one.result(split)}) for one in found}
    ordered = sorted(runs.values(), key=lambda one: (one.run.folder.name, str(one.run.folder)))
    check_seeds(ordered)
    systems = _grouped(ordered)
    for group in [system.runs for system in systems] if different else [ordered]:
        same_budget(group)
    return systems


def _opened(folder: str | Path) -> list[Finished]:
    path = Path(folder)
    if path.is_dir() and not (path / CONFIG).is_file():
        return open_all(path, "*")
    one = open_finished(path)
    if one.run.recipe.task not in models.SYSTEMS:
        raise InputError(f"{path}: {one.run.recipe.task} paints nothing; name runs of {', '.join(models.SYSTEMS)}")
    return [one]


def _grouped(runs: Sequence[Finished]) -> list[Seeds]:
    """Put runs together whose folders are called NAME_seedN, or NAME_N for seed N, and whose recipes are the same."""
    stems: dict[str, list[Finished]] = {}
    for one in runs:
        stem = re.sub(rf"_(seed\d+|{one.run.recipe.training.seed})$", "", one.run.folder.name)
        stems.setdefault(stem, []).append(one)
    systems = []
    for stem, group in stems.items():
        first = group[0].run.recipe
        alike = [same(_seedless(one), first.override(**{"training.seed": 0})) for one in group]
        seeds = sorted(group, key=lambda one: one.run.recipe.training.seed)
        twice = len({one.run.recipe.training.seed for one in seeds}) < len(seeds)
        if all(alike) and not twice and len(group) > 1:
            systems.append(Seeds(stem, tuple(seeds)))
        else:
            systems += [Seeds(one.run.folder.name, (one,)) for one in group]
    if len({system.name for system in systems}) < len(systems):
        names = [system.name for system in systems]
        raise InputError(f"{max(names, key=names.count)}: several runs have that name; rename their folders")
    return sorted(systems, key=lambda system: system.name)


def _seedless(one: Finished) -> Any:
    return one.run.recipe.override(**{"training.seed": 0})


def settings_of(system: Seeds) -> dict[str, str]:
    """Return all that has to be equal before systems are compared, each setting by itself, as a table shows it."""
    budget, (split,) = system.runs[0].budget, system.runs[0].results
    return {key.removesuffix(f", {split}"): value for key, value in _flat(budget, split)}


def differing_settings(systems: Sequence[Seeds]) -> list[str]:
    """Return the settings in which not all systems are equal."""
    found = [settings_of(system) for system in systems]
    keys = dict.fromkeys(key for settings in found for key in settings)
    unequal = [key for key in keys if len({settings.get(key, "") for settings in found}) > 1]
    return [key for key in unequal if key.rpartition(".")[0] not in unequal]  # where one says nothing, no details


def judges_of(systems: Sequence[Seeds]) -> dict[str, str]:
    """Return what the CLIP score is by each judge, as settings name it: the CLIP's own name and the scale.

    Results from before they said so name none.
    """
    told = [result["protocol"] for system in systems for one in system.runs for result in one.results.values()]
    said = [one for one in told if one.get("clip_score")]
    return {one_line(one.get("judge_encoder"))[:SHOWN]: one_line(one["clip_score"]) for one in said}


def of_the_protocol(setting: str) -> bool:
    """Whether a setting decides how pictures are measured, rather than how a system is trained."""
    return setting.partition(".")[0] in (*PROTOCOL, MEASURES)


def _flat(budget: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    rows = []
    for key, value in budget.items():
        inner = asdict(value) if is_dataclass(value) else value
        if isinstance(inner, Mapping):
            rows.append((key.removesuffix(f", {split}"), "given"))
            rows += _flat({f"{key.removesuffix(f', {split}')}.{name}": each for name, each in inner.items()}, split)
        elif isinstance(inner, str) and DIGEST.fullmatch(inner):
            rows.append((key, inner[:SHOWN]))
        else:
            rows.append((key, f"{inner:,}" if type(inner) is int else "none" if inner is None else one_line(inner)))
    return rows


def weights_of(one: Finished) -> Path | None:
    """Return the weights that a run's last results are of, where they are: its checkpoint, or shipped ones.

    Shipped are those of its name, if they were trained by its recipe to the same step.
    """
    step, kept = one.run.records()[-1]["step"], one.run.checkpoints()
    if kept and step_of(kept[-1]) == step:
        return kept[-1]
    shipped = files.WEIGHTS / f"{one.run.folder.name}.safetensors"
    if not shipped.is_file():
        return None
    about = read_about(shipped)
    ours = about["step"] == step and same(recipe_from(about["recipe"], str(shipped)), one.run.recipe)
    return shipped if ours else None


def sources_of(systems: Sequence[Seeds]) -> dict[str, str]:
    """Return the SHA-256 of every file of the runs that a comparison reads, and of the weights that paint."""
    found = {}
    for one in (one for system in systems for one in system.runs):
        folder = one.run.folder
        paths = [folder / name for name in (CONFIG, "records.jsonl", ENVIRONMENT)]
        paths += [*sorted((folder / "results").glob("*.json")), *filter(None, [weights_of(one)])]
        found |= {source_name(one, path): files.sha256(path) for path in paths if path.is_file()}
    return found


def source_name(one: Finished, path: Path) -> str:
    """Return how a comparison calls a file that it read for a run: the run, and the file's place in it or elsewhere."""
    folder = one.run.folder
    inside = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else f"{path.parent.name}/{path.name}"
    return f"{folder.name}: {inside}"
