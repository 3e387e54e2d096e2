"""Rebuild the figures and tables that README and chapters show: `t2i figures [NAME ...]`.

Pictures are drawn anew from shipped weights; curves and tables come from the files that full-length runs wrote, which
lie in `figures/runs/`. Every figure enters `figures/manifest.json` with its command and the checksums of its sources.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from t2ilib import comparison, models, plots
from t2ilib.data import toy
from t2ilib.errors import InputError
from t2ilib.files import ROOT, WEIGHTS, write_text
from t2ilib.measurement import headline
from t2ilib.metrics.results import entry
from t2ilib.pictures import to_uint8
from t2ilib.sampling import load_sampler
from t2ilib.training import Run

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
BESIDE = {"one_colour": "one colour", "real": "real pictures"}  # what an evaluation holds beside the system's numbers
PHOTOGRAPHS = ("r_precision", "clip_score", "diversity")


def save(name: str, figure, sources=()) -> None:
    """Save a figure under `figures/` with the command that rebuilds it."""
    plots.save_figure(figure, name, by=f"t2i figures {name}", sources=list(sources), folder=FOLDER)


def toy_birds(name: str) -> None:
    """Sixty-four toy birds as the renderer draws them."""
    rows = toy.sample_attributes(64, seed=7)
    save(name, plots.contact_sheet(toy.render(rows, range(64), 64), columns=8))


def generated(weights: str, name: str) -> None:
    """Four pictures each of six held-out captions, drawn by shipped weights."""
    rows = toy.sample_attributes(6, seed=3, held_out=True)
    parts = ("body", "wing", "belly", "perch", "background")
    captions = [toy.compose(row, parts, seed) for seed, row in enumerate(rows)]
    pictures = load_sampler(weights).sample(captions, seed=0, per_caption=4)
    across = [pictures[4 * column + row] for row in range(4) for column in range(6)]
    labels = [*[""] * 18, *captions]
    figure = plots.grid(_stack(across), labels, columns=6)
    save(name, figure, [WEIGHTS / f"{weights}.safetensors"])


def samples(run: str, name: str) -> None:
    """The last grid of a full-length run: a column per caption, a row per noise."""
    pictures, captions = drawn(RUNS / run)
    labels = [""] * (len(pictures) - len(captions)) + captions
    save(name, plots.grid(pictures, labels, columns=len(captions)), [RUNS / run / "samples.png"])


def drawn(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return the pictures (N, H, W, 3) of a run's kept grid, noise by noise, and the captions of each such row."""
    captions = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    sheet = Image.open(folder / "samples.png").convert("RGB")
    side = (sheet.width + 2) // len(captions) - 2
    rows = (sheet.height + 2) // (side + 2)
    boxes = [(c * (side + 2), r * (side + 2)) for r in range(rows) for c in range(len(captions))]
    return _stack([sheet.crop((x, y, x + side, y + side)) for x, y in boxes]), captions


def curves(run: str, name: str) -> None:
    """Loss terms of every role over a full-length run."""
    records, terms = Run(RUNS / run).records(), {}
    for key in records[0]:
        role, found, _ = key.partition("/")
        if found and role != "metric":
            terms.setdefault(role, []).append(key)
    save(name, plots.curves(records, terms), [RUNS / run / "records.jsonl"])


def sweep() -> list[dict]:
    """Return a row per lambda of the CLIP loss: what equal budgets reached, by teacher and judge, rising lambda."""
    rows = []
    for folder in RUNS.glob("dfgan_sweep_*"):
        row = {"lambda": Run(folder).recipe.clip.weight, "steps": Run(folder).records()[-1]["step"]}
        for path in sorted((folder / "results").glob("*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            metrics, protocol = result["metrics"], result["protocol"]
            role = "teacher" if protocol["judge_encoder"] == protocol["text_encoder"] else "judge"
            row |= {f"{role} CLIP score": metrics["clip_score"], f"{role} R-precision": metrics["r_precision"]["mean"]}
            row |= {"attribute accuracy": metrics["attribute_accuracy"]["mentioned"]}
            row |= {key.replace("_fd", " FD"): metrics[key] for key in ("toy_fd", "diversity")}
        rows.append(row)
    return sorted(rows, key=lambda row: row["lambda"])


def clip_sweep(name: str) -> None:
    """The sweep of lambda as a figure and as a table."""
    rows = sweep()
    keys = [key for key in rows[0] if key != "lambda"]
    lines = ["| lambda | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for row in rows:
        numbers = [f"{row[key]:,}" if isinstance(row[key], int) else f"{row[key]:.3f}" for key in keys]
        lines.append(" | ".join([f"| {row['lambda']:g}", *numbers]) + " |")
    write_text(FOLDER / f"{name}.md", "\n".join(lines) + "\n")
    series = {
        "toy FD": ["toy FD"],
        "attribute accuracy": ["attribute accuracy"],
        "CLIP score": ["teacher CLIP score", "judge CLIP score"],
        "R-precision": ["teacher R-precision", "judge R-precision"],
    }
    panels = {title: {key: [row[key] for row in rows] for key in keys} for title, keys in series.items()}
    figure = plots.lines(panels, [f"{row['lambda']:g}" for row in rows], "lambda")
    save(name, figure, sorted(RUNS.glob("dfgan_sweep_*/results/*.json")))


def results(name: str) -> None:
    """The toy systems of one budget, each over its seeds, beside chance, one-coloured birds and real ones."""
    runs = _runs("*_toy*")
    comparison.same_budget(runs)
    systems = {one.name: [other for other in runs if other.name == one.name] for one in runs}
    hardware = {one.result()["protocol"]["hardware"] for one in runs}
    lines = [f"| run, {' and '.join(sorted(hardware))} | seeds | hours | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for title, cells in _without_networks(runs).items():
        lines.append(" | ".join([f"| {title}", "", "", *cells]) + " |")
    for system, seeds in systems.items():
        hours = [one.run.records()[-1]["seconds"] / 3600 for one in seeds]
        cells = _cells({split: [one.result(split)["metrics"] for one in seeds] for split in (HELD_OUT, SEEN)})
        lines.append(" | ".join([f"| {system}", str(len(seeds)), f"{sum(hours) / len(hours):.2f}", *cells]) + " |")
    _into(README, name, lines)


def _without_networks(runs: Sequence[comparison.Finished]) -> dict[str, list[str]]:
    """Return the rows of chance, of birds in one colour, and of real birds, averaged over the runs' own captions."""
    metrics = {split: [one.result(split)["metrics"] for one in runs] for split in (HELD_OUT, SEEN)}
    rows = {"chance": [_chance(metrics[split], key) for key, split in COLUMNS.values()]}
    for kind, title in BESIDE.items():
        rows[title] = _cells({split: [found.get(kind) or {} for found in table] for split, table in metrics.items()})
    return rows


def _chance(table: Sequence[Mapping], key: str) -> str:
    """Return what guessing reaches in a metric, where it says so."""
    accuracy = [found.get("attribute_accuracy") or {} for found in table]
    places = {"attribute_accuracy": accuracy, "composition": [found.get("composition") or {} for found in accuracy]}
    places["r_precision"] = [found.get("r_precision") or {} for found in table]
    found = [place["chance"] for place in places.get(key, []) if "chance" in place]
    return f"{np.mean(found):.3f}" if found else ""


def _cells(table: Mapping[str, Sequence[Mapping]]) -> list[str]:
    """Return the numbers of a row of `COLUMNS`, from the metrics of several seeds on each split."""
    return [comparison.shown(comparison.over_seeds(table[split], key)) for key, split in COLUMNS.values()]


def photographs(name: str) -> None:
    """The runs on photographs, whatever their budgets, each beside the real pictures by its own judge."""
    columns = {title: key for title, (key, _) in COLUMNS.items() if key in PHOTOGRAPHS} | {"CLIP FD": "clip_fd"}
    lines = ["| run | pictures seen | hours | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    for one in _runs("*_cub100*"):
        last, metrics = one.run.records()[-1], one.result()["metrics"]
        for title, found in {one.run.folder.name: metrics, "its real pictures": metrics["real"]}.items():
            seen = [f"{last['images']:,}", f"{last['seconds'] / 3600:.2f}"] if found is metrics else ["", ""]
            cells = [comparison.shown(comparison.over_seeds([found], key)) for key in columns.values()]
            lines.append(" | ".join([f"| {title}", *seen, *cells]) + " |")
    _into(README, name, lines)


def _runs(pattern: str) -> list[comparison.Finished]:
    """Open the full-length runs of systems whose names match, in the order of their names."""
    folders = sorted(path for path in RUNS.glob(pattern) if (path / "config.yaml").is_file())
    found = [comparison.open_finished(folder) for folder in folders if Run(folder).recipe.task in models.SYSTEMS]
    if not found:
        raise InputError(f"{RUNS}: no finished run {pattern}")
    return found


def budget(name: str) -> None:
    """How good the toy systems were after so many pictures, and after so many minutes, seed by seed."""
    runs = _runs("*_toy*")
    terms = {"attribute accuracy": "attribute_accuracy", "composition": "composition", "toy FD": "toy_fd"}
    systems: dict[str, list] = {}
    for one in runs:
        systems.setdefault(one.name, []).append([each for each in one.run.records() if "metric/toy_fd" in each])
    along = {"pictures seen, thousands": ("images", 1e3), "minutes": ("seconds", 60)}
    beside = {"one colour": {title: _mean(runs, "one_colour", key) for title, key in terms.items()}}
    figure = plots.progress(systems, {title: f"metric/{key}" for title, key in terms.items()}, along, beside)
    save(name, figure, [one.run.folder / "records.jsonl" for one in runs])


def _mean(runs: Sequence[comparison.Finished], kind: str, key: str) -> float:
    """Return the mean over runs of a number that stands beside theirs."""
    return float(np.mean([entry(one.result()["metrics"][kind], key)[0] for one in runs]))


def speed(name: str) -> None:
    """What each measure is worth in a training step of DF-GAN, from the files that `benchmarks/step.py` wrote."""
    measured = [json.loads((BENCHMARKS / f"{one}.json").read_text(encoding="utf-8")) for one in STEPS]
    titles = [f"nf {one['nf']}, batch {one['batch_size']}: s | x plain | x row above" for one in measured]
    lines = [
        " | ".join([f"| step at {measured[0]['size']} px", *titles]) + " |",
        "|---" * (1 + 3 * len(measured)) + "|",
    ]
    for rows in zip(*(one["rows"] for one in measured), strict=True):
        cells = [
            f"{row['median seconds']} | {row['against plain']:.2f} | {row['against the row above']:.2f}" for row in rows
        ]
        lines.append(" | ".join([f"| {rows[0]['variant']}", *cells]) + " |")
    _into(BENCHMARKS.parent / "README.md", name, lines)


def lazy(name: str) -> None:
    """What the penalty in every fourth step costs: DF-GAN trained both ways, seed by seed."""
    lines = ["| penalty every | seed | toy FD | mentioned attributes |", "|---" * 4 + "|"]
    for folder in sorted((RUNS / "lazy_study").iterdir()):
        recipe = Run(folder).recipe
        metrics = newest_result(folder)["metrics"]
        cells = recipe.model["penalty_every"], recipe.training.seed
        shown = number(metrics, "toy_fd"), number(metrics, "attribute_accuracy")
        lines.append(" | ".join(["| " + str(cells[0]), str(cells[1]), *shown]) + " |")
    _into(BENCHMARKS.parent / "README.md", name, lines)


def sampling(name: str) -> None:
    """Pictures a second by batch size and memory, from the file that `benchmarks/sampling.py` wrote."""
    rows = json.loads((BENCHMARKS / "sampling.json").read_text(encoding="utf-8"))["rows"]
    table = {(row["batch"], row["memory"]): row["pictures per second"] for row in rows}
    kinds = list(dict.fromkeys(memory for _, memory in table))
    lines = ["| pictures a second, batch | " + " | ".join(kinds) + " |", "|---" * (1 + len(kinds)) + "|"]
    for batch in dict.fromkeys(batch for batch, _ in table):
        lines.append(" | ".join([f"| {batch}", *(f"{table[batch, kind]:g}" for kind in kinds)]) + " |")
    _into(BENCHMARKS.parent / "README.md", name, lines)


def between(text: str, start: str, end: str, new: str) -> str:
    """Return `text` with everything between the lines `start` and `end` replaced by `new`."""
    before, found, rest = text.partition(f"{start}\n")
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(f"the lines {start!r} and {end!r} are missing; put them where the table belongs")
    return f"{before}{start}\n{new}{end}{after}"


def _into(page: Path, name: str, lines: list[str]) -> None:
    """Write a table to `figures/NAME.md`, and between its two marks in a page."""
    table = "\n".join(lines) + "\n"
    write_text(FOLDER / f"{name}.md", table)
    marks = f"<!-- {name}: written by t2i figures {name} -->", f"<!-- end of {name} -->"
    write_text(page, between(page.read_text(encoding="utf-8"), *marks, table))


def newest_result(folder: Path) -> Mapping:
    """Return the newest results of a run's last measured step, on the split that its recipe names."""
    run = Run(folder)
    steps = {record["step"] for record in run.records()}
    found = [
        result
        for result in comparison.results_of(run)
        if result["protocol"].get("step") in steps and comparison.split_of(result) == run.recipe.data.reference
    ]
    if not found:
        raise InputError(f"{folder / 'results'}: no results of any step that it recorded; evaluate the run")
    last = max(result["protocol"]["step"] for result in found)
    return [result for result in found if result["protocol"]["step"] == last][-1]


def tell(run: Run) -> str:
    """Return what a full-length run was and what it last reached, from its own files, for chapters to print.

    Beside each number its 95 % interval, and what stands beside it in the results: real pictures, one-coloured birds.
    """
    recipe, last = run.recipe, run.records()[-1]
    hardware = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))["hardware"]
    result = newest_result(run.folder)
    protocol, metrics = result["protocol"], result["metrics"]
    lines = [
        f"{run.folder.name}: {last['step']:,} steps, {last['images']:,} pictures seen, {last['seconds'] / 3600:.2f} h "
        f"on {hardware}; CLIP loss {recipe.clip.weight:g}",
        f"    {protocol['n']} captions, split {', '.join(protocol['reference_split'])}, "
        f"truncation {protocol.get('truncation') or 'none'}",
    ]
    beside = {title: headline(metrics.get(name) or {}) for name, title in BESIDE.items()}
    for metric, value in headline(metrics).items():
        low, high = entry(metrics, metric)[1] or (None, None)
        around = "" if low is None else f"({low:.3f} to {high:.3f})"
        others = [f"{title} {found[metric]:.3f}" for title, found in beside.items() if metric in found]
        lines.append(f"    {metric:20} {value:8.3f} {around:19}  {'   '.join(others)}".rstrip())
    return "\n".join(lines)


def number(metrics: Mapping, key: str) -> str:
    """Return one metric as a table shows it, empty where it was not measured."""
    value, _ = entry(metrics, key)
    return f"{value:.3f}" if isinstance(value, float) else ""


def _stack(pictures) -> np.ndarray:
    """Return pictures of one size, from PIL or as tensors (3, H, W) in [-1, 1], as uint8 (N, H, W, 3)."""
    return np.stack([np.asarray(p) if isinstance(p, Image.Image) else to_uint8(p[None])[0] for p in pictures])


FIGURES: dict[str, Callable[[str], None]] = {
    "toy_birds": toy_birds,
    "gancls_toy": partial(generated, "gancls_toy"),
    "gancls_toy_curves": partial(curves, "gancls_toy"),
    "gancls_cub100": partial(samples, "gancls_cub100"),
    "gancls_cub100_curves": partial(curves, "gancls_cub100"),
    "wgan_toy": partial(generated, "wgan_toy"),
    "wgan_toy_curves": partial(curves, "wgan_toy"),
    "dfgan_toy": partial(generated, "dfgan_toy"),
    "dfgan_toy_curves": partial(curves, "dfgan_toy"),
    "dfgan_clip_toy": partial(generated, "dfgan_clip_toy"),
    "dfgan_clip_toy_curves": partial(curves, "dfgan_clip_toy"),
    "dfgan_cub100": partial(samples, "dfgan_cub100"),
    "dfgan_cub100_curves": partial(curves, "dfgan_cub100"),
    "dfgan_cub100_clip": partial(samples, "dfgan_cub100_clip"),
    "clip_sweep": clip_sweep,
    "results": results,
    "photographs": photographs,
    "budget": budget,
    "speed": speed,
    "lazy": lazy,
    "sampling": sampling,
}


def rebuild(names: Sequence[str]) -> Iterator[str]:
    """Rebuild the named figures, or all, and yield each name when it is done."""
    if unknown := [name for name in names if name not in FIGURES]:
        raise InputError(f"{', '.join(unknown)}: no such figure; there are {', '.join(FIGURES)}")
    for name in names or FIGURES:
        FIGURES[name](name)
        yield name
