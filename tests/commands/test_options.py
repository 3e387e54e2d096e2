"""The one way to print: what strangers call their files and tasks is shown, and never obeyed by the terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import t2ilib
from t2ilib.commands.options import echo
from t2ilib.training import Recipe, Run

ROOT = Path(t2ilib.__file__).parent
NAMES = ("\x1b[31mred", "two\nlines", "bell\x07", "\u202eright to left", "half \udcff", "tab\t", "\x9b2J", "鸟 é")


@given(st.text(st.characters(codec=None)))
def test_whatever_is_printed_is_one_line_that_a_terminal_shows(text):
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("typer.echo", lambda line, err: lines.append(line))
        echo(text)
    assert len(lines) == 1 and lines[0].isprintable() and lines[0].encode() == lines[0].encode("utf-8", "replace")


@pytest.mark.parametrize("path", [ROOT / "cli.py", *sorted((ROOT / "commands").glob("*.py"))], ids=lambda p: p.name)
def test_commands_print_in_no_other_way(path):
    others = re.findall(r"typer\.echo|secho|\bprint\(|std(?:out|err)\.write", path.read_text())
    assert others == (["typer.echo"] if path.name == "options.py" else [])


def t2i(*arguments, encoding="utf-8:strict", folder=None):
    settings = {"PYTHONIOENCODING": encoding, "T2I_DATA": str(folder), "T2I_RUNS": str(folder), "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "t2ilib.cli", *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | settings, check=False)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict"])
def test_names_of_runs_are_shown_on_any_terminal(tmp_path, encoding):
    for number, name in enumerate(NAMES):
        Run.create(tmp_path / name, Recipe("gancls"))
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "config.yaml").write_text(f'task: "{name.encode("unicode_escape").decode()}"')
    done = t2i("runs", str(tmp_path), encoding=encoding)
    out = done.stdout.decode(encoding.split(":")[0])
    assert done.returncode == 0 and not done.stderr
    assert len(out.splitlines()) == 2 * len(NAMES) and all(line.isprintable() for line in out.split("\n"))
    assert r"\x1b[31mred" in out and r"half \udcff" in out


def test_names_in_the_cache_are_shown(tmp_path):
    for name in NAMES:
        folder = tmp_path / "packed" / f"{name}-64-0123abcd"
        folder.mkdir(parents=True)
        (folder / "meta.json").touch()
    done = t2i("cache", folder=tmp_path)
    out = done.stdout.decode()
    assert done.returncode == 0 and len(out.splitlines()) == len(NAMES)
    assert all(line.isprintable() for line in out.split("\n"))


def test_output_that_nobody_can_read_is_no_error(tmp_path):
    command = f"{sys.executable} -m t2ilib.cli --version >&-"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0
