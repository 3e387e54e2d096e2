"""How a figure of the repository is saved: under `figures/`, with the command that rebuilds it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from t2ilib import plots, tables
from t2ilib.files import WEIGHTS, sha256
from t2ilib.plots.saving import Rows
from t2ilib.provenance import commit


def save(
    name: str, figure, sources: Sequence[str | Path] = (), rows: Rows | None = None, more: Sequence[Path] = ()
) -> None:
    """Save a figure under `figures/`, and enter it in the manifest; arguments as `plots.save_figure` takes them."""
    by, built_from = f"t2i figures {name}", build_commit()  # before anything is written
    kept = {"rows": rows, "more": more, "built_from": built_from}
    plots.save_figure(figure, name, by, list(sources), tables.FOLDER, **kept)


def enter(name: str, sources: Sequence[str | Path], written: Sequence[Path]) -> None:
    """Enter tables that were `written` to `figures/` in the manifest."""
    plots.enter(name, f"t2i figures {name}", sources, written, folder=tables.FOLDER, built_from=build_commit())


@cache
def build_commit() -> str | None:
    """Return the commit that this process began to draw from: what it writes makes the folder differ from it."""
    return commit()


def weights_of(name: str) -> Path:
    """Return the file of shipped weights."""
    return WEIGHTS / f"{name}.safetensors"


def seen(weights: Path, captions: Sequence[str], columns: int, **more: Sequence) -> list[dict]:
    """Return the rows of a sheet's CSV: place, caption and what else differs, beside the weights' name and SHA-256."""
    by = {"weights": weights.stem, "sha256": sha256(weights)}
    return [
        {"row": place // columns, "column": place % columns, "caption": caption}
        | {name: values[place] for name, values in more.items()}
        | by
        for place, caption in enumerate(captions)
    ]
