"""Where a number comes from, asked of git without leaving anything behind."""

import subprocess
import sys
from importlib import metadata

import numpy
import scipy
import torch
import torchvision

from t2ilib import provenance
from t2ilib.provenance import commit, environment, told_versions, versions


def test_git_is_asked_without_locks(monkeypatch, tmp_path):
    """A process that is ended meanwhile must not leave an index.lock, behind which git refuses to work."""
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="abc\n")

    monkeypatch.setattr(provenance.subprocess, "run", run)
    assert commit() == "abc+dirty"
    assert len(asked) == 2 and all(command[:2] == ["git", "--no-optional-locks"] for command in asked)


def test_versions_are_those_of_the_packages_that_decide_numbers():
    found = versions()
    for module in (numpy, scipy, torchvision):
        assert found[module.__name__].split("+")[0] == module.__version__.split("+")[0]
    assert {"torchmetrics", "torch-fidelity", "open_clip_torch", "pillow"} <= found.keys()
    assert environment()["versions"] == found


def test_absent_packages_are_left_out_and_none_is_imported(monkeypatch):
    def installed(name):
        if name in ("pyiqa", "lpips"):
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(provenance.metadata, "version", installed)
    assert set(provenance.DECIDING) - versions().keys() == {"pyiqa", "lpips"}
    code = "import sys, t2ilib.provenance as own; own.versions(); print({'pyiqa', 'torchmetrics'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_versions_in_a_line_also_of_older_files():
    told = environment()
    assert told_versions(told).startswith(f"python {told['python']}, torch {torch.__version__}, numpy")
    assert told_versions({"torch": "2.15.0", "date": "2026-11-21"}) == "torch 2.15.0"
    assert told_versions({"commit": None}) == ""
