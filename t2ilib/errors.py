"""The one error that bad input raises, the one-line warning, and strangers' text made fit for a terminal."""

import logging

LONGEST = 4000  # characters of a message


def printable(text: object) -> str:
    r"""Return `text` as one line that a terminal shows and never obeys: control characters become \x1b, \n, \u202e.

    Halves of characters (lone surrogates), which no terminal takes, are written out, too.
    """
    text = str(text)
    return text if text.isprintable() else "".join(_shown(letter) for letter in text)


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")


class InputError(ValueError):
    """Input that cannot be used: the message, one line, names the file or value, and the remedy.

    The command line prints the message alone; in Python it is an ordinary `ValueError`.
    """

    def __init__(self, message: object = ""):
        text = printable(message)
        middle = " [...] "  # the file's name comes first, the remedy last
        super().__init__(text if len(text) <= LONGEST else text[: LONGEST - 500] + middle + text[-450:])


def unwritten(path: object, error: OSError, remedy: str) -> InputError:
    """Return the error of a file or folder that cannot be written: why, in the system's words, and `remedy`."""
    return InputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def warn(message: object) -> None:
    """Say in one line, through the logger "t2ilib", what is odd about input that is used all the same."""
    logging.getLogger("t2ilib").warning("warning: %s", printable(message))


def one_line(text: object, length: int = 80) -> str:
    """Return foreign text as a message can hold it: what is not printable escaped, cut to `length` characters."""
    shown = printable(str(text)[: length + 1])
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."
