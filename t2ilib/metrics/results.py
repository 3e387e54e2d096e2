"""Result files: a number together with everything one needs to reproduce it or to refuse a comparison."""

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from t2ilib.files import write_json
from t2ilib.provenance import environment


def write_result(folder: str | Path, metrics: Mapping, protocol: Mapping, command: str | None = None) -> Path:
    """Write one evaluation to `folder` as JSON and return its path; earlier evaluations are never overwritten.

    `protocol` says how the numbers came about (n, seed, extractors, resize, reference split, seconds: `evaluate`
    fills it); commit, hardware, versions, date and the command (by default this process's own) are added here.
    """
    path = _unused(Path(folder), f"evaluation-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}")
    write_json(path, {"metrics": dict(metrics), "protocol": {**protocol, **environment(command)}})
    return path


def _unused(folder: Path, stem: str) -> Path:
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    return path


def entry(metrics: Mapping, key: str) -> tuple[float | None, list[float] | None]:
    """Return one number of an evaluation's metrics and its interval [low, high]; None for what was not measured.

    `key` is a metric's name; "composition" stands beside the attributes. Of a metric that holds several numbers it is
    the first of mentioned, accuracy and mean.
    """
    found = metrics.get(key)
    if key == "composition":
        found = (metrics.get("attribute_accuracy") or {}).get("composition")
    if isinstance(found, Mapping):
        value = next((found[name] for name in ("mentioned", "accuracy", "mean") if name in found), None)
        return value, found.get("interval")
    return found, (metrics.get("intervals") or {}).get(key)
