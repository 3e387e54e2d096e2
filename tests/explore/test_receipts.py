"""A picture that says how it was made: written, read back, painted again, and refused where it is damaged."""

import json
import struct
import warnings
import zlib
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from t2ilib.cli import app
from t2ilib.errors import InputError
from t2ilib.explore import Receipt, Request, Studio, read_receipt, save_picture
from t2ilib.explore.receipts import KEY
from t2ilib.files import WEIGHTS

GIVEN = Receipt('a "red" bird, früh am Morgen.', "dfgan_toy", "ab" * 32, seed=3, number=1, count=2, truncation=0.5)
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def written(path, text, key=KEY):
    told = PngImagePlugin.PngInfo()
    told.add_itxt(key, text)
    Image.fromarray(PICTURE).save(path, "PNG", pnginfo=told)
    return path


def test_a_receipt_comes_back_with_its_picture(tmp_path):
    path = save_picture(tmp_path / "a.png", PICTURE, GIVEN)
    assert read_receipt(path) == GIVEN
    assert np.array_equal(np.asarray(Image.open(path)), PICTURE)
    save_picture(path, PICTURE, replace(GIVEN, truncation=None, caption=""))
    assert read_receipt(path).truncation is None and read_receipt(path).caption == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed = -1"),
        ({"seed": 1.0}, "seed = 1.0: must be int"),
        ({"seed": True}, "seed = True: must be int"),
        ({"number": 2}, "number = 2: must be at least 0 and below count = 2"),
        ({"number": -1}, "number = -1"),
        ({"count": 0}, "per_caption = 0"),
        ({"truncation": 0}, "truncation = 0"),
        ({"truncation": "1"}, "truncation = '1': must be a number"),
        ({"truncation": float("nan")}, "truncation = nan"),
        ({"caption": 3}, "caption = 3: must be str"),
        ({"caption": "a" * 10_001}, "caption: 10,001 bytes"),
        ({"caption": "\ud800"}, "half a character"),
        ({"weights": None}, "weights = None"),
        ({"weights": "0" * 63}, "a name, and a SHA-256"),
        ({"weights": "G" * 64}, "a name, and a SHA-256"),
        ({"system": " "}, "a name, and a SHA-256"),
    ],
)
def test_what_nothing_can_be_painted_from_is_refused(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        replace(GIVEN, **change)
    path = written(tmp_path / "a.png", json.dumps(asdict(GIVEN) | change))
    with pytest.raises(InputError, match=r"a\.png: what it says of its making is damaged"):
        read_receipt(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "3",
        "{}",
        json.dumps(asdict(GIVEN) | {"more": 1}),
        json.dumps({key: value for key, value in asdict(GIVEN).items() if key != "seed"}),
        json.dumps(asdict(GIVEN))[:-1] + ', "seed": 4}',
        "[" * 100_000,
    ],
)
def test_a_damaged_receipt_is_named(text, tmp_path):
    with pytest.raises(InputError, match=r"a\.png: what it says of its making is damaged .*; give a PNG") as error:
        read_receipt(written(tmp_path / "a.png", text))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_other_files_are_named(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(save_picture(tmp_path / "a.png", PICTURE, GIVEN).read_bytes()[:-40])
    Image.fromarray(PICTURE).save(tmp_path / "other.jpg")
    for name, message in {
        "plain.png": "does not say how it was made",
        "text.png": "not a whole PNG",
        "cut.png": "not a whole PNG",
        "other.jpg": "not a whole PNG",
        "none.png": "no such file",
        ".": "no file",
    }.items():
        with pytest.raises(InputError, match=message):
            read_receipt(tmp_path / name)


def test_a_bomb_of_text_is_refused(tmp_path):
    """A chunk of a few kilobytes that grows to hundreds of megabytes."""
    content = written(tmp_path / "a.png", "x").read_bytes()
    body = KEY.encode() + b"\0\1\0\0\0" + zlib.compress(b"a" * 200_000_000)
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    (tmp_path / "b.png").write_bytes(content[:33] + chunk + content[33:])
    with pytest.raises(InputError, match=r"b\.png: not a whole PNG"):
        read_receipt(tmp_path / "b.png")


def test_a_picture_of_impossible_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (4097, 1)).save(tmp_path / "wide.png")
    Image.new("1", (16_000, 11_000)).save(tmp_path / "bomb.png")  # a few kilobytes, hundreds of megabytes in RGB
    monkeypatch.setattr(Image.Image, "load", lambda picture: pytest.fail("it was decoded"))
    for name in ("wide.png", "bomb.png"):
        with (
            warnings.catch_warnings(),
            pytest.raises(InputError, match=rf"{name}: not a whole PNG \(\d+ x \d+ pixels\)"),
        ):
            warnings.simplefilter("error")
            read_receipt(tmp_path / name)


def test_other_files_are_not_replaced(tmp_path):
    (tmp_path / "a.png").write_text("my notes")
    with pytest.raises(InputError, match="exists, and is no PNG"):
        save_picture(tmp_path / "a.png", PICTURE, GIVEN)
    assert (tmp_path / "a.png").read_text() == "my notes"
    with pytest.raises(InputError, match=r"written as \.png"):
        save_picture(tmp_path / "a.jpg", PICTURE, GIVEN)


# ---- t2i sample --like -------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A picture by shipped weights, saved with its receipt."""
    painting = Studio("cpu").paint(
        Request("a red bird with black wings.", "gancls_toy", seed=5, count=3, truncation=0.7)
    )
    return save_picture(tmp_path_factory.mktemp("kept") / "a.png", painting.pictures[2], painting.receipt(2))


def test_a_saved_picture_is_painted_again_to_the_bit(kept, tmp_path):
    found = run("--like", kept, "--out", tmp_path / "b.png", "--device", "cpu")
    assert found.exit_code == 0 and 'b.png: "a red bird with black wings." by gancls_toy' in found.output
    assert (tmp_path / "b.png").read_bytes() == kept.read_bytes()


def test_with_a_source_other_weights_paint_the_same_caption_and_noise(kept, tmp_path):
    found = run("dfgan_toy", "--like", kept, "--out", tmp_path / "b.png", "--device", "cpu")
    assert found.exit_code == 0
    own, other = read_receipt(kept), read_receipt(tmp_path / "b.png")
    assert other == replace(own, system="dfgan_toy", weights=other.weights) and other.weights != own.weights
    expected = Studio("cpu").paint(Request(own.caption, "dfgan_toy", own.seed, own.count, own.truncation)).pictures[2]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)


def test_weights_that_have_changed_are_named(kept, tmp_path):
    painted = np.asarray(Image.open(kept))
    path = save_picture(tmp_path / "a.png", painted, replace(read_receipt(kept), weights="0" * 64))
    found = run("--like", path, "--out", tmp_path / "b.png", "--device", "cpu")
    assert isinstance(found.exception, InputError)
    assert "gancls_toy: other weights than the picture was painted with (SHA-256 000000000000" in str(found.exception)
    assert not (tmp_path / "b.png").exists()


def test_a_strangers_picture_opens_no_files(kept, tmp_path):
    """What its receipt names is opened only when whoever runs the command names it, too."""
    path = tmp_path / "run.safetensors"
    path.write_bytes((WEIGHTS / "gancls_toy.safetensors").read_bytes())
    own = read_receipt(kept)
    picture = save_picture(tmp_path / "a.png", np.asarray(Image.open(kept)), replace(own, system=str(path)))
    found = run("--like", picture, "--out", tmp_path / "b.png", "--device", "cpu")
    assert isinstance(found.exception, InputError) and "is no shipped weights; name it" in str(found.exception)
    assert run(path, "--like", picture, "--out", tmp_path / "b.png", "--device", "cpu").exit_code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.asarray(Image.open(kept)))


def test_the_picture_itself_is_not_replaced(kept, tmp_path):
    before = kept.read_bytes()
    found = run("dfgan_toy", "--like", kept, "--out", kept)
    assert isinstance(found.exception, InputError) and "is the picture that is to be painted" in str(found.exception)
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a red bird", "--like", "a.png"], "with --like a source stands here, no caption"),
        (["dfgan_toy", "a caption", "--like", "a.png"], "leave captions out"),
        (["--like", "a.png", "--seed", "3", "--per-caption", "2"], "leave --per-caption, --seed out"),
        (["--like", "a.png", "--truncation", "1"], "leave --truncation out"),
        (["--like", "a.png", "--file", "b.txt"], "leave --file out"),
        (["--like", "a.png", "--out", "b"], r"b: pictures are written as .png"),
        ([], "no source given"),
    ],
)
def test_what_contradicts_a_saved_picture_is_refused(arguments, message):
    found = run(*arguments)
    assert isinstance(found.exception, InputError) and message in str(found.exception)
