"""The files of a comparison: a page with two tables, a table for programs, and all that was found as JSON."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2ilib.comparison import shown
from t2ilib.devices import CPU_BATCH, GPU_BATCH, this_process
from t2ilib.files import atomic, write_json, write_text
from t2ilib.plots.style import png_bytes
from t2ilib.provenance import environment, hardware
from t2ilib.side_by_side.drawing import title_of
from t2ilib.side_by_side.rows import MEMORY, TRAINING, Row

if TYPE_CHECKING:
    from t2ilib.side_by_side.compare import Comparison

COSTS = {  # column -> what it says, for the page
    "generator": "weights of what paints",
    "discriminator": "weights of the other trained networks",
    "frozen": "weights of the encoders that it reads with or is taught by, a CLIP whole",
    "pictures seen": "by each seed",
    "hours": "of training, mean over the seeds",
    "s per 1,000 pictures": "of training",
    TRAINING: "most that a seed's training took: on a GPU its tensors, else the whole process; empty for older runs",
    "painted per second": "pictures, their captions read anew",
    MEMORY: "most that tensors take at a time, weights included",
}
OPEN = "open markers in quality.png: measured by an older version of the measures"


def markdown(found: "Comparison") -> str:
    """Return the page: whether the rows compare, what was reached, what it cost, who painted nothing."""
    lines = [_first_line(found), "", *_table(found), "", *_cost_table(found), ""]
    lines += [f"- {title}: {what}" for title, what in COSTS.items()]
    lines += [f"- CLIP score of judge {judge}: {score}" for judge, score in found.judges.items()]
    lines += [f"- {row.name} paints nothing here: {row.missing}" for row in found.rows if row.missing]
    if any(point["earlier"] for row in found.rows for seed in row.points for point in seed):
        lines += [f"- {OPEN}"]
    return "\n".join(lines) + "\n"


def _first_line(found: "Comparison") -> str:
    said = found.settings
    told = {"pictures seen": "{} pictures seen", "data.size": "{} px", "n": "{} captions", "text_encoder": "reader {}"}
    told |= {"judge_encoder": "judge {}"}
    equal = ", ".join(text.format(said[key]) for key, text in told.items() if key in said)
    if found.differing:
        differ = ", ".join(found.differing)
        return f"**These rows do not compare:** they differ in {differ}. Equal are: {equal}, split {found.split}."
    return f"One budget: {equal}; split {found.split}. In brackets how far the 95 % intervals of the seeds reach."


def _table(found: "Comparison") -> list[str]:
    titles = ["system", "seeds", *found.differing, *map(title_of, found.metrics)]
    rows = [
        [
            row.name,
            str(len(row.seeds) or ""),
            *(row.settings.get(key, "") for key in found.differing),
            *(shown(row.numbers.get(metric)) for metric in found.metrics),
        ]
        for row in (*found.beside, *found.rows)
    ]
    return _lines(titles, rows)


def _cost_table(found: "Comparison") -> list[str]:
    machines = sorted({name for row in found.rows for name in row.hardware})
    batch = CPU_BATCH if this_process().device.type == "cpu" else GPU_BATCH
    said = f"Trained on {'; '.join(machines)}. Painted on {hardware()}, in batches of {batch}."
    rows = [[row.name, *(_cost(row.costs.get(title)) for title in COSTS)] for row in found.rows]
    return [said, "", *_lines(["system", *COSTS], rows)]


def _cost(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _lines(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in (titles, *rows)]
    return [written[0], "|" + "---|" * len(titles), *written[1:]]


def table(found: "Comparison") -> str:
    """Return the table for programs, CSV: a row per system and per row beside them, each number with its bounds."""
    bounds = [f"{metric}{end}" for metric in found.metrics for end in ("", "_low", "_high")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["system", "seeds", *found.differing, *COSTS, *bounds])
    for row in (*found.beside, *found.rows):
        settings = [row.settings.get(key, "") for key in found.differing]
        numbers = [value for metric in found.metrics for value in row.numbers.get(metric) or ("", "", "")]
        writer.writerow([row.name, len(row.seeds), *settings, *(row.costs.get(key, "") for key in COSTS), *numbers])
    return file.getvalue()


def write(found: "Comparison", folder: str | Path) -> list[Path]:
    """Write the five files into `folder`, each whole or not at all, and return their paths."""
    folder = Path(folder)
    write_text(folder / "compare.md", markdown(found))
    write_text(folder / "compare.csv", table(found))
    for name, figure in {"grid.png": found.grid(), "quality.png": found.quality()}.items():
        content = png_bytes(figure)
        with atomic(folder / name) as temporary:
            temporary.write_bytes(content)
    write_json(folder / "compare.json", told(found))
    return [folder / name for name in ("compare.md", "compare.csv", "grid.png", "quality.png", "compare.json")]


def told(found: "Comparison") -> dict:
    """Return all of a comparison but its pictures, as JSON holds it, with where it comes from."""
    return {
        "compares": not found.differing,
        "differing": list(found.differing),
        "settings": dict(found.settings),
        "split": found.split,
        "judges": dict(found.judges),
        "captions": list(found.captions),
        "seed": found.seed,
        "rows": [_row(row) for row in found.rows],
        "beside": [_row(row) for row in found.beside],
        "sources": dict(found.sources),
        "environment": environment(),
    }


def _row(row: Row) -> dict:
    names = ("name", "seeds", "settings", "costs", "numbers", "points", "painted_by", "missing", "hardware")
    return {name: getattr(row, name) for name in names}
