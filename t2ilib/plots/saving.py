"""The one door through which figures are saved: small files, and a manifest that says where each comes from."""

import csv
import io
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from t2ilib.errors import InputError
from t2ilib.files import ROOT, atomic, read_json, sha256, write_json, write_text
from t2ilib.plots.pictures import Sheet
from t2ilib.plots.style import Plot, encoded, pdf_bytes, png_bytes
from t2ilib.provenance import commit, relative

LIMIT = 300_000  # bytes a saved figure may take before its colours, then its size, are reduced
DIGITS = 6  # significant digits of numbers in CSV files
MANIFEST = "manifest.json"
Rows = Sequence[Mapping[str, object]]  # of a table: column -> cell


def save_figure(  # noqa: PLR0913
    figure: Figure | Image.Image,
    name: str,
    by: str,
    sources: Sequence[str | Path] = (),
    folder: str | Path = ROOT / "figures",
    *,
    rows: Rows | None = None,
    more: Sequence[str | Path] = (),
    built_from: str | None = None,
) -> Path:
    """Write `<name>.png` to `folder` (default `figures/`) and its entry in `manifest.json`; return the picture's path.

    A drawing is written as vector PDF, too, and the numbers that a chart draws as CSV. A sheet of pictures stays PNG;
    `rows` say what is seen on it (or replace a chart's numbers), as CSV. `by` is the command that rebuilds the figure;
    `sources` are the files it was drawn from, kept with their SHA-256; `more` are files of `folder` written with it;
    `built_from` is the commit, by default that of the repository now. Pictures above 300 KB are reduced to 256 colours,
    then in size.
    """
    folder = Path(folder)
    content = _within_limit(png_bytes(figure))
    path = folder / f"{name}.png"
    written = [path, *(folder / Path(file).name for file in more)]
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    if isinstance(figure, Figure) and not isinstance(figure, Sheet):
        written.append(folder / f"{name}.pdf")
        with atomic(written[-1]) as temporary:
            temporary.write_bytes(pdf_bytes(figure))
    rows = rows or (figure.numbers if isinstance(figure, Plot) else [])
    if rows:
        written.append(write_rows(folder / f"{name}.csv", rows))
    size = Image.open(io.BytesIO(content)).size
    enter(name, by, sources, written, folder=folder, built_from=built_from, size=list(size))
    return path


def enter(
    name: str,
    by: str,
    sources: Sequence[str | Path],
    written: Sequence[str | Path],
    *,
    folder: str | Path,
    built_from: str | None = None,
    **more: object,
) -> None:
    """Enter files `written` to `folder` into its manifest: command, commit, sources and files with their SHA-256.

    An entry that would differ by its commit alone stays as it is: the figure is the same. InputError for a damaged one.
    """
    path = Path(folder) / MANIFEST
    entries = manifest(folder) if path.is_file() else {}
    entry = {
        "by": by,
        "commit": built_from or commit(),
        "sources": {relative(source): sha256(source) for source in sources},
        "files": {Path(file).name: sha256(file) for file in sorted(written)},
        **more,
    }
    if {**entries.get(name, {}), "commit": entry["commit"]} != entry:
        write_json(path, dict(sorted({**entries, name: entry}.items())))


def manifest(folder: str | Path) -> dict[str, dict]:
    """Return the entries of a folder's manifest by name; InputError where it is damaged."""
    path, remedy = Path(folder) / MANIFEST, "remove it, and draw the folder's figures again"
    entries = read_json(path, remedy)
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{path}: damaged (no mapping of entries by name); {remedy}")
    return entries


def write_rows(path: str | Path, rows: Rows) -> Path:
    """Write rows as CSV and return the path: a column per name, six digits a number, nothing for what is missing."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(columns)
    table.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    write_text(path, buffer.getvalue())
    return Path(path)


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as `write_rows` wrote it, column -> text."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _cell(value: object) -> object:
    """Return a cell as CSV shows it."""
    if isinstance(value, numbers.Integral) or not isinstance(value, numbers.Real):
        return "" if value is None else value
    return "" if math.isnan(value) else f"{value:.{DIGITS}g}"


def _within_limit(content: bytes) -> bytes:
    """Reduce a PNG's colours, then its size by steps of a tenth, until it takes at most `LIMIT` bytes."""
    original = Image.open(io.BytesIO(content)).convert("RGB")
    scale = 1.0
    while len(content) > LIMIT:
        size = (round(original.width * scale), round(original.height * scale))
        content = encoded(original.resize(size, Image.Resampling.LANCZOS).quantize(256))
        scale *= 0.9
    return content
