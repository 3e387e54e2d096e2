"""JSON that others wrote, their words in our messages, and what killed writers left."""

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib import files
from t2ilib.errors import InputError, one_line, unwritten


@given(st.text(max_size=300), st.integers(10, 100))
def test_foreign_text_stays_on_one_printable_line(text, length):
    shown = one_line(text, length)
    assert len(shown) <= length and shown.isprintable()
    assert not (text.isprintable() and len(text) <= length) or shown == text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x": {"a": 1, "b": 2, "a": 3}}', "the key 'a' is there twice"),
        (b"9" * 5000, "digits"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, content, named):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        files.read_json(path, "write it again", "no list")
    message = str(caught.value)
    assert message.startswith(f"{path}: no list (") and message.endswith("; write it again") and named in message
    assert "\n" not in message


def test_the_last_of_a_hundred_thousand_keys_twice_is_found_at_once():
    names = ", ".join(f'"{number}": 0' for number in range(100_000))
    start = time.process_time()
    with pytest.raises(ValueError, match="the key '99999' is there twice"):
        files.parse_json(f'{{{names}, "99999": 1}}')
    assert time.process_time() - start < 5  # to count each name among the others takes minutes


def test_what_is_no_file_and_what_is_too_large(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="no such file; write it"):
            files.read_json(path, "write it")
    monkeypatch.setattr(files, "JSON_LIMIT", 8)
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    with pytest.raises(InputError, match="larger than"):
        files.read_json(tmp_path / "a.json", "write it")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1, 2]"[:8])
    with pytest.raises(InputError, match="damaged"):
        files.read_json(tmp_path / "a.json", "write it")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(tmp_path / "a.json", "write it") == [1]


def test_what_killed_writers_left_a_day_ago_is_removed(tmp_path):
    old, young, mine = (tmp_path / name for name in (".a.old.part", ".a.young.part", "thesis.part"))
    for path in (old, young, mine):
        path.touch()
    folder = tmp_path / ".set.old.part"  # of what packs a set beside the file
    folder.mkdir()
    for path in (old, mine, folder):
        os.utime(path, (0, 0))
    files.write_text(tmp_path / "a", "text")
    assert {path.name for path in tmp_path.iterdir()} == {"a", young.name, mine.name, folder.name}


def test_who_reads_while_it_is_written_sees_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with open(tmp_path / "a") as reader:
        files.write_text(tmp_path / "a", "new")
        assert reader.read() == "old"
    assert (tmp_path / "a").read_text() == "new"


def test_what_is_written_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_ino) or sync(file))
    monkeypatch.setattr(os, "replace", lambda old, new: done.append("named") or replace(old, new))
    files.write_text(tmp_path / "a", "text")
    assert done == [(tmp_path / "a").stat().st_ino, "named"]


def test_others_may_read_what_is_written(tmp_path):
    files.write_text(tmp_path / "a", "text")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_two_that_clear_up_at_once_do_not_disturb_each_other(tmp_path, monkeypatch):
    gone = tmp_path / ".a.abcd.part"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))  # seen, and then removed by the other
    monkeypatch.setattr(Path, "is_file", lambda path: path == gone or os.path.isfile(path))
    files.write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


@pytest.mark.parametrize(("error", "why"), [(OSError(28, "No space left"), "No space left"), (OSError("odd"), "odd")])
def test_what_cannot_be_written_is_told_with_the_remedy(error, why):
    assert str(unwritten("x/y", error, "make room")) == f"x/y: cannot be written ({why}); make room"


def test_a_half_character_is_written_and_read_again(tmp_path):
    """As in the name of a folder that is no UTF-8, which the command of a run may hold."""
    files.write_json(tmp_path / "a.json", {"command": "t2i train --folder caf\udce9"})
    assert files.read_json(tmp_path / "a.json", "x") == {"command": "t2i train --folder caf\udce9"}
