"""CUB-200-2011 in AttnGAN's layout: crops as DF-GAN makes them, splits from pickles, gaps that are counted."""

import os
import pickle
import shutil
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from t2ilib import data, files
from t2ilib.data import captioned
from t2ilib.data.importers.cub import Entry, _tell_silent, bird_box, import_cub
from t2ilib.data.pickles import restricted_load
from t2ilib.errors import InputError

NAMES = ["001.Gull/Gull_1", "001.Gull/Gull_2", "002.Red_Tern/Tern_1"]


def write(folder, pickles=True):
    root = folder / "CUB_200_2011"
    for index, name in enumerate(NAMES):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((40, 60, 3), 255, np.uint8)
        picture[10:30, 20:40] = index * 10  # the bird
        Image.fromarray(picture).save(root / "images" / f"{name}.jpg", quality=100)
        (folder / "text" / f"{name}.txt").write_bytes(b"a  bird\n\nb\xff\xffird two\n")
    lines = {
        "images.txt": [f"{i} {name}.jpg" for i, name in enumerate(NAMES, 1)],
        "bounding_boxes.txt": [f"{i} 20.0 10.0 20.0 20.0" for i in (1, 2, 3)],
        "image_class_labels.txt": ["1 1", "2 1", "3 2"],
        "train_test_split.txt": ["1 1", "2 0", "3 1"],
        "classes.txt": ["1 001.Gull", "2 002.Red_Tern"],
    }
    for name, rows in lines.items():
        (root / name).write_text("\n".join(rows) + "\n")
    for split, part in (("train", NAMES[:2]), ("test", NAMES[2:])) if pickles else ():
        (folder / split).mkdir()
        (folder / split / "filenames.pickle").write_bytes(pickle.dumps(part, 0))
        classes = [np.int64(name[:3]) for name in part] + [np.int64(9)]  # the wild lists go on
        (folder / split / "class_info.pickle").write_bytes(pickle.dumps(classes, 0))
    return folder


def test_import_with_pickles(tmp_path):
    birds = import_cub(write(tmp_path), 30)
    assert birds.images.shape == (3, 30, 30, 3)
    for index, picture in enumerate(birds.images.astype(int)):  # the crop is 30 px: the bird with 5 px around
        np.testing.assert_allclose(picture[8:22, 8:22], index * 10, atol=8)
        np.testing.assert_allclose(picture[:3], 255, atol=8)
    assert birds.captions[0] == ["a bird", "b ird two"]
    assert birds.class_ids.tolist() == [0, 0, 1] and birds.class_names == ["Gull", "Red Tern"]
    assert birds.splits.tolist() == ["train", "train", "test"]
    assert len(birds.source["sha256"]) == 9


def test_import_without_pickles_uses_the_halves_of_cub(tmp_path):
    assert import_cub(write(tmp_path, pickles=False), 8).splits.tolist() == ["train", "test", "train"]


box_sides = st.tuples(*[st.floats(0, 600)] * 2, *[st.floats(0, 900)] * 2)


@given(box=box_sides, width=st.integers(1, 500), height=st.integers(1, 500))
def test_crops_are_inside_the_picture(box, width, height):
    left, top, right, bottom = bird_box(np.array(box), width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


@given(x=st.integers(100, 200), y=st.integers(100, 200), width=st.integers(2, 60), height=st.integers(2, 60))
def test_crops_within_the_picture_are_squares_around_the_bird(x, y, width, height):
    left, top, right, bottom = bird_box(np.array([x, y, width, height]), 400, 400)
    assert right - left == bottom - top == 2 * int(0.75 * max(width, height))
    assert abs((left + right) / 2 - (x + width / 2)) <= 0.5 and abs((top + bottom) / 2 - (y + height / 2)) <= 0.5


@pytest.mark.parametrize("gone", [f"CUB_200_2011/images/{NAMES[1]}.jpg", f"text/{NAMES[1]}.txt"])
def test_missing_pictures_or_captions_are_counted_or_left_out(tmp_path, gone):
    (write(tmp_path) / gone).unlink()
    with pytest.raises(InputError, match=r"1 of 3 pictures are missing, the first is 001\.Gull/Gull_2\.jpg"):
        import_cub(tmp_path, 8)
    assert len(import_cub(tmp_path, 8, allow_missing=True)) == 2


def _pickled(value):
    return lambda folder: (folder / "train" / "filenames.pickle").write_bytes(pickle.dumps(value, 0))


def _file(name, text):
    return lambda folder: (folder / "CUB_200_2011" / name).write_text(text)


def _classes(value):
    return lambda folder: (folder / "train" / "class_info.pickle").write_bytes(pickle.dumps(value, 0))


def _both_pickled(folder):
    _pickled(NAMES)(folder)
    _classes([1, 1, 2])(folder)


def _linked(name):
    def change(folder):
        outside = folder.parent / f"{folder.name} outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def _piped(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


@pytest.mark.parametrize("halves", ["1 1\n2 2\n3 0\n", "1 1\n2 -1\n3 0\n", "1 1\n2 0.5\n3 0\n", "1 1\n3 0\n"])
def test_halves_that_are_neither_train_nor_test_are_refused(tmp_path, halves):
    _file("train_test_split.txt", halves)(write(tmp_path, pickles=False))
    with pytest.raises(
        InputError, match=r"train_test_split\.txt: (says .* not 1 \(train\) or 0|has no line for image 2)"
    ):
        import_cub(tmp_path, 8)


@pytest.mark.parametrize(
    "box",
    [
        "0 0 0 5",
        "0 0 5 0",
        "0 0 -5 5",
        "5 5 -5 -5",
        "-40 0 50 20",
        "0 -30 20 40",
        "70 0 5 5",
        "0 50 5 5",
        "0 0 120 20",
        "0 0 20 80",
        "0 0 1e30 1e30",
        "1e300 1e300 1e300 1e300",
    ],
)
def test_boxes_that_are_not_in_the_picture_are_refused(tmp_path, box):
    _file("bounding_boxes.txt", f"1 0 0 60 40\n2 {box}\n3 20 10 20 20\n")(write(tmp_path))
    with pytest.raises(
        InputError, match=r"bounding_boxes\.txt: 001\.Gull/Gull_2\.jpg: the box .* not inside its 60 x 40"
    ):
        import_cub(tmp_path, 8)


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e999"])
def test_boxes_of_numbers_that_are_not_finite_are_refused(tmp_path, number):
    _file("bounding_boxes.txt", f"1 0 0 60 40\n2 0 0 {number} 5\n3 20 10 20 20\n")(write(tmp_path))
    with pytest.raises(InputError, match=r"bounding_boxes\.txt: lines do not hold 4 numbers"):
        import_cub(tmp_path, 8)


def test_a_box_may_reach_a_little_beyond_its_picture(tmp_path):
    _file("bounding_boxes.txt", "1 -1 -1 62 42\n2 0 0 61 41\n3 20 10 20 20\n")(write(tmp_path))
    assert len(import_cub(tmp_path, 8)) == 3


def test_the_same_bytes_in_train_and_test_are_told(tmp_path, caplog):
    images = write(tmp_path) / "CUB_200_2011" / "images"
    shutil.copy(images / f"{NAMES[1]}.jpg", images / f"{NAMES[2]}.jpg")
    assert len(import_cub(tmp_path, 8)) == 3
    told, _ = caplog.messages
    assert (
        "1 pictures are in two splits" in told
        and f"{NAMES[1]}.jpg (train)" in told
        and f"{NAMES[2]}.jpg (test)" in told
    )


def test_a_class_with_pictures_and_without_captions_is_told(tmp_path, caplog):
    (write(tmp_path) / "text" / f"{NAMES[2]}.txt").unlink()
    with pytest.raises(InputError, match=r"1 of 3 pictures are missing.* needs its text/"):
        import_cub(tmp_path, 8)
    assert not caplog.messages
    assert len(import_cub(tmp_path, 8, allow_missing=True)) == 2
    _, told = caplog.messages
    assert "1 classes have pictures and no captions, and are left out, the first is 002.Red_Tern" in told


def test_captions_that_are_not_utf8_are_told(tmp_path, caplog):
    text = write(tmp_path) / "text"
    for name in NAMES:
        (text / f"{name}.txt").write_text("a bird\n", encoding="utf-8")
    (text / f"{NAMES[1]}.txt").write_bytes("queue dorée\n".encode("latin-1"))
    assert import_cub(tmp_path, 8).captions[1] == ["queue dor e"]
    (told,) = caplog.messages
    assert "1 files of captions hold bytes that are not UTF-8, read as spaces, the first is " in told
    assert f"{NAMES[1]}.txt; save them as UTF-8" in told


def test_captions_without_letters_that_show_are_left_out(tmp_path):
    (write(tmp_path) / "text" / f"{NAMES[0]}.txt").write_text("a bird\n\u200b\n", encoding="utf-8")
    assert import_cub(tmp_path, 8).captions[0] == ["a bird"]


@pytest.mark.parametrize("gap", [" ", "\t", " \t "])
def test_long_gaps_in_a_list_take_no_longer_than_their_length(tmp_path, gap):
    _file("classes.txt", f"1 001.Gull{gap * 100_000}x\n2 002.Red_Tern{gap * 100_000}\n")(write(tmp_path))
    start = time.process_time()
    names = import_cub(tmp_path, 8).class_names
    assert len(names[0]) == len(gap) * 100_000 + 5 and names[1] == "Red Tern"
    assert time.process_time() - start < 3


def test_a_box_beyond_the_range_of_numbers_is_one_line(tmp_path):
    _file("bounding_boxes.txt", "1 0 0 60 40\n2 1e308 0 1e308 5\n3 20 10 20 20\n")(write(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"the box .* not inside its 60 x 40 pixels"):
            import_cub(tmp_path, 8)


def test_an_error_comes_without_warnings(tmp_path, caplog):
    (write(tmp_path) / "text" / f"{NAMES[2]}.txt").unlink()
    (tmp_path / "CUB_200_2011" / "images" / f"{NAMES[0]}.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a readable picture"):
        import_cub(tmp_path, 8, allow_missing=True)
    assert not caplog.messages


def test_pictures_that_memory_cannot_hold_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(captioned.psutil, "virtual_memory", lambda: SimpleNamespace(available=600))
    with pytest.raises(InputError, match=r"3 pictures take .* this machine has"):
        import_cub(write(tmp_path), 8)


def test_lists_may_begin_with_a_byte_order_mark(tmp_path):
    for name in ("CUB_200_2011/images.txt", f"text/{NAMES[0]}.txt"):
        path = (write(tmp_path / name.replace("/", "_"))) / name
        path.write_text(path.read_text(errors="replace"), encoding="utf-8-sig")
        assert import_cub(tmp_path / name.replace("/", "_"), 8).captions[0][0] == "a bird"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_pickled({"a": 1}), r"filenames\.pickle: not a list"),
        (_pickled(print), r"filenames\.pickle: refused"),
        (_pickled(["../../x"]), "leads outside"),
        (_pickled([NAMES[2], NAMES[0]]), "says class 1 for 002"),
        (_pickled([*NAMES[:2], *NAMES[:2]]), r"class_info\.pickle: not a list"),
        (lambda f: (f / "CUB_200_2011" / "classes.txt").unlink(), r"classes\.txt: missing"),
        (_file("images.txt", "one two\n"), r"images\.txt: not lines"),
        (_file("images.txt", f"1 {NAMES[0]}.jpg\n"), "does not list 001.Gull/Gull_2"),
        (_file("bounding_boxes.txt", "1 0 0 5 5\n2 0 0 5 5\n"), "no line for image 3"),
        (_file("bounding_boxes.txt", "1 0 0 5\n2 0 0 5\n3 0 0 5\n"), "4 numbers"),
        (_file("bounding_boxes.txt", "1 0 0 5 x\n2 0 0 5 5\n3 0 0 5 5\n"), "not numbers"),
        (_file("bounding_boxes.txt", "1 0 0 5 nan\n2 0 0 5 5\n3 0 0 5 5\n"), "4 numbers"),
        (_file("image_class_labels.txt", "1 1\n2 1\n3 5\n"), r"labels\.txt: says class 5 for 002.*has 1 to 2"),
        (_file("image_class_labels.txt", "1 1\n2 1.5\n3 2\n"), r"labels\.txt: says class 1\.5 for 001"),
        (_file("image_class_labels.txt", "1 1\n2 -1\n3 2\n"), r"labels\.txt: says class -1 for 001"),
        (_file("image_class_labels.txt", "1 1\n2 0\n3 2\n"), r"labels\.txt: says class 0 for 001"),
        (_file("image_class_labels.txt", "1 2\n2 2\n3 1\n"), r"labels\.txt: says class 2 for 001.*another set"),
        (_file("image_class_labels.txt", "1 1\n2 1\n"), r"labels\.txt: has no line for image 3"),
        (_file("image_class_labels.txt", "1 1\n2 1\n2 1\n3 2\n"), r"labels\.txt: has two lines for 2"),
        (_file("images.txt", "".join(f"{i} {NAMES[0]}.jpg\n" for i in (1, 2))), r"images\.txt: lists 001.* twice"),
        (_file("images.txt", "1 a.jpg\0\n"), r"images\.txt line 1: holds NUL bytes"),
        (_file("classes.txt", "1 001.Gull\n3 003.Tern\n"), r"classes\.txt: its numbers are not 1 to 2"),
        (_file("classes.txt", "2 001.Gull\n1 002.Red_Tern\n"), r"classes\.txt: has number 1 for 002\.Red_Tern"),
        (_pickled([]), r"filenames\.pickle: not a list"),
        (_pickled([NAMES[0], NAMES[0]]), r"train/filenames\.pickle: lists 001.* twice"),
        (_both_pickled, r"test/filenames\.pickle: lists 002.*though it is in train, too"),
        (
            lambda f: (f / "test" / "filenames.pickle").unlink(),
            r"test/filenames\.pickle: missing, but .*train.* is there",
        ),
        (
            lambda f: (f / "train" / "filenames.pickle").unlink(),
            r"train/filenames\.pickle: missing, but .*test.* is there",
        ),
        (_classes([1]), r"class_info\.pickle: not a list of a class number for each"),
        (_classes([1, 1.5]), r"class_info\.pickle: says class a float for 001"),
        (_classes([1, [[]]]), r"class_info\.pickle: says class a list for 001"),
        (lambda f: (f / "text" / f"{NAMES[0]}.txt").write_text("a bird", "utf-16"), r"Gull_1\.txt: .*UTF-16; save it"),
        (_linked(f"text/{NAMES[0]}.txt"), r"Gull_1\.txt: a link that leads out of"),
        (_linked(f"CUB_200_2011/images/{NAMES[0]}.jpg"), r"Gull_1\.jpg: a link that leads out of"),
        (_linked("CUB_200_2011/classes.txt"), r"classes\.txt: a link that leads out of"),
        (_piped(f"text/{NAMES[0]}.txt"), r"Gull_1\.txt: a named pipe"),
        (_piped("CUB_200_2011/images.txt"), r"images\.txt: a named pipe"),
        (_piped("train/filenames.pickle"), r"filenames\.pickle: a named pipe"),
        (_file(f"images/{NAMES[0]}.jpg", "no picture"), r"Gull_1\.jpg: not a readable picture"),
        (lambda f: (f / "text" / f"{NAMES[0]}.txt").write_text("\n"), r"Gull_1\.txt: holds no caption"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    damage(write(tmp_path))
    with pytest.raises(InputError, match=message):
        import_cub(tmp_path, 8)


def test_real_birds(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path)
    source = shared_data / "birds_sample"
    with pytest.raises(InputError, match=r"3108 of 3208 pictures are missing, the first is 002\.Laysan_Albatross/"):
        data.load(source, 64)
    assert not (tmp_path / "packed").exists()
    birds = data.load(source, 64, allow_missing=True)
    assert birds.images.shape == (100, 64, 64, 3) and len(birds.class_names) == 200
    assert (len(birds.split("train")), len(birds.split("test"))) == (50, 50)
    assert set(birds.split("train").class_ids).isdisjoint(birds.split("test").class_ids)
    assert all(len(captions) == 10 for captions in birds.captions)
    shutil.rmtree(tmp_path / "packed")


def test_real_crops_equal_the_released_transforms(shared_data):
    """DF-GAN: crop around the box, Resize(short side); then what is central of it."""
    released = transforms.Compose([transforms.Resize(76), transforms.CenterCrop(76)])
    root = shared_data / "birds_sample" / "CUB_200_2011"
    birds = import_cub(shared_data / "birds_sample", 76, allow_missing=True)
    names = [name for split in ("train", "test") for name in _names(shared_data / "birds_sample" / split)]
    lines = [line.split() for line in (root / "images.txt").read_text().splitlines()]
    numbers = {name: number for number, name in lines}
    boxes = dict(line.split(maxsplit=1) for line in (root / "bounding_boxes.txt").read_text().splitlines())
    there = [name for name in names if (root / "images" / name).is_file()]
    for index in range(0, 100, 7):
        picture = Image.open(root / "images" / there[index]).convert("RGB")
        x, y, width, height = (float(value) for value in boxes[numbers[there[index]]].split())
        half, x, y = int(max(width, height) * 0.75), int((2 * x + width) / 2), int((2 * y + height) / 2)
        crop = [max(0, x - half), max(0, y - half), min(picture.width, x + half), min(picture.height, y + half)]
        np.testing.assert_array_equal(birds.images[index], np.asarray(released(picture.crop(crop))))


def _names(folder):
    return [f"{name}.jpg" for name in restricted_load(folder / "filenames.pickle")]


def test_looking_for_classes_without_captions_takes_no_longer_than_their_list(tmp_path):
    entries, start = [Entry(f"001.Gull/{number}", "train") for number in range(20_000)], time.process_time()
    _tell_silent(entries, list(range(20_000)), tmp_path)
    assert time.process_time() - start < 1
