"""Others' numbers keep their sources, ours come from result files, and no row mixes them."""

import re

import pytest
import yaml

from t2ilib import plots, tables
from t2ilib.errors import InputError
from t2ilib.figures import published
from t2ilib.files import ROOT

ROWS = plots.read_rows(ROOT / "figures" / "published.csv")


def test_a_row_is_ours_or_theirs_and_names_its_source():
    for row in ROWS:
        theirs = bool(row["published"] or row["released code"])
        assert theirs != bool(row["ours"]) and row["source"] and row["protocol"] and row["pixels"]


def test_theirs_are_those_of_the_file():
    given = yaml.safe_load((ROOT / "figures" / "published.yaml").read_text())["rows"]
    shown = [(row["published"], row["released code"]) for row in ROWS if not row["ours"]]
    assert sorted(shown) == sorted((str(row.get("published", "")), str(row.get("released", ""))) for row in given)


def test_a_protocol_hides_no_result():
    """A number that somebody reached stands in a column: a protocol says epochs, counts and ranges alone."""
    for row in ROWS:
        told = re.sub(r"\[.*?\]|[0-9a-f]{12}", "", row["protocol"])
        assert not re.search(r"\d\.\d", told), row


def test_ours_are_those_of_the_readme_s_tables():
    page = (ROOT / "README.md").read_text()
    for row in ROWS:
        if row["ours"]:
            (run,) = re.findall(r"figures/runs/(\w+)`", row["source"])
            (line,) = re.findall(rf"^\| {run} \|.*$", page, re.MULTILINE)
            assert row["ours"] in line


def test_scores_of_two_judges_are_told_apart():
    rows = [row for row in ROWS if row["ours"] and row["metric"] == "CLIP FD"]
    judges = {row["system"]: row["protocol"] for row in rows}
    assert judges["GALIP"] != judges["DF-GAN"] == judges["GAN-CLS"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "hearsay"}, "row 1 names a system or a source that is not listed; complete it"),
        ({"protocol": None}, "row 1 lacks protocol; complete it"),
        ({"released": None, "published": None}, "row 1 holds no number; drop it, or give published or released"),
    ],
)
def test_an_incomplete_row_is_named(change, message, tmp_path, monkeypatch):
    found = yaml.safe_load((ROOT / "figures" / "published.yaml").read_text())
    found["rows"] = [{key: value for key, value in {**found["rows"][0], **change}.items() if value is not None}]
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(found))
    monkeypatch.setattr(tables, "RUNS", tmp_path / "runs")
    with pytest.raises(InputError, match=message):
        published.read()


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RUNS", tmp_path / "runs")
    with pytest.raises(InputError, match=r"published\.yaml: .*put it back"):
        published.read()


def test_seeds_of_two_budgets_are_no_row(monkeypatch):
    runs = published.comparison.open_all(tables.RUNS, "gancls_toy*")
    assert list(published._ours("GAN-CLS", "toy", runs))
    monkeypatch.setattr(published.comparison.Finished, "budget", property(lambda one: {"n": one.run.folder.name}))
    with pytest.raises(InputError, match="runs of different budgets do not compare"):
        list(published._ours("GAN-CLS", "toy", runs))
