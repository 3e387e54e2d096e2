"""The one error that bad input raises."""


class InputError(ValueError):
    """Input that cannot be used: the message names the file or value, and the remedy.

    The command line prints the message alone; in Python it is an ordinary `ValueError`.
    """


def one_line(text: object, length: int = 80) -> str:
    """Return foreign text as a message can hold it: what is not printable escaped, cut to `length` characters."""
    start = str(text)[: length + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."
