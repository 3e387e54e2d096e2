"""The course runner: order, progress, executed copies, and what happens when a chapter fails."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from t2ilib import course, executed, files
from t2ilib.errors import InputError


def write_notebook(path: Path, title: str, code: str) -> None:
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(f"# {title}\n\nText."), v4.new_code_cell(code)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small course of three chapters, the middle one failing, in place of the real one."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    write_notebook(
        notebooks / "00_first.ipynb", "0. First", "import os, sys\nprint(os.environ['T2I_SCALE'], sys.executable)"
    )
    write_notebook(notebooks / "01_broken.ipynb", "1. Broken", "raise ValueError('the bird flew away')")
    write_notebook(notebooks / "02_last.ipynb", "2. Last", "import os\nprint(os.getcwd())")
    write_notebook(notebooks / "train.ipynb", "Not a chapter", "raise SystemExit")
    (notebooks / "times.json").write_text(
        json.dumps({"00_first": {"cpu": 60}, "02_last": {"gpu": 6000}, "figures": {"cpu": 90}})
    )
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setattr(files, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("T2I_SCALE", "unset")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def printed(path: Path) -> str:
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_failing_chapter_does_not_stop_the_course(root, monkeypatch, capsys):
    monkeypatch.setattr(course, "run_command", lambda command, log: None)
    committed = {path: path.read_bytes() for path in (root / "notebooks").iterdir()}

    assert course.run_course() == 1

    text = capsys.readouterr().out
    assert text.index("[1/4] 0. First: about 1.0 min; more than 2.5 min left in all") < text.index("[2/4] 1. Broken")
    assert "[3/4] 2. Last: not timed yet; more than 1.5 min left in all" in text
    assert "[4/4] Figures of README and chapters: about 1.5 min; 1.5 min left in all" in text
    assert "ValueError: the bird flew away" in text.splitlines()[-3]
    assert "\x1b" not in text
    assert [line.split()[0] for line in text.splitlines()[-5:]] == ["ok", "failed", "ValueError:", "ok", "ok"]
    assert f"cpu {sys.executable}" in printed(root / "runs/course/00_first.ipynb")
    assert printed(root / "runs/course/02_last.ipynb").strip() == str(root / "notebooks")
    assert (root / "runs/course/01_broken.ipynb").exists()
    assert {path: path.read_bytes() for path in (root / "notebooks").iterdir()} == committed
    assert set(json.loads((root / "runs/course/times.json").read_text())) == {"00_first", "02_last", "figures"}


def test_one_chapter_alone(root, capfd):
    assert course.run_course("smoke", "0") == 0
    assert "smoke" in printed(root / "runs/course/00_first.ipynb")
    assert not (root / "runs/course/02_last.ipynb").exists()
    text = capfd.readouterr()
    assert "figures" not in text.out
    assert "without encryption" not in text.err  # ipykernel warns so unless the transport is chosen


def test_copies_carry_their_scale(root, capsys):
    assert course.run_course("smoke", "0") == 0
    copy = json.loads((root / "runs/course/00_first.ipynb").read_text())
    assert executed.scale_of(copy) == "smoke" and copy["metadata"].keys() == {"kernelspec", "language_info", "t2ilib"}
    assert course.run_course("cpu", "1") == 1
    assert executed.scale_of(json.loads((root / "runs/course/01_broken.ipynb").read_text())) is None


def test_solutions_run_in_the_chapters_place(root, capsys):
    (root / "notebooks/solutions").mkdir()
    write_notebook(root / "notebooks/solutions/02.ipynb", "2. Solved", "import os\nprint(os.getcwd())")
    assert course.run_course("smoke", solutions=True) == 0
    assert "[1/1] 2. Solved" in capsys.readouterr().out
    copy = root / "runs/course/solutions/02.ipynb"
    assert printed(copy).strip() == str(root / "notebooks/solutions")
    assert executed.scale_of(json.loads(copy.read_text())) == "smoke"
    assert {path.name for path in (root / "runs/course").iterdir()} == {"solutions"}


def test_unknown_chapter_and_scale(root):
    with pytest.raises(InputError, match="the chapters there are: 00, 01, 02"):
        course.run_course("cpu", "42")
    with pytest.raises(InputError, match="scale huge: choose among smoke, cpu, gpu"):
        course.run_course("huge")
    with pytest.raises(InputError, match="none"):
        course.chapter_steps(root, root, "cpu")


@pytest.mark.parametrize("only", ["", " ", "../x", "0x", "1.5", "-1", "000", "\u0663", "1\n"])
def test_what_is_no_chapter_s_number_is_refused(root, only):
    with pytest.raises(InputError, match="give its number, as --only 3") as caught:
        course.run_course("smoke", only)
    assert "\n" not in str(caught.value)
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"00_first": 3}', '{"00_first": {"cpu": "long"}}', '{"a": {"cpu": NaN}}']
)
@pytest.mark.parametrize("place", ["notebooks", "runs/course"])
def test_damaged_times_are_named_before_hours_are_spent(root, place, content):
    path = root / place / "times.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(InputError, match=r"times\.json: damaged.*remove it, or put it back"):
        course.run_course("cpu", "0")
    assert path.read_text() == content and not (root / "runs/course/00_first.ipynb").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"cells": [3]}', '{"cells": {}, "cells": {}}'])
def test_a_damaged_notebook_is_named(root, content):
    (root / "notebooks" / "02_last.ipynb").write_text(content)
    with pytest.raises(InputError, match=r"02_last\.ipynb: .*remove it, or put it back"):
        course.run_course("cpu")


def test_times_are_merged(tmp_path):
    path = tmp_path / "times.json"
    path.write_text('{"00_first": {"gpu": 1.5}, "01_second": {"cpu": 3}}')
    steps = [course.Step(name, name, 1.0, tmp_path, print) for name in ("00_first", "01_second")]
    course.save_times([course.Outcome(steps[0], 2.04, None), course.Outcome(steps[1], 9.0, "Error")], "cpu", path)
    assert json.loads(path.read_text()) == {"00_first": {"gpu": 1.5, "cpu": 2.0}, "01_second": {"cpu": 3}}


def test_failing_command_leaves_its_log(tmp_path):
    log = tmp_path / "figures.log"
    command = [sys.executable, "-c", "print('drawing'); raise SystemExit('no weights')"]
    step = course.Step("figures", "Figures", 1.0, log, lambda: course.run_command(command, log))
    assert course.run_step(step).error == "no weights"
    assert "drawing" in log.read_text()


def test_scale_decides_and_unknown_ones_are_named(monkeypatch):
    monkeypatch.delenv("T2I_SCALE", raising=False)
    assert course.scale() == "cpu" and course.at_scale(smoke=1, cpu=2, gpu=3) == 2
    monkeypatch.setenv("T2I_SCALE", "smoke")
    assert course.at_scale(smoke=1, cpu=2, gpu=3) == 1
    monkeypatch.setenv("T2I_SCALE", "huge")
    with pytest.raises(InputError, match="T2I_SCALE=huge: not a scale"):
        course.scale()


def test_only_chapters_count_as_chapters_and_only_solutions_as_solutions(tmp_path):
    for folder in (tmp_path, tmp_path / "solutions"):
        folder.mkdir(exist_ok=True)
        for name in ("03_a.ipynb", "03.ipynb", "2024 draft.ipynb"):
            (folder / name).write_text('{"cells": []}')
        (step,) = course.chapter_steps(folder, tmp_path / "out", "smoke")
        assert step.name == ("03_a" if folder == tmp_path else "03")
