"""Pickles that strangers made: plain data is read, all else is refused before it can act."""

import os
import pickle
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ilib.data import pickles
from t2ilib.errors import InputError

PLAIN = ["ä", b"b", 2.5, -7, 1 << 70, True, None, (1, (2,)), {"a": [1], 3: "x"}]
NUMPY = [np.int64(200), np.float32(0.5), np.uint8(255), np.bool_(True), np.dtype(">i4").type(-3)]


@pytest.fixture
def load(tmp_path):
    def load(data: bytes):
        path = tmp_path / "some.pickle"
        path.write_bytes(data)
        return pickles.restricted_load(path)

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
    assert pickles.restricted_load(path) == value


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
        pickles._check_plain(pickles.restricted_load(path))
    except InputError as error:
        assert "garbage.pickle" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"(" + b"]" * (4 << 20) + b"l.",
        b"(" + b"N" * (4 << 20) + b"t.",
        b"I1\n" + b"0I1\n" * (1 << 20) + b".",
        b"]" + b"(NNNNNNNNe" * (1 << 19) + b".",
    ],
)
def test_many_small_items_are_neither_read_nor_kept(load, data):
    start = time.process_time()
    with pytest.raises(InputError, match=r"some\.pickle: refused, it holds over 1,000,000 items"):
        load(data)
    assert time.process_time() - start < 8


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_names_of_120_000_pictures_are_read(load, protocol):
    names = [f"COCO_train2014_{number:012d}" for number in range(120_000)]
    assert load(pickle.dumps(names, protocol)) == names


def test_the_limit_of_a_pickle_is_that_of_the_longest_lists(load):
    assert load(b"B" + struct.pack("<I", (8 << 20) - 6) + bytes((8 << 20) - 6) + b".") == bytes((8 << 20) - 6)
    with pytest.raises(InputError, match="larger than 8388608 bytes"):
        load(b"B" + struct.pack("<I", (8 << 20) - 5) + bytes((8 << 20) - 5) + b".")


@pytest.mark.parametrize("size", [0, 4, 7, 9, 16])
def test_a_number_has_the_length_of_its_type(load, size):
    scalar = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'i8'\nI0\nI1\ntRS'%s'\ntR."
    assert load(scalar % (b"\\x01" * 8)) == int.from_bytes(b"\1" * 8, "little")
    with pytest.raises(InputError, match="refused, it holds a numpy number of the wrong length"):
        load(scalar % (b"\\x01" * size))


@pytest.mark.parametrize("code", ["S8", "U2", "V8", "S", "V", "M8", "m8", "O", "i8,i8", "2i4", "i3", "a8"])
def test_numpy_values_that_are_no_numbers_are_refused(load, code):
    head = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'%s'\nI0\nI1\ntRS'12345678'\ntR."
    with pytest.raises(InputError, match=r"refused, it holds a numpy value of type "):
        load(head % code.encode())


def test_missing_and_oversized_pickles(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        pickles.restricted_load(tmp_path / "none.pickle")
    (tmp_path / "big.pickle").write_bytes(b"(lp0\n.")
    with pytest.raises(InputError, match="larger than"):
        pickles.restricted_load(tmp_path / "big.pickle", limit=3)
    (tmp_path / "lists.pickle").write_bytes(b"(" + b"]" * 1_500_001 + b"l.")
    with pytest.raises(InputError, match="over 1,500,000 lists"):
        pickles.restricted_load(tmp_path / "lists.pickle", steps=20_000_000)
    with pytest.raises(InputError, match="over 2 items"):
        pickles.restricted_load(tmp_path / "big.pickle", steps=2)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_named_as_code(load, protocol):
    with pytest.raises(
        InputError, match=rf"some\.pickle: refused, it wants to run {os.system.__module__}\.system; only"
    ):
        load(pickle.dumps([Call(os.system, "true")], protocol))


@pytest.mark.parametrize(
    "data", [b"cos\nsystem\n(S'tou", b"cos\nsystem\n", b"(S'true'\nios\nsystem\n", b"(ios\nsystem\n."]
)
def test_code_is_named_even_where_the_file_ends_early(load, data):
    with pytest.raises(InputError, match=r"wants to run os\.system"):
        load(data)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [np.arange(3), np.zeros((2, 2), np.float32), np.array(["a"])], ids=lambda a: a.dtype)
def test_arrays_say_how_to_pickle_them(load, value, protocol):
    with pytest.raises(
        InputError, match=r"some\.pickle: refused, it holds a numpy array: pickle its tolist\(\) instead"
    ):
        load(pickle.dumps(value, protocol))
    assert load(pickle.dumps(value.tolist(), protocol)) == value.tolist()


@pytest.mark.parametrize("value", [["a", "b"], [1, 2], [np.int64(3)], [], {"a": 1}], ids=str)
def test_line_ends_of_windows_are_told(load, value):
    whole = pickle.dumps(value, 0)
    assert load(whole) == value
    with pytest.raises(InputError, match=r"some\.pickle: a program changed its line ends .* Windows; get it again"):
        load(whole.replace(b"\n", b"\r\n"))


@settings(max_examples=60, deadline=None)
@given(protocol=st.integers(0, pickle.HIGHEST_PROTOCOL), share=st.floats(0, 1, exclude_max=True))
def test_a_pickle_cut_off_anywhere_is_truncated(tmp_path_factory, protocol, share):
    path = tmp_path_factory.getbasetemp() / "cut.pickle"
    whole = pickle.dumps([PLAIN, NUMPY], protocol)
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"cut\.pickle: truncated after \d+ bytes; get it again"):
        pickles.restricted_load(path)


def test_numbers_too_long_to_print_are_refused(load):
    with pytest.raises(InputError, match="refused, it holds a number of 20001 bits"):
        load(pickle.dumps([1 << 20_000]))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pickle")
    with pytest.raises(InputError, match=r"pipe\.pickle: a named pipe"):
        pickles.restricted_load(tmp_path / "pipe.pickle")
