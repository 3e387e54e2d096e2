"""Draw of any finished run what is drawn of the shipped ones: `t2i figures --run FOLDER`."""

from collections.abc import Iterator
from pathlib import Path

from t2ilib import plots
from t2ilib.errors import InputError, one_line
from t2ilib.figures import painted, recorded
from t2ilib.models import SYSTEMS
from t2ilib.provenance import commit, relative
from t2ilib.sampling import load_sampler
from t2ilib.task import System
from t2ilib.training import Run

CAPTIONS = "samples/captions.txt"  # of a run's own grids: eight
LARGEST = 1e30  # number that a chart draws
SHEET, WAYS = 6, 4  # columns of the sheet, rows of ways


def draw(folder: str | Path, out: str | Path | None = None) -> Iterator[Path]:
    """Draw losses, scores of D, a sheet and ways between captions and noises of a run; yield each picture's path.

    They lie in `out`, by default "figures" in the run's folder: PNG, of charts also PDF, the numbers as CSV, and a
    manifest. Captions are those of the run's own grids. Runs from before D was recorded have no scores. InputError for
    a folder that is no finished run of a system.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no run folder; name one that t2i train has written")
    run, built_from = Run.open(folder), commit()
    out, by = Path(out or run.folder / "figures"), f"t2i figures --run {relative(run.folder)}"
    if out.resolve() == (run.folder / "results").resolve():
        raise InputError(f"{out}: holds what evaluations found; name another folder for the figures")
    records, captions = _finished(run)
    weights = run.newest_whole()[2]
    sampler = load_sampler(weights)

    def save(name: str, figure, source: Path, rows: list[dict] | None = None) -> Path:
        return plots.save_figure(figure, name, by, [source], out, rows=rows, built_from=built_from)

    told = run.folder / "records.jsonl"
    yield save("curves", recorded.losses(records), told)
    if watched := [{"images": one["images"], **recorded.watched(one)} for one in records if "D_real" in one]:
        yield save("scores", recorded.said(watched, type(sampler.system).verdict is not System.verdict), told)
    for name, sheet in {
        "sheet": painted.sheet(sampler, captions[:SHEET], weights),
        "text_ways": painted.between_captions(sampler, captions[: 2 * min(WAYS, len(captions) // 2)], weights),
        "noise_ways": painted.between_noises(sampler, captions[:WAYS], weights),
    }.items():
        figure, rows = sheet
        yield save(name, figure, weights, rows)


def _finished(run: Run) -> tuple[list[dict], list[str]]:
    """Return records and captions of a run; InputError where it is of no system, or has not come to its last step."""
    recipe, records, kept = run.recipe, run.records(), run.folder / CAPTIONS
    if recipe.task not in SYSTEMS:
        raise InputError(f"{run.folder}: {recipe.task} paints nothing; name a run of {', '.join(SYSTEMS)}")
    done = records[-1]["step"] if records else 0
    if done < recipe.training.steps:
        told = f"{done} of {recipe.training.steps} steps are done"
        raise InputError(f"{run.folder}: no finished run ({told}); go on with it: t2i resume {run.folder}")
    _check(records, run.folder / "records.jsonl")
    lines = kept.read_text(encoding="utf-8", errors="replace").splitlines() if kept.is_file() else []
    captions = [line.strip() for line in lines if line.strip()]
    if len(captions) < 2:
        raise InputError(f"{kept}: {len(captions)} captions; write there those to draw, one per line, two or more")
    return records, captions


def _check(records: list[dict], path: Path) -> None:
    """Raise InputError for records that cannot be drawn: without losses, or with what is no number."""
    remedy = "the checkpoints are sound, but only records can be drawn: train the run anew"
    for number, record in enumerate(records, 1):
        terms = {key: value for key, value in record.items() if "/" in key and not key.startswith("metric/")}
        if number == 1 and not terms:
            raise InputError(f"{path}: line 1 has no loss; {remedy}")
        seen = {key: record.get(key) for key in recorded.WATCHED} if record.keys() & recorded.WATCHED.keys() else {}
        for key, value in {"step": record["step"], "images": record.get("images"), **terms, **seen}.items():
            if type(value) not in (int, float) or abs(value) > LARGEST:
                raise InputError(f"{path}: line {number}: {key} = {one_line(repr(value))} is no number; {remedy}")
