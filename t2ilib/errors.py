"""The one error that bad input raises."""


class InputError(ValueError):
    """Input that cannot be used: the message names the file or value, and the remedy.

    The command line prints the message alone; in Python it is an ordinary `ValueError`.
    """
