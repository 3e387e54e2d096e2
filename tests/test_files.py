"""JSON that others wrote, and their words in our messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib import files
from t2ilib.errors import InputError, one_line


@given(st.text(max_size=300), st.integers(10, 100))
def test_foreign_text_stays_on_one_printable_line(text, length):
    shown = one_line(text, length)
    assert len(shown) <= length and shown.isprintable()
    assert not (text.isprintable() and len(text) <= length) or shown == text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x": {"a": 1, "b": 2, "a": 3}}', "the key 'a' is there twice"),
        (b"9" * 5000, "digits"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, content, named):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        files.read_json(path, "write it again", "no list")
    message = str(caught.value)
    assert message.startswith(f"{path}: no list (") and message.endswith("; write it again") and named in message
    assert "\n" not in message


def test_what_is_no_file_and_what_is_too_large(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="no such file; write it"):
            files.read_json(path, "write it")
    monkeypatch.setattr(files, "JSON_LIMIT", 8)
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    with pytest.raises(InputError, match="larger than"):
        files.read_json(tmp_path / "a.json", "write it")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1, 2]"[:8])
    with pytest.raises(InputError, match="damaged"):
        files.read_json(tmp_path / "a.json", "write it")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(tmp_path / "a.json", "write it") == [1]
