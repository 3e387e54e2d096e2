"""`figures/results.csv`: the last numbers of every run with what decides whether two of them may be compared.

A row per run, split, judge, protocol and metric: value and interval, what stands beside it (chance, birds in one
colour, real pictures), and the settings of training and measurement, those of the model as its recipe has them. Nothing
is averaged. Measures that carry no version are older than those of version 2, in which each caption counts once.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from t2ilib import models, tables
from t2ilib.comparison import split_of
from t2ilib.errors import InputError
from t2ilib.measurement import HEADLINE
from t2ilib.metrics.results import entry, read_result
from t2ilib.plots import write_rows
from t2ilib.provenance import relative
from t2ilib.training import Recipe, Run
from t2ilib.training.recipe import plain

FILE = "results.csv"
DIGEST = 12  # letters of an encoder's fingerprint


def write(folder: Path) -> tuple[Path, list[Path]]:
    """Write the ledger of all runs under `tables.RUNS` to `folder`; return its path, and the files it was read from."""
    found = list(_runs())
    if not found:
        raise InputError(f"{tables.RUNS}: no run with results; train and evaluate one first")
    rows = [row for run in found for row in rows_of(run)]
    sources = [path for run in found for path in (run.folder / "records.jsonl", *_files(run))]
    return write_rows(folder / FILE, rows), sources


def rows_of(run: Run) -> Iterator[dict]:
    """Yield the rows of one run: of each split and judge its newest results, of the last step that was measured."""
    results = sorted(((path, read_result(path)) for path in _files(run)), key=lambda pair: _date(pair[1]))
    last = max(result["protocol"].get("step") or 0 for _, result in results)
    newest = {}  # of two alike the newer stays
    for path, result in results:
        protocol = result["protocol"]
        if (protocol.get("step") or 0) == last:
            newest[split_of(result), protocol.get("judge_encoder"), protocol.get("protocol")] = path, result
    recipe, seen = run.recipe, {record["step"]: record for record in run.records()}.get(last, {})
    for (split, *_), (path, result) in newest.items():
        settings = _settings(recipe, last, seen, result["protocol"])
        for metric, value in _numbers(recipe, result["metrics"]):
            around = beside(result["metrics"], metric)
            yield {"run": relative_name(run), "split": split, "metric": metric, **value, **around, **settings} | {
                "source": relative(path)
            }


def relative_name(run: Run) -> str:
    """Return a run's name, with the study that it belongs to."""
    return run.folder.relative_to(tables.RUNS).as_posix()


def _numbers(recipe: Recipe, metrics: Mapping) -> Iterator[tuple[str, dict]]:
    """Yield each metric's name, value and bounds: the few of a system, all plain numbers of another task."""
    names = HEADLINE if recipe.task in models.SYSTEMS else sorted(metrics)
    for name in names:
        value, around = entry(metrics, name)
        if isinstance(value, int | float):
            low, high = around or (None, None)
            yield name, {"value": float(value), "low": low, "high": high}


def beside(metrics: Mapping, metric: str) -> dict[str, float | None]:
    """Return what chance, birds in one colour and real pictures reach in the same evaluation, where it says so."""
    accuracy = metrics.get("attribute_accuracy") or {}
    places = {"attribute_accuracy": accuracy, "composition": accuracy.get("composition") or {}}
    places["r_precision"] = metrics.get("r_precision") if isinstance(metrics.get("r_precision"), Mapping) else {}
    found = {kind: entry(metrics.get(kind) or {}, metric)[0] for kind in ("one_colour", "real")}
    return {"chance": places.get(metric, {}).get("chance"), **found}


def _settings(recipe: Recipe, step: int, seen: Mapping, protocol: Mapping) -> dict[str, object]:
    """Return the columns that say how a number came about: the run's settings, then the measurement's."""
    return {
        "task": recipe.task,
        "training seed": recipe.training.seed,
        "data": recipe.data.source,
        "data options": json.dumps(recipe.data.options, sort_keys=True),
        "size": recipe.data.size,
        "model": json.dumps(plain(recipe)["model"], sort_keys=True),
        "text encoder": reader(recipe, protocol, "text"),
        "start": recipe.training.start or "random",
        "lambda of the CLIP loss": recipe.clip.weight,
        "step": step,
        "pictures seen": seen.get("images"),
        "training seconds": seen.get("seconds"),
        "protocol": protocol.get("protocol"),
        "n": protocol.get("n"),
        "candidates": protocol.get("candidates"),
        "pictures per caption": protocol.get("per_caption"),
        "evaluation seed": protocol.get("seed"),
        "truncation": protocol.get("truncation"),
        "judge": reader(recipe, protocol, "judge"),
        "extractor": protocol.get("extractor"),
        "resize": protocol.get("resize"),
        "reference pictures": protocol.get("reference_count"),
        "measures' version": protocol.get("version"),
        "evaluation seconds": protocol.get("seconds"),
        **{key: protocol.get(key) for key in ("commit", "python", "torch", "hardware", "date")},
    }


def reader(recipe: Recipe, protocol: Mapping, role: str) -> str | None:
    """Return name and fingerprint of the encoder that read or scored; a measurement may score by the one that reads."""
    own = protocol.get(f"{role}_encoder")
    name = "text" if own and own == protocol.get("text_encoder") else role
    return f"{recipe.encoders[name].name} {own[:DIGEST]}" if own and name in recipe.encoders else own


def _runs() -> Iterator[Run]:
    """Yield all runs with results, studies' among them, in the order of their names."""
    for path in sorted(tables.RUNS.rglob("config.yaml")):
        if any((path.parent / "results").glob("*.json")):
            yield Run(path.parent)


def _files(run: Run) -> list[Path]:
    return sorted((run.folder / "results").glob("*.json"))


def _date(result: Mapping) -> str:
    return result["protocol"].get("date") or ""
