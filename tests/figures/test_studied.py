"""The chart of a study shows every system that lies in its folder, the plain one first."""

import json
import shutil

import pytest

from t2ilib import tables
from t2ilib.comparison import open_finished
from t2ilib.figures import studied
from t2ilib.files import ROOT

RUNS = ROOT / "figures" / "runs" / "galip_study"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Return the numbers and the sources of the chart of a study of three systems, one of which joined later."""
    for name in ("neither_0", "in_generator_0", "both_0"):
        shutil.copytree(RUNS / name, tmp_path / "study" / name)
    shutil.copytree(RUNS / "both_1", tmp_path / "study" / "released_0")
    found = []
    monkeypatch.setattr(tables, "RUNS", tmp_path)
    monkeypatch.setattr(studied, "save", lambda name, figure, sources: found.append((figure.numbers, sources)))
    studied.study("study", "neither", "any")
    return found[0]


def test_all_systems_of_the_folder_are_drawn_the_plain_one_first(drawn):
    numbers, sources = drawn
    for title in studied.MEASURES:
        own = [row["series"] for row in numbers if row["panel"] == title]
        assert list(dict.fromkeys(own)) == ["neither", "both", "released", "in generator", "one colour"]
    assert sorted(path.parts[-3] for path in sources) == ["both_0", "in_generator_0", "neither_0", "released_0"]


def test_numbers_are_those_of_the_results(drawn):
    numbers, _ = drawn
    metrics = open_finished(RUNS / "both_1").result()["metrics"]
    plain = json.loads(next((RUNS / "neither_0" / "results").iterdir()).read_text())["metrics"]
    expected = {
        "attribute accuracy": metrics["attribute_accuracy"],
        "toy FD, less is better": {"mentioned": metrics["toy_fd"], "interval": metrics["intervals"]["toy_fd"]},
        "diversity": {"mentioned": metrics["diversity"], "interval": [None, None]},
    }
    for title, number in expected.items():
        (row,) = (row for row in numbers if (row["panel"], row["series"], row.get("seed")) == (title, "released", 0))
        assert [row["value"], row["low"], row["high"]] == [number["mentioned"], *number["interval"]]
    (beside,) = (row for row in numbers if (row["panel"], row["series"]) == ("diversity", "one colour"))
    assert beside["value"] == plain["one_colour"]["diversity"]
