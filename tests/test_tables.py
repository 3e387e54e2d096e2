"""The tables hold what was measured; that they are what their code writes now, tests/figures checks."""

import json
import re

import pytest

from t2ilib import tables
from t2ilib.comparison import newest_result
from t2ilib.errors import InputError
from t2ilib.files import ROOT


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


def test_marks_that_are_gone_are_named():
    assert tables.between("a\nX\nold\nY\nb", "X", "Y", "new\n") == "a\nX\nnew\nY\nb"
    with pytest.raises(InputError, match="are missing"):
        tables.between("nothing", "X", "Y", "new")
