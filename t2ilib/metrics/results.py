"""Result files: a number together with everything one needs to reproduce it or to refuse a comparison."""

import math
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from t2ilib.errors import InputError, one_line
from t2ilib.files import read_json, write_json
from t2ilib.metrics.evaluate import VERSION
from t2ilib.provenance import environment

NONE = "no whole results file"
PLACES = "intervals", "chance", "one_colour", "real"  # entries of metrics that hold what stands beside the numbers


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
    there = next(above for above in (path.absolute(), *path.absolute().parents) if above.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name another folder for the results file") from None


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
        "measures": (dict, type(None)),
        "seconds": (int, float, type(None)),
    }
    for key, kind in kinds.items():
        if not isinstance(protocol.get(key), kind):
            raise InputError(f"{path}: {NONE} ({key} = {one_line(repr(protocol.get(key)))}); {remedy}")
    if not all(isinstance(name, str) for name in protocol["reference_split"]):
        raise InputError(f"{path}: {NONE} (reference_split holds what is no name); {remedy}")
    odd = [name for name in PLACES if not isinstance(metrics.get(name), dict | None)]
    odd += [name for name, value in metrics.items() if isinstance(value, list)]  # bounds stand beside a number
    if bad := next(iter(odd), None) or _odd(metrics):
        raise InputError(f"{path}: {NONE} (metrics.{one_line(bad)} is no number); {remedy}")
    return found


def _odd(metrics: Mapping[str, Any]) -> str | None:
    """Return the name of a metric that can be none: neither a number, nor numbers by name."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            if (inner := _odd(value)) is not None:
                return f"{name}.{inner}"
        elif isinstance(value, list):
            if len(value) != 2 or not all(isinstance(bound, int | float) and math.isfinite(bound) for bound in value):
                return name
        elif not isinstance(value, int | float | None) or not math.isfinite(value or 0):
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


COLUMNS = ("metric", "value", "95 %", "n", "seed", "protocol", "truncation", "extractor", "resize", "reference")
COLUMNS += ("commit", "torch", "seconds")
DISTANCES = ("toy_fd", "clip_fd")  # to the pictures that the captions are of
FITTED = ("clip_score", "r_precision")  # by the CLIP that judges


def table(path: str | Path) -> list[str]:
    """Return a results file as the lines of a Markdown table, a row per number with all that it depends on."""
    found = read_result(path)
    metrics, protocol = found["metrics"], found["protocol"]
    rows = []
    for name in (
        *(name for name in metrics if name not in PLACES),
        "composition",
    ):
        value, bounds = entry(metrics, name)
        if value is None:
            continue
        around = "" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"
        number = [name, f"{value:.4g}", around, count_of(name, metrics, protocol)]
        drawn = [_told(protocol, key) for key in ("seed", "protocol", "truncation")]
        made = [_told(protocol, key) for key in ("commit", "torch", "seconds")]
        rows.append([*number, *drawn, *seen_through(name, protocol), *made])
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, *rows)]
    return [lines[0], "|" + "---|" * len(COLUMNS), *lines[1:]]


def count_of(name: str, metrics: Mapping, protocol: Mapping) -> str:
    """Return how many pictures a number is of."""
    held = metrics.get(name)
    if isinstance(held, Mapping) and "n" in held:
        return str(held["n"])
    if name == "diversity":
        return str(min(protocol.get("diversity_captions", 0), protocol["n"]) * protocol.get("per_caption", 0))
    return _told(protocol, "n")


def seen_through(name: str, protocol: Mapping) -> list[str]:
    """Return through what a number was seen, after which resize, and against which real pictures."""
    details = (protocol.get("measures") or {}).get(name)
    if details is not None:
        compared = details.get("reference")
        return [_short(details.get("extractor", "none")), details.get("resize", "none"), _reference(compared, details)]
    if name in FITTED:
        told = f"{protocol.get('clip_score') or ''} ({_told(protocol, 'judge_encoder')})".strip()
        return [told if name == "clip_score" else _told(protocol, "judge_encoder"), "its own", ""]
    own = f"{'+'.join(protocol['reference_split'])}, {_told(protocol, 'reference_count')}" if name in DISTANCES else ""
    return [_told(protocol, "extractor"), _told(protocol, "resize"), own]


def _reference(compared: Mapping | None, details: Mapping) -> str:
    """Return which real pictures a metric compared with, how many, and how they were augmented."""
    if not compared:
        return ""
    told = [
        f"{'+'.join(compared.get('split', []))}, {details.get('reference_count', details.get('reference_kept', ''))}"
    ]
    if compared.get("augmentation"):
        told.append("flipped and shifted")
    return ", ".join(told)


def _told(protocol: Mapping, key: str) -> str:
    value = protocol.get(key)
    return "" if value is None else _short(value)


def _short(value: object) -> str:
    """Return a name, of a long digest its beginning."""
    first, plus, rest = str(value).partition("+")
    return first[:12] + plus + rest if len(first) >= 40 and " " not in first else str(value)
