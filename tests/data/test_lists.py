"""Lists and pictures that are no files, lead elsewhere, or hold no text: each is one error that names the file."""

import io
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.data import reading
from t2ilib.errors import InputError


def read_lines(data, **options):
    return list(reading.lines(io.BytesIO(data), "list.txt", **options))


@pytest.mark.parametrize(("kind", "told"), [("folder", "a folder"), ("pipe", "a named pipe"), ("socket", "a socket")])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind, told, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    if kind == "folder":
        os.mkdir("odd")
    elif kind == "pipe":
        os.mkfifo("odd")
    else:
        socket.socket(socket.AF_UNIX).bind("odd")
    with pytest.raises(InputError, match=f"odd: {told}, not a file"):
        reading.read_bytes("odd")


def test_devices_are_no_files():
    with pytest.raises(InputError, match="/dev/zero: a device, not a file"):
        reading.read_bytes("/dev/zero")


@pytest.mark.parametrize(("name", "told"), [("x" * 300, "too long"), ("a\0b", "null"), ("loop", "Too many levels")])
def test_names_that_no_file_has_are_named(tmp_path, name, told):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=f"cannot be reached .*{told}"):
        reading.is_file(tmp_path / name)


def test_links_stay_inside(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.txt").write_text("secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "own.txt").write_text("own")
    for name, target in {"fine": "own.txt", "bad": "../out/secret.txt", "way": "../out", "gone": "nowhere"}.items():
        (tmp_path / "in" / name).symlink_to(target)
    assert reading.read_bytes(tmp_path / "in" / "fine", tmp_path / "in") == b"own"
    assert not reading.is_file(tmp_path / "in" / "gone", tmp_path / "in")
    for name in ("bad", "way/secret.txt"):
        with pytest.raises(InputError, match="a link that leads out of"):
            reading.read_bytes(tmp_path / "in" / name, tmp_path / "in")


def test_files_that_are_missing_too_large_or_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    with pytest.raises(InputError, match=r"list\.txt: no such file"):
        reading.read_bytes(path)
    with open(path, "wb") as file:
        file.truncate((256 << 20) + 1)  # no disk is needed for a hole
    with pytest.raises(InputError, match=r"list\.txt: larger than"):
        reading.read_bytes(path)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path.write_text("x")
    monkeypatch.setattr(reading.Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"list\.txt: cannot be read \(Permission denied\); make it readable"):
        reading.read_bytes(path)


def test_lines_are_utf8_and_end_with_a_newline_alone():
    text = "one\u2028two\r\n\n \n\x85three"
    assert read_lines(b"\xef\xbb\xbf" + text.encode()) == [(1, "one\u2028two\r\n"), (4, "\x85three")]
    assert read_lines(b"a\xffb", errors="replace") == [(1, "a\ufffdb")]
    with pytest.raises(InputError, match=r"list\.txt line 2: not UTF-8 .*save it as UTF-8"):
        read_lines(b"fine\n\xff")


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_utf16_is_named_with_the_remedy(code, errors):
    with pytest.raises(InputError, match=r"list\.txt.*save it as UTF-8"):
        read_lines('{"file_name": "a.png"}\n'.encode(code), errors=errors)


@pytest.mark.parametrize("code", ["utf-16", "utf-32"])
def test_a_mark_of_byte_order_says_which_code_it_is(code):
    for order, swapped in (("le", b"\xff\xfe"), ("be", b"\xfe\xff")):
        mark = "\ufeff".encode(f"{code}-{order}")
        assert swapped in mark
        with pytest.raises(InputError, match=f"not UTF-8 but {code.upper()};"):
            read_lines(mark + "a bird\n".encode(f"{code}-{order}"))


def test_a_line_without_an_end_is_not_read_to_its_end():
    class Endless(io.RawIOBase):
        asked = 0

        def readline(self, size=-1):
            self.asked += size
            return b"x" * size

    file = Endless()
    with pytest.raises(InputError, match=r"list\.txt line 1: longer than 1048576 bytes"):
        list(reading.lines(file, "list.txt"))
    assert file.asked == reading.LINE_LIMIT + 1


def test_the_remedy_says_how_the_list_is_written():
    assert read_lines(b"12345\n", limit=6) == [(1, "12345\n")]
    for data in (b"1234567\n", b"\xff", b"\0", b"\xff\xfe"):
        with pytest.raises(InputError, match=r"list\.txt.*; save it as UTF-8 text, one caption per line$"):
            read_lines(data, limit=6, each="caption")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 900_000 + "]" * 900_000])
def test_deep_json_is_refused(text):
    with pytest.raises(InputError, match=r"here: not JSON that can be read .*nested too deeply"):
        reading.parse_line(text, "here")


@pytest.mark.parametrize("text", ["{bad", '{"a": 1, "a": 2}', '{"x": {"a": 1, "b": 2, "a": 1}}', "9" * 10_000])
def test_json_that_cannot_be_right_is_refused(text):
    with pytest.raises(InputError, match="here: not JSON that can be read"):
        reading.parse_line(text, "here")


@given(text=st.text(st.characters(exclude_categories=[])))
def test_texts_that_are_let_through_can_be_written(text):
    try:
        found = reading.check_text(text, "here")
    except InputError as error:
        assert str(error).startswith("here: ")
        assert "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)
    else:
        assert found.encode().decode() == text and "\0" not in found
