"""Folders and zips with metadata.jsonl, and `data.load`, which packs them once."""

import json
import shutil
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from t2ilib import data, files
from t2ilib.data.importers.folder import import_folder
from t2ilib.errors import InputError


def row(name, **more):
    return {"file_name": name, "text": f"caption of {name}"} | more


def write(folder, rows, pictures=None, metadata="metadata.jsonl"):
    """Write the rows and, for each, a picture whose colour is its position times 10."""
    (folder / metadata).parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(item if isinstance(item, str) else json.dumps(item) for item in rows)
    (folder / metadata).write_text(text, encoding="utf-8")
    if pictures is None:
        pictures = [item["file_name"] for item in rows if isinstance(item, dict) and "file_name" in item]
    for index, name in enumerate(dict.fromkeys(pictures)):
        path = (folder / metadata).parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (index * 10, 0, 0)).save(path)
    return folder


def zipped(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


ROWS = [
    row("a.png", **{"class": "wren", "class_id": 7, "split": "test"}),
    row("sub/b.png", **{"class": "tern", "class_id": 2, "captions": [" two\n words ", "", "other"]}),
    row("c.jpg", **{"class": "wren", "class_id": 7, "split": "val"}),
]


@pytest.mark.parametrize("kind", ["folder", "zip", "zip of the folder"])
def test_import(tmp_path, kind):
    source = write(tmp_path / "birds", ROWS)
    if kind != "folder":
        source = zipped(source, tmp_path / "birds.zip", "birds/" if "of" in kind else "")
    birds = import_folder(source, 8)
    assert birds.images.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(birds.images[:, 4, 4, 0], [0, 10, 20], atol=2)
    assert birds.captions == [["caption of a.png"], ["two words", "other"], ["caption of c.jpg"]]
    assert (birds.class_ids.tolist(), birds.class_names) == ([1, 0, 1], ["tern", "wren"])
    assert birds.splits.tolist() == ["test", "train", "validation"]
    assert all(len(mark) == 64 for mark in birds.source["sha256"].values())


def test_a_metadata_file_in_each_split_folder(tmp_path):
    write(tmp_path, [row("x.png")], metadata="train/metadata.jsonl")
    write(tmp_path, [row("x.png")], metadata="test/metadata.jsonl")
    birds = import_folder(tmp_path, 4)
    assert sorted(birds.splits) == ["test", "train"] and birds.class_names == ["all"]


@pytest.mark.parametrize(
    ("rows", "ids", "names"),
    [
        ([row("a.png"), row("b.png")], [0, 0], ["all"]),
        ([row("w/a.png"), row("t/b.png")], [1, 0], ["t", "w"]),
        ([row("train/a.png"), row("test/b.png")], [0, 0], ["all"]),
        ([row("a.png", **{"class": "w"}), row("b.png", **{"class": "t"})], [1, 0], ["t", "w"]),
        ([row("a.png", class_id=10**15), row("b.png", class_id=-3)], [1, 0], ["class -3", f"class {10**15}"]),
    ],
)
def test_classes(tmp_path, rows, ids, names):
    birds = import_folder(write(tmp_path, rows), 4)
    assert (birds.class_ids.tolist(), birds.class_names) == (ids, names)


@pytest.mark.parametrize("held_out", [1, 2, 3, 5, 6])
def test_held_out_classes_are_whole_and_spread(tmp_path, held_out):
    rows = [row(f"{i}.png", **{"class_id": i % 7, "split": ("train", "test")[i % 2]}) for i in range(21)]
    dataset = import_folder(write(tmp_path, rows), 8, held_out=held_out)
    of_class = [set(dataset.splits[dataset.class_ids == one].tolist()) for one in range(7)]
    assert all(len(splits) == 1 for splits in of_class)  # no class on both sides
    tested = [one for one, splits in enumerate(of_class) if splits == {"test"}]
    assert len(tested) == held_out and set(dataset.splits.tolist()) == {"train", "test"}
    gaps = np.diff([-1, *tested])
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("held_out", [-1, 2, 3, 1.0, "1", True])
def test_held_out_classes_that_cannot_be(tmp_path, held_out):
    rows = [row(f"{i}.png", class_id=i % 2) for i in range(4)]
    with pytest.raises(InputError, match="held_out = .*must be at least 1 and below its 2 classes"):
        import_folder(write(tmp_path, rows), 8, held_out=held_out)


def test_load_holds_classes_out_of_a_folder_and_packs_that_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    rows = [row(f"{i}.png", class_id=i % 4) for i in range(8)]
    folder = write(tmp_path / "set", rows)
    assert set(data.load(folder, 8).splits.tolist()) == {"train"}
    held_out = data.load(folder, 8, held_out=1)
    assert held_out.class_ids[held_out.splits == "test"].tolist() == [3, 3]
    assert len(list((tmp_path / "data" / "packed").iterdir())) == 2


def test_several_lines_of_one_picture_add_captions(tmp_path):
    birds = import_folder(write(tmp_path, [row("a.png", text="one"), "", row("a.png", text="two"), ""]), 4)
    assert birds.captions == [["one", "two"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a.png"), "{bad"], "line 2: not JSON"),
        (["[1]"], 'line 1: has no "file_name"'),
        ([{"text": "x"}], 'has no "file_name"'),
        ([{"file_name": "a.png"}], "line 1: has no caption"),
        ([row("a.png", text=" ")], "has no caption"),
        ([row("a.png", captions=[1])], "list of strings"),
        ([row("a.png", split="holdout")], "'holdout'"),
        ([row("a.png", **{"class": 3})], "must be a string"),
        ([row("a.png", class_id=True)], "whole number"),
        ([row("a.png", class_id=1), row("b.png")], r"b\.png has no class"),
        ([row("a.png", **{"class": "x"}), row("b.png")], r"b\.png has no class"),
        ([row("a.png", class_id=1, **{"class": "x"}), row("b.png", class_id=1, **{"class": "y"})], "'y', others 'x'"),
        ([row("a.png", class_id=1), row("a.png", class_id=2)], "line 2: another class"),
        ([], "lists no pictures"),
    ],
)
def test_bad_metadata_is_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        import_folder(write(tmp_path, rows), 4)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "C:\\secret.png", "a/../../secret.png"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_that_lead_outside_are_refused(tmp_path, name, kind):
    source = write(tmp_path / "in", [row("a.png"), row(name)], ["a.png"])
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    source = zipped(source, tmp_path / "in.zip") if kind == "zip" else source
    with pytest.raises(InputError, match="leads outside"):
        import_folder(source, 4)


def test_missing_pictures_are_counted_or_left_out(tmp_path):
    source = write(tmp_path, [row("a.png"), row("b.png"), row("c.png")], ["b.png"])
    with pytest.raises(InputError, match=r"2 of 3 pictures are missing, the first is a\.png.*allow_missing"):
        import_folder(source, 4)
    assert import_folder(source, 4, allow_missing=True).captions == [["caption of b.png"]]
    (source / "b.png").unlink()
    with pytest.raises(InputError, match="3 of 3"):
        import_folder(source, 4, allow_missing=True)


def test_a_damaged_picture_is_named_and_nothing_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = write(tmp_path / "birds", [row(f"{i}.png") for i in range(9)])
    (source / "5.png").write_bytes((source / "5.png").read_bytes()[:50])
    with pytest.raises(InputError, match=r"birds/5\.png: not a readable picture"):
        data.load(str(source), 8)
    assert not (tmp_path / "data").exists()


def test_not_a_data_set(tmp_path):
    with pytest.raises(InputError, match=r"holds no metadata\.jsonl"):
        import_folder(tmp_path, 4)
    with pytest.raises(InputError, match="size: 0"):
        import_folder(write(tmp_path, [row("a.png")]), 0)
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        import_folder(tmp_path, 4)


def test_load_packs_once_and_again_when_the_source_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = write(tmp_path / "birds", ROWS)
    first = data.load(str(source), 8)
    assert isinstance(first.images, np.memmap) and len(list((tmp_path / "data" / "packed").iterdir())) == 1
    monkeypatch.setattr(data, "import_folder", lambda *_, **__: pytest.fail("imported again"))
    assert data.load(str(source), 8).captions == first.captions
    monkeypatch.undo()
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    write(source, [*ROWS, row("d.png", **{"class": "wren", "class_id": 7})])
    assert len(data.load(str(source), 8)) == 4
    assert data.load(source, 4).size == 4


def test_load_packs_each_choice_of_options_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = write(tmp_path / "birds", [row("a.png"), row("b.png")], ["b.png"])
    (source / "dangling.png").symlink_to(source / "nowhere")
    assert len(data.load(source, 8, allow_missing=True)) == 1
    with pytest.raises(InputError, match="1 of 2"):
        data.load(source, 8)


def test_load_opens_packed_sets_at_their_size(tmp_path):
    birds = import_folder(write(tmp_path / "birds", ROWS), 8)
    data.pack(birds, tmp_path / "packed")
    assert data.load(str(tmp_path / "packed"), 8).captions == birds.captions
    with pytest.raises(InputError, match="packed at 8 pixels, not 16"):
        data.load(str(tmp_path / "packed"), 16)


def test_load_says_what_it_accepts(tmp_path):
    for source in ("no such thing", tmp_path):
        with pytest.raises(InputError, match=r'"toy".*metadata\.jsonl.*CUB_200_2011'):
            data.load(source, 8)
    with pytest.raises(InputError, match=r"unknown option 'trian'; known: train"):
        data.load("toy", 32, trian=5)


def test_load_toy(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path)
    options = {"train": 6, "validation": 2, "test": 2, "seed": 1}
    birds = data.load("toy", 32, **options)
    assert birds.images.shape == (10, 32, 32, 3) and len(birds.split("train")) == 6
    shutil.rmtree(next((tmp_path / "packed").iterdir()))
    again = data.load("toy", 32, **options)
    np.testing.assert_array_equal(again.images, birds.images)
    np.testing.assert_array_equal(again.attributes, birds.attributes)
    assert len(list((tmp_path / "packed").iterdir())) == 1


def test_hundred_species_straight_from_the_zip(shared_data):
    start = time.perf_counter()
    birds = import_folder(shared_data / "cub100_128.zip", 64)
    assert time.perf_counter() - start < 60  # about 3 seconds on two cores
    assert birds.images.shape == (5902, 64, 64, 3) and len(birds.class_names) == 100
    assert (len(birds.split("train")), len(birds.split("test"))) == (2903, 2999)
    assert all(len(captions) == 10 for captions in birds.captions)
    assert birds.images.reshape(5902, -1).std(1).min() > 5  # no empty picture
