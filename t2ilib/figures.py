"""Rebuild the figures that README and chapters show: `t2i figures [NAME ...]`.

Pictures are drawn anew from shipped weights; curves come from the files that full-length runs wrote, which lie in
`figures/runs/`. The same command writes the tables (`t2ilib.tables`). Every figure enters `figures/manifest.json` with
its command and the checksums of its sources.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from t2ilib import plots, tables
from t2ilib.comparison import Finished, newest_result, open_all
from t2ilib.data import toy
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS
from t2ilib.measurement import headline
from t2ilib.metrics.results import entry
from t2ilib.pictures import to_uint8
from t2ilib.sampling import load_sampler
from t2ilib.training import Run

RUNS = tables.RUNS


def save(name: str, figure, sources=()) -> None:
    """Save a figure under `figures/` with the command that rebuilds it."""
    plots.save_figure(figure, name, by=f"t2i figures {name}", sources=list(sources), folder=tables.FOLDER)


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
    cells = [[f"{row[key]:,}" if isinstance(row[key], int) else f"{row[key]:.3f}" for key in keys] for row in rows]
    tables.write(name, ["lambda", *keys], [[f"{row['lambda']:g}", *own] for row, own in zip(rows, cells, strict=True)])
    series = {
        "toy FD": ["toy FD"],
        "attribute accuracy": ["attribute accuracy"],
        "CLIP score": ["teacher CLIP score", "judge CLIP score"],
        "R-precision": ["teacher R-precision", "judge R-precision"],
    }
    panels = {title: {key: [row[key] for row in rows] for key in keys} for title, keys in series.items()}
    figure = plots.lines(panels, [f"{row['lambda']:g}" for row in rows], "lambda")
    save(name, figure, sorted(RUNS.glob("dfgan_sweep_*/results/*.json")))


def budget(name: str) -> None:
    """How good the toy systems were after so many pictures, and after so many minutes, seed by seed."""
    runs = open_all(RUNS, "*_toy*")
    terms = {"attribute accuracy": "attribute_accuracy", "composition": "composition", "toy FD": "toy_fd"}
    systems: dict[str, list] = {}
    for one in runs:
        systems.setdefault(one.name, []).append([each for each in one.run.records() if "metric/toy_fd" in each])
    along = {"pictures seen, thousands": ("images", 1e3), "minutes": ("seconds", 60)}
    beside = {"one colour": {title: _mean(runs, "one_colour", key) for title, key in terms.items()}}
    figure = plots.progress(systems, {title: f"metric/{key}" for title, key in terms.items()}, along, beside)
    save(name, figure, [one.run.folder / "records.jsonl" for one in runs])


def _mean(runs: Sequence[Finished], kind: str, key: str) -> float:
    """Return the mean over runs of a number that stands beside theirs."""
    return float(np.mean([entry(one.result()["metrics"][kind], key)[0] for one in runs]))


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
    beside = {title: headline(metrics.get(name) or {}) for name, title in tables.BESIDE.items()}
    for metric, value in headline(metrics).items():
        low, high = entry(metrics, metric)[1] or (None, None)
        around = "" if low is None else f"({low:.3f} to {high:.3f})"
        others = [f"{title} {found[metric]:.3f}" for title, found in beside.items() if metric in found]
        lines.append(f"    {metric:20} {value:8.3f} {around:19}  {'   '.join(others)}".rstrip())
    return "\n".join(lines)


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
    "galip_toy": partial(generated, "galip_toy"),
    "galip_toy_curves": partial(curves, "galip_toy"),
    "dfgan_cub100": partial(samples, "dfgan_cub100"),
    "dfgan_cub100_curves": partial(curves, "dfgan_cub100"),
    "dfgan_cub100_clip": partial(samples, "dfgan_cub100_clip"),
    "galip_cub100": partial(samples, "galip_cub100"),
    "clip_sweep": clip_sweep,
    "budget": budget,
    **tables.TABLES,
}


def rebuild(names: Sequence[str]) -> Iterator[str]:
    """Rebuild the named figures, or all, and yield each name when it is done."""
    if unknown := [name for name in names if name not in FIGURES]:
        raise InputError(f"{', '.join(unknown)}: no such figure; there are {', '.join(FIGURES)}")
    for name in names or FIGURES:
        FIGURES[name](name)
        yield name
