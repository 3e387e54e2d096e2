"""Packed sets: round trip, whole or not at all, and damage that is named."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2ilib.data import captioned
from t2ilib.data.captioned import CaptionedImages, open_packed, pack
from t2ilib.errors import InputError


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
    ],
)
def test_fields_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        CaptionedImages(**{**vars(small()), **change})


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("where", ["_rows", "_meta", "_swap"])
def test_packing_that_fails_leaves_nothing(tmp_path, monkeypatch, where, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(captioned, where, fail)
    with pytest.raises(error):
        pack(small(), tmp_path / "set")
    assert not list(tmp_path.iterdir())


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
    old = time.time() - 2 * captioned.ABANDONED_SECONDS
    os.utime(left, (old, old))
    pack(small(), tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        pack(small(), tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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
    ],
)
def test_damage_is_one_error_that_names_the_file(tmp_path, damage, message):
    pack(small(), tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        open_packed(tmp_path / "set")
