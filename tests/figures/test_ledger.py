"""The ledger against the result files, read here without the library."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from t2ilib import plots, tables
from t2ilib.errors import InputError
from t2ilib.figures import ledger
from t2ilib.files import ROOT

ROWS = plots.read_rows(ROOT / "figures" / ledger.FILE)
ACCURACY = "attribute_accuracy"
PLACES = {  # metric of a system -> where its value, its interval and its chance stand in a results file
    ACCURACY: ((ACCURACY, "mentioned"), (ACCURACY, "interval"), "chance"),
    "composition": ((ACCURACY, "composition", "accuracy"), (ACCURACY, "composition", "interval"), "chance"),
    "r_precision": (("r_precision", "mean"), ("r_precision", "interval"), "chance"),
    "clip_score": (("clip_score",), ("intervals", "clip_score"), None),
    "toy_fd": (("toy_fd",), ("intervals", "toy_fd"), None),
    "clip_fd": (("clip_fd",), ("intervals", "clip_fd"), None),
    "diversity": (("diversity",), ("intervals", "diversity"), None),
}


def at(found, place):
    for key in place:
        found = (found or {}).get(key)
    return found


def test_numbers_are_those_of_the_source_files():
    for row in ROWS:
        metrics = json.loads((ROOT / row["source"]).read_text())["metrics"]
        plain = (row["metric"],), ("no interval",), None  # of a CLIP: numbers by name
        place, around, chance = plain if row["task"] == "clip" else PLACES[row["metric"]]
        assert float(row["value"]) == pytest.approx(at(metrics, place), rel=1e-5), row
        low, high = at(metrics, around) or ("", "")
        assert [row["low"], row["high"]] == [f"{low:.6g}", f"{high:.6g}"] if low != "" else ["", ""]
        for kind in ("real", "one_colour"):
            beside = at(metrics, (kind, *place)) if row["task"] != "clip" else None
            assert row[kind] == ("" if beside is None else f"{beside:.6g}"), row
        if chance:
            assert float(row["chance"]) == pytest.approx(at(metrics, (*place[:-1], chance)), rel=1e-5)


def test_settings_are_those_of_the_run_and_of_the_measurement():
    for row in ROWS:
        folder = ROOT / "figures" / "runs" / row["run"]
        recipe = yaml.safe_load((folder / "config.yaml").read_text())
        protocol = json.loads((ROOT / row["source"]).read_text())["protocol"]
        records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        seen = {record["step"]: record.get("images") for record in records}[protocol["step"]]
        assert [row["task"], row["size"]] == [recipe["task"], str(recipe["data"]["size"])]
        assert [row["step"], row["pictures seen"]] == [str(protocol["step"]), str(seen or "")]
        assert row["commit"] == protocol["commit"] and row["hardware"] == protocol["hardware"]
        for role, column in {"text": "text encoder", "judge": "judge"}.items():
            fingerprint = protocol.get(f"{role}_encoder") or ""
            assert row[column].endswith(fingerprint[: ledger.DIGEST])


def test_every_run_split_judge_and_metric_has_one_row_and_it_is_the_newest():
    counts = Counter((row["run"], row["split"], row["judge"], row["metric"]) for row in ROWS)
    assert set(counts.values()) == {1}
    with_results = {path.parent.parent for path in tables.RUNS.rglob("results/*.json")}
    assert {row["run"] for row in ROWS} == {path.relative_to(tables.RUNS).as_posix() for path in with_results}
    for folder in with_results:
        protocols = [json.loads(path.read_text())["protocol"] for path in (folder / "results").glob("*.json")]
        last = max(protocol["step"] for protocol in protocols)
        own = [row for row in ROWS if row["run"] == folder.relative_to(tables.RUNS).as_posix()]
        assert {row["step"] for row in own} == {str(last)}
        newest = max(protocol["date"] for protocol in protocols if protocol["step"] == last)
        assert newest in {row["date"] for row in own}


def test_runs_of_other_encoders_do_not_look_alike():
    """The studies' small CLIPs have the names of the shipped ones, and other weights."""
    named = {row["text encoder"].rpartition(" ")[0] for row in ROWS if row["text encoder"]}
    assert len({row["text encoder"] for row in ROWS if row["text encoder"]}) > len(named)


def test_no_run_at_all_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RUNS", Path(tmp_path))
    with pytest.raises(InputError, match="no run with results; train and evaluate one first"):
        ledger.write(tmp_path)
