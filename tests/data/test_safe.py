"""Files that strangers made: hostile pickles and archives, odd and broken pictures."""

import io
import os
import pickle
import stat
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from t2ilib.data import safe
from t2ilib.errors import InputError

PLAIN = ["ä", b"b", 2.5, -7, 1 << 70, True, None, (1, (2,)), {"a": [1], 3: "x"}]
NUMPY = [np.int64(200), np.float32(0.5), np.uint8(255), np.bool_(True), np.dtype(">i4").type(-3)]


@pytest.fixture
def load(tmp_path):
    def load(data: bytes):
        path = tmp_path / "some.pickle"
        path.write_bytes(data)
        return safe.restricted_load(path)

    return load


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_and_numpy_numbers(load, protocol):
    assert load(pickle.dumps([PLAIN, NUMPY], protocol)) == [PLAIN, NUMPY]


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=nested, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_of_any_form(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "any.pickle"
    path.write_bytes(pickle.dumps(value, protocol))
    assert safe.restricted_load(path) == value


def test_numpy_scalars_of_python_2(load):
    head = b"(lp0\ncnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(S'i8'\np3\nI0\nI1\ntp4\nRp5\n"
    state = b"(I3\nS'<'\np6\nNNNI-1\nI-1\nI0\ntp7\nbS'\\xc8\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\np8\ntp9\nRp10\na."
    (value,) = load(head + state)
    assert value == 200 and type(value) is np.int64


class Call:
    def __init__(self, function, *arguments):
        self.value = function, arguments

    def __reduce__(self):
        return self.value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        Call(os.system, "touch pwned"),
        [("name", {"x": Call(eval, "open('pwned', 'w')")})],
        Call(getattr, Call(__import__, "os"), "system"),
        np.array([1, "a"], dtype=object),
        np.zeros(3),
        {1, 2},
        bytearray(b"x"),
        {(1, 2): 3},
        np.dtype("i8"),
        np.datetime64("2020-01-01"),
        np.float64,
        3j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_refused(load, tmp_path, monkeypatch, value, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"some\.pickle: refused"):
        load(pickle.dumps(value, protocol))
    assert not (tmp_path / "pwned").exists()


DTYPE = b"cnumpy\ndtype\n"


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch pwned'\ntR.",
        b"(S'touch pwned'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch pwned'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"csubprocess\nPopen\n.",
        b"cnumpy.core.multiarray\nscalar\n.",  # a function as the value
        DTYPE + b"(S'O'\nI0\nI1\ntR.",
        DTYPE + b"(S'i8, O'\nI0\nI1\ntR.",
        DTYPE + b"(S'V800000000'\nI0\nI1\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(" + DTYPE + b"(S'i8'\ntRS'x'\ntR.",  # too few bytes
        b"cnumpy.core.multiarray\nscalar\n(S'i8'\nS'12345678'\ntR.",  # a string where the dtype goes
        b"cnumpy.core.multiarray\nscalar\n}S'__code__'\nI1\nsb.",  # state set on a function
        b"(lp0\n(S'__class__'\nI1\ndb.",  # state set on a list
        b"cnumpy\ndtype\n(S'i8'\ntRI5\na.",  # append to something else
        b"Ppersistent\n.",
        b"\x82\x01.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # 8 EiB byte array
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x8b\xff\xff\xff\x7f.",
        b"I1",
        b"",
        b".",
        b"0.",
        b"t.",
        b"\x80\xff.",
        b"not a pickle",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_hand_made_pickles_are_refused(load, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"some\.pickle"):
        load(data)
    assert not (tmp_path / "pwned").exists()


def test_memory_bombs_stay_small(load):
    assert load(b"I1\nr\xff\xff\xff\x7f.") == 1  # a memo of two billion entries, were it an array
    laughs = b"(lp0\n" + b"".join(b"(" + b"g%d\n" % i * 10 + b"lp%d\n" % (i + 1) for i in range(50)) + b"."
    assert len(load(laughs)) == 10
    with pytest.raises(InputError):
        load(b"I" + b"9" * 10_000 + b"\n.")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60), cut=st.integers(0, 200))
def test_garbage_gives_plain_data_or_an_input_error(tmp_path_factory, data, cut):
    path = tmp_path_factory.getbasetemp() / "garbage.pickle"
    whole = pickle.dumps([PLAIN, NUMPY], 0)
    path.write_bytes(whole[:cut] + data + whole[cut:])
    try:
        safe._check_plain(safe.restricted_load(path))
    except InputError as error:
        assert "garbage.pickle" in str(error)


def test_missing_and_oversized_pickles(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        safe.restricted_load(tmp_path / "none.pickle")
    monkeypatch.setattr(safe, "PICKLE_LIMIT", 3)
    (tmp_path / "big.pickle").write_bytes(b"(lp0\n.")
    with pytest.raises(InputError, match="larger than"):
        safe.restricted_load(tmp_path / "big.pickle")


def zipped(path, *names, mode=0, data=b"x"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            member = zipfile.ZipInfo("placeholder")
            member.filename, member.external_attr, member.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return path


@pytest.mark.parametrize(
    "name", ["../up.jpg", "a/../../up.jpg", "/etc/x", "C:/x.jpg", "c:x.jpg", "a\\..\\b", "\\\\server\\x", "a\nb", ".."]
)
def test_members_that_lead_outside_are_refused(tmp_path, name):
    path = zipped(tmp_path / "bad.zip", "fine.jpg", name)
    for use in (safe.open_archive, lambda path: safe.extract(path, tmp_path / "out")):
        with pytest.raises(InputError, match=r"bad\.zip.*name"):
            use(path)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.zip"]


@given(name=st.text(st.characters(codec="utf-8"), max_size=20))
def test_checked_names_stay_inside(name):
    try:
        checked = safe.check_name(name, "list.txt")
    except InputError:
        return
    inside = os.path.normpath(os.path.join("/base/folder", checked))
    assert inside.startswith("/base/folder/")


def test_links_and_encrypted_members_are_refused(tmp_path):
    with pytest.raises(InputError, match="'shadow' is a link"):
        safe.open_archive(zipped(tmp_path / "link.zip", "shadow", mode=stat.S_IFLNK | 0o777))
    path = zipped(tmp_path / "locked.zip", "secret")
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 8, 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match="'secret' is encrypted"):
        safe.open_archive(path)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    path = zipped(tmp_path / "bomb.zip", "zeros.jpg", data=bytes(20 << 20))
    with pytest.raises(InputError, match=r"'zeros\.jpg'.*bomb"):
        safe.open_archive(path)
    monkeypatch.setattr(safe, "TOTAL_LIMIT", 5)
    with pytest.raises(InputError, match="over the limit"):
        safe.open_archive(zipped(tmp_path / "many.zip", "a", "b", data=b"1234"))


def test_archives_that_are_none_or_damaged(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        safe.open_archive(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(InputError, match="not a readable zip"):
        safe.open_archive(tmp_path / "text.zip")
    path = zipped(tmp_path / "broken.zip", "a.bin", data=os.urandom(1000))
    data = bytearray(path.read_bytes())
    data[300:400] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"'a\.bin' is damaged"):
        safe.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_extract_unpacks(tmp_path):
    safe.extract(zipped(tmp_path / "good.zip", "a.txt", "b/c.txt", data=b"hello"), tmp_path / "out")
    assert (tmp_path / "out" / "b" / "c.txt").read_bytes() == b"hello"
    with pytest.raises(InputError, match="not empty"):
        safe.extract(tmp_path / "good.zip", tmp_path / "out")


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data):
    picture = safe.read_picture(data, "one.png")
    assert picture.mode == "RGB"
    return np.asarray(picture)


RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
COLOUR = Image.fromarray(np.stack([RAMP, RAMP.T, 255 - RAMP], 2))


def test_odd_pictures_become_rgb():
    grey = np.stack([RAMP] * 3, 2)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RAMP))), grey)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RAMP.astype(np.uint16) * 257))), grey)
    np.testing.assert_array_equal(decoded(encoded(COLOUR.quantize(64))), np.asarray(COLOUR.quantize(64).convert("RGB")))
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RAMP > 99)))[..., 0], (RAMP > 99) * 255)
    cmyk = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert cmyk[..., 0].min() > 240 and cmyk[..., 1:].max() < 15


def test_transparency_lies_over_white():
    layer = COLOUR.copy()
    layer.putalpha(0)
    assert decoded(encoded(layer)).min() == 255
    layer.putalpha(255)
    np.testing.assert_array_equal(decoded(encoded(layer)), np.asarray(COLOUR))
    assert decoded(encoded(Image.new("LA", (8, 8), (0, 0)))).min() == 255


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    np.testing.assert_array_equal(decoded(encoded(COLOUR, exif=exif)), np.rot90(np.asarray(COLOUR), -1))


@pytest.mark.parametrize("cut", [0, 10, 60, -60])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_broken_pictures_are_named(kind, cut):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"one\.png: not a readable picture"):
        decoded(encoded(noise, kind)[:cut])


def test_pictures_without_a_sensible_reading_are_named(monkeypatch):
    with pytest.raises(InputError, match="floating-point"):
        decoded(encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"))
    monkeypatch.setattr(safe, "PIXEL_LIMIT", 10)
    with pytest.raises(InputError, match="8 x 8 pixels is too large"):
        decoded(encoded(COLOUR))


def test_square_takes_the_centre_and_antialiases():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (safe.square(Image.fromarray(wide), 8) == 200).all()
    assert (safe.square(Image.fromarray(wide), 4)[:, 1:3] == 200).all()
    assert (safe.square(Image.fromarray(wide), 4, (0, 0, 8, 8)) == 0).all()
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = safe.square(Image.fromarray(checks).convert("RGB"), 8)
    assert abs(small.astype(int) - 127).max() < 20  # nearest neighbour would give 0 or 255
