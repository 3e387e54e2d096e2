"""The comparison itself: from run folders to rows, and from rows to figures and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from t2ilib.comparison import HELD_OUT
from t2ilib.errors import InputError, one_line
from t2ilib.metrics.results import check_folder
from t2ilib.sampler import check_drawing
from t2ilib.side_by_side import drawing, pages
from t2ilib.side_by_side.rows import Row, row_of, rows_beside
from t2ilib.side_by_side.systems import (
    Seeds,
    differing_settings,
    judges_of,
    of_the_protocol,
    open_systems,
    settings_of,
    sources_of,
)

MOST = 16  # captions that a grid shows
KEPT = "captions.txt", "samples/captions.txt"  # where a run keeps those of its own grid


@dataclass(frozen=True)
class Comparison:
    """Systems side by side: `rows`, and `beside` them chance, birds in one colour and real pictures."""

    rows: tuple[Row, ...]
    beside: tuple[Row, ...]
    settings: Mapping[str, str]  # the budget, as far as it is equal
    differing: tuple[str, ...]  # the settings in which the rows differ; then they do not compare
    captions: tuple[str, ...]  # of the grid
    seed: int  # of the grid's noise
    split: str  # that was measured on
    judges: Mapping[str, str]  # digest of the CLIP that scores -> what its CLIP score is, where results say it
    sources: Mapping[str, str]  # file of a run -> SHA-256

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured of any system, in the order of the columns."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.numbers))

    def grid(self) -> Figure:
        """Return the pictures: a row per system, a column per caption and noise."""
        return drawing.grid(self.rows, self.captions)

    def quality(self) -> Figure:
        """Return every number over pictures seen and over minutes: seeds thin, their mean thick."""
        return drawing.quality(self.rows, self.beside, self.metrics, self.differing)

    def page(self) -> str:
        """Return both tables in Markdown: what was reached, and at which costs."""
        return pages.markdown(self)

    def write(self, folder: str | Path) -> list[Path]:
        """Write compare.md, compare.csv, grid.png, quality.png and compare.json; other files there are left alone."""
        return pages.write(self, folder)


def compare(
    runs: Sequence[str | Path] = (),
    captions: Sequence[str] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    split: str = HELD_OUT,
    *,
    different: bool = False,
) -> Comparison:
    """Put the systems of finished runs side by side; with `out` also as files in that folder.

    `runs`: run folders, or folders of them; by default the repository's toy runs. `captions`: of the pictures, by
    default those that the runs drew themselves; `seed`: of the noise, which is the same for all systems that take as
    much. Raises InputError where budgets differ, naming the first difference; with `different` each differing setting
    is a column instead, and the page says that its rows do not compare.
    """
    check_drawing(seed, 1, None)
    if out is not None:
        check_folder(out)
    systems = open_systems(runs, split, different=different)
    painted, keys = _captions(captions, systems), differing_settings(systems)
    found = Comparison(
        rows=tuple(row_of(system, keys, painted, seed) for system in systems),
        beside=tuple(rows_beside(systems, [key for key in keys if of_the_protocol(key)])),
        settings={key: value for key, value in settings_of(systems[0]).items() if key not in keys},
        differing=tuple(keys),
        captions=tuple(painted),
        seed=seed,
        split=split,
        judges=judges_of(systems),
        sources=sources_of(systems),
    )
    if out is not None:
        found.write(out)
    return found


def _captions(given: Sequence[str] | None, systems: Sequence[Seeds]) -> list[str]:
    """Return the captions to paint: those given, else those of the first system that kept its own grid's."""
    if given is not None:
        if isinstance(given, str) or not 0 < len(given) <= MOST:
            raise InputError(f"captions = {one_line(repr(given))}: give a list of 1 to {MOST}, the columns of the grid")
        return list(given)
    folders = [one.run.folder for system in systems for one in system.runs]
    for path in (folder / name for folder in folders for name in KEPT):
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if kept := [line.strip() for line in lines if line.strip()]:
                return kept[:MOST]
    raise InputError("captions: none given, and no run kept those of its grid; give a file of captions (--captions)")
