"""What networks take of this machine's memory, said before they take it."""

import psutil
from torch import nn

from t2ilib.errors import InputError


def size_of(network: nn.Module) -> int:
    """Return the bytes of a network's weights and buffers, wherever they lie."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raise InputError where `what`, of so many bytes, finds less than that free on this machine."""
    free = psutil.virtual_memory().available
    if needed > free:
        told = f"{needed / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} are free"
        raise InputError(f"{what}: takes {told}; {remedy}")
