"""The tables of README, chapters and the benchmarks' page, written from the files of runs: `t2i figures [NAME ...]`.

Each is written to `figures/NAME.md`, and most between two marks into the page that shows them; each function returns
the files that it read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase

from t2ilib import comparison
from t2ilib.errors import InputError
from t2ilib.files import ROOT, write_text
from t2ilib.metrics.results import entry
from t2ilib.training import Run
from t2ilib.training.run import same

FOLDER = ROOT / "figures"
RUNS = FOLDER / "runs"
README = ROOT / "README.md"
BENCHMARKS = ROOT / "benchmarks" / "results"
STEPS = ("step_dfgan_64px_nf32_batch16_compiled", "step_dfgan_64px_nf16_batch32_compiled")
HELD_OUT, SEEN = comparison.HELD_OUT, comparison.SEEN_SPECIES
COLUMNS = {  # title -> metric, and the split that it is of
    "attributes": ("attribute_accuracy", HELD_OUT),
    "composition": ("composition", HELD_OUT),
    "composition, seen species": ("composition", SEEN),
    "toy FD": ("toy_fd", HELD_OUT),
    "R-precision": ("r_precision", HELD_OUT),
    "CLIP score": ("clip_score", HELD_OUT),
    "diversity": ("diversity", HELD_OUT),
}
RETRIEVED = {  # title -> metric of small CLIPs
    "a caption finds its picture": "random",
    "all its captions": "average",
    "a picture finds its caption": "r_precision",
}
ASKED = "100", "100", "1,000"  # by how many of them
PHOTOGRAPHS = ("r_precision", "clip_score", "diversity")


def results(name: str) -> list[Path]:
    """The toy systems of one budget, each over its seeds, beside chance, one-coloured birds and real ones."""
    runs = comparison.open_all(RUNS, "*_toy*")
    comparison.same_budget(runs)
    systems = {one.name: [other for other in runs if other.name == one.name] for one in runs}
    hardware = {one.result()["protocol"]["hardware"] for one in runs}
    rows = [[title, "", "", *cells] for title, cells in _without_networks(runs).items()]
    for system, seeds in systems.items():
        hours = [one.run.records()[-1]["seconds"] / 3600 for one in seeds]
        cells = _cells({split: [one.result(split)["metrics"] for one in seeds] for split in (HELD_OUT, SEEN)})
        rows.append([system, str(len(seeds)), f"{sum(hours) / len(hours):.2f}", *cells])
    _into(README, name, [f"run, {' and '.join(sorted(hardware))}", "seeds", "hours", *COLUMNS], rows)
    return [path for one in runs for path in read_from(one.run)]


def _without_networks(runs: Sequence[comparison.Finished]) -> dict[str, list[str]]:
    """Return the rows of chance, of birds in one colour, and of real birds, averaged over the runs' own captions."""
    metrics = {split: [one.result(split)["metrics"] for one in runs] for split in (HELD_OUT, SEEN)}
    rows = {"chance": [_chance(metrics[split], key) for key, split in COLUMNS.values()]}
    for kind, title in comparison.BESIDE.items():
        rows[title] = _cells({split: [found.get(kind) or {} for found in table] for split, table in metrics.items()})
    return rows


def _chance(table: Sequence[Mapping], key: str) -> str:
    """Return what guessing reaches in a metric, as tables show it."""
    found = comparison.chance(table, key)
    return comparison.shown(None if found is None else (found,) * 3)


def _numbers(table: Sequence[Mapping], columns: Mapping[str, str]) -> list[str]:
    """Return the numbers of a row of `columns` (title -> metric), from the metrics of several seeds."""
    return [comparison.shown(comparison.over_seeds(table, key)) for key in columns.values()]


def _cells(table: Mapping[str, Sequence[Mapping]]) -> list[str]:
    """Return the numbers of a row of `COLUMNS`, from the metrics of several seeds on each split."""
    return [_numbers(table[split], {title: key})[0] for title, (key, split) in COLUMNS.items()]


def photographs(name: str) -> list[Path]:
    """The runs on photographs of one budget, beside chance and the real pictures by the same judge.

    The small CLIPs that read and score are trained on the pictures first. Another machine's are others: each pair has a
    letter, and real pictures of its own.
    """
    runs = comparison.open_all(RUNS, "*_cub100*")
    comparison.same_budget(runs, encoders=False)
    columns = {title: key for title, (key, _) in COLUMNS.items() if key in PHOTOGRAPHS} | {"CLIP FD": "clip_fd"}
    rows = [["chance", "", "", *(_chance([one.result()["metrics"] for one in runs], key) for key in columns.values())]]
    pairs: dict[tuple, list[comparison.Finished]] = {}
    for one in sorted(runs, key=lambda one: one.result()["protocol"]["date"]):
        pairs.setdefault(tuple(one.result()["protocol"][key] for key in comparison.ENCODERS), []).append(one)
    for letter, group in zip(ascii_lowercase, pairs.values(), strict=False):
        group.sort(key=lambda one: one.run.folder.name)
        metrics = [one.result()["metrics"] for one in group]
        rows += [["real pictures", letter, "", *_numbers([found["real"] for found in metrics], columns)]]
        for one, found in zip(group, metrics, strict=True):
            hours = one.run.records()[-1]["seconds"] / 3600
            rows.append([one.run.folder.name, letter, f"{hours:.2f}", *_numbers([found], columns)])
    _into(README, name, ["run", "CLIPs", "hours", *columns], rows)
    return [path for one in runs for path in read_from(one.run)]


def readers(name: str) -> list[Path]:
    """What small CLIPs read of photographs of species that they never saw: every seed, and how many were asked."""
    kinds: dict[str, list[Run]] = {}
    runs = [Run(folder) for folder in sorted(RUNS.glob("clip_cub100*"))]
    if not runs:
        raise InputError(f"{RUNS}: no run clip_cub100*; train it first")
    for run in runs:
        kinds.setdefault("words first" if run.recipe.model["words_first"] else "contrast alone", []).append(run)
    _check_readers(list(kinds.values()))
    newest = comparison.newest_result
    metrics = {kind: [newest(run.folder)["metrics"] for run in seeds] for kind, seeds in kinds.items()}
    first = next(iter(metrics.values()))[0]
    exchanged = {key.removeprefix("exchanged/"): key for key in first if key.startswith("exchanged/")}
    columns = RETRIEVED | exchanged
    rows = [
        [kind, *(", ".join(f"{each[key]:.3f}" for each in found) for key in columns.values())]
        for kind, found in metrics.items()
    ]
    asked = [str(first[f"asked/{kind}"]) for kind in exchanged]
    write(name, ["small CLIP, each seed", *columns], [*rows, ["asked", *ASKED, *asked]])
    return [path for run in runs for path in read_from(run)]


def _check_readers(kinds: Sequence[Sequence[Run]]) -> None:
    """Raise InputError where runs differ in more than their kind's words and their seed, or in length."""
    for seeds in kinds:
        first = seeds[0]
        for run in seeds[1:]:
            if not same(run.recipe.override(**{"training.seed": first.recipe.training.seed}), first.recipe):
                raise InputError(f"{run.folder.name}: is no seed of {first.folder.name}, its recipe is another")
        if len({run.recipe.training.seed for run in seeds}) < len(seeds):
            raise InputError(f"{first.folder.name}: one of its seeds is there twice; train another")
    plain = {"model.words_first": 0, "model.parts": False, "training.seed": 0}
    runs = [run for seeds in kinds for run in seeds]
    for run in runs:
        alike = same(run.recipe.override(**plain), runs[0].recipe.override(**plain))
        if not alike or run.records()[-1]["step"] != runs[0].records()[-1]["step"]:
            raise InputError(f"{run.folder.name}: differs from {runs[0].folder.name} in more than words and seed")


def speed(name: str) -> list[Path]:
    """What each measure is worth in a training step of DF-GAN, from the files that `benchmarks/step.py` wrote."""
    measured = [json.loads((BENCHMARKS / f"{one}.json").read_text(encoding="utf-8")) for one in STEPS]
    titles = [f"nf {one['nf']}, batch {one['batch_size']}: s | x plain | x row above" for one in measured]  # three each
    rows = []
    for variant in zip(*(one["rows"] for one in measured), strict=True):
        numbers = [(one["median seconds"], one["against plain"], one["against the row above"]) for one in variant]
        cells = [f"{seconds} | {plain:.2f} | {above:.2f}" for seconds, plain, above in numbers]
        rows.append([variant[0]["variant"], *cells])
    _into(BENCHMARKS.parent / "README.md", name, [f"step at {measured[0]['size']} px", *titles], rows)
    return [BENCHMARKS / f"{one}.json" for one in STEPS]


def lazy(name: str) -> list[Path]:
    """What the penalty in every fourth step costs: DF-GAN trained both ways, seed by seed."""
    rows, folders = [], sorted((RUNS / "lazy_study").iterdir())
    for folder in folders:
        recipe = Run(folder).recipe
        metrics = comparison.newest_result(folder)["metrics"]
        reached = [f"{entry(metrics, key)[0]:.3f}" for key in ("toy_fd", "attribute_accuracy")]
        rows.append([str(recipe.model["penalty_every"]), str(recipe.training.seed), *reached])
    _into(BENCHMARKS.parent / "README.md", name, ["penalty every", "seed", "toy FD", "mentioned attributes"], rows)
    return [path for folder in folders for path in read_from(Run(folder))]


def sampling(name: str) -> list[Path]:
    """Pictures a second by batch size and memory, from the file that `benchmarks/sampling.py` wrote."""
    measured = json.loads((BENCHMARKS / "sampling.json").read_text(encoding="utf-8"))["rows"]
    table = {(row["batch"], row["memory"]): row["pictures per second"] for row in measured}
    kinds = list(dict.fromkeys(memory for _, memory in table))
    batches = dict.fromkeys(batch for batch, _ in table)
    rows = [[str(batch), *(f"{table[batch, kind]:g}" for kind in kinds)] for batch in batches]
    _into(BENCHMARKS.parent / "README.md", name, ["pictures a second, batch", *kinds], rows)
    return [BENCHMARKS / "sampling.json"]


def read_from(run: Run) -> list[Path]:
    """Return the files of a run that a table is written from."""
    return [run.folder / "config.yaml", run.folder / "records.jsonl", *sorted((run.folder / "results").glob("*.json"))]


def between(text: str, start: str, end: str, new: str) -> str:
    """Return `text` with everything between the lines `start` and `end` replaced by `new`."""
    before, found, rest = text.partition(f"{start}\n")
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(f"the lines {start!r} and {end!r} are missing; put them where the table belongs")
    return f"{before}{start}\n{new}{end}{after}"


def write(name: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table to `figures/NAME.md` and return its text."""
    table = markdown(titles, rows)
    write_text(FOLDER / f"{name}.md", table)
    return table


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the text of a table; a title may hold several columns, as its cells do."""
    head, *body = [f"| {' | '.join(cells)} |\n" for cells in (titles, *rows)]
    return "".join([head, "|---" * (head.count("|") - 1) + "|\n", *body])


def _into(page: Path, name: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to `figures/NAME.md`, and between its two marks in a page."""
    marks = f"<!-- {name}: written by t2i figures {name} -->", f"<!-- end of {name} -->"
    table = write(name, titles, rows)
    write_text(page, between(page.read_text(encoding="utf-8"), *marks, table))


TABLES: dict[str, Callable[[str], list[Path]]] = {
    "results": results,
    "photographs": photographs,
    "readers": readers,
    "speed": speed,
    "lazy": lazy,
    "sampling": sampling,
}
