"""Packed sets: round trip, whole or not at all, and damage that is named."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2ilib.data import captioned
from t2ilib.data.captioned import CaptionedImages, open_packed, pack
from t2ilib.errors import InputError
from t2ilib.files import ABANDONED_SECONDS


def small(count: int = 6, size: int = 8, attributes: bool = False, seed: int = 0) -> CaptionedImages:
    draw = np.random.default_rng(seed)
    return CaptionedImages(
        images=draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        captions=[[f"bird {i}", "a bird"][: 1 + i % 2] for i in range(count)],
        class_ids=np.arange(count) % 3,
        splits=np.array([("train", "test")[i % 2] for i in range(count)]),
        class_names=["wren", "tern", "crow"],
        attributes=draw.integers(0, 5, (count, 4)) if attributes else None,
        source={"importer": "test"},
    )


def assert_same(first: CaptionedImages, second: CaptionedImages) -> None:
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.class_ids, second.class_ids)
    np.testing.assert_array_equal(first.splits, second.splits)
    assert first.captions == second.captions
    assert (first.class_names, first.source) == (second.class_names, second.source)
    assert (first.attributes is None) == (second.attributes is None)
    if first.attributes is not None:
        np.testing.assert_array_equal(first.attributes, second.attributes)


captions = st.lists(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=3), min_size=1, max_size=5
)


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


def test_split_and_subset():
    dataset = small(6, attributes=True)
    assert dataset.size == 8
    train = dataset.split("train")
    assert len(train) == 3 and set(train.splits) == {"train"}
    np.testing.assert_array_equal(train.images, dataset.images[::2])
    np.testing.assert_array_equal(train.attributes, dataset.attributes[::2])
    assert train.captions == dataset.captions[::2]
    with pytest.raises(InputError, match=r"'validation'.*test, train"):
        dataset.split("validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((6, 8, 8), np.uint8)}, "expected uint8"),
        ({"images": np.zeros((6, 8, 8, 3), np.float32)}, "float32"),
        ({"captions": [["a"]] * 5}, "5 entries for 6"),
        ({"captions": [["a"]] * 5 + [[]]}, "picture 5"),
        ({"class_ids": np.array([0, 1, 2, 3, 0, 0])}, r"0\.\.2"),
        ({"class_ids": np.array([0, 1, 1.5, 0, 0, 0])}, "class_ids: float64"),
        ({"captions": ["a bird"] * 6}, "picture 0 are no list"),
        ({"captions": [["a"]] * 5 + [[3]]}, "picture 5 are no list"),
        ({"captions": [["a"]] * 5 + [["b", ""]]}, "picture 5 has an empty one"),
        ({"captions": [["a"]] * 4 + [["\ud800"]] * 2}, "surrogate.* picture 4"),
        ({"splits": np.array(["train"] * 5 + ["holdout"])}, "splits: 'holdout'"),
        ({"class_names": ["wren", "tern", 3]}, "class_names"),
    ],
)
def test_fields_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        CaptionedImages(**{**vars(small()), **change})


@pytest.mark.parametrize(("error", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, InputError)])
@pytest.mark.parametrize("where", ["_rows", "_meta", "_swap"])
def test_packing_that_fails_leaves_nothing(tmp_path, monkeypatch, where, error, told):
    def fail(*_):
        raise error

    monkeypatch.setattr(captioned, where, fail)
    with pytest.raises(told):
        pack(small(), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(captioned.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"set: cannot be written \(the pictures take .* are free\); make room"):
        pack(small(), tmp_path / "set")
    monkeypatch.undo()
    monkeypatch.setattr(captioned.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
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


@given(size=st.one_of(st.integers(max_value=0), st.integers(1025), st.floats(), st.text(), st.booleans(), st.none()))
def test_sizes_that_cannot_be_are_refused(size):
    with pytest.raises(InputError, match=r"size: .*1 to 1024"):
        captioned.check_size(size)


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_read():
    captioned.check_size(1024, 10)
    with pytest.raises(InputError, match=r"1000000000 pictures take .* GiB, this machine has"):
        captioned.check_size(1024, 10**9)


def test_a_packed_set_says_where_it_lies(tmp_path):
    assert small().folder is None
    pack(small(), tmp_path / "set")
    assert open_packed(tmp_path / "set").folder == tmp_path / "set"


def test_packing_that_fails_keeps_the_old_set(tmp_path, monkeypatch):
    pack(small(), tmp_path / "set")
    monkeypatch.setattr(captioned, "_rows", lambda _: 1 / 0)
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
        "from t2ilib.data import captioned; from test_captioned import small\n"
        "captioned._meta = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"captioned.pack(small(), {str(tmp_path / 'set')!r})"
    )
    root = captioned.Path(__file__).parents[2]
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


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        pack(small(), tmp_path)
    assert (tmp_path / "thesis.txt").exists()


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
        (_row(captions=["\ud800"]), r"captions\.jsonl: .*surrogate"),
        (_row(split="holdout"), r"captions\.jsonl: .*'holdout'"),
        (_row(split=None), r"captions\.jsonl: .*'None'"),
        (lambda f: (f / "captions.jsonl").write_text("{}\n" * 7), "more pictures, meta.json says 6"),
        (lambda f: (f / "captions.jsonl").write_text("[" * 100_000), r"captions\.jsonl: .*nested too deeply"),
        (lambda f: (f / "captions.jsonl").write_bytes(b"x" * (2 << 20)), r"captions\.jsonl: .*longer than"),
        (lambda f: (f / "captions.jsonl").write_text("x", "utf-16"), r"captions\.jsonl: .*UTF-16"),
        (lambda f: (f / "meta.json").write_text("[" * 100_000), r"meta\.json: not JSON .*nested too deeply"),
        (lambda f: _edit(f / "meta.json", count=-6), "'count' is missing or not"),
        (lambda f: _edit(f / "meta.json", count=True), "'count' is missing or not"),
        (lambda f: _edit(f / "meta.json", size=10**30), r"images\.npy: uint8 of shape"),
        (lambda f: _edit(f / "meta.json", class_names=["a", 1, "c"]), "class_names"),
        (lambda f: np.save(f / "images.npy", np.zeros((6, 8, 8), np.uint8)), "uint8 of shape"),
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
