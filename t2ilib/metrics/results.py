"""Result files: a number together with everything one needs to reproduce it or to refuse a comparison."""

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from t2ilib.errors import InputError, one_line
from t2ilib.files import read_json, write_json
from t2ilib.metrics.evaluate import VERSION
from t2ilib.provenance import environment

NONE = "no whole results file"


def write_result(folder: str | Path, metrics: Mapping, protocol: Mapping, command: str | None = None) -> Path:
    """Write one evaluation to `folder` as JSON and return its path; earlier evaluations are never overwritten.

    `protocol` says how the numbers came about (n, seed, extractors, resize, reference split, seconds: `evaluate`
    fills it); commit, hardware, versions, date and the command (by default this process's own) are added here.
    """
    path = _unused(Path(folder), f"evaluation-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}")
    write_json(path, {"metrics": dict(metrics), "protocol": {**protocol, **environment(command)}})
    return path


def check_folder(folder: str | Path) -> None:
    """Raise InputError where results cannot be written, before hours are spent on them."""
    path = Path(folder)
    if not path.is_dir() and (path.exists() or any(above.is_file() for above in path.absolute().parents)):
        raise InputError(f"{path}: no folder; name another one for the results file")


def read_result(path: str | Path) -> dict:
    """Return one evaluation as `write_result` wrote it, with `metrics` and a `protocol` that names a reference split.

    InputError names a file that is none, is damaged, or was written by a newer version of the measures.
    """
    remedy = "remove it and evaluate the run again"
    found = read_json(path, remedy, NONE)
    protocol, metrics = (found.get(key) if isinstance(found, dict) else None for key in ("protocol", "metrics"))
    if not isinstance(protocol, dict) or not isinstance(metrics, dict):
        raise InputError(f"{path}: {NONE} (protocol and metrics must be mappings); {remedy}")
    version = protocol.get("version", VERSION)
    if type(version) is int and version > VERSION:
        raise InputError(f"{path}: was measured by version {version}, newer than {VERSION} here; update, or {remedy}")
    kinds = {
        "version": (int, type(None)),
        "step": (int, type(None)),
        "reference_split": (str, list),
        "date": (str, type(None)),
    }
    for key, kind in kinds.items():
        if not isinstance(protocol.get(key), kind):
            raise InputError(f"{path}: {NONE} ({key} = {one_line(repr(protocol.get(key)))}); {remedy}")
    if not all(isinstance(name, str) for name in protocol["reference_split"]):
        raise InputError(f"{path}: {NONE} (reference_split holds what is no name); {remedy}")
    if bad := _odd(metrics):
        raise InputError(f"{path}: {NONE} (metrics.{one_line(bad)} is no number); {remedy}")
    return found


def _odd(metrics: Mapping[str, Any]) -> str | None:
    """Return the name of a metric that can be none: neither a number, nor numbers by name."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            if (inner := _odd(value)) is not None:
                return f"{name}.{inner}"
        elif isinstance(value, list):
            if len(value) != 2 or not all(isinstance(bound, int | float) for bound in value):
                return name
        elif not isinstance(value, int | float | None):
            return name
    return None


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


COLUMNS = ("metric", "value", "95 %", "n", "seed", "extractor", "resize", "reference", "commit", "torch", "seconds")
FITTED = ("clip_score", "r_precision")  # by the CLIP that judges


def table(path: str | Path) -> list[str]:
    """Return a results file as the lines of a Markdown table, a row per number with all that it depends on."""
    found = read_result(path)
    metrics, protocol = found["metrics"], found["protocol"]
    measures, rows = protocol.get("measures") or {}, []
    names = [name for name in metrics if name not in ("intervals", "real", "one_colour")]
    for name in [*names, "composition"]:
        value, bounds = entry(metrics, name)
        if value is None:
            continue
        details = measures.get(name) or {}
        extractor = protocol.get("judge_encoder" if name in FITTED else "extractor")
        if name == "clip_score" and protocol.get(name):
            extractor = f"{protocol[name]} ({_short(extractor)})"
        rows.append(
            [
                name,
                f"{value:.4g}",
                "" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}",
                *(str(protocol.get(key, "")) for key in ("n", "seed")),
                _short(details.get("extractor", extractor)),
                details.get("resize", "its own" if name in FITTED else protocol.get("resize", "")),
                f"{protocol.get('reference', '')} {protocol['reference_split']}, {protocol.get('reference_count', '')}",
                *(_short(protocol.get(key, "")) for key in ("commit", "torch")),
                str(protocol.get("seconds", "")),
            ]
        )
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, *rows)]
    return [lines[0], "|" + "---|" * len(COLUMNS), *lines[1:]]


def _short(value: object) -> str:
    """Return a name, of a long digest its beginning."""
    first, plus, rest = str(value).partition("+")
    return first[:12] + plus + rest if len(first) >= 40 else str(value)
