"""Folders and zips with metadata.jsonl, and `data.load`, which packs them once."""

import json
import os
import re
import shutil
import time
import unicodedata
import zipfile
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from t2ilib import data, files
from t2ilib.data import captioned, reading
from t2ilib.data.importers import folder as folder_importer
from t2ilib.data.importers.folder import import_folder
from t2ilib.errors import InputError


def row(name, **more):
    return {"file_name": name} | ({} if "captions" in more else {"text": f"caption of {name}"}) | more


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
    row("sub/b.png", **{"class": "tern", "class_id": 2, "captions": [" two\n words ", "other"]}),
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
    with pytest.raises(InputError, match=r"held_out = .*must be at least 1 and below its 2 classes"):
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
        ([row("a.png", captions=[])], "has no caption"),
        ([row("a.png", text="\u200b")], "has no caption"),
        ([row("a.png", captions=["", " ", "a red bird"])], "line 1: has an empty caption"),
        ([row("a.png", captions=["a bird", "\u200b"])], "line 1: has an empty caption"),
        ([row("a.png", captions=["a bird"]) | {"text": "b"}], 'line 1: has "captions" and "text"; give all'),
        ([row("a.png", caption="a bird")], 'line 1: has "text" and "caption"; give all'),
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


@pytest.mark.parametrize("place", ["backup", "backup/old"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_second_list_below_the_first_is_refused(tmp_path, place, kind):
    source = write(tmp_path / "birds", [row("a.png")])
    write(source, [row("a.png")], metadata=f"{place}/metadata.jsonl")
    if kind == "zip":
        source = zipped(source, tmp_path / "birds.zip")
    elif place == "backup/old":
        assert len(import_folder(source, 4)) == 1  # lists of a folder lie at its top or one below
        return
    with pytest.raises(InputError, match=rf"{place}/metadata\.jsonl: a list below metadata\.jsonl.*; move it out"):
        import_folder(source, 4)


def test_lists_of_splits_may_lie_below_another(tmp_path):
    write(tmp_path, [row("a.png", split="validation")])
    write(tmp_path, [row("x.png")], metadata="test/metadata.jsonl")
    assert sorted(import_folder(tmp_path, 4).splits) == ["test", "validation"]


def test_lists_of_too_many_lines_are_refused_before_they_are_parsed(tmp_path, monkeypatch):
    source = write(tmp_path, ["{bad"] * 11)
    monkeypatch.setattr(folder_importer, "LINES_LIMIT", 10)
    with pytest.raises(InputError, match="line 1: not JSON"):  # ten line ends
        import_folder(source, 4)
    write(source, ["{bad"] * 12)
    with pytest.raises(InputError, match=r"metadata\.jsonl: over 10 lines, of all lists together"):
        import_folder(source, 4)


def test_a_list_of_pictures_that_are_not_there_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_importer, "MISSING_COUNTED", 5)
    source = write(tmp_path, [*(row(f"{i}.png") for i in range(20)), "{bad"], ["0.png"])
    with pytest.raises(InputError, match=r"line 8: over 5 of the pictures it lists are missing; .*--allow-missing"):
        import_folder(source, 4)
    with pytest.raises(InputError, match="line 21: not JSON"):
        import_folder(source, 4, allow_missing=True)


def test_captions_of_one_picture_have_a_limit(tmp_path):
    source = write(tmp_path, [row("a.png")] * 1001)
    with pytest.raises(InputError, match="line 1001: over 1000 captions for this picture"):
        import_folder(source, 4)
    assert len(import_folder(write(tmp_path, [row("a.png")] * 1000), 4).captions[0]) == 1000


def test_an_error_comes_without_warnings(tmp_path, caplog):
    source = write(tmp_path, [row("A.png"), row("b.png")], ["a.png", "b.png"])
    with pytest.raises(InputError, match="1 of 2 pictures are missing"):
        import_folder(source, 4)
    (source / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a readable picture"):
        import_folder(source, 4, allow_missing=True)
    assert not caplog.messages


def test_pictures_that_memory_cannot_hold_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(captioned.psutil, "virtual_memory", lambda: SimpleNamespace(available=600))
    with pytest.raises(InputError, match=r"3 pictures take .* this machine has"):
        import_folder(write(tmp_path, ROWS), 8)


@pytest.mark.parametrize("where", ["caf\udce9", "birds"])
def test_names_in_latin_1_are_read(tmp_path, monkeypatch, where):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = write(tmp_path / where, [row("a.png")])
    write(source, [row("a.png")], metadata="test/metadata.jsonl")
    for name in ("caf\udce9.txt", "\udcff.png"):
        (source / name).write_bytes(b"odd")
    dataset = data.load(source, 8)
    assert dataset.source["name"] == where.replace("\udce9", "\\udce9") and len(dataset) == 2
    assert data.load(source, 8).folder == dataset.folder


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 125, "birds.v2"])
def test_sources_of_any_name_are_packed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    folder = data.load(write(tmp_path / name, [row("a.png")]), 8).folder
    assert folder.name.startswith(f"{Path(name).stem[:70]}") and len(folder.name.encode()) < 200


def test_a_data_folder_that_is_its_own_source_is_packed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path)
    write(tmp_path, [row("a.png")])
    folder = data.load(tmp_path, 8).folder
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "features").write_bytes(b"")
    assert data.load(tmp_path, 8).folder == folder
    assert [path.name for path in (tmp_path / "packed").iterdir()] == [folder.name]


def test_a_file_that_changed_in_place_is_packed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = write(tmp_path / "birds", [row("a.png", text="a red bird")])
    assert data.load(source, 8).captions == [["a red bird"]]
    path = source / "metadata.jsonl"
    before = path.stat()
    path.write_text(path.read_text().replace("red", "tan"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert data.load(source, 8).captions == [["a tan bird"]]


@pytest.mark.parametrize("name", ["birds.tar.gz", "birds.json", "birds.npy"])
def test_files_that_are_no_archives_say_what_is_accepted(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08" if name.endswith("gz") else b"{}")
    with pytest.raises(InputError, match=rf'{name}: no zip archive; give "toy".* zip with metadata\.jsonl'):
        data.load(tmp_path / name, 8)


def test_what_is_left_of_an_archive_is_called_damaged(tmp_path):
    path = zipped(write(tmp_path / "birds", ROWS), tmp_path / "birds.zip")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="not a readable zip archive"):
        data.load(path, 8)


@pytest.mark.parametrize("options", [{"size": 3}, {"source": "x"}, {"path": "x"}])
def test_options_of_the_names_of_arguments_are_unknown(tmp_path, monkeypatch, options):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    for source in ("toy", write(tmp_path / "birds", [row("a.png")])):
        with pytest.raises(InputError, match=f"unknown option '{next(iter(options))}'; known: "):
            data.load(source, 8, **options)


@pytest.mark.parametrize("given", [date(2020, 1, 1), {1: 2, "a": 3}, b"1", [1]])
def test_options_of_odd_kinds_are_refused(tmp_path, monkeypatch, given):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    with pytest.raises(InputError, match=r"held_out = .*must be at least 1"):
        data.load(write(tmp_path / "birds", [row("a.png")]), 8, held_out=given)
    with pytest.raises(InputError, match="give whole numbers"):
        data.load("toy", 32, train=given)


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


@pytest.mark.parametrize(("place", "given"), [("data/train", "data"), ("data/birds", "data/birds")])
def test_lists_that_lie_too_deep_say_which_folder_to_give(tmp_path, monkeypatch, place, given):
    monkeypatch.setattr(files, "DATA", tmp_path / "elsewhere")
    source = write(tmp_path / "set", [row("x.png")], metadata=f"{place}/metadata.jsonl").resolve()
    told = f"set: its lists lie further down, the first is {place}/metadata.jsonl; give {source / given}"
    with pytest.raises(InputError, match=re.escape(told)):
        data.load(source, 8)
    assert len(data.load(source / given, 8)) == 1


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


def one_of(folder, name, content):
    """Write a set of one picture, then replace one of its files: by bytes, or by what a function makes there."""
    write(folder, [row("a.png")])
    (folder / name).unlink()
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        content(folder / name)
    return folder


LINE = json.dumps(row("a.png"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (os.mkfifo, "a named pipe, not a file"),
        (os.mkdir, "a folder, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
        (lambda path: path.symlink_to("/etc/passwd"), "a link that leads out of"),
        (b"x" * (2 << 20), "line 1: longer than"),
        (LINE.encode("utf-16"), "UTF-16; save it as UTF-8"),
        (LINE.encode("utf-16-le"), "line 1: holds NUL bytes"),
        (LINE.encode("latin-1") + b"\xe9", "line 1: not UTF-8"),
        (b"[" * 100_000, "line 1: not JSON .*nested too deeply"),
        (b'{"file_name": "a.png", "file_name": "b.png", "text": "x"}', "the key 'file_name' is there twice"),
        (b'{"file_name": "a.png", "text": "a \\ud800 bird"}', "line 1: half a character"),
        (b'{"file_name": "a.png", "text": "x", "class": "\\udc00"}', "line 1: half a character"),
        (b'{"file_name": "\\ud800.png", "text": "x"}', "line 1: half a character"),
        (b'{"file_name": "a.png", "text": "a\\u0000bird"}', "line 1: a NUL character"),
        (b'{"file_name": "a\\u0000.png", "text": "x"}', "line 1: a NUL character"),
        (b'{"file_name": "a\\u001b[31m.png", "text": "x"}', r"line 1: the name 'a\\x1b\[31m\.png' holds control"),
        (b'{"file_name": "' + b"x" * 300 + b'.png", "text": "x"}', "line 1: the name .* longer than files can have"),
        (b'{"file_name": "a.png", "text": "x", "class": " "}', '"class" is empty'),
        (b'{"file_name": "a.png", "text": "x", "class_id": 1.5}', '"class_id" a whole number'),
        (b'{"file_name": "a.png", "text": "x", "class_id": NaN}', '"class_id" a whole number'),
        (f"{LINE}\n{json.dumps(row('./a.png', split='test'))}".encode(), "line 2: another class or split"),
    ],
)
def test_odd_metadata_is_one_line_that_names_it(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = one_of(tmp_path / "birds", "metadata.jsonl", content)
    with pytest.raises(InputError, match=rf"birds/metadata\.jsonl.*{message}") as caught:
        data.load(source, 8)
    assert str(caught.value).isprintable() and not (tmp_path / "data").exists()


def test_metadata_may_begin_with_a_byte_order_mark(tmp_path):
    assert len(import_folder(one_of(tmp_path, "metadata.jsonl", LINE.encode("utf-8-sig")), 8)) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "a named pipe"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("/etc/passwd"), "a link that leads out of"),
        (lambda path: path.symlink_to(path), "cannot be reached"),
        (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "larger than"),
    ],
)
def test_odd_pictures_are_named(tmp_path, make, message):
    with pytest.raises(InputError, match=rf"a\.png: {message}"):
        import_folder(one_of(tmp_path, "a.png", make), 8)


def test_a_link_inside_the_folder_is_followed(tmp_path):
    source = write(tmp_path, [row("a.png"), row("b.png", split="train")], ["a.png"])
    (source / "b.png").symlink_to("a.png")
    assert len(import_folder(source, 8)) == 2


def test_names_in_a_zip_are_found_however_they_are_written(tmp_path):
    source = zipped(write(tmp_path / "birds", ROWS), tmp_path / "birds.zip", "./")
    assert len(import_folder(source, 8)) == 3


def unmarked(path):
    """Take the mark of UTF-8 off the names of a zip's members, as Info-ZIP and macOS write them."""
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + flags + 1] &= ~0x08
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["vögel/ü.png", "naïve.png", "鳥.png", "a \N{BIRD}.png", "vo\u0308gel.png"])
def test_names_in_a_zip_that_are_not_marked_as_utf8_are_read(tmp_path, name):
    source = unmarked(zipped(write(tmp_path / "birds", [row(name), row("b.png")]), tmp_path / "birds.zip"))
    with zipfile.ZipFile(source) as archive:
        assert name not in archive.namelist()
    assert import_folder(source, 8).captions == [[f"caption of {name}"], ["caption of b.png"]]


def test_names_in_a_zip_of_old_programs_stay_as_they_are(tmp_path):
    source = zipped(write(tmp_path / "birds", [row("ü.png")]), tmp_path / "birds.zip")
    source.write_bytes(source.read_bytes().replace("ü.png".encode(), b"\x81\xe1.png"))  # üß in DOS's letters
    source = unmarked(source)
    with pytest.raises(InputError, match=r"1 of 1 pictures are missing"):
        import_folder(source, 8)
    with folder_importer.open_files(source) as opened:
        assert "üß.png" in opened.names


@pytest.mark.parametrize("kind", ["folder", "zip", "unmarked zip"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_accents_may_be_written_either_way(tmp_path, caplog, kind, listed):
    names = [unicodedata.normalize("NFD" if listed == "NFC" else "NFC", name) for name in ("ü/é.png", "b.png")]
    rows = [row(unicodedata.normalize(listed, name), text="a bird") for name in names]
    source = write(tmp_path / "birds", rows, names)
    if kind != "folder":
        source = zipped(source, tmp_path / "birds.zip")
    dataset = import_folder(unmarked(source) if kind == "unmarked zip" else source, 8)
    assert dataset.captions == [["a bird"]] * 2 and not caplog.messages


def test_a_name_that_is_there_letter_by_letter_is_that_one(tmp_path):
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    dataset = import_folder(write(tmp_path, [row(name) for name in names]), 8)
    np.testing.assert_allclose(dataset.images[:, 4, 4, 0], [0, 10], atol=2)


@pytest.mark.parametrize("name", ["./", "/", ".//./"])
def test_an_archive_may_hold_the_folder_itself(tmp_path, name):
    source = zipped(write(tmp_path / "birds", ROWS), tmp_path / "birds.zip", "./")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    assert len(import_folder(source, 8)) == 3


def test_large_members_of_a_zip_are_refused(tmp_path, monkeypatch):
    source = zipped(write(tmp_path / "birds", ROWS), tmp_path / "birds.zip")
    monkeypatch.setattr(reading, "FILE_LIMIT", 60)
    with pytest.raises(InputError, match=r"birds\.zip: member 'metadata\.jsonl' has \d+ bytes, over 60"):
        import_folder(source, 8)


def test_the_same_bytes_in_two_splits_are_told(tmp_path, caplog):
    rows = [row("a.png"), row("b.png", split="test"), row("c.png"), row("d.png", split="test")]
    source = write(tmp_path / "birds", rows)
    import_folder(source, 8)
    shutil.copy(source / "a.png", source / "c.png")
    import_folder(source, 8)
    assert not caplog.messages  # twice in one split is no leak
    shutil.copy(source / "a.png", source / "d.png")
    import_folder(source, 8)
    (told,) = caplog.messages
    assert "birds: 1 pictures are in two splits, the first is a.png (train), the same as d.png (test)" in told


def test_pictures_without_a_line_are_told(tmp_path, caplog):
    source = write(tmp_path / "birds", [row("wren/a.png")])
    for name in ("tern/b.JPG", "tern/c.png", "tern/notes.txt", "tern/._c.png"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"")
    for path in (source, zipped(source, tmp_path / "birds.zip")):
        caplog.clear()
        assert len(import_folder(path, 8)) == 1
        (told,) = caplog.messages
        assert "2 pictures are in no metadata.jsonl and left out, the first is tern/b.JPG" in told


@pytest.mark.parametrize("size", [-1, 0, 1025, 100_000, 10**30, "64", 64.0, True, None])
def test_load_refuses_sizes_before_it_looks_at_the_source(size):
    for source in ("toy", "no such thing"):
        with pytest.raises(InputError, match=r"size: .*1 to 1024"):
            data.load(source, size)


@pytest.mark.parametrize("source", ["", "~nobody_of_this_name", "x" * 300, "a\0b", "/dev/zero", "no/such/folder"])
def test_load_refuses_sources_that_cannot_be(source, tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, [row("a.png")]))  # "" is not this folder
    with pytest.raises(InputError, match='give "toy"'):
        data.load(source, 8)


def test_load_never_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: neither a folder nor a file"):
        data.load(tmp_path / "pipe", 8)


@pytest.mark.parametrize("options", [{"train": 10**9}, {"train": 10**30}])
def test_load_refuses_more_toy_birds_than_fit(tmp_path, monkeypatch, options):
    monkeypatch.setattr(files, "DATA", tmp_path)
    with pytest.raises(InputError, match=r"pictures take .* this machine has"):
        data.load("toy", 256, **options)


@pytest.mark.parametrize("options", [{"train": 1.5}, {"train": "ten"}, {"test": True}, {"seed": None}, {"seed": 0.5}])
def test_load_refuses_toy_options_that_are_no_whole_numbers(tmp_path, monkeypatch, options):
    monkeypatch.setattr(files, "DATA", tmp_path)
    with pytest.raises(InputError, match="give whole numbers"):
        data.load("toy", 32, **options)


@pytest.mark.parametrize("given", ["no", 1, None])
def test_allow_missing_is_true_or_false(tmp_path, given):
    with pytest.raises(InputError, match=r"allow_missing = .*must be true or false"):
        data.load(write(tmp_path, [row("a.png")]), 8, allow_missing=given)


def test_a_damaged_cache_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    source = write(tmp_path / "birds", ROWS)
    packed = data.load(source, 8).folder
    assert packed.parent == tmp_path / "data" / "packed"
    (packed / "images.npy").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{packed.name}/images\.npy: cannot be read .*delete the folder {packed}"):
        data.load(source, 8)
    shutil.rmtree(packed)
    assert len(data.load(source, 8)) == 3
