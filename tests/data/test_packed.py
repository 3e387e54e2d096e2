"""Packed sets: round trip, whole or not at all, and damage that is named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_captioned import small

from t2ilib.data import packed, reading
from t2ilib.data.captioned import CaptionedImages, has_words
from t2ilib.data.packed import open_packed, pack
from t2ilib.errors import InputError
from t2ilib.files import ABANDONED_SECONDS, JSON_LIMIT


def assert_same(first: CaptionedImages, second: CaptionedImages) -> None:
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.class_ids, second.class_ids)
    np.testing.assert_array_equal(first.splits, second.splits)
    assert first.captions == second.captions
    assert (first.class_names, first.source) == (second.class_names, second.source)
    assert (first.attributes is None) == (second.attributes is None)
    if first.attributes is not None:
        np.testing.assert_array_equal(first.attributes, second.attributes)


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(has_words)
captions = st.lists(st.lists(text, min_size=1, max_size=3), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(captions=captions, size=st.integers(1, 9), attributes=st.booleans())
def test_packing_round_trip(tmp_path_factory, captions, size, attributes):
    whole = small(len(captions), size, attributes)
    dataset = CaptionedImages(**{**vars(whole), "captions": captions})
    folder = tmp_path_factory.mktemp("round") / "set"
    pack(dataset, folder)
    opened = open_packed(folder)
    assert isinstance(opened.images, np.memmap)
    assert_same(opened, dataset)


def test_captions_may_hold_every_line_separator(tmp_path):
    dataset = small(1)
    dataset.captions[0][:] = ["one\u2028two\nthree\x85four\x1dfive"]
    pack(dataset, tmp_path / "set")
    assert open_packed(tmp_path / "set").captions == dataset.captions


@pytest.mark.parametrize(("error", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, InputError)])
@pytest.mark.parametrize("where", ["_rows", "_meta", "_swap"])
def test_packing_that_fails_leaves_nothing(tmp_path, monkeypatch, where, error, told):
    def fail(*_):
        raise error

    monkeypatch.setattr(packed, where, fail)
    with pytest.raises(told):
        pack(small(), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(packed.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"set: cannot be written \(the pictures take .* are free\); make room"):
        pack(small(), tmp_path / "set")
    monkeypatch.undo()
    monkeypatch.setattr(packed.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"set: cannot be written \(No space left on device\)"):
        pack(small(), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_may_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="set: cannot be written"):
        pack(small(), tmp_path / "file" / "set")


def test_captions_that_could_not_be_read_back_are_not_packed(tmp_path):
    dataset = small()
    dataset.captions[2][:] = ["a" * (1 << 20)]
    with pytest.raises(InputError, match="those of picture 2 take over 1048576 bytes"):
        pack(dataset, tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_metadata_that_could_not_be_read_back_are_not_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "JSON_LIMIT", 100)
    with pytest.raises(InputError, match=r"class names: .* take over 100 bytes; shorten them"):
        pack(small(), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_packed_set_says_where_it_lies(tmp_path):
    assert small().folder is None
    pack(small(), tmp_path / "set")
    assert open_packed(tmp_path / "set").folder == tmp_path / "set"


def test_packing_that_fails_keeps_the_old_set(tmp_path, monkeypatch):
    pack(small(), tmp_path / "set")
    monkeypatch.setattr(packed, "_rows", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(small(seed=1), tmp_path / "set")
    monkeypatch.undo()
    assert_same(open_packed(tmp_path / "set"), small())
    pack(small(seed=1), tmp_path / "set")
    assert_same(open_packed(tmp_path / "set"), small(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_packing_leaves_no_set_and_is_cleared_up_later(tmp_path):
    code = (
        "import os, signal, sys; sys.path.insert(0, 'tests/data')\n"
        "from t2ilib.data import packed; from test_captioned import small\n"
        "packed._meta = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"packed.pack(small(), {str(tmp_path / 'set')!r})"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    with pytest.raises(InputError, match="not a packed set"):
        open_packed(tmp_path / "set")
    old = time.time() - 2 * ABANDONED_SECONDS
    os.utime(left, (old, old))
    pack(small(), tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("name", ["set[1]", "*", "plain"])
def test_only_what_a_set_of_that_very_name_left_over_is_cleared_up(tmp_path, name):
    ours, another = tmp_path / f".{name}.abcd.part", tmp_path / ".set1.abcd.part"
    for left in (ours, another):
        left.mkdir()
        os.utime(left, (0, 0))
    pack(small(), tmp_path / name)
    assert not ours.exists() and another.exists()


def test_what_another_packing_is_writing_is_not_cleared_up(tmp_path):
    young = tmp_path / ".set.abcd.part"
    young.mkdir()
    (young / "images.npy").write_bytes(b"half")
    pack(small(), tmp_path / "set")
    assert (young / "images.npy").read_bytes() == b"half"


def test_a_set_that_cannot_be_put_in_place_leaves_the_old_one_there(tmp_path, monkeypatch):
    pack(small(), tmp_path / "set")
    rename = Path.rename

    def fail(path, target):
        if target == tmp_path / "set" and not path.name.endswith(".old.part"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match=r"set: cannot be written \(Input/output error\)"):
        pack(small(seed=1), tmp_path / "set")
    assert_same(open_packed(tmp_path / "set"), small())
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def _thesis(folder):
    (folder / "thesis.txt").write_text("years of work")


def _foreign_list(folder):
    (folder / "meta.json").write_text("{}")
    (folder / "captions.jsonl").write_text("mine")


def _set_and_notes(folder):
    pack(small(), folder)
    (folder / "notes.txt").write_text("mine")


def _set_and_photographs(folder):
    pack(small(), folder)
    (folder / "images").mkdir()
    (folder / "images" / "1.jpg").write_bytes(b"mine")


@pytest.mark.parametrize("fill", [_thesis, _foreign_list, _set_and_notes, _set_and_photographs])
def test_other_folders_are_not_replaced(tmp_path, fill):
    (tmp_path / "mine").mkdir()
    fill(tmp_path / "mine")
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match="mine: holds something else than a packed set"):
        pack(small(seed=1), tmp_path / "mine")
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_file_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("years of work")
    with pytest.raises(InputError, match="mine: holds something else than a packed set"):
        pack(small(), tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "years of work"


def test_a_folder_with_files_of_these_names_is_no_packed_set(tmp_path):
    _foreign_list(tmp_path)
    _thesis(tmp_path)
    assert not packed.is_packed(tmp_path)
    pack(small(), tmp_path / "set")
    _thesis(tmp_path / "set")
    assert packed.is_packed(tmp_path / "set")


@pytest.mark.parametrize("damage", ["images.npy", "captions.jsonl", "meta.json"])
def test_nobody_is_told_to_delete_a_folder_with_other_files_in_it(tmp_path, damage):
    pack(small(), tmp_path / "set")
    _thesis(tmp_path / "set")
    (tmp_path / "set" / damage).write_bytes(b"hello")
    with pytest.raises(InputError, match=rf"set/{damage}: .*; move the folder .*set away and pack its source again"):
        open_packed(tmp_path / "set")


def test_a_set_of_no_pictures_is_not_packed(tmp_path):
    with pytest.raises(InputError, match="set: no pictures to pack"):
        pack(small().subset([]), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_captions_are_not_read_beyond_the_pictures(tmp_path, monkeypatch):
    pack(small(), tmp_path / "set")
    path, read = tmp_path / "set" / "captions.jsonl", []
    path.write_bytes(path.read_bytes() * 1000)
    lines = reading.lines
    monkeypatch.setattr(reading, "lines", lambda *given: (read.append(line) or line for line in lines(*given)))
    with pytest.raises(InputError, match=r"captions\.jsonl: more pictures, meta\.json says 6"):
        open_packed(tmp_path / "set")
    assert len(read) == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "expected integers of shape"),
        ([1], "expected integers of shape"),
        ([1] * 12, "expected integers of shape"),
        ([[1] * 11] * 2, "expected integers of shape"),
        ([], "not whole numbers"),
        ([1.5] * 11, "not whole numbers"),
        ([-5] * 11, "body is -5; use 0 to 7"),
        ([10**6] * 11, "body is 1000000; use 0 to 7"),
        ([0] * 10 + [3], "background is 3; use 0 to 2"),
    ],
)
def test_attributes_that_no_toy_bird_has_are_refused(tmp_path, given, message):
    pack(small(attributes=True), tmp_path / "set")
    path = tmp_path / "set" / "captions.jsonl"
    rows = [json.loads(line) | {"attributes": given} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=rf"captions\.jsonl: .*{message}"):
        open_packed(tmp_path / "set")


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _row(**changes):
    def change(folder):
        lines = (folder / "captions.jsonl").read_text().split("\n")
        lines[2] = json.dumps(json.loads(lines[2]) | changes)
        (folder / "captions.jsonl").write_text("\n".join(lines))

    return change


def _replace(name, make):
    def change(folder):
        (folder / name).unlink()
        make(folder / name)

    return change


def _away(path):
    path.with_name("elsewhere").write_bytes(b"")
    (path.parent.parent / "outside").write_bytes(b"x")
    path.symlink_to(path.parent.parent / "outside")


def _zip_of_arrays(path):
    with open(path, "wb") as file:
        np.savez(file, images=np.zeros((6, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "images.npy").unlink(), r"images\.npy: missing"),
        (lambda f: (f / "captions.jsonl").unlink(), r"captions\.jsonl: missing"),
        (lambda f: (f / "meta.json").unlink(), "not a packed set"),
        (lambda f: _cut(f / "images.npy", 500), r"images\.npy: cannot be read"),
        (lambda f: _cut(f / "images.npy", 0), r"images\.npy: cannot be read"),
        (lambda f: _cut(f / "captions.jsonl", 150), r"captions\.jsonl"),
        (lambda f: _cut(f / "meta.json", 40), r"meta\.json: not JSON"),
        (lambda f: _edit(f / "meta.json", version=99), "version 99"),
        (lambda f: _edit(f / "meta.json", format="zarr"), "not the metadata"),
        (lambda f: _edit(f / "meta.json", count=7), "uint8 of shape"),
        (lambda f: _edit(f / "meta.json", class_names=None), "class_names"),
        (lambda f: _edit(f / "meta.json", attributes=True), "attributes"),
        (lambda f: np.save(f / "images.npy", np.zeros((6, 8, 8, 3))), "float64"),
        (lambda f: np.save(f / "images.npy", np.array([{}]), allow_pickle=True), r"images\.npy"),
        (lambda f: (f / "captions.jsonl").write_text("{}\n" * 6), "KeyError"),
        (lambda f: (f / "captions.jsonl").write_text("3\n" * 6), "TypeError"),
        (_row(class_id=1.5), r"captions\.jsonl: .*class_id: not whole"),
        (_row(class_id="1"), r"captions\.jsonl: .*class_id: not whole"),
        (_row(class_id=10**30), r"captions\.jsonl: .*class_id: not whole"),
        (_row(class_id=-1), r"captions\.jsonl: .*class_ids: outside"),
        (_row(class_id=[1, 2]), r"captions\.jsonl"),
        (_row(captions="a bird"), r"captions\.jsonl: .*no list"),
        (_row(captions=[]), r"captions\.jsonl: .*picture 2 has none"),
        (_row(captions=[""]), r"captions\.jsonl: .*picture 2 has an empty one"),
        (_row(captions=[" "]), r"captions\.jsonl: .*picture 2 has an empty one"),
        (_row(captions=["a", "\u200b\u2028"]), r"captions\.jsonl: .*picture 2 has an empty one"),
        (_row(captions=["a\0bird"]), r"captions\.jsonl: .*NUL character"),
        (_row(captions=["\ud800"]), r"captions\.jsonl: .*surrogate"),
        (_row(split="holdout"), r"captions\.jsonl: .*'holdout'"),
        (_row(split=None), r"captions\.jsonl: .*'None'"),
        (lambda f: (f / "captions.jsonl").write_text("{}\n" * 7), "more pictures, meta.json says 6"),
        (lambda f: (f / "captions.jsonl").write_text("[" * 100_000), r"captions\.jsonl: .*nested too deeply"),
        (lambda f: (f / "captions.jsonl").write_bytes(b"x" * (2 << 20)), r"captions\.jsonl: .*longer than"),
        (lambda f: (f / "captions.jsonl").write_text("x", "utf-16"), r"captions\.jsonl: .*UTF-16"),
        (lambda f: (f / "meta.json").write_text("[" * 100_000), r"meta\.json: not JSON .*nested too deeply"),
        (lambda f: _edit(f / "meta.json", count=-6), "'count' is missing or not"),
        (lambda f: _edit(f / "meta.json", count=0), "'count' is missing or not a whole number of at least 1"),
        (lambda f: _edit(f / "meta.json", size=0), "'size' is missing or not a whole number of at least 1"),
        (lambda f: _edit(f / "meta.json", source={"name": "\ud800"}), "'source' holds half a character"),
        (lambda f: _edit(f / "meta.json", class_names=["a", "b", "\ud800"]), "class_names: half a character"),
        (lambda f: _edit(f / "meta.json", class_names=["a", "b", "\0"]), "class_names: a NUL character"),
        (lambda f: _edit(f / "meta.json", count=True), "'count' is missing or not"),
        (lambda f: _edit(f / "meta.json", size=10**30), r"images\.npy: uint8 of shape"),
        (lambda f: _edit(f / "meta.json", class_names=["a", 1, "c"]), "class_names"),
        (lambda f: np.save(f / "images.npy", np.zeros((6, 8, 8), np.uint8)), "uint8 of shape"),
        (lambda f: _edit(f / "meta.json", source={"a": "x" * JSON_LIMIT}), r"meta\.json: larger than 16777216 bytes"),
        (_replace("images.npy", _zip_of_arrays), r"images\.npy: cannot be read"),
        (_replace("images.npy", os.mkfifo), r"images\.npy: a named pipe"),
        (_replace("images.npy", os.mkdir), r"images\.npy: a folder"),
        (_replace("captions.jsonl", os.mkfifo), r"captions\.jsonl: a named pipe"),
        (_replace("captions.jsonl", _away), r"captions\.jsonl: a link that leads out"),
        (_replace("meta.json", os.mkfifo), r"meta\.json: a named pipe"),
    ],
)
def test_damage_is_one_error_that_names_the_file(tmp_path, damage, message):
    pack(small(), tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        open_packed(tmp_path / "set")
