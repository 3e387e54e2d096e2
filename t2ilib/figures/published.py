"""The table of what others published beside what our runs reached: one row is one protocol.

The numbers of others stand in `figures/published.yaml`, each with its source; ours come from result files. Ours are of
small pictures and small budgets, so no row holds both: a blank says that nobody measured it, or that no source was
found.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from t2ilib import comparison, tables
from t2ilib.comparison import Finished
from t2ilib.errors import InputError, one_line
from t2ilib.figures import ledger
from t2ilib.files import write_text
from t2ilib.plots import write_rows

TITLES = ("system", "data", "pixels", "metric", "protocol", "published", "released code", "ours", "source")
OURS = {"toy": "toy birds, held-out species", "photographs": "CUB, 100 species, held-out species"}
METRICS = {  # of our runs: metric -> its name, and the protocol; {judge}: the CLIP that scored
    "toy": {
        "toy_fd": ("toy FD", "features of the attribute judge: no FID"),
        "r_precision": ("R-precision", "{judge}, 100 candidates, share"),
        "clip_score": ("CLIP score", "{judge}, 100 x cosine"),
    },
    "photographs": {
        "clip_fd": ("CLIP FD", "features of {judge}: no FID"),
        "r_precision": ("R-precision", "{judge}, 100 candidates, share"),
        "clip_score": ("CLIP score", "{judge}, 100 x cosine"),
    },
}
BRACKETS = (
    "Ours are means over the seeds. In brackets stand the lowest and the highest bound of the seeds' 95 % intervals "
    "over pictures; that is no 95 % interval of the mean."
)


def path() -> Path:
    """Return the file of published numbers; it is a source, so it lies where the runs do."""
    return tables.RUNS.parent / "published.yaml"


def read() -> dict:
    """Return the published numbers; InputError names a row that lacks something or names what is not there."""
    try:
        found = yaml.safe_load(path().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path()}: {one_line(error)}; put it back from the repository") from None
    for number, row in enumerate(found["rows"], start=1):
        missing = [key for key in ("system", "data", "size", "metric", "protocol", "source") if key not in row]
        if missing or row["source"] not in found["sources"] or row["system"] not in found["systems"]:
            wrong = f"lacks {', '.join(missing)}" if missing else "names a system or a source that is not listed"
            raise InputError(f"{path()}: row {number} {wrong}; complete it")
        if not {"published", "released"} & row.keys():
            raise InputError(f"{path()}: row {number} holds no number; drop it, or give published or released")
    return found


def write(name: str) -> list[Path]:
    """Write the table to `figures/NAME.md` and NAME.csv; return the files that it was written from."""
    found, sources = read(), [path()]
    rows = []
    for system, runs in found["systems"].items():
        rows += [_theirs(row, found["sources"]) for row in found["rows"] if row["system"] == system]
        for kind, run in runs.items():
            finished = comparison.open_all(tables.RUNS, f"{run}*")
            finished = [one for one in finished if one.name == run]
            rows += list(_ours(system, kind, finished))
            sources += [file for one in finished for file in sorted((one.run.folder / "results").glob("*.json"))]
    table = tables.write(name, TITLES, [[str(row[title]) for title in TITLES] for row in rows])
    write_text(tables.FOLDER / f"{name}.md", f"{table}\n{BRACKETS}\n")
    write_rows(tables.FOLDER / f"{name}.csv", rows)
    return sources


def _theirs(row: Mapping, sources: Mapping[str, str]) -> dict:
    """Return a row of others' numbers."""
    same = {"system": row["system"], "data": row["data"], "pixels": row["size"], "metric": row["metric"]}
    numbers = {"published": row.get("published", ""), "released code": row.get("released", ""), "ours": ""}
    return {**same, "protocol": row["protocol"], **numbers, "source": sources[row["source"]]}


def _ours(system: str, kind: str, runs: list[Finished]) -> Iterator[dict]:
    """Yield the rows of our runs of a system: the mean over the seeds, and how far their intervals reach."""
    comparison.same_budget(runs)
    recipe, told, seen = runs[0].run.recipe, runs[0].result()["protocol"], runs[0].budget["pictures seen"]
    seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
    judge = ledger.reader(recipe, told, "judge")
    for metric, (title, protocol) in METRICS[kind].items():
        number = comparison.over_seeds([one.result()["metrics"] for one in runs], metric)
        yield {
            **{"system": system, "data": OURS[kind], "pixels": recipe.data.size, "metric": title},
            "protocol": f"{protocol.format(judge=judge)}; n {told['n']:,}",
            **{"published": "", "released code": "", "ours": comparison.shown(number)},
            "source": f"`figures/runs/{runs[0].name}`, {seeds}, {seen:,} pictures seen",
        }
