"""Messages are one line that a terminal shows and never obeys."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from t2ilib.errors import LONGEST, InputError, printable, warn

ANY = st.text(st.characters(exclude_categories=[]))  # lone surrogates, too


@given(text=ANY)
def test_printable_text_is_one_line_without_a_control_character(text):
    shown = printable(text)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    assert shown.encode() and printable(shown) == shown if text else shown == ""


def test_what_a_terminal_would_obey_is_shown():
    assert printable("a\x1b[31mb\r\n\x07\x9b2J\u202e\ud800é 鸟") == r"a\x1b[31mb\r\n\x07\x9b2J\u202e\ud800é 鸟"
    assert printable(3) == "3"


@given(text=ANY)
def test_the_message_of_an_error_is_printable(text):
    assert str(InputError(text)).isprintable()


def test_a_long_message_keeps_the_file_and_the_remedy():
    error = InputError(f"some.txt: {'x' * 10**6}; remove it")
    assert len(str(error)) < LONGEST and str(error).startswith("some.txt: x") and str(error).endswith("x; remove it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_warning_is_one_line(caplog):
    warn("birds: \x1b]0;odd\x07\n2 lines")
    (record,) = caplog.records
    assert record.name == "t2ilib" and record.getMessage() == r"warning: birds: \x1b]0;odd\x07\n2 lines"
