"""Rebuild the figures that README and chapters show: `t2i figures [NAME ...]`; `of_run` draws a run of one's own.

Pictures are drawn anew from shipped weights; curves come from the files that full-length runs wrote, which lie in
`figures/runs/`. The same command writes the tables (`t2ilib.tables`) and the ledger of all results. A chart is written
as PNG, as vector PDF and as CSV of the numbers drawn, a sheet of pictures as PNG with a CSV of what is seen. All enter
`figures/manifest.json` with their command, the commit, and the SHA-256 of sources and files.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from t2ilib import tables
from t2ilib.comparison import newest_result
from t2ilib.errors import InputError
from t2ilib.figures import ledger, measured, painted, published, recorded, studied, under_protocols
from t2ilib.figures.painted import drawn
from t2ilib.figures.recorded import sweep, tell
from t2ilib.figures.saved import build_commit, enter
from t2ilib.tables import RUNS

__all__ = ["FIGURES", "PAINTED", "RUNS", "TABLES", "drawn", "newest_result", "rebuild", "sweep", "tell"]


def _table(write: Callable[[str], list[Path]], name: str) -> None:
    """Write a table, as Markdown and where it is one as CSV, and enter it in the manifest."""
    build_commit()
    sources = write(name)
    written = [tables.FOLDER / f"{name}.md"]
    if name == "results":
        path, more = ledger.write(tables.FOLDER)
        written, sources = [*written, path], [*sources, *more]
    elif (tables.FOLDER / f"{name}.csv").is_file():
        written.append(tables.FOLDER / f"{name}.csv")
    enter(name, sorted(set(sources)), written)


TABLES: dict[str, Callable[[str], None]] = {
    name: partial(_table, write)
    for name, write in {**tables.TABLES, "published": published.write, "protocols": under_protocols.write}.items()
}
PAINTED: dict[str, Callable[[str], None]] = {  # what draws from shipped weights: equal on one machine, near on another
    "gancls_toy": partial(painted.generated, "gancls_toy"),
    "gancls_text_ways": partial(painted.text_ways, "gancls_toy"),
    "gancls_noise_ways": partial(painted.noise_ways, "gancls_toy"),
    "wgan_toy": partial(painted.generated, "wgan_toy"),
    "dfgan_toy": partial(painted.generated, "dfgan_toy"),
    "dfgan_truncation": measured.truncation,
    "dfgan_clip_toy": partial(painted.generated, "dfgan_clip_toy"),
    "galip_toy": partial(painted.generated, "galip_toy"),
    "galip_one_caption": partial(painted.one_caption, "galip_toy"),
    "galip_text_ways": partial(painted.text_ways, "galip_toy"),
    "galip_noise_ways": partial(painted.noise_ways, "galip_toy"),
    "galip_residual": partial(measured.residual, "galip_toy"),
    "galip_residual_pictures": partial(measured.residual_pictures, "galip_toy"),
}
FIGURES: dict[str, Callable[[str], None]] = {
    "toy_birds": painted.toy_birds,
    **PAINTED,
    "gancls_toy_curves": partial(recorded.curves, "gancls_toy"),
    "gancls_toy_scores": partial(recorded.scores, "gancls_toy"),
    "gancls_cub100": partial(painted.samples, "gancls_cub100"),
    "gancls_cub100_curves": partial(recorded.curves, "gancls_cub100"),
    "wgan_toy_curves": partial(recorded.curves, "wgan_toy"),
    "wgan_toy_scores": partial(recorded.scores, "wgan_toy"),
    "wgan_distance": recorded.wgan_distance,
    "wgan_study_distance": recorded.wgan_study_distance,
    "dfgan_toy_curves": partial(recorded.curves, "dfgan_toy"),
    "dfgan_toy_scores": partial(recorded.scores, "dfgan_toy"),
    "dfgan_clip_toy_curves": partial(recorded.curves, "dfgan_clip_toy"),
    "dfgan_clip_toy_scores": partial(recorded.scores, "dfgan_clip_toy"),
    "galip_toy_curves": partial(recorded.curves, "galip_toy"),
    "galip_toy_scores": partial(recorded.scores, "galip_toy"),
    "dfgan_cub100": partial(painted.samples, "dfgan_cub100"),
    "dfgan_cub100_curves": partial(recorded.curves, "dfgan_cub100"),
    "dfgan_cub100_clip": partial(painted.samples, "dfgan_cub100_clip"),
    "dfgan_cub100_clip_curves": partial(recorded.curves, "dfgan_cub100_clip"),
    "galip_cub100": partial(painted.samples, "galip_cub100"),
    "galip_cub100_curves": partial(recorded.curves, "galip_cub100"),
    "galip_study": partial(studied.study, "galip_study", "neither"),
    "clip_sweep": recorded.clip_sweep,
    "budget": recorded.budget,
    **TABLES,
}


def rebuild(names: Sequence[str]) -> Iterator[str]:
    """Rebuild the named figures, or all, and yield each name when it is done."""
    if unknown := [name for name in names if name not in FIGURES]:
        raise InputError(f"{', '.join(unknown)}: no such figure; there are {', '.join(FIGURES)}")
    for name in names or FIGURES:
        FIGURES[name](name)
        yield name
