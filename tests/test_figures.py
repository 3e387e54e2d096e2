"""What README and chapters show is what the files of runs say, and can be rebuilt."""

import hashlib
import json
import re

import pytest

from t2ilib import figures, tables
from t2ilib.comparison import newest_result
from t2ilib.errors import InputError
from t2ilib.files import ROOT

MANIFEST = json.loads((ROOT / "figures" / "manifest.json").read_text())


def test_every_picture_in_figures_has_a_manifest_entry_and_a_command():
    pictures = {path.stem for path in (ROOT / "figures").glob("*.png")}
    assert pictures == set(MANIFEST)
    for name, entry in MANIFEST.items():
        assert entry["by"] == f"t2i figures {name}"
        assert name in figures.FIGURES


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_sources_are_those_the_figure_was_drawn_from(name):
    for source, digest in MANIFEST[name]["sources"].items():
        assert hashlib.sha256((ROOT / source).read_bytes()).hexdigest() == digest, f"{source}: make figures"


@pytest.mark.parametrize("name", ["results", "photographs"])
def test_tables_in_readme_are_what_the_runs_say(name, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text((ROOT / "README.md").read_text())
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "README", page)
    figures.FIGURES[name](name)
    table = (tmp_path / f"{name}.md").read_text()
    assert table == (ROOT / "figures" / f"{name}.md").read_text()
    assert page.read_text() == (ROOT / "README.md").read_text() and table in page.read_text()


@pytest.mark.parametrize("name", ["readers", "clip_sweep"])
def test_tables_beside_chapters_are_what_the_runs_say(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    figures.FIGURES[name](name)
    assert (tmp_path / f"{name}.md").read_text() == (ROOT / "figures" / f"{name}.md").read_text()


def test_the_tables_of_speed_are_what_the_benchmarks_wrote():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    speed, sampling, lazy = ((ROOT / "figures" / f"{name}.md").read_text() for name in ("speed", "sampling", "lazy"))
    assert speed in page and sampling in page and lazy in page
    measured = [json.loads((tables.BENCHMARKS / f"{name}.json").read_text()) for name in tables.STEPS]
    for number, row in enumerate(speed.splitlines()[2:]):
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        for one in measured:
            entry = one["rows"][number]
            keys = ("median seconds", "against plain", "against the row above")
            assert name == entry["variant"]
            assert [float(cells.pop(0)) for _ in keys] == [entry[key] for key in keys]
        assert not cells
    shown = [float(cell) for row in sampling.splitlines()[2:] for cell in row.strip("|").split("|")[1:]]
    rows = json.loads((tables.BENCHMARKS / "sampling.json").read_text())["rows"]
    assert shown == [row["pictures per second"] for row in rows]
    for folder, row in zip(sorted((tables.RUNS / "lazy_study").iterdir()), lazy.splitlines()[2:], strict=True):
        metrics = newest_result(folder)["metrics"]
        assert row.endswith(f"| {metrics['toy_fd']:.3f} | {metrics['attribute_accuracy']['mentioned']:.3f} |")


def test_minutes_in_readme_are_the_measured_ones():
    times = json.loads((ROOT / "notebooks" / "times.json").read_text())
    shown = re.findall(r"\(notebooks/(\d\d_\w+)\.ipynb\).*\| ([\d.]+) \|", (ROOT / "README.md").read_text())
    assert shown == [(name, f"{times[name]['cpu'] / 60:.1f}") for name in sorted(times) if name[:2].isdigit()]


def test_figures_without_training_are_rebuilt_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    for name in ("toy_birds", "gancls_cub100"):
        figures.FIGURES[name](name)
        assert (tmp_path / f"{name}.png").read_bytes() == (ROOT / "figures" / f"{name}.png").read_bytes()


def test_marks_that_are_gone_are_named():
    assert tables.between("a\nX\nold\nY\nb", "X", "Y", "new\n") == "a\nX\nnew\nY\nb"
    with pytest.raises(InputError, match="are missing"):
        tables.between("nothing", "X", "Y", "new")
