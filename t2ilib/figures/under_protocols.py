"""The table of shipped weights under the named protocols: what `t2i evaluate WEIGHTS --protocol NAME` found.

A result file is one system under one protocol. They lie in `figures/protocols/`, apart from the runs', because a run's
newest results stand in the tables of seeds. Each protocol has a table of its own, and all in it share every setting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from t2ilib import comparison, tables
from t2ilib.errors import InputError
from t2ilib.figures import ledger
from t2ilib.files import write_text
from t2ilib.measurement import HEADLINE
from t2ilib.metrics.results import count_of, entry, read_result, seen_through
from t2ilib.plots import write_rows
from t2ilib.provenance import relative

TITLES = {  # of columns; other metrics' are their names
    **{"attribute_accuracy": "attributes", "r_precision": "R-precision", "clip_score": "CLIP score"},
    **{"toy_fd": "toy FD", "clip_fd": "CLIP FD", "fid": "FID", "kid": "KID", "inception_score": "Inception Score"},
    **{"lpips": "LPIPS", "ssim": "SSIM", "topiq": "TOPIQ"},
}
SEEN = ("metric", "pictures", "seen through", "resize", "reference")
# what a table says of its numbers
TOLD = ("about", "n", "seed", "truncation", "side", "candidates", "seconds", "commit", "torch", "hardware")
OWN = (  # what belongs to a system or to one measurement of it; all else a protocol's results have in common
    *("system", "step", "weights", "weights_sha256", "text_encoder", "painted_side"),
    *("seconds", "processes", "batch_size", "command", "commit", "hardware", "python", "torch", "date"),
)
NOTES = (
    "Every row is one file of weights, so one seed of training; brackets hold the 95 % interval over pictures, where "
    "the metric has an honest one. On toy birds KID, precision, recall and Inception Score look through the judge of "
    "attributes: they do not compare with the literature's, and the distances of real pictures are those of birds "
    "drawn anew. Precision asks whether a picture lies among real ones, recall whether real ones lie among the "
    "pictures: a system that paints a few kinds of birds can surpass real pictures in the one and has little of the "
    "other. The [table of seeds](results.md) holds means over two seeds of training, each measured with captions and "
    "noises of its own; these weights are the first seed's in half precision, measured with the same captions and "
    "noises as that seed was, so what [its rows](results.csv) hold too differs by rounding alone.\n"
)


@dataclass(frozen=True)
class Result:
    """A result file: the metrics of one system, and how they came about."""

    path: Path
    metrics: Mapping[str, Any]
    told: Mapping[str, Any]  # of the protocol

    @property
    def system(self) -> str:
        """The name of the weights' file."""
        return Path(self.told["weights"]).stem

    @property
    def settings(self) -> dict[str, Any]:
        """All that a number depends on beside the system."""
        told = {key: value for key, value in self.told.items() if key not in (*OWN, comparison.MEASURES)}
        return told | {f"measure {name}": details for name, details in comparison.measured_by(self.told).items()}


def folder() -> Path:
    """Return the folder of the result files; they are sources, so they lie where the runs do."""
    return tables.RUNS.parent / "protocols"


def read() -> dict[str, list[Result]]:
    """Return the results by protocol, systems in the order of their names.

    InputError names a file that is none or that does not say its protocol and weights, and two that do not belong in
    one table: of one system, or measured in different ways.
    """
    found: dict[str, list[Result]] = {}
    for path in sorted(folder().glob("*.json")):
        result = read_result(path)
        told = result["protocol"]
        missing = [key for key in ("protocol", "weights") if not isinstance(told.get(key), str)]
        if missing := missing + [key for key in TOLD if key not in told]:
            raise InputError(f"{path}: does not say {', '.join(missing)}; {_remedy()}")
        found.setdefault(told["protocol"], []).append(Result(path, result["metrics"], told))
    if not found:
        raise InputError(f"{folder()}: no result of any protocol; {_remedy()}")
    for results in found.values():
        results.sort(key=lambda one: one.system)
        _check_alike(results)
    return dict(sorted(found.items()))


def write(name: str) -> list[Path]:
    """Write the tables to `figures/NAME.md`, and all numbers with their settings to NAME.csv; return the sources."""
    found = read()
    sections = [_section(protocol, results) for protocol, results in found.items()]
    write_text(tables.FOLDER / f"{name}.md", "\n".join([*sections, NOTES]))
    every = [one for results in found.values() for one in results]
    write_rows(tables.FOLDER / f"{name}.csv", [row for one in every for row in _rows(one)])
    return [one.path for one in every]


def _check_alike(results: Sequence[Result]) -> None:
    """Raise InputError for results that one table may not hold; they are sorted by system."""
    first, protocol = results[0], results[0].told["protocol"]
    for one, other in pairwise(results):
        if one.system == other.system:
            raise InputError(f"{other.path}: is {one.system} under {protocol}, as {one.path.name} is; remove one")
        for key in first.settings | other.settings:
            here, there = (each.settings.get(key) for each in (first, other))
            if here != there:
                told = f"{key} = {there}, and {here} in {first.path.name}"
                raise InputError(f"{other.path}: {told}; under one protocol ({protocol}) they are equal: measure anew")


def _remedy() -> str:
    return f"t2i evaluate WEIGHTS --protocol NAME --out {relative(folder())} writes one"


def _section(protocol: str, results: Sequence[Result]) -> str:
    """Return a protocol's part of the page: whose it is, the table of numbers, and how each came about."""
    told, all_metrics = results[0].told, [one.metrics for one in results]
    columns = [key for key in HEADLINE if any(entry(metrics, key)[0] is not None for metrics in all_metrics)]
    chances = {key: comparison.chance(all_metrics, key) for key in columns}
    rows = [["chance", *(comparison.shown(None if each is None else (each,) * 3) for each in chances.values())]]
    for kind, title in comparison.BESIDE.items():
        if beside := [metrics[kind] for metrics in all_metrics if metrics.get(kind)]:
            rows.append([title, *_numbers(beside, columns)])
    rows += [[one.system, *_numbers([one.metrics], columns)] for one in results]
    titles = {key: TITLES.get(key, key) for key in columns}
    ways = [[titles[key], count_of(key, all_metrics[0], told), *seen_through(key, told)] for key in columns]
    numbers, seen = tables.markdown(["system", *titles.values()], rows), tables.markdown(SEEN, ways)
    return f"## {protocol}\n\n{told['about']}\n\n{numbers}\n{_drawn(results)}\n\n{seen}"


def _numbers(table: Sequence[Mapping], columns: Sequence[str]) -> list[str]:
    return [comparison.shown(comparison.over_seeds(table, key)) for key in columns]


def _drawn(results: Sequence[Result]) -> str:
    """Return what captions and noises a protocol's pictures are of, and where and by what they were measured."""
    told, several = results[0].told, [one.told for one in results]
    noise = f"noise cut at 2 sigma and scaled by {told['truncation']:g}" if told["truncation"] else "plain noise"
    seconds = [one["seconds"] for one in several]
    made = {key: ", ".join(sorted({str(one[key]) for one in several})) for key in ("commit", "torch", "hardware")}
    return (
        f"{told['n']:,} captions, one picture each, seed {told['seed']}, {noise}, {told['side']} pixels; R-precision "
        f"is among {told['candidates']} candidates. Measured at commit {made['commit']} with torch {made['torch']} on "
        f"{made['hardware']}, {min(seconds):.0f} to {max(seconds):.0f} seconds a system."
    )


def _rows(one: Result) -> Iterator[dict]:
    """Yield the rows of the CSV: a number of one system, what stands beside it, and all that it depends on."""
    told = one.told
    same = {key: told.get(key) for key in ("seed", "truncation", "side", "candidates", "judge_encoder")}
    made = {key: told.get(key) for key in ("step", "weights", "weights_sha256", "text_encoder", "commit", "torch")}
    made |= {key: told.get(key) for key in ("hardware", "seconds", "date")}
    for key in HEADLINE:
        value, around = entry(one.metrics, key)
        if value is not None:
            low, high = around or (None, None)
            number = {"metric": key, "value": value, "low": low, "high": high, **ledger.beside(one.metrics, key)}
            seen = dict(zip(("extractor", "resize", "reference"), seen_through(key, told), strict=True))
            drawn = {"n": count_of(key, one.metrics, told), **same}
            yield {"protocol": told["protocol"], "system": one.system, **number, **drawn, **seen, **made} | {
                "source": relative(one.path)
            }
