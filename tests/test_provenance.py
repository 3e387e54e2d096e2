"""Where a number comes from, asked of git without leaving anything behind."""

import subprocess

from t2ilib import provenance
from t2ilib.provenance import commit


def test_git_is_asked_without_locks(monkeypatch, tmp_path):
    """A process that is ended meanwhile must not leave an index.lock, behind which git refuses to work."""
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="abc\n")

    monkeypatch.setattr(provenance.subprocess, "run", run)
    assert commit() == "abc+dirty"
    assert len(asked) == 2 and all(command[:2] == ["git", "--no-optional-locks"] for command in asked)
