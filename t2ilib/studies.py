"""Studies: many short runs of one budget, a plain system beside others that differ from it in one setting, over seeds.

A run's folder is named SYSTEM_SEED: `mismatched_0` is the first seed of the system `mismatched`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from t2ilib.comparison import Finished, open_finished, same_budget
from t2ilib.metrics.results import entry

Measures = Mapping[str, tuple[str, int]]  # title -> metric, digits
Study = dict[str, list[Finished]]  # system -> its runs, one of each seed


def open_study(folder: str | Path) -> Study:
    """Open the finished runs of a study by their systems; InputError where their budgets differ."""
    study: Study = {}
    for path in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
        study.setdefault(path.name.rpartition("_")[0], []).append(open_finished(path))
    same_budget([run for runs in study.values() for run in runs])
    return study


def told(study: Study, measures: Measures, plain: str, beside: Sequence[str] = ()) -> str:
    """Return a table: per system the mean of each measure over its seeds, and in brackets the lowest and the highest.

    A star stands where all seeds of a system lie on one side of all those of the system `plain`, which comes first; the
    others follow by the first measure, best first. `beside` names what else was measured on the same captions.
    """
    found = {name: [[_value(run, key) for run in runs] for key, _ in measures.values()] for name, runs in study.items()}
    others = sorted(set(found) - {plain}, key=lambda name: -np.mean(found[name][0]))
    lines = [" " * 26 + "".join(f"{title:30}" for title in measures)]
    for name in (plain, *others):
        cells = []
        for values, base, (_, digits) in zip(found[name], found[plain], measures.values(), strict=True):
            star = "*" if min(values) > max(base) or max(values) < min(base) else " "
            spread = f"({min(values):6.{digits}f} to {max(values):6.{digits}f})"
            cells.append(f"{np.mean(values):6.{digits}f} {spread} {star}".ljust(30))
        lines.append(f"{name.replace('_', ' '):26}" + "".join(cells))
    for name in beside:
        values = [_value(study[plain][0], key, name) for key, _ in measures.values()]
        numbers = [
            f"{value:6.{digits}f}".ljust(30) for value, (_, digits) in zip(values, measures.values(), strict=True)
        ]
        lines.append(f"{name.replace('_', ' '):26}" + "".join(numbers))
    return "\n".join(line.rstrip() for line in lines)


def _value(run: Finished, metric: str, beside: str | None = None) -> float:
    """Return a number of a run's last results on held-out captions, or of what was measured `beside` it."""
    metrics = run.result()["metrics"]
    return entry(metrics[beside] if beside else metrics, metric)[0]
