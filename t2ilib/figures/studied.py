"""The chart of a study: what every seed of its systems reached, beside birds in one colour."""

import numpy as np

from t2ilib import plots, tables
from t2ilib.comparison import BESIDE, Finished
from t2ilib.figures.saved import save
from t2ilib.metrics.results import entry
from t2ilib.studies import open_study

MEASURES = {"attribute accuracy": "attribute_accuracy", "toy FD, less is better": "toy_fd"}
MEASURES |= {"CLIP score, by the judge": "clip_score", "diversity": "diversity"}
KIND = "one_colour"


def study(runs: str, plain: str, name: str) -> None:
    """Draw a study: the `plain` system first, then all that lie in its folder by the first measure, best first.

    A seed's bar is its 95 % interval over captions, where its results have one.
    """
    found = open_study(tables.RUNS / runs)
    first = next(iter(MEASURES.values()))
    means = {system: np.mean([_number(run, first)[0] for run in own]) for system, own in found.items()}
    order = [plain, *sorted(means.keys() - {plain}, key=lambda system: -means[system])]
    panels = {
        title: {system.replace("_", " "): [_number(run, key) for run in found[system]] for system in order}
        for title, key in MEASURES.items()
    }
    beside = {title: _number(found[plain][0], key, KIND)[0] for title, key in MEASURES.items()}
    sources = sorted((tables.RUNS / runs).glob("*/results/*.json"))
    save(name, plots.seeds(panels, {BESIDE[KIND]: beside}), sources)


def _number(run: Finished, metric: str, beside: str = "") -> tuple[float, list[float] | None]:
    """Return a number of a run's last results on held-out captions with its interval, or one that stands `beside`."""
    metrics = run.result()["metrics"]
    return entry(metrics[beside] if beside else metrics, metric)
