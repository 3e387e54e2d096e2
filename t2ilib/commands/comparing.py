"""The command that puts systems side by side: compare."""

from pathlib import Path
from typing import Annotated

import typer

from t2ilib.commands.options import echo
from t2ilib.files import RUNS


def compare(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Finished runs, or folders of them; default the toy runs of the repository."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = RUNS / "compare",
    captions: Annotated[
        Path | None, typer.Option(help="Text file, a caption per line, of the pictures; default those of a run's grid.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the pictures' noise.")] = 0,
    split: Annotated[str, typer.Option(help="Split whose results are compared.")] = "test",
    different: Annotated[
        bool, typer.Option("--different", help="Show runs of different budgets, too; their rows do not compare.")
    ] = False,
) -> None:
    """Put systems side by side: tables, a grid of the same captions, quality over pictures and minutes.

    Writes compare.md, compare.csv, grid.png, quality.png and compare.json. Seeds of a system are runs called NAME,
    NAME_seed1 and so on.

    Example: t2i compare runs/first runs/second --out comparison
    """
    from t2ilib.sheets import Captions
    from t2ilib.side_by_side import compare as side_by_side

    given = None if captions is None else list(Captions(file=captions))
    found = side_by_side(runs or (), given, seed, out, split, different=different)
    for line in found.page().splitlines():
        echo(line)
    echo(f"wrote {out}: compare.md, compare.csv, grid.png, quality.png, compare.json")
